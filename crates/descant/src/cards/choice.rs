//! `--cards`: how many, all of them, or which.

use std::str::FromStr;

use anyhow::{Result, anyhow};

use crate::failure::Hinted;

/// Most cards, or workers on the CPU, of one host.
const MOST: usize = 64;

/// Cards of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cards {
    /// The first so many.
    First(usize),
    /// All that there are.
    All,
    /// These.
    These(Vec<usize>),
}

impl FromStr for Cards {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected a number from 1 to {MOST}, `all`, or a list such as 0,3");
        let number = |part: &str| part.trim().parse::<usize>().map_err(|_| wrong());
        if text == "all" {
            return Ok(Self::All);
        }
        if !text.contains(',') {
            let count = number(text)?;
            return if (1..=MOST).contains(&count) { Ok(Self::First(count)) } else { Err(wrong()) };
        }
        // A comma behind a single number makes a list of one.
        let parts = text.strip_suffix(',').unwrap_or(text);
        let these: Vec<usize> = parts.split(',').map(number).collect::<Result<_, _>>()?;
        let mut sorted = these.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() < these.len() {
            return Err("a card is named twice".to_owned());
        }
        if these.len() > MOST { Err(wrong()) } else { Ok(Self::These(these)) }
    }
}

impl Cards {
    /// The device of each process, where the settings name `wanted`.
    pub(crate) fn devices(&self, wanted: &str) -> Result<Vec<String>> {
        let there = if wanted == "cpu" { 0 } else { cards_here() };
        match wanted {
            "cpu" | "auto" if there == 0 => self.workers(wanted),
            "auto" | "cuda" => {
                self.indices(there).map(|all| all.iter().map(|i| format!("cuda:{i}")).collect())
            }
            other => {
                let error = anyhow!("--cards and the device `{other}` both name cards");
                Err(Hinted::new(error, "use model.device = \"cuda\" or \"auto\" with --cards").into())
            }
        }
    }

    /// Workers on the CPU.
    fn workers(&self, wanted: &str) -> Result<Vec<String>> {
        match self {
            Self::First(count) => Ok(vec!["cpu".to_owned(); *count]),
            Self::All | Self::These(_) if wanted == "auto" => {
                Err(anyhow!("--cards names cards, and this {} none", missing()))
            }
            Self::All | Self::These(_) => {
                let error = anyhow!("--cards names cards, and the device is the CPU");
                Err(Hinted::new(error, "--cards N starts N workers on the CPU").into())
            }
        }
    }

    fn indices(&self, there: usize) -> Result<Vec<usize>> {
        let have = || format!("this {} {there}", if there == 0 { missing() } else { "machine has" });
        let lacking = |what: String| {
            let hint = "`descant doctor` lists the cards; CUDA_VISIBLE_DEVICES limits which are seen";
            Err(Hinted::new(anyhow!("--cards asks for {what}, and {}", have()), hint).into())
        };
        match self {
            Self::All if there == 0 => lacking("all cards".to_owned()),
            Self::All => Ok((0..there).collect()),
            Self::First(count) if *count > there => lacking(format!("{count} cards")),
            Self::First(count) => Ok((0..*count).collect()),
            Self::These(these) => match these.iter().find(|index| **index >= there) {
                Some(index) => lacking(format!("card {index} (they count from 0)")),
                None => Ok(these.clone()),
            },
        }
    }
}

/// Who has no cards.
fn missing() -> &'static str {
    if cfg!(feature = "cuda") { "machine has" } else { "build, which has no CUDA, sees" }
}

/// Cards that the driver shows.
#[cfg(feature = "cuda")]
pub(crate) fn cards_here() -> usize {
    descant_kernels::cuda::cards()
}

/// None without CUDA.
#[cfg(not(feature = "cuda"))]
pub(crate) fn cards_here() -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_the_rest_is_refused() {
        assert_eq!("2".parse(), Ok(Cards::First(2)));
        assert_eq!("all".parse(), Ok(Cards::All));
        assert_eq!("0,3".parse(), Ok(Cards::These(vec![0, 3])));
        assert_eq!("3,".parse(), Ok(Cards::These(vec![3])));
        for wrong in ["", "0", "65", "-1", "two", "0,0", "1,x", ",", "0,,1", "ALL", "1.5"] {
            assert!(wrong.parse::<Cards>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn cards_are_those_that_there_are() {
        let of = |cards: Cards, there| cards.indices(there).map_err(|error| error.to_string());
        assert_eq!(of(Cards::First(2), 4), Ok(vec![0, 1]));
        assert_eq!(of(Cards::All, 3), Ok(vec![0, 1, 2]));
        assert_eq!(of(Cards::These(vec![3, 0]), 4), Ok(vec![3, 0]));
        assert!(of(Cards::First(5), 4).unwrap_err().contains("5 cards, and this machine has 4"));
        assert!(of(Cards::These(vec![0, 4]), 4).unwrap_err().contains("card 4"));
        assert!(of(Cards::All, 0).is_err());
    }

    #[test]
    fn workers_on_the_cpu_are_a_number() {
        assert_eq!(Cards::First(3).devices("cpu").unwrap(), ["cpu", "cpu", "cpu"]);
        assert!(Cards::All.devices("cpu").is_err() && Cards::These(vec![0]).devices("cpu").is_err());
        assert!(Cards::First(2).devices("cuda:1").unwrap_err().to_string().contains("both name cards"));
    }
}
