//! Attention's backward on a CUDA card: the launches on raw addresses.
//!
//! Two passes, over queries and over keys, compute each score twice. One pass is enough for layers with a window where
//! kernels are portable and tokens many (over strips of positions), and on Hopper for long sequences without a window
//! (the sums of the queries' gradients then lie in scratch memory).

use super::cuda::{Form, Rows, Shape, launch};
use super::one_pass;
use super::table::{Sequences, Work};
use crate::cuda::geometry::{self, FEW_KEY_ITEMS_SM90, KEY_PARTS_SM90};
use crate::cuda::{Arg, Result, Run};

/// What the backward reads beside query, key and value, and its scratch memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backward {
    /// The forward's result and its gradient, bf16 `[tokens, heads * dim]`.
    pub(crate) out: u64,
    pub(crate) d_out: u64,
    /// Elements from a row of both to the next.
    pub(crate) stride: usize,
    /// From the forward: f32 `[heads, tokens]`.
    pub(crate) lse: u64,
    /// Scratch of the same size.
    pub(crate) delta: u64,
    /// Scratch of `one_pass::scratch_bytes`.
    pub(crate) sums: u64,
}

/// Gradients of query, key and value into `gradients`, every row of which is written.
pub(crate) fn backward(
    run: &Run<'_>,
    shape: &Shape,
    sequences: &Sequences,
    rows: impl Into<Rows>,
    given: Backward,
    gradients: impl Into<Rows>,
) -> Result<()> {
    let (rows, to) = (rows.into(), gradients.into());
    let strides = [rows.query_stride, rows.key_stride, given.stride, to.query_stride, to.key_stride];
    let form = Form::new(run, shape, &strides)?;
    let work = sequences.work(run, form.positions(), form.split(run, shape, sequences.count()))?;
    let call = Call { run, shape, form, work, sequences: sequences.count(), rows, given, to };
    // Sizes alone decide, because the sums' last bits depend on it.
    let long = call.sequences * one_pass::LEAST_TOKENS <= shape.n_tokens;
    if form.goes_in_strips(shape, call.sequences) {
        call.strips()
    } else if form.sm90 && long && shape.window.is_none() {
        call.one_pass()
    } else {
        call.pass_over_queries()?;
        call.pass_over_keys()
    }
}

/// Everything that the passes share.
struct Call<'a> {
    run: &'a Run<'a>,
    shape: &'a Shape,
    form: Form,
    work: Work,
    sequences: usize,
    rows: Rows,
    given: Backward,
    to: Rows,
}

