//! Every file of CUDA C++, what it is compiled with, and which architecture it serves.
//!
//! The one place to look up what runs on a card. The check `cargo xtask kernels` compiles each row of it for each
//! architecture it is meant for.

use super::constants;
pub use super::geometry::Define;
use super::geometry::{step_row, step_stage, step_wide_rows, step_wide_stage};

/// A file of CUDA C++.
#[derive(Debug)]
pub struct Unit {
    /// How the code names it: the operator's folder, and the file where there are several.
    pub id: &'static str,
    /// Its text.
    pub text: &'static str,
    /// Sets of constants with which it is used, all checked.
    pub variants: &'static [&'static [Define]],
    /// What it is compiled with in every set: how the host launches it.
    pub constants: &'static [Define],
    /// The only architecture it is for; `None` for all.
    pub only: Option<u16>,
}

/// Texts that kernel files include, by the name in the `#include`.
pub const HEADERS: [(&str, &str); 22] = [
    ("common.cuh", include_str!("common.cuh")),
    ("barrier.cuh", include_str!("barrier.cuh")),
    ("mma.cuh", include_str!("mma.cuh")),
    ("sm90.cuh", include_str!("sm90.cuh")),
    ("step.cuh", include_str!("../decode/step.cuh")),
    ("order.cuh", include_str!("../decode/order.cuh")),
    ("cache.cuh", include_str!("../decode/cache.cuh")),
    ("route.cuh", include_str!("../decode/route.cuh")),
    ("tiles_sm90.cuh", include_str!("../decode/tiles_sm90.cuh")),
    ("attention.cuh", include_str!("../op/attention/attention.cuh")),
    ("attention_sm90.cuh", include_str!("../op/attention/attention_sm90.cuh")),
    ("backward_sm90.cuh", include_str!("../op/attention/backward_sm90.cuh")),
    ("grouped.cuh", include_str!("../op/experts/grouped.cuh")),
    ("mxfp4.cuh", include_str!("../op/experts/mxfp4.cuh")),
    ("nf4.cuh", include_str!("../op/experts/nf4.cuh")),
    ("balanced.cuh", include_str!("../op/experts/balanced.cuh")),
    ("packed_sm90.cuh", include_str!("../op/experts/packed_sm90.cuh")),
    ("packed_mxfp4.cuh", include_str!("../op/experts/packed_mxfp4.cuh")),
    ("packed_nf4.cuh", include_str!("../op/experts/packed_nf4.cuh")),
    ("packed.cuh", include_str!("../op/experts/packed.cuh")),
    ("portable_mxfp4.cuh", include_str!("../op/experts/portable_mxfp4.cuh")),
    ("portable_nf4.cuh", include_str!("../op/experts/portable_nf4.cuh")),
];

/// Without constants.
const PLAIN: &[&[Define]] = &[&[]];

/// Products of packed experts, each by itself: what Side::define says.
const SIDES: &[&[Define]] = &[&[("BACKWARD", 0)], &[("BACKWARD", 1)]];

/// Heads of gpt-oss, and the widths and groups of small models.
const HEADS: &[&[Define]] = &[
    &[("HEAD_DIM", 64), ("GROUP", 8)],
    &[("HEAD_DIM", 32), ("GROUP", 4)],
    &[("HEAD_DIM", 16), ("GROUP", 3)],
];
const HEADS_SM90: &[&[Define]] = &[&[("HEAD_DIM", 64), ("GROUP", 8)], &[("HEAD_DIM", 64), ("GROUP", 3)]];

/// Columns of an adapter's rows in a step of generation.
const STEP_EXPERTS: &[&[Define]] = &[&[("RANK", 8)], &[("RANK", 16)], &[("RANK", 64)]];

/// The same on Hopper: also numbers of a line, and what lines and rows take in shared memory.
const STEP_EXPERTS_SM90: &[&[Define]] = &[
    &step_experts_sm90(0, 2880),
    &step_experts_sm90(8, 2880),
    &step_experts_sm90(16, 2880),
    &step_experts_sm90(64, 2880),
    &step_experts_sm90(64, 64),
];

/// The same with many rows.
const STEP_WIDE: &[&[Define]] = &[
    &step_wide(0, 2880),
    &step_wide(8, 2880),
    &step_wide(16, 2880),
    &step_wide(64, 2880),
    &step_wide(64, 64),
];

