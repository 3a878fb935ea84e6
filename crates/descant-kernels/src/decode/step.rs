//! The launches of a step, in order. Nothing waits and nothing is allocated, so that it can be recorded.

use super::bound::Bound;
use super::buffers::{Buffers, Sizes};
use super::experts;
use super::types::{StepChoice, THIN_ROWS};
use crate::cuda::geometry::{
    ATTEND, EXPERT_RANKS, EXPERT_ROWS, ROUTE_EXPERTS, ROUTE_ROWS, ROUTE_TOGETHER, THIN, THIN_COLUMNS,
};
use crate::cuda::{Arg, Element, MatmulSpec, Matrices, Result, Run};
use crate::layer::frozen::DenseData;
use crate::memory::table::WORKSPACE;
use crate::op::experts::cuda::{Output, Sorted};
use crate::op::norm::cuda as norm;
use crate::op::pick::cuda::{self as pick, DRAWN_BYTES};

/// What all steps have in common.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) layers: Vec<Bound>,
    /// Keys and values of each layer.
    pub(super) cache: Vec<[u64; 2]>,
    pub(super) angles: [u64; 2],
    pub(super) embedding: u64,
    pub(super) norm: u64,
    pub(super) head: u64,
    pub(super) epsilon: f64,
    pub(super) sizes: Sizes,
    pub(super) at: Buffers,
}

/// What a recorded step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape {
    pub(super) rows: usize,
    /// Splits of full attention that there is a block for.
    pub(super) splits: usize,
    /// What becomes of the logits.
    pub(super) choice: StepChoice,
}

/// A product of the step's rows with a dense matrix.
struct Dense {
    x: u64,
    /// The weight of a norm that comes first.
    norm: Option<(u64, f64)>,
    weight: u64,
    inputs: usize,
    outputs: usize,
    /// An adapter's A, its columns, and where its rows go.
    more: Option<(u64, usize, u64)>,
    to: To,
}

#[derive(Clone, Copy)]
enum To {
    F32(u64),
    Bf16(u64),
}

/// Blocks a multiprocessor of a thin product, and those of attention and routing beyond which each does more instead.
const THIN_BLOCKS: u32 = 2;
const BLOCKS_OF_ATTENTION: u32 = 4;
const BLOCKS_OF_ROUTING: u32 = 2;
/// Static shared memory of attention's and routing's blocks at most.
const ATTEND_STATIC: usize = 48 << 10;
const ROUTE_STATIC: usize = 9 << 10;

impl Program {
    /// The whole step; `told` is where the host reads the ids.
    pub(super) fn launch(&self, run: &Run<'_>, shape: Shape, told: u64) -> Result<()> {
        let (at, of, rows) = (&self.at, &self.sizes, shape.rows);
        let arguments = [Arg::Ptr(self.embedding), Arg::Ptr(at.ids), Arg::Ptr(at.x), Arg::size(of.hidden)];
        run.stage("embed", 0.0, 0.0, || {
            run.launch(run.kernel("decode/rows", "embed", &[])?, rows, 128u32, 0, &arguments)
        })?;
        for (layer, cache) in self.layers.iter().zip(&self.cache) {
            self.attention(run, layer, *cache, shape)?;
            self.route(run, layer, rows)?;
            self.experts(run, layer, rows)?;
        }
        let all = norm::Rows { count: rows, width: of.hidden, stride: of.hidden, epsilon: self.epsilon };
        run.stage("last norm", 0.0, 0.0, || norm::forward(run, at.x, self.norm, at.normed, None, all))?;
        let head = Dense {
            x: at.normed,
            norm: None,
            weight: self.head,
            inputs: of.hidden,
            outputs: of.vocabulary,
            more: None,
            to: To::Bf16(at.logits),
        };
        self.dense(run, "logits", rows, &head)?;
        run.stage("choose", 0.0, 0.0, || self.choose(run, shape, told))
    }

    /// The next token of each row, with which it continues.
    fn choose(&self, run: &Run<'_>, shape: Shape, told: u64) -> Result<()> {
        let (at, of, rows) = (&self.at, &self.sizes, shape.rows);
        match shape.choice {
            StepChoice::Logits => Ok(()),
            StepChoice::Likeliest => {
                let arguments = [Arg::Ptr(at.logits), Arg::Ptr(at.chosen), Arg::size(of.vocabulary)];
                run.launch(run.kernel("pick", "best_tokens", &[])?, rows, 1024u32, 0, &arguments)?;
                let pointers = [at.chosen, at.ids, at.positions, told].map(Arg::Ptr);
                let sizes = [rows, DRAWN_BYTES / size_of::<i32>()].map(Arg::size);
                let arguments = [&pointers[..], &sizes].concat();
                run.launch(run.kernel("decode/rows", "advance", &[])?, 1usize, 256u32, 0, &arguments)
            }
            StepChoice::Drawn => {
                let at = pick::At {
                    logits: at.logits,
                    draws: at.draws,
                    seen: at.seen,
                    rows: 0,
                    drawn: told,
                    ids: at.ids,
                    positions: at.positions,
                };
                pick::draw(run, at, rows, of.vocabulary)
            }
        }
    }

