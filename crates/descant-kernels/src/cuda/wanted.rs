//! Which kernels a model asks for, and in which order they are best made.

use descant_quant::Packing;

use super::architecture::Architecture;
use super::constants::NF4;
use super::table::{Define, UNITS, Unit};

/// Files for experts in fp8, which few runs want: made when those ask for them.
const FP8: &str = "/fp8";
/// Files of the decoder.
const DECODER: &str = "decode/";
/// Files for MXFP4 alone. Those for NF4 are compiled with that.
const MXFP4: [&str; 6] = [
    "experts/packed",
    "experts/packed_sm90",
    "experts/few",
    "decode/experts",
    "decode/experts_sm90",
    "decode/experts_wide_sm90",
];
/// Files that are of no use where the card's own are taken, and one of those each.
const INSTEAD: [(&str, &str); 6] = [
    ("attention/forward_sm90", "attention/forward"),
    ("attention/backward_q_sm90", "attention/backward"),
    ("attention/backward_kv_sm90", "attention/backward_window"),
    ("experts/packed_sm90", "experts/packed"),
    ("experts/packed_nf4_sm90", "experts/packed_nf4"),
    ("experts/grouped_sm90", "experts/grouped"),
];

/// What of a model decides which kernels it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Width of its heads.
    pub head_dim: usize,
    /// Queries that share a key.
    pub group: usize,
    /// How its experts lie on a card.
    pub packing: Packing,
}

/// A file and what it is compiled with.
pub type Wanted = (&'static Unit, &'static [Define]);

/// What a model asks for on this architecture, in the order in which it is made: what the decoder wants comes last, what
/// takes the compiler longest first.
pub fn wanted(model: Model, architecture: Architecture, is_hopper: bool) -> Vec<Wanted> {
    let heads = [("HEAD_DIM", model.head_dim as i64), ("GROUP", model.group as i64)];
    let fits = |defines: &&'static [Define]| {
        defines.iter().all(|define| heads.iter().all(|head| head.0 != define.0 || head == define))
    };
    let serves = |unit: &&Unit| unit.only.is_none_or(|number| is_hopper && number == architecture.number);
    let of_packing = |unit: &&Unit| match model.packing {
        Packing::Mxfp4 => !unit.constants.contains(&NF4),
        Packing::Nf4 => !MXFP4.contains(&unit.id),
        Packing::Plain => !unit.constants.contains(&NF4) && !MXFP4.contains(&unit.id),
    };
    let all: Vec<Wanted> = UNITS
        .iter()
        .filter(serves)
        .filter(|unit| !unit.id.contains(FP8))
        .filter(of_packing)
        .flat_map(|unit| unit.variants.iter().copied().filter(fits).map(move |defines| (unit, defines)))
        .collect();
    let is_there = |id: &str| all.iter().any(|(unit, _)| unit.id == id);
    let is_replaced = |id: &str| INSTEAD.iter().any(|(own, other)| *other == id && is_there(own));
    let mut wanted: Vec<_> = all.iter().copied().filter(|(unit, _)| !is_replaced(unit.id)).collect();
    // Products of packed experts are few lines of which many forms are made; else a long text takes long.
    wanted.sort_by_key(|(unit, _)| {
        let are_products = unit.id.starts_with("experts/packed");
        (is_decoders(unit), !are_products, unit.only.is_none(), std::cmp::Reverse(unit.text.len()))
    });
    wanted
}

/// What products with experts in fp8 ask for beside that, on a card that has them.
pub fn wanted_by_fp8() -> impl Iterator<Item = Wanted> {
    let all = UNITS.iter().filter(|unit| unit.id.contains(FP8));
    all.flat_map(|unit| unit.variants.iter().map(move |defines| (unit, *defines)))
}

/// Whether only the decoder asks for a file.
pub fn is_decoders(unit: &Unit) -> bool {
    unit.id.starts_with(DECODER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::architecture::Capability;

    const OF_20B: Model = Model { head_dim: 64, group: 8, packing: Packing::Mxfp4 };

    fn ids(model: Model, (major, minor): (u8, u8)) -> Vec<&'static str> {
        let architecture = Architecture::of(Capability { major, minor });
        wanted(model, architecture, major == 9).iter().map(|(unit, _)| unit.id).collect()
    }

    #[test]
    fn a_model_waits_for_no_kernel_that_it_does_not_launch() {
        let hopper = ids(OF_20B, (9, 0));
        assert_eq!(hopper[..2], ["experts/packed_sm90"; 2], "the longest first, both sides of it at once");
        for id in [
            "experts/packed",
            "experts/packed_nf4_sm90",
            "attention/forward",
            "attention/backward_window",
            "experts/few_nf4",
            "experts/fp8_sm90",
            "experts/fp8_rows_sm90",
            "swiglu/fp8_sm90",
        ] {
            assert!(!hopper.contains(&id), "{id}");
        }
        for id in ["attention/backward_kv_sm90", "experts/few", "layer/lora", "norm", "decode/experts"] {
            assert!(hopper.contains(&id), "{id}");
        }
        let ada = ids(OF_20B, (8, 9));
        for id in ["experts/packed", "attention/forward", "attention/backward_window"] {
            assert!(ada.contains(&id), "{id}");
        }
        assert!(!ada.iter().any(|id| id.ends_with("sm90") || id.contains("nf4")));
        let nf4 = ids(Model { packing: Packing::Nf4, ..OF_20B }, (9, 0));
        assert!(nf4.contains(&"experts/packed_nf4_sm90") && !nf4.contains(&"experts/packed_sm90"));
        let narrow = ids(Model { head_dim: 32, group: 4, ..OF_20B }, (9, 0));
        assert!(narrow.contains(&"attention/forward"), "Hopper's own is for heads of 64");
    }

    #[test]
    fn the_decoders_come_last() {
        let all = ids(OF_20B, (9, 0));
        let first = all.iter().position(|id| id.starts_with(DECODER)).unwrap();
        assert!(all[first..].iter().all(|id| id.starts_with(DECODER)) && first > 20);
    }
}