/// What it is compiled with for these.
pub const fn step_experts_sm90(rank: usize, n_in: usize) -> [Define; 4] {
    [
        ("RANK", rank as i64),
        ("N_IN", n_in as i64),
        ("STAGE_BYTES", step_stage(n_in, rank) as i64),
        ("ROW_BYTES", step_row(n_in) as i64),
    ]
}

/// The same with many rows.
pub const fn step_wide(rank: usize, n_in: usize) -> [Define; 5] {
    [
        ("RANK", rank as i64),
        ("N_IN", n_in as i64),
        ("STAGE_BYTES", step_wide_stage(n_in, rank) as i64),
        ("ROW_BYTES", step_row(n_in) as i64),
        ("TILE_ROWS", step_wide_rows(n_in, rank) as i64),
    ]
}

/// A file for every architecture, as most are.
const fn plain(id: &'static str, text: &'static str) -> Unit {
    Unit { id, text, variants: PLAIN, constants: &[], only: None }
}

/// A file with tiles: compiled with `constants`, in these sets.
const fn tiled(
    id: &'static str,
    text: &'static str,
    variants: &'static [&'static [Define]],
    constants: &'static [Define],
) -> Unit {
    Unit { id, text, variants, constants, only: None }
}

/// The same for Hopper alone.
const fn sm90(unit: Unit) -> Unit {
    Unit { only: Some(90), ..unit }
}