    fn attention(&self, run: &Run<'_>, layer: &Bound, cache: [u64; 2], shape: Shape) -> Result<()> {
        let (at, of, rows, frozen) = (&self.at, &self.sizes, shape.rows, &layer.frozen);
        let qkv = of.query + 2 * of.key_value;
        let columns = layer.paths.input;
        let product = Dense {
            x: at.x,
            norm: Some((frozen.input_norm, layer.epsilon)),
            weight: plain(&frozen.qkv),
            inputs: of.hidden,
            outputs: qkv,
            more: (columns > 0).then_some((layer.input[0], columns, at.input_u)),
            to: To::F32(at.qkv),
        };
        self.dense(run, "q k v", rows, &product)?;
        let pointers = [
            at.qkv,
            frozen.qkv_bias,
            at.input_u,
            layer.input[1],
            self.angles[0],
            self.angles[1],
            at.adapted,
            cache[0],
            cache[1],
            frozen.sinks,
            at.slots,
            at.positions,
            at.pages,
            at.first_page,
            at.attended,
            at.parts,
            at.counters,
        ]
        .map(Arg::Ptr);
        let window = layer.window.unwrap_or(0);
        let scale = (of.head_dim as f32).sqrt().recip();
        let of_block = (of.heads / of.key_heads + 2) * of.head_dim;
        let (is_staged, factor) = staged(run, rows, ATTEND_STATIC, (of_block + 1) * columns);
        let sizes = [of.key_heads, columns, window, is_staged].map(Arg::size);
        let arguments = [&pointers[..], &sizes, &[Arg::F32(scale)]].concat();
        let splits =
            layer.window.map_or(shape.splits, |window| super::buffers::splits(window).min(shape.splits));
        let name = if layer.window.is_some() { "attention, window" } else { "attention, full" };
        run.stage(name, 0.0, 0.0, || {
            let defines = [("HEAD_DIM", of.head_dim as i64), ("GROUP", (of.heads / of.key_heads) as i64)];
            let kernel = run.kernel("decode/attend", "attend", &defines)?;
            // Whoever goes through several splits has the bits of those who have one each.
            let grid = [
                blocks(run, BLOCKS_OF_ATTENTION, rows * of.key_heads, splits),
                of.key_heads as u32,
                rows as u32,
            ];
            run.launch_early(kernel, grid, ATTEND.threads, factor, &arguments)
        })?;
        let columns = layer.paths.output;
        let product = Dense {
            x: at.attended,
            norm: None,
            weight: plain(&frozen.output),
            inputs: of.query,
            outputs: of.hidden,
            more: (columns > 0).then_some((layer.output[0], columns, at.output_u)),
            to: To::F32(at.product),
        };
        self.dense(run, "output", rows, &product)
    }

    /// The end of attention, and which experts each row goes to.
    fn route(&self, run: &Run<'_>, layer: &Bound, rows: usize) -> Result<()> {
        let (at, of, frozen) = (&self.at, &self.sizes, &layer.frozen);
        let pointers = [
            at.product,
            at.x,
            frozen.output_bias,
            at.output_u,
            layer.output[1],
            frozen.post_norm,
            frozen.router,
            layer.router.unwrap_or(0),
            frozen.router_bias,
            at.adapted,
            at.middle,
            at.normed,
            at.routes,
            at.experts,
            at.weights,
            at.pairs,
            at.places,
            at.offsets,
            at.routed,
        ]
        .map(Arg::Ptr);
        let is_fine = layer.router.is_some();
        let number = if is_fine { size_of::<f32>() } else { size_of::<u16>() };
        let shared = of.hidden * (ROUTE_EXPERTS * number + size_of::<f32>() + size_of::<u16>());
        let columns = layer.paths.output;
        let (is_staged, factor) = staged(run, rows, ROUTE_STATIC + shared, of.hidden * columns);
        let sizes = [of.hidden, of.experts, of.top_k, columns, is_staged].map(Arg::size);
        let arguments = [&pointers[..], &sizes, &[Arg::F32(layer.epsilon as f32)]].concat();
        let pairs = rows * of.top_k;
        run.stage("route", 0.0, 0.0, || {
            let entry = match (is_fine, columns) {
                (true, _) => "route_fine",
                (false, 0) => "route_rows",
                (false, _) => "route_adapted",
            };
            let groups = of.experts.div_ceil(ROUTE_EXPERTS);
            let per_row = blocks(run, BLOCKS_OF_ROUTING, rows, groups);
            let is_together = groups == ROUTE_TOGETHER && per_row as usize == groups && run.gpu().is_hopper();
            let file = if is_together { "decode/route_sm90" } else { "decode/route" };
            let kernel = run.kernel(file, entry, &[])?;
            let grid = [per_row, rows as u32, 1];
            run.launch_early(kernel, grid, ROUTE_ROWS.threads, shared as u32 + factor, &arguments)?;
            if rows == 1 {
                return Ok(());
            }
            let pointers = [at.experts, at.pairs, at.places, at.offsets].map(Arg::Ptr);
            let arguments = [&pointers[..], &[pairs, of.experts].map(Arg::size)].concat();
            run.launch_early(run.kernel("decode/rows", "sort_few", &[])?, 1usize, 1024u32, 0, &arguments)
        })
    }

