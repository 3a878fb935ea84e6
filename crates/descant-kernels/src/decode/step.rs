//! The launches of a step, in order; `experts.rs` has those of a layer's experts. Nothing waits and nothing is allocated, so that it can be recorded.

use super::bound::{Bound, PathFactors};
use super::buffers::{Buffers, Sizes};
use super::dense::{Dense, To};
use super::types::{StepChoice, THIN_ROWS};
use crate::cuda::geometry::{ATTEND, ROUTE_EXPERTS, ROUTE_ROWS, ROUTE_TOGETHER};
use crate::cuda::plain::{STEP_CHOICE, STEP_PAIRS, STEP_ROW};
use crate::cuda::structures::DRAWN_BYTES;
use crate::cuda::{Arg, Result, Run};
use crate::op::pick::cuda as pick;
use crate::site::{PerPath, SiteKind};

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

/// Blocks a multiprocessor of attention and of routing beyond which each does more instead.
const BLOCKS_OF_ATTENTION: u32 = 4;
const BLOCKS_OF_ROUTING: u32 = 2;
/// The same of those that look for a row's largest logit, and how many there are of a row at most.
const BLOCKS_OF_CHOICE: u32 = 4;
const MOST_BLOCKS_OF_CHOICE: usize = 64;
/// Static shared memory of attention's and routing's blocks at most.
const ATTEND_STATIC: usize = 48 << 10;
const ROUTE_STATIC: usize = 9 << 10;

impl Program {
    /// The whole step; `told` is where the host reads the ids.
    pub(super) fn launch(&self, run: &Run<'_>, shape: Shape, told: u64) -> Result<()> {
        let (at, of, rows) = (&self.at, &self.sizes, shape.rows);
        let arguments = Arg::list([self.embedding, at.ids, at.x], [of.hidden]);
        run.stage("embed", 0.0, 0.0, || {
            run.launch(run.kernel("decode/rows", "embed", &[])?, rows, STEP_ROW.threads, 0, &arguments)
        })?;
        for (layer, cache) in self.layers.iter().zip(&self.cache) {
            self.attention(run, layer, *cache, shape)?;
            self.route(run, layer, rows)?;
            self.experts(run, layer, rows)?;
        }
        let head = Dense {
            x: at.x,
            norm: Some((self.norm, self.epsilon)),
            weight: self.head,
            inputs: of.hidden,
            outputs: of.vocabulary,
            path: PathFactors::default(),
            u: 0,
            to: To::Bf16(at.logits),
        };
        head.product(run, "logits", rows, at)?;
        run.stage("choose", 0.0, 0.0, || self.choose(run, shape, told))
    }

