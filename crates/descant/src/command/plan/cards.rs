//! GPUs that are not in this machine: whether a run fits, and the minimum time it takes there.
//!
//! Their figures are those of `gpus.rs`.

use anyhow::Result;
use descant_train::memory::Memory;
use serde_json::{Value, json};

use crate::command::room::Room;
use crate::gpus::{CARDS, Card, HOPPER, Wanted};
use crate::settings::bytes;
use crate::words::size;
use crate::words::{counted, duration, significant};

/// Memory sizes to plan for if none is given.
const SIZES: [&str; 6] = ["8GB", "12GB", "16GB", "24GB", "48GB", "80GB"];

/// Tolerance between the given memory and a GPU's: makers count in powers of two and of ten.
const NEAR: f64 = 0.1;
/// Measured steps relative to their floor.
pub(super) const MEASURED: &str = "a step on an H200 took 2 to 4 times that (docs/benchmarks.md)";

/// What `--card` asks for, for people.
pub(super) fn words(wanted: Wanted) -> String {
    match wanted.card {
        Some(card) => format!(
            "{} that is not here: {} for programs, {} TFLOP/s, {} GB/s, PCIe {}.0 x{}",
            card.name,
            size(wanted.bytes),
            significant(card.tera),
            card.giga,
            card.lanes.0,
            card.lanes.1
        ),
        None => format!("hypothetical GPU with {}", size(wanted.bytes)),
    }
}

/// The least time on it, or on the cards of about so many bytes.
pub(super) fn floors_of(wanted: Wanted, operations: f64) -> Vec<Floor> {
    match wanted.card {
        Some(card) => vec![Floor::of(card, operations)],
        None => floors(wanted.bytes, operations),
    }
}

/// What a card that was named is expected to take, which nobody measured there. `bus_seconds` cross the bus beside.
pub(super) fn predicted(wanted: Wanted, operations: f64, bus_seconds: f64) -> Option<Predicted> {
    let card = wanted.card?;
    let computed = operations / (card.share() * card.tera * 1e12);
    Some(Predicted { card, seconds: computed.max(bus_seconds), by_bus: bus_seconds > computed })
}

/// An expected time.
#[derive(Debug)]
pub(super) struct Predicted {
    card: &'static Card,
    pub(super) seconds: f64,
    by_bus: bool,
}

impl Predicted {
    /// For people.
    pub(super) fn words(&self) -> String {
        let why = if self.by_bus {
            format!("its bus at {:.0} GB/s", self.card.bus() / 1e9)
        } else {
            let kernels = if self.card.capability == HOPPER { "Hopper's" } else { "the portable" };
            format!("{:.0} % of the peak, as {kernels} kernels reached on an H200", self.card.share() * 100.0)
        };
        format!("{} predicted, from {why} (docs/cards.md)", duration(self.seconds))
    }
}

/// The least time on a card.
pub(super) struct Floor {
    name: &'static str,
    tera: f64,
    seconds: f64,
}

impl Floor {
    fn of(card: &Card, operations: f64) -> Self {
        Self { name: card.name, tera: card.tera, seconds: operations / (card.tera * 1e12) }
    }
}

/// The cards of about so many bytes, slowest first, and how long so many operations take there at least.
pub(super) fn floors(bytes: u64, operations: f64) -> Vec<Floor> {
    let near = |card: &&Card| (bytes as f64 / (card.memory * 1e9) - 1.0).abs() <= NEAR;
    let mut floors: Vec<Floor> = CARDS.iter().filter(near).map(|card| Floor::of(card, operations)).collect();
    floors.sort_by(|a, b| a.tera.total_cmp(&b.tera));
    floors
}

