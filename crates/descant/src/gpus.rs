//! Common GPUs by name, as their makers describe them: what a run on a card that is not here is planned with.
//!
//! Figures are those of NVIDIA's documents: the whitepapers of GA102 (version 2.0), Ada and RTX Blackwell for GeForce and
//! RTX, the data sheets of A10, A100, H100, H200, L4 and L40S. A peak rate is the number of multiprocessors times the boost
//! clock times the operations of a clock, which a test computes again. docs/cards.md is made of this table.

use crate::settings::bytes;

/// A common GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Card {
    pub(crate) name: &'static str,
    /// In GiB, which makers call GB.
    pub(crate) memory: f64,
    /// Peak rate of dense bf16 products summed in f32, in 1e12 operations a second.
    pub(crate) tera: f64,
    /// Peak rate of its memory, in 1e9 bytes a second.
    pub(crate) giga: f64,
    /// Generation and lanes of its PCIe connector.
    pub(crate) lanes: (u32, u32),
    pub(crate) capability: Capability,
}

/// Compute capabilities.
pub(crate) type Capability = (u8, u8);
const A100: Capability = (8, 0);
const AMPERE: Capability = (8, 6);
const ADA: Capability = (8, 9);
pub(crate) const HOPPER: Capability = (9, 0);
const BLACKWELL: Capability = (12, 0);

pub(crate) const CARDS: [Card; 39] = [
    card("RTX 3060", 12.0, 25.5, 360.0, (4, 16), AMPERE),
    card("RTX 3060 Ti", 8.0, 32.4, 448.0, (4, 16), AMPERE),
    card("RTX 3070", 8.0, 40.6, 448.0, (4, 16), AMPERE),
    card("RTX 3070 Ti", 8.0, 43.5, 608.0, (4, 16), AMPERE),
    card("RTX 3080 10GB", 10.0, 59.5, 760.0, (4, 16), AMPERE),
    card("RTX 3080 12GB", 12.0, 61.3, 912.0, (4, 16), AMPERE),
    card("RTX 3080 Ti", 12.0, 68.2, 912.0, (4, 16), AMPERE),
    card("RTX 3090", 24.0, 71.0, 936.0, (4, 16), AMPERE),
    card("RTX 3090 Ti", 24.0, 80.0, 1008.0, (4, 16), AMPERE),
    card("RTX A4000", 16.0, 76.7, 448.0, (4, 16), AMPERE),
    card("RTX A5000", 24.0, 111.1, 768.0, (4, 16), AMPERE),
    card("RTX A6000", 48.0, 154.8, 768.0, (4, 16), AMPERE),
    card("A10", 24.0, 125.0, 600.0, (4, 16), AMPERE),
    card("RTX 4060", 8.0, 30.2, 272.0, (4, 8), ADA),
    card("RTX 4060 Ti 8GB", 8.0, 44.1, 288.0, (4, 8), ADA),
    card("RTX 4060 Ti 16GB", 16.0, 44.1, 288.0, (4, 8), ADA),
    card("RTX 4070", 12.0, 58.3, 504.0, (4, 16), ADA),
    card("RTX 4070 SUPER", 12.0, 71.0, 504.0, (4, 16), ADA),
    card("RTX 4070 Ti", 12.0, 80.2, 504.0, (4, 16), ADA),
    card("RTX 4070 Ti SUPER", 16.0, 88.2, 672.0, (4, 16), ADA),
    card("RTX 4080", 16.0, 97.5, 717.0, (4, 16), ADA),
    card("RTX 4080 SUPER", 16.0, 104.4, 736.0, (4, 16), ADA),
    card("RTX 4090", 24.0, 165.2, 1008.0, (4, 16), ADA),
    card("RTX 4000 Ada", 20.0, 106.9, 360.0, (4, 16), ADA),
    card("RTX 6000 Ada", 48.0, 364.2, 960.0, (4, 16), ADA),
    card("L4", 24.0, 121.0, 300.0, (4, 16), ADA),
    card("L40S", 48.0, 362.0, 864.0, (4, 16), ADA),
    card("RTX 5060", 8.0, 38.4, 448.0, (5, 8), BLACKWELL),
    card("RTX 5060 Ti 8GB", 8.0, 47.4, 448.0, (5, 8), BLACKWELL),
    card("RTX 5060 Ti 16GB", 16.0, 47.4, 448.0, (5, 8), BLACKWELL),
    card("RTX 5070", 12.0, 61.7, 672.0, (5, 16), BLACKWELL),
    card("RTX 5070 Ti", 16.0, 87.9, 896.0, (5, 16), BLACKWELL),
    card("RTX 5080", 16.0, 112.6, 960.0, (5, 16), BLACKWELL),
    card("RTX 5090", 32.0, 209.5, 1792.0, (5, 16), BLACKWELL),
    card("RTX PRO 6000", 96.0, 503.8, 1792.0, (5, 16), BLACKWELL),
    card("A100 40GB", 40.0, 312.0, 1555.0, (4, 16), A100),
    card("A100 80GB", 80.0, 312.0, 2039.0, (4, 16), A100),
    card("H100", 80.0, 989.4, 3350.0, (5, 16), HOPPER),
    card("H200", 141.0, 989.4, 4800.0, (5, 16), HOPPER),
];