    /// The next token of each row, with which it continues.
    fn choose(&self, run: &Run<'_>, shape: Shape, told: u64) -> Result<()> {
        let (at, of, rows) = (&self.at, &self.sizes, shape.rows);
        match shape.choice {
            StepChoice::Logits => Ok(()),
            StepChoice::Likeliest => {
                let arguments = Arg::list([at.logits, at.likeliest], [of.vocabulary]);
                let parts = blocks(run, BLOCKS_OF_CHOICE, rows, MOST_BLOCKS_OF_CHOICE);
                let kernel = run.kernel("decode/rows", "likeliest", &[])?;
                run.launch_early(kernel, (parts, rows as u32), STEP_CHOICE.threads, 0, &arguments)?;
                let sizes = [rows, DRAWN_BYTES / size_of::<i32>()];
                let arguments = Arg::list([at.likeliest, at.ids, at.positions, told], sizes);
                run.launch_early(
                    run.kernel("decode/rows", "advance", &[])?,
                    1usize,
                    STEP_CHOICE.threads,
                    0,
                    &arguments,
                )
            }
            StepChoice::Drawn => {
                let at = pick::At {
                    logits: at.logits,
                    draws: at.draws,
                    seen: at.seen,
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
        let input = layer.paths.input;
        let dense = Dense {
            x: at.x,
            norm: Some((frozen.input_norm, layer.epsilon)),
            weight: layer.qkv,
            inputs: of.hidden,
            outputs: qkv,
            path: input,
            u: at.u.input,
            to: To::F32(at.qkv),
        };
        dense.product(run, "q k v", rows, at)?;
        let addresses = [
            at.qkv,
            frozen.qkv_bias,
            at.u.input,
            input.b,
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
        ];
        let window = layer.window.unwrap_or(0);
        let scale = (of.head_dim as f32).sqrt().recip();
        let of_block = (of.heads / of.key_heads + 2) * of.head_dim;
        // This block's rows of B, and a row of low-rank columns.
        let [of_keys, of_values] = [SiteKind::Key, SiteKind::Value].map(|kind| layer.input.first(kind));
        let width = layer.input.of_b;
        let (is_staged, factor) = staged(run, rows, ATTEND_STATIC, of_block * width + input.columns);
        let sizes = [of.key_heads, input.columns, of_keys, of_values, width, window, is_staged];
        let mut arguments = Arg::list(addresses, sizes);
        arguments.push(Arg::F32(scale));
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
        let output = layer.paths.output;
        let dense = Dense {
            x: at.attended,
            norm: None,
            weight: layer.output,
            inputs: of.query,
            outputs: of.hidden,
            path: output,
            u: at.u.output,
            to: To::F32(at.product),
        };
        dense.product(run, "output", rows, at)
    }

    /// The end of attention, and which experts each row goes to.
    fn route(&self, run: &Run<'_>, layer: &Bound, rows: usize) -> Result<()> {
        let (at, of, frozen) = (&self.at, &self.sizes, &layer.frozen);
        let PerPath { router, output, .. } = layer.paths;
        let addresses = [
            at.product,
            at.x,
            frozen.output_bias,
            at.u.output,
            output.b,
            frozen.post_norm,
            frozen.router,
            router.a,
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
        ];
        let is_fine = router.columns > 0;
        let number = if is_fine { size_of::<f32>() } else { size_of::<u16>() };
        let groups = of.experts.div_ceil(ROUTE_EXPERTS);
        let per_row = blocks(run, BLOCKS_OF_ROUTING, rows, groups);
        // A block with several groups brings the next while it computes; an f32 router takes the room of two.
        let buffers = if (per_row as usize) < groups && !is_fine { 2 } else { 1 };
        let of_router = ROUTE_EXPERTS * number * buffers;
        let shared = of.hidden * (of_router + size_of::<f32>() + size_of::<u16>());
        let (is_staged, factor) = staged(run, rows, ROUTE_STATIC + shared, of.hidden * output.columns);
        let sizes = [of.hidden, of.experts, of.top_k, output.columns, is_staged, buffers];
        let mut arguments = Arg::list(addresses, sizes);
        arguments.push(Arg::F32(layer.epsilon as f32));
        let pairs = rows * of.top_k;
        run.stage("route", 0.0, 0.0, || {
            let entry = match (is_fine, output.columns) {
                (true, _) => "route_fine",
                (false, 0) => "route_rows",
                (false, _) => "route_adapted",
            };
            let is_together = groups == ROUTE_TOGETHER && per_row as usize == groups && run.gpu().is_hopper();
            let file = if is_together { "decode/route_sm90" } else { "decode/route" };
            let kernel = run.kernel(file, entry, &[])?;
            let grid = [per_row, rows as u32, 1];
            run.launch_early(kernel, grid, ROUTE_ROWS.threads, shared as u32 + factor, &arguments)?;
            run.keep_routing(at.experts, pairs)?;
            if rows == 1 {
                return Ok(());
            }
            let arguments = Arg::list([at.experts, at.pairs, at.places, at.offsets], [pairs, of.experts]);
            run.launch_early(
                run.kernel("decode/rows", "sort_few", &[])?,
                1usize,
                STEP_PAIRS.threads,
                0,
                &arguments,
            )
        })
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
