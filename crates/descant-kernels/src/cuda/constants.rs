//! What each file of CUDA C++ is compiled with: the numbers of `geometry.rs`, `plain.rs` and `structures.rs` that it
//! follows.

use descant_quant::mxfp4::LEAST_REFERENCE;

use super::geometry::{
    self, Define, FEW_BLOCKS, KEY_PARTS_SM90, KEY_ROWS, LOW_RANK_FEW, LOW_RANK_GRADIENT, LOW_RANK_ROWS,
    LOW_RANK_SUM, MAX_EXPERTS, PACKED_COLUMNS, PACKED_STEP, PACKED_STEP_FP8, QUERY_ROWS, QUERY_ROWS_SM90,
    ROW_BOX, TILE_INTS, WEIGHT_BOX,
};
use super::plain::{self, EACH};
use super::structures;
use crate::decode::split::{LEAST_TILES, MOST_SPLITS, PAGE_TOKENS, STEP_KEYS};
use crate::op::attention::one_pass::SUM_ROWS;
use crate::op::experts::{GRADIENT_COLUMNS, RANK_WIDTH};
use crate::op::optimizer::MOMENT_BLOCK;
use crate::op::pick::ONE;
use crate::op::route::CHUNK;

const QUERIES: Define = ("QUERY_ROWS", QUERY_ROWS as i64);
const QUERIES_SM90: Define = ("QUERY_ROWS", QUERY_ROWS_SM90 as i64);
const KEYS: Define = ("KEY_ROWS", KEY_ROWS as i64);
const SUMS: Define = ("SUM_ROWS", SUM_ROWS as i64);
const TILE: Define = ("TILE_INTS", TILE_INTS as i64);
const EXPERTS: Define = ("MAX_EXPERTS", MAX_EXPERTS as i64);
/// Which packing a file decodes; MXFP4 without it.
pub(super) const NF4: Define = ("NF4", 1);
const BOX: Define = ("ROW_BOX", ROW_BOX as i64);
const LINES: Define = ("WEIGHT_BOX", WEIGHT_BOX as i64);
const COLUMNS: Define = ("TILE_COLUMNS", PACKED_COLUMNS as i64);
const STEP: Define = ("SUM_STEP", PACKED_STEP as i64);
/// Rows in 8 bits.
const FP8: Define = ("FP8", 1);
/// See [`LEAST_REFERENCE`].
const REFERENCE: Define = ("LEAST_REFERENCE", LEAST_REFERENCE as i64);
const STEP_FP8: Define = ("SUM_STEP", PACKED_STEP_FP8 as i64);
const WIDTH: Define = ("RANK_WIDTH", RANK_WIDTH as i64);
const PAGE: Define = ("PAGE", PAGE_TOKENS as i64);

pub(super) const ROWS_BY_INDEX: &[Define] = &[EACH.threads("THREADS")];
pub(super) const NORM: &[Define] = &[plain::NORM.threads("THREADS")];
pub(super) const ROTARY: &[Define] = &[EACH.threads("THREADS"), ("HEADS", plain::ROTARY_HEADS as i64)];
pub(super) const SWIGLU: &[Define] = &[
    EACH.threads("THREADS"),
    ("FORWARD_VECTORS", plain::SWIGLU_VECTORS as i64),
    plain::SWIGLU_BACKWARD.threads("BACKWARD_THREADS"),
];
pub(super) const LOSS: &[Define] = &[plain::LOGITS.threads("THREADS"), EACH.threads("EACH_THREADS")];
pub(super) const PICK: &[Define] = &[plain::LOGITS.threads("THREADS")];
pub(super) const DRAW: &[Define] = &[
    plain::LOGITS.threads("THREADS"),
    ("ONE", ONE as i64),
    ("DRAW_BYTES", structures::DRAW_BYTES as i64),
    ("DRAWN_BYTES", structures::DRAWN_BYTES as i64),
];
pub(super) const OPTIMIZER: &[Define] = &[
    plain::OPTIMIZER.threads("THREADS"),
    plain::NORM_SUM.threads("SUM_THREADS"),
    ("CHUNK", plain::OPTIMIZER_CHUNK as i64),
    ("MOMENT_BLOCK", MOMENT_BLOCK as i64),
    ("MAX_TENSORS", structures::MAX_TENSORS as i64),
    ("ENTRY_BYTES", structures::ENTRY_BYTES as i64),
    ("TABLE_BYTES", structures::TABLE_BYTES as i64),
    ("UPDATE_BYTES", structures::UPDATE_BYTES as i64),
];
pub(super) const FORWARD: &[Define] =
    &[QUERIES, TILE, geometry::FORWARD.threads("THREADS"), geometry::FORWARD.shared("SHARED_OF_FEATURE")];
