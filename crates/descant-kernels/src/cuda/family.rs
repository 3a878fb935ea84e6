//! Which kernels a card takes: one table, by compute capability and shared memory.
//!
//! Multiprocessors and bandwidth decide nothing here: a grid is made of the multiprocessors that there are, blocks take
//! tiles until none is left, and how large tiles are decides the last bits of sums, so sizes alone say it: cards that
//! share a run may differ. What has no row is not supported.

use super::architecture::{Architecture, Capability};

/// Kernels that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// With wgmma and tensor copies, for heads of 64 and for experts.
    Hopper,
    /// With mma.sync and asynchronous copies, which every card since Ampere has.
    Portable,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Which kernels.
    pub family: Family,
    /// The first card that it is for.
    pub from: Capability,
    /// The last one, where it has a last one.
    pub to: Option<Capability>,
    /// Shared memory that a block has on the smallest card of the row, in bytes.
    pub shared_memory: u32,
}

const fn sm(major: u8, minor: u8) -> Capability {
    Capability { major, minor }
}

/// The only cards with kernels of their own.
const HOPPER: Capability = sm(9, 0);
/// Cards whose blocks have the least shared memory.
const SMALLEST: Capability = sm(8, 6);

/// What a block of such a card may use.
const fn shared_memory(of: Capability) -> u32 {
    Architecture::of(of).shared_memory()
}

/// The first row that a card meets is its own.
pub const FAMILIES: [Row; 2] = [
    Row { family: Family::Hopper, from: HOPPER, to: Some(HOPPER), shared_memory: shared_memory(HOPPER) },
    Row { family: Family::Portable, from: sm(8, 0), to: None, shared_memory: shared_memory(SMALLEST) },
];

impl Row {
    /// That of a card; none before Ampere.
    pub fn of(capability: Capability) -> Option<&'static Self> {
        const ALL: &[Row] = &FAMILIES;
        ALL.iter().find(|row| row.from <= capability && row.to.is_none_or(|to| capability <= to))
    }

    /// What it is and why, for people.
    pub fn words(&self) -> String {
        let Capability { major, minor } = self.from;
        match (self.family, self.to) {
            (Family::Hopper, _) => format!("Hopper's own kernels (capability {major}.{minor}: wgmma)"),
            (Family::Portable, _) => {
                format!("portable kernels (capability {major}.{minor} and later: mma.sync)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::architecture::ARCHITECTURES;
    use crate::cuda::table::UNITS;

    #[test]
    fn every_card_since_ampere_has_one_row() {
        let family = |major, minor| Row::of(sm(major, minor)).map(|row| row.family);
        assert_eq!(family(7, 5), None);
        for (major, minor) in [(8, 0), (8, 6), (8, 7), (8, 9), (10, 0), (10, 3), (12, 0), (12, 1)] {
            assert_eq!(family(major, minor), Some(Family::Portable), "{major}.{minor}");
        }
        assert_eq!(family(9, 0), Some(Family::Hopper));
        assert!(FAMILIES.iter().all(|row| row.words().contains("kernels")));
    }

    /// Registers of a multiprocessor.
    const REGISTERS: i64 = 65_536;

    type Resources = Option<[i64; 3]>;

    /// The record's rows: file, constants, and for each architecture registers, static shared memory and spills.
    fn record() -> Vec<(String, String, Vec<Resources>)> {
        let text = include_str!("../../../../docs/kernels.md");
        let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains('/'));
        let row = |line: &str| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let cell = |text: &&str| {
                let numbers: Vec<i64> = text.split('/').filter_map(|number| number.parse().ok()).collect();
                <[i64; 3]>::try_from(numbers).ok()
            };
            (cells[0].to_owned(), cells[1].to_owned(), cells[3..].iter().map(cell).collect())
        };
        rows.map(row).collect()
    }

    #[test]
    fn no_kernel_needs_more_than_the_smallest_card_of_its_row_has() {
        let record = record();
        let mut checked = 0;
        for (file, constants, cells) in &record {
            let Some(unit) = UNITS.iter().find(|unit| unit.id == file) else {
                panic!("{file} is in docs/kernels.md and not in the table");
            };
            let constant = |name: &str| {
                let given = constants.split(' ').find_map(|one| one.strip_prefix(name)?.strip_prefix('='));
                given.map(|value| value.parse::<i64>().unwrap())
            };
            let of = |part: &'static str| unit.constants.iter().filter(move |(name, _)| name.contains(part));
            let feature =
                |name: &str| if name.ends_with("OF_FEATURE") { constant("HEAD_DIM").unwrap() } else { 1 };
            let dynamic = of("SHARED").map(|(name, bytes)| bytes * feature(name)).max().unwrap_or(0);
            let threads = of("THREADS").map(|(_, threads)| *threads).min().unwrap_or(0);
            for (architecture, cell) in ARCHITECTURES.iter().zip(cells) {
                let Some([registers, fixed, _]) = cell else { continue };
                let capability = sm((architecture.number / 10) as u8, (architecture.number % 10) as u8);
                let row = match unit.only {
                    Some(_) => Row::of(capability).unwrap(),
                    None => FAMILIES.iter().find(|row| row.family == Family::Portable).unwrap(),
                };
                let room = i64::from(row.shared_memory);
                assert!(
                    fixed + dynamic <= room,
                    "{file} on {architecture}: {fixed} + {dynamic} of {room} bytes"
                );
                // Hopper's blocks hand registers from warps that copy to warps that multiply.
                assert!(
                    registers * threads <= REGISTERS,
                    "{file} on {architecture}: {registers} x {threads}"
                );
                checked += 1;
            }
        }
        assert!(checked > 300, "{checked} kernels");
        assert!(
            UNITS.iter().all(|unit| record.iter().any(|(file, ..)| file == unit.id)),
            "all files are recorded"
        );
    }

    #[test]
    fn the_kernels_that_take_the_time_spill_nothing_on_the_cards_of_their_row() {
        let all = record();
        for (file, rows) in [
            ("experts/packed", 2),
            ("experts/packed_nf4", 2),
            ("attention/forward", 3),
            ("attention/backward", 6),
            ("attention/backward_window", 1),
        ] {
            let of_file: Vec<_> = all.iter().filter(|(name, ..)| name == file).collect();
            assert_eq!(of_file.len(), rows, "{file}");
            for (_, constants, cells) in of_file {
                let own =
                    ARCHITECTURES.iter().zip(cells).filter(|(architecture, _)| architecture.number != 90);
                for (architecture, cell) in own {
                    assert!(
                        cell.is_some_and(|[_, _, spilled]| spilled == 0),
                        "{file} {constants} on {architecture}"
                    );
                }
            }
        }
    }
}