/// All files.
pub const UNITS: [Unit; 45] = [
    plain("norm", include_str!("../op/norm/norm.cu")),
    plain("rotary", include_str!("../op/rotary/rotary.cu")),
    plain("swiglu", include_str!("../op/swiglu/swiglu.cu")),
    tiled("route", include_str!("../op/route/route.cu"), PLAIN, constants::ROUTE),
    tiled("route/sort", include_str!("../op/route/sort.cu"), PLAIN, constants::ROUTE_SORT),
    plain("route/rows", include_str!("../op/route/rows.cu")),
    plain("loss", include_str!("../op/loss/loss.cu")),
    plain("pick", include_str!("../op/pick/pick.cu")),
    plain("pick/draw", include_str!("../op/pick/draw.cu")),
    plain("cache", include_str!("../op/cache/rows.cu")),
    plain("select", include_str!("../op/select/select.cu")),
    plain("optimizer", include_str!("../op/optimizer/optimizer.cu")),
    tiled("layer/lora", include_str!("../layer/lora.cu"), PLAIN, constants::LORA),
    tiled("layer/thin", include_str!("../layer/thin.cu"), PLAIN, constants::THIN_ROWS),
    tiled("layer/gradients", include_str!("../layer/gradients.cu"), PLAIN, constants::PAIR_GRADIENTS),
    sm90(tiled(
        "route/rows_sm90",
        include_str!("../op/route/rows_sm90.cu"),
        PLAIN,
        constants::TAKE_ROWS_SM90,
    )),
    tiled("attention/forward", include_str!("../op/attention/forward.cu"), HEADS, constants::FORWARD),
    tiled("attention/backward", include_str!("../op/attention/backward.cu"), HEADS, constants::BACKWARD),
    sm90(tiled(
        "attention/forward_sm90",
        include_str!("../op/attention/forward_sm90.cu"),
        HEADS_SM90,
        constants::FORWARD_SM90,
    )),
    sm90(tiled(
        "attention/backward_q_sm90",
        include_str!("../op/attention/backward_q_sm90.cu"),
        HEADS_SM90,
        constants::BACKWARD_Q_SM90,
    )),
    sm90(tiled(
        "attention/backward_kv_sm90",
        include_str!("../op/attention/backward_kv_sm90.cu"),
        HEADS_SM90,
        constants::BACKWARD_KV_SM90,
    )),
    sm90(tiled(
        "attention/backward_one_sm90",
        include_str!("../op/attention/backward_one_sm90.cu"),
        HEADS_SM90,
        constants::BACKWARD_ONE_SM90,
    )),
    sm90(tiled(
        "attention/backward_ends_sm90",
        include_str!("../op/attention/backward_ends_sm90.cu"),
        HEADS_SM90,
        constants::BACKWARD_ENDS_SM90,
    )),
    tiled("linear/tiles", include_str!("../op/linear/tiles.cu"), PLAIN, constants::TILES),
    tiled("linear/unpack", include_str!("../op/linear/unpack.cu"), PLAIN, constants::UNPACK),
    tiled("experts/grouped", include_str!("../op/experts/grouped.cu"), PLAIN, constants::GROUPED),
    tiled("experts/packed", include_str!("../op/experts/packed.cu"), SIDES, constants::PACKED),
    tiled("experts/packed_nf4", include_str!("../op/experts/packed.cu"), SIDES, constants::PACKED_NF4),
    sm90(tiled(
        "experts/grouped_sm90",
        include_str!("../op/experts/grouped_sm90.cu"),
        PLAIN,
        constants::GROUPED_SM90,
    )),
    sm90(tiled(
        "experts/packed_sm90",
        include_str!("../op/experts/packed_sm90.cu"),
        SIDES,
        constants::PACKED_SM90,
    )),
    sm90(tiled(
        "experts/packed_nf4_sm90",
        include_str!("../op/experts/packed_sm90.cu"),
        SIDES,
        constants::PACKED_NF4_SM90,
    )),
    tiled("experts/few", include_str!("../op/experts/few.cu"), PLAIN, constants::FEW),
    tiled("low_rank/few", include_str!("../op/low_rank/few.cu"), PLAIN, constants::FEW_LOW_RANK),
    tiled("experts/few_nf4", include_str!("../op/experts/few.cu"), PLAIN, constants::FEW_NF4),
    tiled("decode/experts", include_str!("../decode/experts.cu"), STEP_EXPERTS, constants::STEP_EXPERTS),
    tiled(
        "decode/experts_nf4",
        include_str!("../decode/experts.cu"),
        STEP_EXPERTS,
        constants::STEP_EXPERTS_NF4,
    ),
    sm90(tiled(
        "decode/experts_sm90",
        include_str!("../decode/experts_sm90.cu"),
        STEP_EXPERTS_SM90,
        constants::STEP_EXPERTS_SM90,
    )),
    sm90(tiled(
        "decode/experts_wide_sm90",
        include_str!("../decode/experts_wide_sm90.cu"),
        STEP_WIDE,
        constants::STEP_WIDE,
    )),
    tiled("decode/thin", include_str!("../decode/thin.cu"), PLAIN, constants::THIN),
    tiled("decode/wide", include_str!("../decode/wide.cu"), PLAIN, constants::WIDE),
    tiled("decode/attend", include_str!("../decode/attend.cu"), HEADS, constants::ATTEND),
    tiled("decode/route", include_str!("../decode/route.cu"), PLAIN, constants::STEP_ROUTE),
    sm90(tiled(
        "decode/route_sm90",
        include_str!("../decode/route_sm90.cu"),
        PLAIN,
        constants::STEP_ROUTE_SM90,
    )),
    tiled("decode/rows", include_str!("../decode/rows.cu"), PLAIN, constants::STEP_ROWS),
    tiled("experts/low_rank", include_str!("../op/experts/low_rank.cu"), PLAIN, constants::LOW_RANK),
];

/// The file of this name.
pub fn unit(id: &str) -> Option<&'static Unit> {
    // A promoted constant, so that the reference outlives the call.
    const ALL: &[Unit] = &UNITS;
    ALL.iter().find(|unit| unit.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::architecture::ARCHITECTURES;

    #[test]
    fn ids_are_unique_and_every_unit_has_a_variant() {
        for (i, unit) in UNITS.iter().enumerate() {
            assert!(UNITS[i + 1..].iter().all(|other| other.id != unit.id), "{} occurs twice", unit.id);
            assert!(!unit.variants.is_empty(), "{} would not be checked", unit.id);
            assert!(unit.only.is_none_or(|number| ARCHITECTURES.iter().any(|a| a.number == number)));
            assert_eq!(super::unit(unit.id).map(|u| u.text), Some(unit.text));
        }
        assert!(super::unit("no such file").is_none());
    }

    #[test]
    fn whatever_a_file_includes_is_there() {
        let texts = UNITS.iter().map(|unit| (unit.id, unit.text)).chain(HEADERS);
        for (file, text) in texts {
            for name in text.lines().filter_map(|line| line.trim().strip_prefix("#include ")) {
                let name = name.trim_matches('"');
                assert!(HEADERS.iter().any(|(known, _)| *known == name), "{file} includes {name}");
            }
        }
    }
}