impl Call<'_> {
    /// Writes delta, which the pass over keys reads.
    fn pass_over_queries(&self) -> Result<()> {
        let Rows { query, key, value, query_stride, key_stride } = self.rows;
        let Backward { out, d_out, stride, lse, delta, .. } = self.given;
        let (work, to, form) = (&self.work, &self.to, self.form);
        let (unit, block) = if form.sm90 {
            ("attention/backward_q_sm90", geometry::BACKWARD_Q_SM90)
        } else {
            ("attention/backward", geometry::BACKWARD.of_features(form.head_dim))
        };
        let addresses = [query, key, value, out, d_out, lse, to.query, delta, work.queries];
        let strides = [query_stride, key_stride, stride, stride, to.query_stride];
        let arguments = self.shape.arguments(addresses, strides);
        let defines = form.defines();
        let kernel = (unit, "attention_backward_q", &defines[..]);
        launch(self.run, form, self.shape, kernel, block, work.n_queries, arguments)
    }

    fn pass_over_keys(&self) -> Result<()> {
        let Rows { query, key, value, query_stride, key_stride } = self.rows;
        let Backward { d_out, stride, lse, delta, .. } = self.given;
        let (work, to, form, shape) = (&self.work, &self.to, self.form, self.shape);
        let (unit, block) = if form.sm90 {
            ("attention/backward_kv_sm90", geometry::BACKWARD_KV_SM90)
        } else {
            ("attention/backward", geometry::BACKWARD.of_features(form.head_dim))
        };
        let addresses = [query, key, value, d_out, lse, delta, to.key, to.value, work.keys];
        let mut arguments = shape.arguments(addresses, [query_stride, key_stride, stride, to.key_stride]);
        let items = work.n_keys * shape.n_kv;
        let defines = form.defines();
        // A window has few queries a tile of keys, and parts of them cost more than they save.
        if form.sm90 && items <= FEW_KEY_ITEMS_SM90 && shape.window.is_none() {
            arguments.extend([Arg::size(items), Arg::size(shape.n_kv)]);
            let function = self.run.kernel(unit, "attention_backward_kv_parts", &defines)?;
            let grid = items * KEY_PARTS_SM90;
            return self.run.launch_early(function, grid, block.threads, block.shared, &arguments);
        }
        let kernel = (unit, "attention_backward_kv", &defines[..]);
        launch(self.run, form, shape, kernel, block, work.n_keys, arguments)
    }

    /// Everything at once, where there is a window.
    fn strips(&self) -> Result<()> {
        let Rows { query, key, value, query_stride, key_stride } = self.rows;
        let Backward { out, d_out, stride, lse, .. } = self.given;
        let (run, shape, work, to) = (self.run, self.shape, &self.work, &self.to);
        let addresses = [query, key, value, out, d_out, lse, to.query, to.key, to.value, work.keys];
        let strides = [query_stride, key_stride, stride, stride, to.query_stride, to.key_stride];
        let arguments = shape.arguments(addresses, strides);
        let defines = self.form.defines();
        let function = run.kernel("attention/backward_window", "attention_backward_window", &defines)?;
        let block = geometry::BACKWARD_WINDOW;
        run.launch(function, (shape.n_kv, work.n_keys), block.threads, block.shared, &arguments)
    }

    /// Delta, then the pass, and the queries' sums to bf16; for a few key heads after the other where tokens are many.
    fn one_pass(&self) -> Result<()> {
        let (run, n_kv, tokens, group) = (self.run, self.shape.n_kv, self.shape.n_tokens, self.form.group);
        let Backward { out, d_out, stride, delta, sums, .. } = self.given;
        let defines = self.form.defines();
        let function = run.kernel("attention/backward_ends_sm90", "attention_delta", &defines)?;
        let block = geometry::DELTA_SM90;
        let n_heads = self.shape.n_heads;
        let grid = (tokens.div_ceil(geometry::DELTA_ROWS), n_heads.div_ceil(geometry::DELTA_HEADS));
        let arguments = Arg::list([out, d_out, delta], [stride, tokens, n_heads]);
        run.launch_early(function, grid, block.threads, block.shared, &arguments)?;

        let turns = sums + one_pass::sum_bytes(tokens, group, n_kv) as u64;
        let at_once = one_pass::heads_at_once(tokens, n_kv);
        for first in (0..n_kv).step_by(at_once) {
            run.memset(turns, 0, one_pass::turn_bytes(tokens, group, n_kv))?;
            self.of_heads(first).heads(at_once.min(n_kv - first), turns)?;
        }
        Ok(())
    }

    /// The pass of the first `heads` key heads.
    fn heads(&self, heads: usize, turns: u64) -> Result<()> {
        let Rows { query, key, value, query_stride, key_stride } = self.rows;
        let Backward { d_out, stride, lse, delta, sums, .. } = self.given;
        let (run, shape, work, to, tokens) =
            (self.run, self.shape, &self.work, &self.to, self.shape.n_tokens);
        let (tiles, scale) = (one_pass::tiles(tokens, self.form.group), Arg::F32(shape.scale));
        let defines = self.form.defines();
        let addresses = [query, key, value, d_out, lse, delta, sums, turns, to.key, to.value, work.keys];
        let mut arguments = Arg::list(addresses, [query_stride, key_stride, stride, to.key_stride, tokens]);
        let items = work.n_keys * heads;
        arguments.push(scale);
        arguments.extend([items, heads, tiles, one_pass::run(tokens, self.sequences)].map(Arg::size));
        let function = run.kernel("attention/backward_one_sm90", "attention_backward_one", &defines)?;
        let block = geometry::BACKWARD_ONE_SM90;
        let grid = items.min(run.gpu().multiprocessors() as usize);
        run.launch_early(function, grid, block.threads, block.shared, &arguments)?;

        let mut arguments = Arg::list([sums, to.query, work.queries], [to.query_stride]);
        arguments.extend([scale, Arg::size(tiles)]);
        let function = run.kernel("attention/backward_ends_sm90", "attention_queries", &defines)?;
        let block = geometry::QUERIES_SM90;
        run.launch_early(function, (heads, work.n_queries), block.threads, block.shared, &arguments)
    }

    /// The same from key head `first` on.
    fn of_heads(&self, first: usize) -> Call<'_> {
        let (dim, tokens) = (self.form.head_dim, self.shape.n_tokens);
        let bf16 = |columns: usize| (columns * 2) as u64;
        let (of_queries, of_keys) = (bf16(first * self.form.group * dim), bf16(first * dim));
        let of_rows = (first * self.form.group * tokens * 4) as u64;
        let at = |rows: Rows| Rows {
            query: rows.query + of_queries,
            key: rows.key + of_keys,
            value: rows.value + of_keys,
            ..rows
        };
        let given = Backward {
            out: self.given.out + of_queries,
            d_out: self.given.d_out + of_queries,
            lse: self.given.lse + of_rows,
            delta: self.given.delta + of_rows,
            ..self.given
        };
        Call { rows: at(self.rows), given, to: at(self.to), ..*self }
    }
}