pub(super) const BACKWARD: &[Define] = &[
    QUERIES,
    KEYS,
    TILE,
    geometry::BACKWARD.threads("THREADS"),
    geometry::BACKWARD.shared("SHARED_OF_FEATURE"),
];
pub(super) const BACKWARD_WINDOW: &[Define] = &[
    TILE,
    ("STEP_ROWS", geometry::WINDOW_ROWS as i64),
    ("MAX_WINDOW", geometry::MAX_WINDOW as i64),
    ("STRIP_KEYS", geometry::STRIP_KEYS as i64),
    geometry::BACKWARD_WINDOW.threads("THREADS"),
    geometry::BACKWARD_WINDOW.shared("SHARED"),
];
pub(super) const FORWARD_SM90: &[Define] =
    &[QUERIES_SM90, TILE, geometry::FORWARD_SM90.threads("THREADS"), geometry::FORWARD_SM90.shared("SHARED")];
pub(super) const BACKWARD_Q_SM90: &[Define] = &[
    QUERIES_SM90,
    TILE,
    geometry::BACKWARD_Q_SM90.threads("THREADS"),
    geometry::BACKWARD_Q_SM90.shared("SHARED"),
];
pub(super) const BACKWARD_KV_SM90: &[Define] = &[
    KEYS,
    TILE,
    geometry::BACKWARD_KV_SM90.threads("THREADS"),
    geometry::BACKWARD_KV_SM90.shared("SHARED"),
    ("PARTS_OF_KEYS", KEY_PARTS_SM90 as i64),
];
pub(super) const BACKWARD_ONE_SM90: &[Define] = &[
    KEYS,
    TILE,
    SUMS,
    geometry::BACKWARD_ONE_SM90.threads("THREADS"),
    geometry::BACKWARD_ONE_SM90.shared("SHARED"),
];
pub(super) const BACKWARD_ENDS_SM90: &[Define] = &[
    QUERIES_SM90,
    TILE,
    SUMS,
    geometry::DELTA_SM90.threads("DELTA_THREADS"),
    ("DELTA_ROWS", geometry::DELTA_ROWS as i64),
    ("DELTA_HEADS", geometry::DELTA_HEADS as i64),
    geometry::QUERIES_SM90.threads("SUM_THREADS"),
];
pub(super) const GROUPED: &[Define] =
    &[EXPERTS, WIDTH, geometry::GROUPED.threads("THREADS"), geometry::GROUPED.shared("SHARED")];
pub(super) const PACKED: &[Define] =
    &[EXPERTS, WIDTH, geometry::PACKED.threads("THREADS"), geometry::PACKED.shared("SHARED")];
pub(super) const PACKED_NF4: &[Define] =
    &[NF4, EXPERTS, WIDTH, geometry::PACKED_NF4.threads("THREADS"), geometry::PACKED_NF4.shared("SHARED")];
pub(super) const GROUPED_SM90: &[Define] =
    &[EXPERTS, WIDTH, geometry::GROUPED_SM90.threads("THREADS"), geometry::GROUPED_SM90.shared("SHARED")];
