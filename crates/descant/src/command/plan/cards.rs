//! GPUs that are not in this machine: whether a run fits, and the minimum time it takes there.
//!
//! Peak rates are those of NVIDIA's documents: the whitepapers of GA102 (version 2.0), Ada and RTX Blackwell for GeForce
//! and RTX, the data sheets of A100, H100, H200, L4 and L40S. Each is the number of multiprocessors times the boost clock
//! times the operations of a clock, which a test computes again.

use anyhow::Result;
use descant_train::memory::Memory;
use serde_json::{Value, json};

use crate::command::room::{Room, size};
use crate::settings::bytes;
use crate::words::{counted, duration, significant};

/// Memory sizes to plan for if none is given.
const SIZES: [&str; 6] = ["8GB", "12GB", "16GB", "24GB", "48GB", "80GB"];

/// A common GPU.
struct Card {
    name: &'static str,
    memory: f64,
    /// Peak rate of dense bf16 products summed in f32, in 1e12 operations a second.
    tera: f64,
}

const CARDS: [Card; 15] = [
    card("RTX 4060", 8.0, 30.2),
    card("RTX 3060", 12.0, 25.5),
    card("RTX 4070", 12.0, 58.3),
    card("RTX 4060 Ti", 16.0, 44.1),
    card("RTX 4080", 16.0, 97.5),
    card("RTX 3090", 24.0, 71.0),
    card("L4", 24.0, 121.0),
    card("RTX 4090", 24.0, 165.2),
    card("RTX 5090", 32.0, 209.5),
    card("A100 40GB", 40.0, 312.0),
    card("RTX A6000", 48.0, 154.8),
    card("L40S", 48.0, 362.0),
    card("A100 80GB", 80.0, 312.0),
    card("H100", 80.0, 989.4),
    card("H200", 141.0, 989.4),
];

/// Tolerance between the given memory and a GPU's: makers count in powers of two and of ten.
const NEAR: f64 = 0.1;

/// Measured steps relative to their floor.
pub(super) const MEASURED: &str = "a step on an H200 took 2 to 4 times that (docs/benchmarks.md)";

const fn card(name: &'static str, memory: f64, tera: f64) -> Card {
    Card { name, memory, tera }
}

/// The least time on a card.
pub(super) struct Floor {
    name: &'static str,
    tera: f64,
    seconds: f64,
}

/// The cards of about so many bytes, slowest first, and how long so many operations take there at least.
pub(super) fn floors(bytes: u64, operations: f64) -> Vec<Floor> {
    let near = |card: &&Card| (bytes as f64 / (card.memory * 1e9) - 1.0).abs() <= NEAR;
    let floor =
        |card: &Card| Floor { name: card.name, tera: card.tera, seconds: operations / (card.tera * 1e12) };
    CARDS.iter().filter(near).map(floor).collect()
}

/// For people; nothing where no such card is known.
pub(super) fn floors_in_words(floors: &[Floor]) -> Option<String> {
    let one = |floor: &Floor| {
        format!("{} on an {} ({} TFLOP/s)", duration(floor.seconds), floor.name, significant(floor.tera))
    };
    let all: Vec<String> = floors.iter().map(one).collect();
    (!all.is_empty()).then(|| format!("at least {}", all.join(", ")))
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

    #[test]
    fn peak_rates_are_those_of_multiprocessors_and_clocks() {
        // Multiprocessors, boost clock in GHz, operations a clock of each: 512 on GeForce, which halves products that
        // are summed in f32, 1,024 on the same chips elsewhere, 2,048 on A100, 4,096 on Hopper.
        let chips = [
            ("RTX 4060", 24, 2.460, 512),
            ("RTX 3060", 28, 1.777, 512),
            ("RTX 4070", 46, 2.475, 512),
            ("RTX 4060 Ti", 34, 2.535, 512),
            ("RTX 4080", 76, 2.505, 512),
            ("RTX 3090", 82, 1.695, 512),
            ("L4", 58, 2.040, 1024),
            ("RTX 4090", 128, 2.520, 512),
            ("RTX 5090", 170, 2.407, 512),
            ("A100 40GB", 108, 1.410, 2048),
            ("RTX A6000", 84, 1.800, 1024),
            ("L40S", 142, 2.520, 1024),
            ("A100 80GB", 108, 1.410, 2048),
            ("H100", 132, 1.830, 4096),
            ("H200", 132, 1.830, 4096),
        ];
        assert_eq!(chips.len(), CARDS.len());
        for (known, (name, processors, gigahertz, operations)) in CARDS.iter().zip(chips) {
            let tera = f64::from(processors) * gigahertz * f64::from(operations) / 1e3;
            // L40S's data sheet says 362 where its clock gives 366.
            assert!(known.name == name && (tera / known.tera - 1.0).abs() < 0.015, "{name}: {tera}");
        }
    }

    #[test]
    fn cards_are_found_by_their_memory_in_either_unit() {
        let names = |text: &str| -> Vec<&str> {
            floors(bytes(text).unwrap(), 1e15).iter().map(|floor| floor.name).collect()
        };
        assert_eq!(names("24GB"), ["RTX 3090", "L4", "RTX 4090"]);
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