    fn experts(&self, run: &Run<'_>, layer: &Bound, rows: usize) -> Result<()> {
        let (at, of, frozen) = (&self.at, &self.sizes, &layer.frozen);
        let (sizes, pairs) = (layer_sizes(of), rows * of.top_k);
        let sorted = |data, stride, pairs_at| Sorted {
            data,
            stride,
            pairs: pairs_at,
            top_k: of.top_k,
            offsets: at.offsets,
            places: pairs,
        };
        let low_rank = |factors: Option<super::bound::ExpertFactors>, u| factors.map(|of| (u, of.b));
        let gate_up = frozen.gate_up(&sizes);
        let to = Output {
            bias: Some(frozen.gate_up_bias),
            low_rank: low_rank(layer.gate_up, at.gate_up_u),
            out: None,
            swiglu: Some((at.inner, layer.limit)),
        };
        let low_rank_rows = |x, factors: super::bound::ExpertFactors, inputs, u, gathered: usize| {
            run.stage("experts low rank", 0.0, 0.0, || {
                let pointers = [x, factors.a, at.experts, at.pairs, at.adapted, u].map(Arg::Ptr);
                let sizes = [inputs, factors.rank, of.expert_columns, of.top_k, gathered].map(Arg::size);
                // The down product's experts were chosen before the gate and up product began.
                let early = [Arg::I32((gathered == 0).into())];
                let kernel = run.kernel("decode/rows", "expert_rows", &[])?;
                let grid = (pairs, of.expert_columns.div_ceil(EXPERT_RANKS));
                let arguments = [&pointers[..], &sizes, &early].concat();
                run.launch_early(kernel, grid, EXPERT_ROWS.threads, 0, &arguments)
            })
        };
        let step = experts::Step {
            rows,
            columns: of.expert_columns,
            is_chosen: layer.gate_up.is_some(),
            is_on_host: layer.experts_on_host,
        };
        if let Some(factors) = layer.gate_up {
            low_rank_rows(at.normed, factors, of.hidden, at.gate_up_u, of.top_k)?;
        }
        let share = pairs.min(of.experts) as f64 / of.experts as f64;
        run.stage("experts gate_up", 0.0, share * gate_up.bytes() as f64, || {
            let x = sorted(at.normed, of.hidden, Some(at.pairs));
            experts::product(run, &x, &gate_up, &to, step)
        })?;
        if let Some(factors) = layer.down {
            low_rank_rows(at.inner, factors, of.inner, at.down_u, 0)?;
        }
        let down = frozen.down(&sizes);
        let to = Output {
            bias: Some(frozen.down_bias),
            low_rank: low_rank(layer.down, at.down_u),
            out: Some(at.expert_out),
            swiglu: None,
        };
        run.stage("experts down", 0.0, share * down.bytes() as f64, || {
            let x = sorted(at.inner, of.inner, None);
            experts::product(run, &x, &down, &to, experts::Step { is_chosen: true, ..step })
        })?;
        run.stage("combine", 0.0, 0.0, || {
            let pointers = [at.expert_out, at.weights, at.places, at.middle, at.x].map(Arg::Ptr);
            let arguments = [&pointers[..], &[of.hidden, of.top_k].map(Arg::size)].concat();
            let kernel = run.kernel("decode/rows", "add_experts", &[])?;
            run.launch_early(kernel, ((of.hidden / 8).div_ceil(128), rows), 128u32, 0, &arguments)
        })
    }