pub(super) const PACKED_SM90: &[Define] = &[
    EXPERTS,
    WIDTH,
    BOX,
    COLUMNS,
    STEP,
    geometry::PACKED_SM90.threads("THREADS"),
    geometry::PACKED_SM90.shared("SHARED"),
];
pub(super) const PACKED_FP8_SM90: &[Define] = &[
    FP8,
    EXPERTS,
    WIDTH,
    BOX,
    COLUMNS,
    STEP_FP8,
    REFERENCE,
    geometry::PACKED_FP8_SM90.threads("THREADS"),
    geometry::PACKED_FP8_SM90.shared("SHARED"),
];
pub(super) const PACKED_NF4_SM90: &[Define] = &[
    NF4,
    EXPERTS,
    WIDTH,
    BOX,
    LINES,
    COLUMNS,
    STEP,
    geometry::PACKED_NF4_SM90.threads("THREADS"),
    geometry::PACKED_NF4_SM90.shared("SHARED"),
];
const PAIRS: Define = ("PARTS", geometry::PATH_PAIRS as i64);
pub(super) const LORA: &[Define] = &[
    PAIRS,
    ("FACTORS", geometry::PACKED_FACTORS as i64),
    ("PART_BYTES", structures::FACTOR_BYTES as i64),
    ("PACKED_BYTES", structures::PACKED_BYTES as i64),
    ("ALL_BYTES", structures::ALL_PACKED_BYTES as i64),
];
pub(super) const THIN_ROWS: &[Define] = &[
    PAIRS,
    geometry::THIN_ROWS.threads("THREADS"),
    ("TILE_TOKENS", geometry::THIN_ROWS_TOKENS as i64),
    ("TILE_COLUMNS", geometry::THIN_ROWS_COLUMNS as i64),
    ("PART_BYTES", structures::BAND_BYTES as i64),
    ("PARTS_BYTES", structures::BANDS_BYTES as i64),
];
pub(super) const PAIR_GRADIENTS: &[Define] = &[
    PAIRS,
    geometry::PAIR_GRADIENTS.threads("THREADS"),
    ("JOBS", geometry::PAIR_JOBS as i64),
    ("COLUMNS", geometry::PAIR_COLUMNS as i64),
    ("RANKS", geometry::PAIR_RANKS as i64),
    ("PART_BYTES", structures::GRADIENT_BYTES as i64),
    ("JOB_BYTES", structures::JOB_BYTES as i64),
    ("JOBS_BYTES", structures::JOBS_BYTES as i64),
];
pub(super) const TAKE_ROWS_SM90: &[Define] = &[geometry::TAKE_ROWS_SM90.threads("THREADS"), TOP_K];
pub(super) const ROWS_FP8: &[Define] = &[geometry::ROWS_FP8.threads("THREADS"), REFERENCE];
pub(super) const SWIGLU_FP8: &[Define] =
    &[plain::SWIGLU_BACKWARD.threads("THREADS"), ("VECTORS", plain::SWIGLU_FP8_VECTORS as i64)];
const TOP_K: Define = ("MAX_K", plain::MAX_TOP_K as i64);
pub(super) const ROUTE: &[Define] =
    &[EXPERTS, EACH.threads("THREADS"), ("TILE_TOKENS", plain::ROUTER_TOKENS as i64)];
pub(super) const ROUTE_ROWS: &[Define] = &[
    EACH.threads("THREADS"),
    plain::PAIR_ROW.threads("ROW_THREADS"),
    TOP_K,
    ("FEW_K", plain::FEW_TOP_K as i64),
];
pub(super) const ROUTE_SORT: &[Define] = &[
    EXPERTS,
    ("CHUNK", CHUNK as i64),
    ("FEW_PAIRS", geometry::FEW_PAIRS as i64),
    ("FEW_EXPERTS", geometry::FEW_PAIRS_EXPERTS as i64),
];
pub(super) const FEW: &[Define] =
    &[EXPERTS, WIDTH, geometry::FEW.threads("THREADS"), ("BLOCKS", FEW_BLOCKS as i64)];
pub(super) const FEW_LOW_RANK: &[Define] = &[EXPERTS, WIDTH, LOW_RANK_FEW.threads("THREADS")];
pub(super) const FEW_NF4: &[Define] =
    &[NF4, EXPERTS, WIDTH, geometry::FEW.threads("THREADS"), ("BLOCKS", FEW_BLOCKS as i64)];
const GROUP_ROWS: Define = ("TILE_ROWS", geometry::STEP_GROUP as i64);
const STEP_BLOCKS: Define = ("BLOCKS", geometry::STEP_EXPERTS_BLOCKS as i64);
pub(super) const STEP_EXPERTS: &[Define] =
    &[EXPERTS, WIDTH, geometry::STEP_EXPERTS.threads("THREADS"), STEP_BLOCKS, GROUP_ROWS];