/// Of a card's memory, what a program sees of it: the driver keeps some.
const VISIBLE: f64 = 0.98;
/// Of the bus's peak, what copies from pinned memory reach: 55 of 63 GB/s were measured on an H200.
const OF_BUS: f64 = 0.85;
/// Operations a second of a step, as a share of the peak: with Hopper's own kernels 33,537 tokens a second of 15.7e9
/// operations at 4 x 4096 on an H200.
const OF_HOPPER: f64 = 0.53;
/// The same with the portable kernels on that H200, 25,011 tokens a second, of what mma.sync reaches there, 546e12.
const OF_PORTABLE: f64 = 0.72;

const fn card(
    name: &'static str,
    memory: f64,
    tera: f64,
    giga: f64,
    lanes: (u32, u32),
    capability: Capability,
) -> Card {
    Card { name, memory, tera, giga, lanes, capability }
}

impl Card {
    /// Bytes that a program may plan with.
    fn bytes(&self) -> u64 {
        (self.memory * VISIBLE * f64::from(1 << 30)) as u64
    }

    /// Bytes a second that copies over its bus are expected to reach.
    pub(crate) fn bus(&self) -> f64 {
        let (generation, lanes) = self.lanes;
        // 8 GT/s a lane in the third generation, twice as many in each further one; 128 of 130 bits are data.
        let lane = 8e9 * f64::from(1_u32 << (generation - 3)) * 128.0 / 130.0 / 8.0;
        OF_BUS * lane * f64::from(lanes)
    }

    /// Operations a second that a step is expected to reach, as a share of the peak.
    pub(crate) fn share(&self) -> f64 {
        if self.capability == HOPPER { OF_HOPPER } else { OF_PORTABLE }
    }
}

/// What `--card` asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) bytes: u64,
    /// Where it was named.
    pub(crate) card: Option<&'static Card>,
}