    fn dense(&self, run: &Run<'_>, name: &'static str, rows: usize, of: &Dense) -> Result<()> {
        let numbers = of.inputs * (of.outputs + of.more.map_or(0, |(_, columns, _)| columns));
        run.stage(name, 2.0 * (rows * numbers) as f64, 2.0 * numbers as f64, || {
            if rows <= THIN_ROWS { thin(run, rows, of) } else { self.wide(run, rows, of) }
        })
    }

    /// With cuBLASLt.
    fn wide(&self, run: &Run<'_>, rows: usize, of: &Dense) -> Result<()> {
        let mut x = of.x;
        if let Some((weight, epsilon)) = of.norm {
            let all = norm::Rows { count: rows, width: of.inputs, stride: of.inputs, epsilon };
            x = self.at.normed;
            norm::forward(run, of.x, weight, x, None, all)?;
        }
        let multiply = |b, outputs, to: To| {
            let mut spec = MatmulSpec::forward(rows, outputs, of.inputs);
            let (element, d) = match to {
                To::F32(d) => (Element::F32, d),
                To::Bf16(d) => (Element::Bf16, d),
            };
            (spec.c.element, spec.d.element) = (element, element);
            let workspace = (self.at.workspace, WORKSPACE);
            run.blas().matmul(&spec, &Matrices { a: x, b, c: None, d, bias: None, workspace })
        };
        multiply(of.weight, of.outputs, of.to)?;
        match of.more {
            Some((a, columns, u)) => multiply(a, columns, To::Bf16(u)),
            None => Ok(()),
        }
    }
}

/// Among how many blocks each of `of` equal pieces of work that has `parts` is shared out: as many as keep the card busy.
fn blocks(run: &Run<'_>, per_multiprocessor: u32, of: usize, parts: usize) -> u32 {
    let all = per_multiprocessor * run.gpu().multiprocessors();
    (all / of as u32).clamp(1, parts as u32)
}

/// Whether a block has its part of an adapter's factor in shared memory, of so many numbers, and the bytes of it: where
/// sequences are few, so that nobody minds that fewer blocks fit on a multiprocessor.
fn staged(run: &Run<'_>, rows: usize, others: usize, numbers: usize) -> (usize, u32) {
    let bytes = numbers * size_of::<u16>();
    let has_room = others + bytes <= run.gpu().architecture().shared_memory() as usize;
    if rows <= THIN_ROWS && bytes > 0 && has_room { (1, bytes as u32) } else { (0, 0) }
}

/// With a kernel that reads the matrix once.
fn thin(run: &Run<'_>, rows: usize, of: &Dense) -> Result<()> {
    let (more, columns, u) = of.more.unwrap_or((0, 0, 0));
    let (norm, epsilon) = of.norm.unwrap_or((0, 0.0));
    let (out, half) = match of.to {
        To::F32(out) => (out, 0),
        To::Bf16(half) => (0, half),
    };
    let pointers = [of.x, norm, of.weight, more, out, half, u].map(Arg::Ptr);
    let sizes = [rows, of.inputs, of.outputs, columns].map(Arg::size);
    let arguments = [&pointers[..], &sizes, &[Arg::F32(epsilon as f32)]].concat();
    let tiles = of.outputs.div_ceil(THIN_COLUMNS) + columns.div_ceil(THIN_COLUMNS);
    let blocks = (THIN_BLOCKS * run.gpu().multiprocessors()).min(tiles as u32);
    // Rows lie apart so that their columns are in different banks.
    let apart = if of.inputs.is_multiple_of(64) { 64 } else { 0 };
    let of_norm = if of.norm.is_some() { of.inputs * size_of::<f32>() } else { 0 };
    let shared = (rows * (of.inputs * 2 + apart) + of_norm) as u32;
    run.launch_early(run.kernel("decode/thin", "thin", &[])?, blocks, THIN.threads, shared, &arguments)
}

fn plain(of: &DenseData<u64>) -> u64 {
    match of {
        DenseData::Plain(address) => *address,
        DenseData::Packed(_) => unreachable!("a decoder is made of plain matrices of attention alone"),
    }
}

/// As the experts' matrices want them.
fn layer_sizes(of: &Sizes) -> crate::memory::LayerSizes {
    crate::memory::LayerSizes {
        hidden: of.hidden,
        query: of.query,
        key_value: of.key_value,
        n_heads: of.heads,
        n_experts: of.experts,
        top_k: of.top_k,
        inner: of.inner,
        packed_attention: false,
    }
}