pub(super) const STEP_EXPERTS_NF4: &[Define] =
    &[NF4, EXPERTS, WIDTH, geometry::STEP_EXPERTS.threads("THREADS"), STEP_BLOCKS, GROUP_ROWS];
pub(super) const STEP_EXPERTS_SM90: &[Define] = &[
    EXPERTS,
    WIDTH,
    geometry::STEP_EXPERTS_SM90.threads("THREADS"),
    ("WARPS", geometry::STEP_WARPS as i64),
    ("STAGES", geometry::STEP_STAGES as i64),
    GROUP_ROWS,
    ("TILE_COLUMNS", geometry::STEP_COLUMNS as i64),
];
pub(super) const STEP_WIDE: &[Define] = &[
    EXPERTS,
    WIDTH,
    geometry::STEP_WIDE.threads("THREADS"),
    ("WARPS", geometry::STEP_WIDE_WARPS as i64),
    ("STAGES", geometry::STEP_WIDE_STAGES as i64),
    ("CHAINS", geometry::STEP_WARPS as i64),
    ("TILE_COLUMNS", geometry::STEP_WIDE_COLUMNS as i64),
];
pub(super) const THIN: &[Define] =
    &[geometry::THIN.threads("THREADS"), ("COLUMNS", geometry::THIN_COLUMNS as i64)];
pub(super) const WIDE: &[Define] = &[
    geometry::WIDE.threads("BAND_THREADS"),
    ("BAND", geometry::WIDE_BAND as i64),
    ("COLUMNS", geometry::WIDE_COLUMNS as i64),
    ("STAGES", geometry::WIDE_STAGES as i64),
    ("SHARES", geometry::WIDE_SHARES as i64),
];
pub(super) const ATTEND: &[Define] = &[
    geometry::ATTEND.threads("THREADS"),
    ("KEYS", STEP_KEYS as i64),
    ("LEAST_TILES", LEAST_TILES as i64),
    ("MOST_SPLITS", MOST_SPLITS as i64),
    PAGE,
];
const WIDEST: Define = ("MAX_WIDTH", geometry::STEP_WIDTH as i64);
const ROUTERS: Define = ("ROUTE_EXPERTS", geometry::ROUTE_EXPERTS as i64);
pub(super) const STEP_ROUTE: &[Define] =
    &[EXPERTS, geometry::ROUTE_ROWS.threads("ROUTE_THREADS"), ROUTERS, WIDEST];
pub(super) const STEP_ROUTE_SM90: &[Define] = &[
    EXPERTS,
    geometry::ROUTE_ROWS.threads("ROUTE_THREADS"),
    ROUTERS,
    WIDEST,
    ("BLOCKS", geometry::ROUTE_TOGETHER as i64),
];
pub(super) const STEP_ROWS: &[Define] = &[
    EXPERTS,
    plain::STEP_ROW.threads("ROW_THREADS"),
    geometry::THIN.threads("NORM_THREADS"),
    plain::STEP_PAIRS.threads("MOST_PAIRS"),
    plain::STEP_CHOICE.threads("CHOICE_THREADS"),
    geometry::EXPERT_ROWS.threads("LOW_THREADS"),
    ("LOW_RANKS", geometry::EXPERT_RANKS as i64),
    WIDEST,
];
pub(super) const TILES: &[Define] = &[geometry::TILES.threads("THREADS")];
pub(super) const UNPACK: &[Define] = &[geometry::UNPACK.threads("THREADS")];
pub(super) const LOW_RANK: &[Define] = &[
    EXPERTS,
    WIDTH,
    ("GRADIENT_COLUMNS", GRADIENT_COLUMNS as i64),
    ("TILE_ROWS", geometry::LOW_RANK_TILE as i64),
    LOW_RANK_ROWS.threads("ROWS_THREADS"),
    LOW_RANK_GRADIENT.threads("GRADIENT_THREADS"),
    ("STAGES", geometry::LOW_RANK_STAGES as i64),
    LOW_RANK_SUM.threads("SUM_THREADS"),
];
