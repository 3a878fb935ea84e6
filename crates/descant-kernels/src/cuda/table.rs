//! Every file of CUDA C++, what it is compiled with, and which architecture it serves.
//!
//! The one place to look up what runs on a card. The check `cargo xtask kernels` compiles each row of it for each
//! architecture it is meant for.

use super::constants as with;
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
pub const HEADERS: &[(&str, &str)] = &[
    ("common.cuh", include_str!("common.cuh")),
    ("barrier.cuh", include_str!("barrier.cuh")),
    ("mma.cuh", include_str!("mma.cuh")),
    ("sm90.cuh", include_str!("sm90.cuh")),
    ("step.cuh", include_str!("../decode/step.cuh")),
    ("order.cuh", include_str!("../decode/order.cuh")),
    ("cache.cuh", include_str!("../decode/cache.cuh")),
    ("route.cuh", include_str!("../decode/route.cuh")),
    ("sort.cuh", include_str!("../op/route/sort.cuh")),
    ("tiles_sm90.cuh", include_str!("../decode/tiles_sm90.cuh")),
    ("attention.cuh", include_str!("../op/attention/attention.cuh")),
    ("attention_sm90.cuh", include_str!("../op/attention/attention_sm90.cuh")),
    ("backward_sm90.cuh", include_str!("../op/attention/backward_sm90.cuh")),
    ("grouped.cuh", include_str!("../op/experts/grouped.cuh")),
    ("mxfp4.cuh", include_str!("../op/experts/mxfp4.cuh")),
    ("nf4.cuh", include_str!("../op/experts/nf4.cuh")),
    ("balanced.cuh", include_str!("../op/experts/balanced.cuh")),
    ("packed_sm90.cuh", include_str!("../op/experts/packed_sm90.cuh")),
    ("packed_out.cuh", include_str!("../op/experts/packed_out.cuh")),
    ("packed_bf16.cuh", include_str!("../op/experts/packed_bf16.cuh")),
    ("packed_tiles.cuh", include_str!("../op/experts/packed_tiles.cuh")),
    ("packed_mxfp4.cuh", include_str!("../op/experts/packed_mxfp4.cuh")),
    ("packed_fp8.cuh", include_str!("../op/experts/packed_fp8.cuh")),
    ("packed_nf4.cuh", include_str!("../op/experts/packed_nf4.cuh")),
    ("fp8.cuh", include_str!("../op/experts/fp8.cuh")),
    ("fp8_rows.cuh", include_str!("../op/experts/fp8_rows.cuh")),
    ("swiglu.cuh", include_str!("../op/swiglu/swiglu.cuh")),
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
/// Those whose windows go in one pass.
const HEADS_WINDOW: &[&[Define]] = &[&[("HEAD_DIM", 64), ("GROUP", 8)]];
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

/// A row of the table: name, file where that is not the name or it with `op/` before, sets of constants, and what it is
/// compiled with in each. A name that ends as those of Hopper's files do is of a file for Hopper alone.
macro_rules! unit {
    (op $id:literal, $variants:expr, $constants:expr) => {
        unit!($id, concat!("op/", $id), $variants, $constants)
    };
    ($id:literal, $variants:expr, $constants:expr) => {
        unit!($id, $id, $variants, $constants)
    };
    ($id:literal, $file:expr, $variants:expr, $constants:expr) => {
        Unit {
            id: $id,
            text: include_str!(concat!("../", $file, ".cu")),
            variants: $variants,
            constants: $constants,
            only: if matches!($id.as_bytes(), [.., b'_', b's', b'm', b'9', b'0']) { Some(90) } else { None },
        }
    };
}

/// All files.
pub const UNITS: &[Unit] = &[
    unit!("norm", "op/norm/norm", PLAIN, with::NORM),
    unit!("rotary", "op/rotary/rotary", PLAIN, with::ROTARY),
    unit!("swiglu", "op/swiglu/swiglu", PLAIN, with::SWIGLU),
    unit!("swiglu/fp8_sm90", "op/swiglu/swiglu_fp8_sm90", PLAIN, with::SWIGLU_FP8),
    unit!("route", "op/route/route", PLAIN, with::ROUTE),
    unit!(op "route/sort", PLAIN, with::ROUTE_SORT),
    unit!(op "route/rows", PLAIN, with::ROUTE_ROWS),
    unit!("loss", "op/loss/loss", PLAIN, with::LOSS),
    unit!("pick", "op/pick/pick", PLAIN, with::PICK),
    unit!(op "pick/draw", PLAIN, with::DRAW),
    unit!("cache", "op/cache/rows", PLAIN, with::ROWS_BY_INDEX),
    unit!("select", "op/select/select", PLAIN, with::ROWS_BY_INDEX),
    unit!("optimizer", "op/optimizer/optimizer", PLAIN, with::OPTIMIZER),
    unit!("layer/lora", PLAIN, with::LORA),
    unit!("layer/thin", PLAIN, with::THIN_ROWS),
    unit!("layer/gradients", PLAIN, with::PAIR_GRADIENTS),
    unit!(op "route/rows_sm90", PLAIN, with::TAKE_ROWS_SM90),
    unit!(op "attention/forward", HEADS, with::FORWARD),
    unit!(op "attention/backward", HEADS, with::BACKWARD),
    unit!(op "attention/backward_window", HEADS_WINDOW, with::BACKWARD_WINDOW),
    unit!(op "attention/forward_sm90", HEADS_SM90, with::FORWARD_SM90),
    unit!(op "attention/backward_q_sm90", HEADS_SM90, with::BACKWARD_Q_SM90),
    unit!(op "attention/backward_kv_sm90", HEADS_SM90, with::BACKWARD_KV_SM90),
    unit!(op "attention/backward_one_sm90", HEADS_SM90, with::BACKWARD_ONE_SM90),
    unit!(op "attention/backward_ends_sm90", HEADS_SM90, with::BACKWARD_ENDS_SM90),
    unit!(op "linear/tiles", PLAIN, with::TILES),
    unit!(op "linear/unpack", PLAIN, with::UNPACK),
    unit!(op "experts/grouped", PLAIN, with::GROUPED),
    unit!(op "experts/packed", SIDES, with::PACKED),
    unit!("experts/packed_nf4", "op/experts/packed", SIDES, with::PACKED_NF4),
    unit!(op "experts/grouped_sm90", PLAIN, with::GROUPED_SM90),
    unit!(op "experts/packed_sm90", SIDES, with::PACKED_SM90),
    unit!("experts/packed_nf4_sm90", "op/experts/packed_sm90", SIDES, with::PACKED_NF4_SM90),
    unit!("experts/fp8_sm90", "op/experts/packed_sm90", SIDES, with::PACKED_FP8_SM90),
    unit!(op "experts/fp8_rows_sm90", PLAIN, with::ROWS_FP8),
    unit!(op "experts/few", PLAIN, with::FEW),
    unit!(op "low_rank/few", PLAIN, with::FEW_LOW_RANK),
    unit!("experts/few_nf4", "op/experts/few", PLAIN, with::FEW_NF4),
    unit!("decode/experts", STEP_EXPERTS, with::STEP_EXPERTS),
    unit!("decode/experts_nf4", "decode/experts", STEP_EXPERTS, with::STEP_EXPERTS_NF4),
    unit!("decode/experts_sm90", STEP_EXPERTS_SM90, with::STEP_EXPERTS_SM90),
    unit!("decode/experts_wide_sm90", STEP_WIDE, with::STEP_WIDE),
    unit!("decode/thin", PLAIN, with::THIN),
    unit!("decode/wide", PLAIN, with::WIDE),
    unit!("decode/attend", HEADS, with::ATTEND),
    unit!("decode/route", PLAIN, with::STEP_ROUTE),
    unit!("decode/route_sm90", PLAIN, with::STEP_ROUTE_SM90),
    unit!("decode/rows", PLAIN, with::STEP_ROWS),
    unit!(op "experts/low_rank", PLAIN, with::LOW_RANK),
];

/// The file of this name.
pub fn unit(id: &str) -> Option<&'static Unit> {
    UNITS.iter().find(|unit| unit.id == id)
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
            assert!(!unit.constants.is_empty(), "{} has launch sizes that the host cannot know", unit.id);
            assert!(unit.only.is_none_or(|number| ARCHITECTURES.iter().any(|a| a.number == number)));
            assert_eq!(super::unit(unit.id).map(|u| u.text), Some(unit.text));
        }
        assert!(super::unit("no such file").is_none());
    }

    #[test]
    fn numbers_that_files_spell_are_the_definitions() {
        use crate::op::swiglu::SWIGLU_ALPHA;
        use descant_quant::e4m3;
        use descant_quant::mxfp4::tiles::{BYTES, COLUMNS, ROWS, SCALE_BYTES};

        assert_eq!(ROWS, COLUMNS, "TILE is both");
        let spelled = [
            ("mxfp4.cuh", format!("#define TILE {ROWS} ")),
            ("mxfp4.cuh", format!("#define TILE_BYTES {BYTES}\n")),
            ("mxfp4.cuh", format!("#define SCALE_PIECE {SCALE_BYTES} ")),
            ("linear/tiles", format!("constexpr int ROWS = {ROWS}, COLUMNS = {COLUMNS},")),
            ("swiglu.cuh", format!("#define ALPHA {SWIGLU_ALPHA}f\n")),
            ("grouped.cuh", format!("-{SWIGLU_ALPHA}f * gate")),
            ("fp8.cuh", format!("#define E4M3_LARGEST {:?}f\n", e4m3::LARGEST)),
            ("fp8_rows.cuh", format!("#define E4M3_LEAST_ROW {:e}f\n", e4m3::LEAST_ROW)),
        ];
        let texts = UNITS.iter().map(|unit| (unit.id, unit.text)).chain(HEADERS.iter().copied());
        for (name, number) in spelled {
            let text = texts.clone().find(|(known, _)| *known == name).map(|(_, text)| text);
            assert!(text.is_some_and(|text| text.contains(&number)), "{name}: {number}");
        }
        for (name, text) in texts.filter(|(name, _)| *name != "swiglu.cuh" && *name != "grouped.cuh") {
            let code = text.lines().filter_map(|line| line.split("//").next());
            assert!(!code.fold(String::new(), |all, line| all + line).contains("1.702"), "{name}");
        }
    }

    #[test]
    fn whatever_a_file_includes_is_there() {
        let texts = UNITS.iter().map(|unit| (unit.id, unit.text)).chain(HEADERS.iter().copied());
        for (file, text) in texts {
            for name in text.lines().filter_map(|line| line.trim().strip_prefix("#include ")) {
                let name = name.trim_matches('"');
                assert!(HEADERS.iter().any(|(known, _)| *known == name), "{file} includes {name}");
            }
        }
    }
}