/// Letters and digits in lower case, without the makers' names for a family.
fn plain(name: &str) -> String {
    let name = name.to_lowercase().replace("nvidia", "").replace("geforce", "");
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// The card of this name, with or without its memory, or a card of so many bytes.
///
/// # Errors
/// The text is neither.
pub(crate) fn wanted(text: &str) -> Result<Wanted, String> {
    const ALL: &[Card] = &CARDS;
    if let Ok(bytes) = bytes(text) {
        return Ok(Wanted { bytes, card: None });
    }
    let name = plain(text);
    let is =
        |card: &&Card| name == plain(card.name) || name == format!("{}{}gb", plain(card.name), card.memory);
    if let Some(card) = ALL.iter().find(is) {
        return Ok(Wanted { bytes: card.bytes(), card: Some(card) });
    }
    let same: Vec<&str> =
        ALL.iter().map(|card| card.name).filter(|known| plain(known).starts_with(&name)).collect();
    Err(if name.is_empty() || same.is_empty() {
        let names: Vec<&str> = ALL.iter().map(|card| card.name).collect();
        format!("neither an amount of memory such as 24GB nor a known card: {}", names.join(", "))
    } else {
        format!("which of {}?", same.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_rates_are_those_of_multiprocessors_and_clocks() {
        // Multiprocessors, boost clock in GHz, operations a clock of each: 512 on GeForce, which halves products that
        // are summed in f32, 1,024 on the same chips elsewhere, 2,048 on A100, 4,096 on Hopper.
        let chips = [
            ("RTX 3060", 28, 1.777, 512),
            ("RTX 3060 Ti", 38, 1.665, 512),
            ("RTX 3070", 46, 1.725, 512),
            ("RTX 3070 Ti", 48, 1.770, 512),
            ("RTX 3080 10GB", 68, 1.710, 512),
            ("RTX 3080 12GB", 70, 1.710, 512),
            ("RTX 3080 Ti", 80, 1.665, 512),
            ("RTX 3090", 82, 1.695, 512),
            ("RTX 3090 Ti", 84, 1.860, 512),
            ("RTX A4000", 48, 1.560, 1024),
            ("RTX A5000", 64, 1.695, 1024),
            ("RTX A6000", 84, 1.800, 1024),
            ("A10", 72, 1.695, 1024),
            ("RTX 4060", 24, 2.460, 512),
            ("RTX 4060 Ti 8GB", 34, 2.535, 512),
            ("RTX 4060 Ti 16GB", 34, 2.535, 512),
            ("RTX 4070", 46, 2.475, 512),
            ("RTX 4070 SUPER", 56, 2.475, 512),
            ("RTX 4070 Ti", 60, 2.610, 512),
            ("RTX 4070 Ti SUPER", 66, 2.610, 512),
            ("RTX 4080", 76, 2.505, 512),
            ("RTX 4080 SUPER", 80, 2.550, 512),
            ("RTX 4090", 128, 2.520, 512),
            ("RTX 4000 Ada", 48, 2.175, 1024),
            ("RTX 6000 Ada", 142, 2.505, 1024),
            ("L4", 58, 2.040, 1024),
            ("L40S", 142, 2.520, 1024),
            ("RTX 5060", 30, 2.497, 512),
            ("RTX 5060 Ti 8GB", 36, 2.572, 512),
            ("RTX 5060 Ti 16GB", 36, 2.572, 512),
            ("RTX 5070", 48, 2.512, 512),
            ("RTX 5070 Ti", 70, 2.452, 512),
            ("RTX 5080", 84, 2.617, 512),
            ("RTX 5090", 170, 2.407, 512),
            ("RTX PRO 6000", 188, 2.617, 1024),
            ("A100 40GB", 108, 1.410, 2048),
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
    fn the_page_has_the_cards_of_the_table() {
        let page = include_str!("../../../docs/cards.md");
        let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains(".0 x")).count();
        assert_eq!(rows, CARDS.len());
        for Card { name, memory, tera, giga, lanes: (generation, lanes), capability } in &CARDS {
            let kernels = if *capability == HOPPER { "Hopper" } else { "portable" };
            let (major, minor) = capability;
            let row = format!(
                "| {name} | {major}.{minor} | {kernels} | {memory} | {giga} | {tera:.1} | {generation}.0 x{lanes} |"
            );
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn cards_are_found_by_name_in_every_spelling() {
        for card in &CARDS {
            let found = |text: &str| wanted(text).unwrap().card.unwrap().name;
            assert_eq!(found(card.name), card.name);
            assert_eq!(found(&format!("nvidia geforce {}", card.name.to_lowercase())), card.name);
            assert_eq!(found(&card.name.replace(' ', "-")), card.name);
        }
        assert_eq!(wanted("RTX 3060 12GB"), wanted("rtx3060"));
        assert_eq!(wanted("24GB").unwrap(), Wanted { bytes: 24_000_000_000, card: None });
        assert_eq!(wanted("RTX 4060 Ti").unwrap_err(), "which of RTX 4060 Ti 8GB, RTX 4060 Ti 16GB?");
        for unknown in ["", "GTX 1080", "RTX 3060 48GB"] {
            assert!(wanted(unknown).unwrap_err().contains("RTX 5090"), "{unknown}");
        }
    }
}