/// For people: the slowest and the fastest; nothing where no such card is known.
pub(super) fn floors_in_words(floors: &[Floor]) -> Option<String> {
    let one = |floor: &Floor| {
        format!("{} on an {} ({} TFLOP/s)", duration(floor.seconds), floor.name, significant(floor.tera))
    };
    match floors {
        [] => None,
        [only] => Some(format!("at least {}", one(only))),
        [slowest, .., fastest] => Some(format!("at least {}, {}", one(slowest), one(fastest))),
    }
}

pub(super) fn floors_in_json(floors: &[Floor]) -> Value {
    let one = |floor: &Floor| json!({"card": floor.name, "tflops": floor.tera, "seconds": floor.seconds});
    floors.iter().map(one).collect()
}

/// Whether a run fits on a card.
pub(super) struct Verdict {
    name: &'static str,
    fits: bool,
    words: String,
    needs: Memory,
    floors: Vec<Floor>,
}

/// Asks for each size. `find` estimates the run on a card of so many bytes.
pub(super) fn verdicts(operations: f64, find: impl Fn(u64) -> Result<Room>) -> Result<Vec<Verdict>> {
    let verdict = |name: &'static str| {
        let card = bytes(name).expect("the sizes above are amounts");
        let room = find(card)?;
        let fits = room.advice.is_none();
        let at_once = counted(room.train.at_once() as u64, "sequence");
        let words = if fits {
            let first = format!("fits with {at_once} at once, in {}", size(room.needs.least()));
            std::iter::once(first).chain(room.words()).collect::<Vec<_>>().join("; ")
        } else {
            format!("too small: {} are needed", size(room.needs.least()))
        };
        Ok(Verdict { name, fits, words, needs: room.needs, floors: floors(card, operations) })
    };
    SIZES.into_iter().map(verdict).collect()
}

impl Verdict {
    /// For people.
    pub(super) fn line(&self) -> String {
        let time = floors_in_words(&self.floors).filter(|_| self.fits);
        let time = time.map_or_else(String::new, |time| format!("; {time}"));
        let (number, unit) = self.name.split_at(self.name.len() - 2);
        format!("{number:>2} {unit}: {}{time}", self.words)
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "card": self.name,
            "fits": self.fits,
            "least_bytes": self.needs.least(),
            "seconds_at_least": floors_in_json(&self.floors),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpus::wanted;

    #[test]
    fn a_prediction_is_the_slower_of_products_and_bus() {
        let card = wanted("RTX 3060").unwrap();
        let by_products = predicted(card, 25.5e12, 1.0).unwrap();
        assert!((by_products.seconds - 1.0 / card.card.unwrap().share()).abs() < 1e-9 && !by_products.by_bus);
        assert!(by_products.words().contains("predicted, from") && by_products.words().contains("portable"));
        let by_bus = predicted(card, 25.5e12, 30.0).unwrap();
        assert!((by_bus.seconds - 30.0).abs() < 1e-9 && by_bus.words().contains("its bus at 27 GB/s"));
        assert!(predicted(wanted("24GB").unwrap(), 1.0, 1.0).is_none(), "no card was named");
    }

    #[test]
    fn cards_are_found_by_their_memory_in_either_unit() {
        let names = |text: &str| -> Vec<&str> {
            floors(bytes(text).unwrap(), 1e15).iter().map(|floor| floor.name).collect()
        };
        assert_eq!(names("24GB"), ["RTX 3090", "RTX 3090 Ti", "RTX A5000", "L4", "A10", "RTX 4090"]);
        assert_eq!(names("24GiB"), names("24GB"));
        assert_eq!(names("2GB"), Vec::<&str>::new());
        for size in SIZES {
            assert!(!names(size).is_empty(), "{size}");
        }
        let floor = &floors(24_000_000_000, 71e15)[0];
        assert!((floor.seconds - 1000.0).abs() < 1e-6);
        assert_eq!(
            floors_in_words(std::slice::from_ref(floor)).unwrap(),
            "at least 17 min on an RTX 3090 (71.0 TFLOP/s)"
        );
    }
}
