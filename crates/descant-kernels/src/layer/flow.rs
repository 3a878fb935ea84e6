//! A layer's formulas as launches on raw addresses: forward, the parts of it that the backward runs again, backward.
//!
//! Every function here is called on CubeCL's thread, inside one closure a direction; nothing waits and nothing is
//! allocated. Order is the order of burn's stream.
//!
//! ```text
//! x ─ norm ─ q k v ─ rotary ─ attention ─ output ─(+ x)─ middle ─ norm ─ router ─ choose, sort
//!                                                           │              │
//!                                                           └──(+)── combine ◀─ down ◀─ SwiGLU ◀─ gate_up
//! ```

use super::layout::{At, Buffers, Plan, WORKSPACE};
use super::plan::Kept;
use super::{LayerSpec, lora};
use crate::attention::cuda as attention;
use crate::attention::table::Sequences;
use crate::cuda::{Element, MatmulSpec, Result, Run};
use crate::experts::cuda::{self as experts, ExpertData, Experts, Factor, Gradient, Output, Side, Sorted};
use crate::experts::{LowRank, RANK_WIDTH};
use crate::norm::cuda as norm;
use crate::rotary::cuda as rotary;
use crate::route::cuda as route;
use crate::swiglu::cuda as swiglu;

/// Addresses of frozen tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frozen {
    pub(super) input_norm: u64,
    pub(super) qkv: u64,
    pub(super) qkv_bias: u64,
    pub(super) sinks: u64,
    pub(super) output: u64,
    pub(super) output_bias: u64,
    pub(super) post_norm: u64,
    pub(super) router: u64,
    pub(super) router_bias: u64,
    pub(super) gate_up: Experts,
    pub(super) gate_up_bias: u64,
    pub(super) down: Experts,
    pub(super) down_bias: u64,
}

/// A pair's addresses, f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) rank: usize,
    pub(super) scaling: f32,
}

impl Pair {
    /// A, `[rank, inputs]`, at a place in a larger matrix.
    fn part_a(&self, at: [usize; 2], inputs: usize) -> lora::Part {
        lora::Part { address: self.a, at, shape: [self.rank, inputs], factor: 1.0 }
    }

    /// Where the gradients of A and B go, from common ones. B stands in products with its scaling, A without.
    fn gradients(
        &self,
        [da, db]: [u64; 2],
        [row, column]: [usize; 2],
        [outputs, inputs]: [usize; 2],
    ) -> [lora::Part; 2] {
        let of = Self { a: da, b: db, ..*self };
        [of.part_a([column, 0], inputs), of.part_b([row, column], outputs)]
    }

    /// s B, `[outputs, rank]`.
    fn part_b(&self, at: [usize; 2], outputs: usize) -> lora::Part {
        lora::Part { address: self.b, at, shape: [outputs, self.rank], factor: self.scaling }
    }
}

/// What both directions work with.
pub(super) struct Flow<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) spec: &'a LayerSpec,
    pub(super) plan: Plan,
    pub(super) frozen: Frozen,
    /// By site, in the order of `LayerPairs`.
    pub(super) pairs: [Option<Pair>; 7],
    pub(super) sequences: Sequences,
    pub(super) cos: u64,
    pub(super) sin: u64,
    pub(super) buffers: Buffers,
    pub(super) kept: u64,
    pub(super) scratch: u64,
}

const QUERY: usize = 0;
const VALUE: usize = 2;
const OUTPUT: usize = 3;
const ROUTER: usize = 4;
const GATE_UP: usize = 5;
const DOWN: usize = 6;

impl Flow<'_> {
    fn at(&self, place: At) -> u64 {
        place.address(self.kept, self.scratch)
    }

    fn tokens(&self) -> usize {
        self.plan.tokens
    }

    fn n_pairs(&self) -> usize {
        self.plan.tokens * self.spec.top_k
    }

    fn width(&self) -> usize {
        self.plan.sizes.query + 2 * self.plan.sizes.key_value
    }

    /// First row of each site of q, k, v in their common matrix.
    fn first_rows(&self) -> [usize; 3] {
        [0, self.plan.sizes.query, self.plan.sizes.query + self.plan.sizes.key_value]
    }

    fn widths(&self) -> [usize; 3] {
        [self.plan.sizes.query, self.plan.sizes.key_value, self.plan.sizes.key_value]
    }

    fn matmul(
        &self,
        name: &'static str,
        spec: &MatmulSpec,
        a: u64,
        b: u64,
        c: u64,
        d: u64,
        bias: u64,
    ) -> Result<()> {
        let (m, n, k) = (spec.m as f64, spec.n as f64, spec.k as f64);
        let bytes = 2.0 * (m * k + n * k)
            + m * n * (spec.d.element.bytes() as f64) * if spec.beta == 0.0 { 1.0 } else { 2.0 };
        self.run.stage(name, 2.0 * m * n * k, bytes, || {
            let workspace = (self.at(self.buffers.workspace), WORKSPACE as usize);
            self.run.blas().matmul(spec, a, b, c, d, bias, workspace)
        })
    }

    // ---- forward -------------------------------------------------------------------------------------------------

    /// The whole layer, `x` to `out`.
    pub(super) fn forward(&self, x: u64, out: u64) -> Result<()> {
        self.pack()?;
        self.attention_input(x)?;
        self.attend(x)?;
        self.choose_experts()?;
        let b = &self.buffers;
        self.gate_up(self.at(b.pre), self.at(b.inner))?;
        self.down()?;
        let (t, s) = (self.tokens(), &self.plan.sizes);
        let bytes = 2.0 * (t * s.hidden) as f64 * (s.top_k + 2) as f64;
        self.run.stage("combine", 0.0, bytes, || {
            route::combine(
                self.run,
                self.at(b.expert_out),
                self.at(b.weights),
                self.at(b.places),
                self.at(b.middle),
                out,
                [t, s.hidden, s.top_k],
            )
        })
    }

    /// The pairs in the form that products read.
    fn pack(&self) -> Result<()> {
        let (b, s, paths) = (&self.buffers, &self.plan.sizes, &self.plan.paths);
        self.run.stage("pack pairs", 0.0, 0.0, || {
            let mut wholes = Vec::new();
            let mut column = 0;
            let (mut a, mut b_parts) = (Vec::new(), Vec::new());
            for (site, (row, rows)) in self.first_rows().into_iter().zip(self.widths()).enumerate() {
                let Some(pair) = self.pairs[QUERY + site] else { continue };
                a.push(pair.part_a([column, 0], s.hidden));
                b_parts.push(pair.part_b([row, column], rows));
                column += pair.rank;
            }
            if paths.input > 0 {
                let (address, shape) = (self.at(b.input_a), [paths.input, s.hidden]);
                wholes.push(lora::Whole { address, shape, parts: a });
                let (address, shape) = (self.at(b.input_b), [self.width(), paths.input]);
                wholes.push(lora::Whole { address, shape, parts: b_parts });
            }
            if let Some(pair) = self.pairs[OUTPUT] {
                let (address, shape) = (self.at(b.output_a), [paths.output, s.query]);
                wholes.push(lora::Whole { address, shape, parts: vec![pair.part_a([0, 0], s.query)] });
                let (address, shape) = (self.at(b.output_b), [s.hidden, paths.output]);
                wholes.push(lora::Whole { address, shape, parts: vec![pair.part_b([0, 0], s.hidden)] });
            }
            lora::pack(self.run, &wholes)?;
            if let Some(pair) = self.pairs[ROUTER] {
                let to = self.at(b.merged_router);
                lora::merge_router(self.run, self.frozen.router, pair, to, s.n_experts, s.hidden)?;
            }
            Ok(())
        })
    }

    fn norm_rows(&self) -> norm::Rows {
        let width = self.plan.sizes.hidden;
        norm::Rows { count: self.tokens(), width, stride: width, epsilon: self.spec.epsilon }
    }

    fn normed(&self, x: u64, weight: u64, out: At, rms: At) -> Result<()> {
        let (t, hidden) = (self.tokens(), self.plan.sizes.hidden);
        self.run.stage("norm", 0.0, 4.0 * (t * hidden) as f64, || {
            norm::forward(self.run, x, weight, self.at(out), Some(self.at(rms)), self.norm_rows())
        })
    }

    /// From the layer's input to rotated queries and keys, and values.
    fn attention_input(&self, x: u64) -> Result<()> {
        let (b, s, t) = (&self.buffers, &self.plan.sizes, self.tokens());
        self.normed(x, self.frozen.input_norm, b.normed, b.first_rms)?;
        let (normed, qkv) = (self.at(b.normed), self.at(b.qkv));
        let mut product = MatmulSpec::forward(t, self.width(), s.hidden);
        product.bias = Some(Element::Bf16);
        // The low-rank part first: the large product reads it beside its work, where a second pass over its result
        // would take time of its own.
        if self.plan.paths.input > 0 {
            self.input_u()?;
            let low = MatmulSpec::forward(t, self.width(), self.plan.paths.input);
            self.matmul("low rank", &low, self.at(b.input_u), self.at(b.input_b), 0, qkv, 0)?;
            product.beta = 1.0;
        }
        self.matmul("q k v", &product, normed, self.frozen.qkv, qkv, qkv, self.frozen.qkv_bias)?;
        self.turn(qkv, 1.0)
    }

    /// What the low-rank paths at q, k and v read: normed x by A.
    fn input_u(&self) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let product = MatmulSpec::forward(self.tokens(), self.plan.paths.input, s.hidden);
        self.matmul("low rank", &product, self.at(b.normed), self.at(b.input_a), 0, self.at(b.input_u), 0)
    }

    fn turn(&self, qkv: u64, sign: f32) -> Result<()> {
        let heads = self.spec.n_heads + self.spec.n_kv;
        let bytes = 4.0 * (self.tokens() * heads * self.spec.head_dim) as f64;
        self.run.stage("rotary", 0.0, bytes, || {
            let strides = [self.width(); 2];
            let heads =
                rotary::Heads { n_tokens: self.tokens(), count: heads, dim: self.spec.head_dim, strides };
            rotary::turn(self.run, qkv, self.cos, self.sin, qkv, heads, sign)
        })
    }

    fn shape(&self) -> attention::Shape {
        attention::Shape {
            n_tokens: self.tokens(),
            n_heads: self.spec.n_heads,
            n_kv: self.spec.n_kv,
            head_dim: self.spec.head_dim,
            window: self.spec.window,
            scale: (self.spec.head_dim as f32).sqrt().recip(),
        }
    }

    fn attention_name(&self, full: &'static str, window: &'static str) -> &'static str {
        if self.spec.window.is_some() { window } else { full }
    }

    /// Attention and its output product, added to the residual stream.
    fn attend(&self, x: u64) -> Result<()> {
        let (b, s, t) = (&self.buffers, &self.plan.sizes, self.tokens());
        let name = self.attention_name("attention, full", "attention, window");
        let (flops, bytes) = (self.attention_flops(), 2.0 * (t * (self.width() + s.query)) as f64);
        self.run.stage(name, flops, bytes, || {
            attention::forward(
                self.run,
                &self.shape(),
                &self.sequences,
                self.qkv_parts(self.at(b.qkv)),
                self.frozen.sinks,
                self.at(b.attended),
                s.query,
                self.at(b.lse),
            )
        })?;
        let attended = self.at(b.attended);
        let mut product = MatmulSpec::forward(t, s.hidden, s.query);
        product.bias = Some(Element::Bf16);
        product.beta = 1.0;
        let middle = self.at(b.middle);
        let mut residual = x;
        if self.plan.paths.output > 0 {
            self.output_u()?;
            let mut low = MatmulSpec::forward(t, s.hidden, self.plan.paths.output);
            low.beta = 1.0;
            self.matmul("low rank", &low, self.at(b.output_u), self.at(b.output_b), x, middle, 0)?;
            residual = middle;
        }
        self.matmul(
            "output",
            &product,
            attended,
            self.frozen.output,
            residual,
            middle,
            self.frozen.output_bias,
        )
    }

    fn output_u(&self) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let product = MatmulSpec::forward(self.tokens(), self.plan.paths.output, s.query);
        self.matmul("low rank", &product, self.at(b.attended), self.at(b.output_a), 0, self.at(b.output_u), 0)
    }

    /// Query, key and value in packed rows.
    fn qkv_parts(&self, qkv: u64) -> attention::Packed {
        let [query, key, value] = self.first_rows().map(|first| qkv + 2 * first as u64);
        attention::Packed { query, key, value, stride: self.width() }
    }

    fn attention_flops(&self) -> f64 {
        4.0 * self.plan.sizes.query as f64 * self.sequences.visible(self.spec.window)
    }

    fn router_weight(&self) -> route::RouterWeight {
        match self.pairs[ROUTER] {
            Some(_) => route::RouterWeight::F32(self.at(self.buffers.merged_router)),
            None => route::RouterWeight::Bf16(self.frozen.router),
        }
    }

    /// Which experts, with which weights, in which order.
    fn choose_experts(&self) -> Result<()> {
        let (b, s, t) = (&self.buffers, &self.plan.sizes, self.tokens());
        self.normed(self.at(b.middle), self.frozen.post_norm, b.second_normed, b.second_rms)?;
        let flops = 2.0 * (t * s.hidden * s.n_experts) as f64;
        self.run.stage("router", flops, 2.0 * (t * s.hidden) as f64, || {
            route::router(
                self.run,
                self.at(b.second_normed),
                self.router_weight(),
                self.frozen.router_bias,
                self.at(b.logits),
                [t, s.hidden, s.n_experts],
                s.hidden,
            )?;
            route::choose(
                self.run,
                self.at(b.logits),
                self.at(b.experts),
                self.at(b.weights),
                [t, s.n_experts, s.top_k],
            )?;
            route::sort(
                self.run,
                self.at(b.experts),
                self.at(b.pairs),
                self.at(b.places),
                self.at(b.offsets),
                self.at(b.sort),
                [self.n_pairs(), s.n_experts],
            )
        })
    }

    /// Rows sorted by expert: `data` has one a pair, in order.
    fn sorted(&self, data: u64, stride: usize) -> Sorted {
        Sorted {
            data,
            stride,
            pairs: None,
            top_k: self.spec.top_k,
            offsets: self.at(self.buffers.offsets),
            places: self.n_pairs(),
        }
    }

    /// Rows sorted by expert: `data` has one a token.
    fn gathered(&self, data: u64, stride: usize) -> Sorted {
        Sorted { pairs: Some(self.at(self.buffers.pairs)), ..self.sorted(data, stride) }
    }

    /// Rows for a product with `experts`: `data` has one a token. Copied into their order where the card's form of
    /// the product wants that.
    fn rows_for(&self, experts: &Experts, data: u64) -> Result<Sorted> {
        let hidden = self.plan.sizes.hidden;
        if !self.plan.in_order || !matches!(experts.data, ExpertData::Mxfp4 { .. }) {
            return Ok(self.gathered(data, hidden));
        }
        let (b, n_pairs) = (&self.buffers, self.n_pairs());
        let to = self.at(b.in_order);
        let bytes = 2.0 * ((self.tokens() + n_pairs) * hidden) as f64;
        self.run.stage("rows in order", 0.0, bytes, || {
            route::take(self.run, data, self.at(b.places), to, [self.tokens(), hidden, self.spec.top_k])
        })?;
        Ok(self.sorted(to, hidden))
    }

    fn expert_cost(&self, inputs: usize, outputs: usize) -> (f64, f64) {
        let (pairs, s) = (self.n_pairs() as f64, &self.plan.sizes);
        let weights = (s.n_experts * inputs * outputs) as f64 * 17.0 / 32.0;
        (2.0 * pairs * (inputs * outputs) as f64, weights + 2.0 * pairs * (inputs + outputs) as f64)
    }

    fn low_rank(&self, pair: &Pair, features: usize) -> LowRank {
        LowRank { experts: self.plan.sizes.n_experts, features, rank: pair.rank }
    }

    /// A expert pair in the form that products read: s B, and A transposed.
    fn pack_expert_pair(&self, site: usize, b_to: At, a_to: At, [outputs, inputs]: [usize; 2]) -> Result<()> {
        let Some(pair) = &self.pairs[site] else { return Ok(()) };
        let n = self.plan.sizes.n_experts;
        self.run.stage("pack pairs", 0.0, 0.0, || {
            lora::pack_experts(
                self.run,
                pair.b,
                self.at(b_to),
                n,
                [outputs, pair.rank],
                false,
                pair.scaling,
            )?;
            lora::pack_experts(self.run, pair.a, self.at(a_to), n, [inputs, pair.rank], true, 1.0)
        })
    }

    /// Rows by a packed factor: u = x A^T, or du = dy (s B).
    fn expert_u(&self, pair: &Pair, rows: &Sorted, factor: At, features: usize, to: At) -> Result<()> {
        let pairs = self.n_pairs() as f64;
        let (flops, bytes) = (2.0 * pairs * (features * pair.rank) as f64, 2.0 * pairs * features as f64);
        let sizes = self.low_rank(pair, features);
        self.run.stage("experts low rank", flops, bytes, || {
            experts::low_rank_rows(self.run, rows, self.at(factor), self.at(to), RANK_WIDTH, sizes)
        })
    }

    /// The experts' first product and its activation; each is stored where it has a place.
    fn gate_up(&self, pre: u64, inner: u64) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let x = self.gathered(self.at(b.second_normed), s.hidden);
        self.pack_expert_pair(GATE_UP, b.gate_up_v, b.gate_up_dv, [2 * s.inner, s.hidden])?;
        if let Some(pair) = &self.pairs[GATE_UP] {
            self.expert_u(pair, &x, b.gate_up_dv, s.hidden, b.gate_up_u)?;
        }
        let x = self.rows_for(&self.frozen.gate_up, self.at(b.second_normed))?;
        let place = |address: u64| (address != 0).then_some(address);
        let to = Output {
            bias: Some(self.frozen.gate_up_bias),
            low_rank: self.pairs[GATE_UP].map(|_| (self.at(b.gate_up_u), self.at(b.gate_up_v))),
            out: place(pre),
            swiglu: place(inner).map(|inner| (inner, self.spec.limit)),
        };
        let (flops, bytes) = self.expert_cost(s.hidden, 2 * s.inner);
        self.run.stage("experts gate_up", flops, bytes, || {
            experts::product(self.run, &x, &self.frozen.gate_up, forward_side(&self.frozen.gate_up), &to)
        })
    }

    /// The experts' second product.
    fn down(&self) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let x = self.sorted(self.at(b.inner), s.inner);
        self.pack_expert_pair(DOWN, b.down_v, b.down_dv, [s.hidden, s.inner])?;
        if let Some(pair) = &self.pairs[DOWN] {
            self.expert_u(pair, &x, b.down_dv, s.inner, b.down_u)?;
        }
        let to = Output {
            bias: Some(self.frozen.down_bias),
            low_rank: self.pairs[DOWN].map(|_| (self.at(b.down_u), self.at(b.down_v))),
            out: Some(self.at(b.expert_out)),
            swiglu: None,
        };
        let (flops, bytes) = self.expert_cost(s.inner, s.hidden);
        self.run.stage("experts down", flops, bytes, || {
            experts::product(self.run, &x, &self.frozen.down, forward_side(&self.frozen.down), &to)
        })
    }

    // ---- backward ------------------------------------------------------------------------------------------------

    /// Runs again what was not kept, then takes `grad`, the gradient of the output, to the gradient of the input in
    /// `dx`, and writes the gradients of A and B of each site that has a pair. `dx` and `grad` may be one buffer.
    pub(super) fn backward(
        &self,
        x: u64,
        grad: u64,
        dx: u64,
        gradients: &[Option<[u64; 2]>; 7],
    ) -> Result<()> {
        self.pack()?;
        let kept = self.plan.kept;
        let b = &self.buffers;
        if kept < Kept::Projections {
            self.attention_input(x)?;
        }
        if kept < Kept::Attention {
            self.attend(x)?;
        }
        if kept < Kept::Experts {
            self.choose_experts()?;
            // The backward of SwiGLU makes the activation again, where anybody asks.
            self.gate_up(self.at(b.pre), 0)?;
        } else {
            self.normed(self.at(b.middle), self.frozen.post_norm, b.second_normed, b.second_rms)?;
            let s = &self.plan.sizes;
            self.pack_expert_pair(GATE_UP, b.gate_up_v, b.gate_up_dv, [2 * s.inner, s.hidden])?;
            if let Some(pair) = &self.pairs[GATE_UP] {
                let x = self.gathered(self.at(b.second_normed), s.hidden);
                self.expert_u(pair, &x, b.gate_up_dv, s.hidden, b.gate_up_u)?;
            }
        }
        self.experts_backward(grad, gradients)?;
        self.route_backward(grad, dx, gradients[ROUTER])?;
        self.attention_backward(x, dx, gradients)
    }

    /// From the gradient of the layer's output to that of each pair's expert input.
    fn experts_backward(&self, grad: u64, gradients: &[Option<[u64; 2]>; 7]) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let d_out = self.gathered(grad, s.hidden);
        self.pack_expert_pair(DOWN, b.down_v, b.down_dv, [s.hidden, s.inner])?;
        if let Some(pair) = &self.pairs[DOWN] {
            self.expert_u(pair, &d_out, b.down_v, s.hidden, b.down_du)?;
        }
        let to = Output {
            low_rank: self.pairs[DOWN].map(|_| (self.at(b.down_du), self.at(b.down_dv))),
            out: Some(self.at(b.d_inner)),
            ..Output::default()
        };
        let rows = self.rows_for(&self.frozen.down, grad)?;
        let (flops, bytes) = self.expert_cost(s.inner, s.hidden);
        self.run.stage("experts down, back", flops, bytes, || {
            experts::product(self.run, &rows, &self.frozen.down, backward_side(&self.frozen.down), &to)
        })?;
        let inner = self.pairs[DOWN].map_or(0, |_| self.at(b.inner));
        let bytes = 2.0 * self.n_pairs() as f64 * (5 * s.inner + s.hidden) as f64;
        self.run.stage("swiglu, back", 0.0, bytes, || {
            let at = swiglu::Backward {
                pre: self.at(b.pre),
                dh: self.at(b.d_inner),
                dpre: self.at(b.pre),
                h_out: inner,
                dh_weighted: 0,
                pairs: self.at(b.pairs),
                experts: self.at(b.experts),
                weights: self.at(b.weights),
                d_out: grad,
                bias: self.frozen.down_bias,
                d_weights: self.at(b.d_weights),
            };
            swiglu::backward(self.run, &at, [self.n_pairs(), s.inner, s.hidden, s.top_k], self.spec.limit)
        })?;
        if let (Some(pair), Some(to)) = (&self.pairs[DOWN], gradients[DOWN]) {
            let inner = self.sorted(inner, s.inner);
            self.expert_u(pair, &inner, b.down_dv, s.inner, b.down_u)?;
            for side in [b.down_u, b.down_du] {
                let (pairs, weights) = (self.at(b.pairs), self.at(b.weights));
                lora::weigh_rows(self.run, self.at(side), pairs, weights, self.n_pairs())?;
            }
            self.expert_gradients(pair, to, [(&d_out, s.hidden, b.down_u), (&inner, s.inner, b.down_du)])?;
        }
        let d_pre = self.sorted(self.at(b.pre), 2 * s.inner);
        if let Some(pair) = &self.pairs[GATE_UP] {
            self.expert_u(pair, &d_pre, b.gate_up_v, 2 * s.inner, b.gate_up_du)?;
        }
        let to = Output {
            low_rank: self.pairs[GATE_UP].map(|_| (self.at(b.gate_up_du), self.at(b.gate_up_dv))),
            out: Some(self.at(b.d_expert_in)),
            ..Output::default()
        };
        let (flops, bytes) = self.expert_cost(s.hidden, 2 * s.inner);
        self.run.stage("experts gate_up, back", flops, bytes, || {
            experts::product(self.run, &d_pre, &self.frozen.gate_up, backward_side(&self.frozen.gate_up), &to)
        })?;
        if let (Some(pair), Some(to)) = (&self.pairs[GATE_UP], gradients[GATE_UP]) {
            let x = self.gathered(self.at(b.second_normed), s.hidden);
            self.expert_gradients(
                pair,
                to,
                [(&d_pre, 2 * s.inner, b.gate_up_u), (&x, s.hidden, b.gate_up_du)],
            )?;
        }
        Ok(())
    }

    /// dB = s dy^T u and dA = du^T x of an expert pair; `du` has the scaling already.
    fn expert_gradients(&self, pair: &Pair, [da, db]: [u64; 2], of: [(&Sorted, usize, At); 2]) -> Result<()> {
        let [(dy, outputs, u), (x, inputs, du)] = of;
        let n = self.plan.sizes.n_experts * pair.rank;
        let bytes = 2.0 * (self.n_pairs() * (outputs + inputs)) as f64;
        self.run.stage(
            "experts gradients",
            2.0 * self.n_pairs() as f64 * (pair.rank * (outputs + inputs)) as f64,
            bytes,
            || {
                // The kernels add to what is there.
                self.run.memset(db, 0, n * outputs * size_of::<f32>())?;
                self.run.memset(da, 0, n * inputs * size_of::<f32>())?;
                let (b, a) = (self.low_rank(pair, outputs), self.low_rank(pair, inputs));
                let to = |grad, factor, alpha| Gradient {
                    grad,
                    factor,
                    alpha,
                    workspace: self.at(self.buffers.partial),
                };
                experts::low_rank_gradient(
                    self.run,
                    dy,
                    self.at(u),
                    RANK_WIDTH,
                    to(db, Factor::B, pair.scaling),
                    b,
                )?;
                experts::low_rank_gradient(self.run, x, self.at(du), RANK_WIDTH, to(da, Factor::A, 1.0), a)
            },
        )
    }

    /// From the gradient of each pair's expert input and of the router's weights to that of `middle`, which
    /// replaces the gradient of the output in `dx`.
    fn route_backward(&self, grad: u64, dx: u64, router: Option<[u64; 2]>) -> Result<()> {
        let (b, s, t) = (&self.buffers, &self.plan.sizes, self.tokens());
        let bytes = 2.0 * (t * s.hidden) as f64 * (s.top_k + 3) as f64;
        self.run.stage("combine, back", 0.0, bytes, || {
            route::combine_backward(
                self.run,
                &route::CombineBackward {
                    d_rows: self.at(b.d_expert_in),
                    places: self.at(b.places),
                    experts: self.at(b.experts),
                    weights: self.at(b.weights),
                    d_weights: self.at(b.d_weights),
                    router: self.router_weight(),
                    middle: self.at(b.middle),
                    inverse_rms: self.at(b.second_rms),
                    norm: self.frozen.post_norm,
                    grad,
                    out: dx,
                    d_logits: self.at(b.d_logits),
                },
                [t, s.hidden, s.top_k],
            )
        })?;
        let (Some(pair), Some([da, db])) = (&self.pairs[ROUTER], router) else { return Ok(()) };
        self.run.stage("router gradients", 0.0, 2.0 * (t * s.hidden) as f64, || {
            let whole = self.at(b.d_router);
            lora::router_gradient(
                self.run,
                self.at(b.d_logits),
                self.at(b.experts),
                self.at(b.second_normed),
                whole,
                [t, s.hidden, s.n_experts, s.top_k],
            )?;
            lora::router_pair_gradient(self.run, whole, *pair, da, db, s.n_experts, s.hidden)
        })
    }

    /// From the gradient of `middle` in `dx` to that of the layer's input, in the same place.
    fn attention_backward(&self, x: u64, dx: u64, gradients: &[Option<[u64; 2]>; 7]) -> Result<()> {
        let (b, s, t) = (&self.buffers, &self.plan.sizes, self.tokens());
        let d_attended = self.at(b.d_attended);
        let mut product = MatmulSpec::backward(t, s.query, s.hidden);
        if let (Some(pair), Some(to)) = (&self.pairs[OUTPUT], gradients[OUTPUT]) {
            self.output_u()?;
            let columns = self.plan.paths.output;
            self.dense_low_rank_backward(
                &Dense {
                    grad: dx,
                    outputs: s.hidden,
                    x: self.at(b.attended),
                    inputs: s.query,
                    columns,
                    a: self.at(b.output_a),
                    b: self.at(b.output_b),
                    u: self.at(b.output_u),
                    du: self.at(b.d_output_u),
                },
                d_attended,
            )?;
            let [a, b] = pair.gradients(to, [0, 0], [s.hidden, s.query]);
            self.unpack_dense(vec![a], vec![b], [s.hidden, s.query], columns)?;
            product.beta = 1.0;
        }
        self.matmul("output, back", &product, dx, self.frozen.output, d_attended, d_attended, 0)?;
        let name = self.attention_name("attention, full, back", "attention, window, back");
        let bytes = 2.0 * (t * (2 * self.width() + 2 * s.query)) as f64;
        self.run.stage(name, 2.5 * self.attention_flops(), bytes, || {
            attention::backward(
                self.run,
                &self.shape(),
                &self.sequences,
                self.qkv_parts(self.at(b.qkv)),
                attention::Backward {
                    out: self.at(b.attended),
                    d_out: d_attended,
                    stride: s.query,
                    lse: self.at(b.lse),
                    delta: self.at(b.delta),
                },
                self.qkv_parts(self.at(b.d_qkv)),
            )
        })?;
        let d_qkv = self.at(b.d_qkv);
        self.turn(d_qkv, -1.0)?;
        let d_normed = self.at(b.d_normed);
        let mut product = MatmulSpec::backward(t, s.hidden, self.width());
        self.normed(x, self.frozen.input_norm, b.normed, b.first_rms)?;
        if self.plan.paths.input > 0 {
            self.input_u()?;
            let columns = self.plan.paths.input;
            self.dense_low_rank_backward(
                &Dense {
                    grad: d_qkv,
                    outputs: self.width(),
                    x: self.at(b.normed),
                    inputs: s.hidden,
                    columns,
                    a: self.at(b.input_a),
                    b: self.at(b.input_b),
                    u: self.at(b.input_u),
                    du: self.at(b.d_input_u),
                },
                d_normed,
            )?;
            let mut column = 0;
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for (site, gradient) in gradients.iter().enumerate().take(VALUE + 1).skip(QUERY) {
                let Some(pair) = &self.pairs[site] else { continue };
                if let Some(to) = *gradient {
                    let at = [self.first_rows()[site], column];
                    let [of_a, of_b] = pair.gradients(to, at, [self.widths()[site], s.hidden]);
                    a.push(of_a);
                    b.push(of_b);
                }
                column += pair.rank;
            }
            self.unpack_dense(a, b, [self.width(), s.hidden], columns)?;
            product.beta = 1.0;
        }
        self.matmul("q k v, back", &product, d_qkv, self.frozen.qkv, d_normed, d_normed, 0)?;
        self.run.stage("norm, back", 0.0, 8.0 * (t * s.hidden) as f64, || {
            norm::backward(
                self.run,
                x,
                self.frozen.input_norm,
                Some(self.at(b.first_rms)),
                d_normed,
                Some(dx),
                dx,
                self.norm_rows(),
            )
        })
    }

    /// du = grad B, d_x = du A, and the gradients of A and B for all columns.
    fn dense_low_rank_backward(&self, of: &Dense, d_x: u64) -> Result<()> {
        let (b, t) = (&self.buffers, self.tokens());
        let product = MatmulSpec::backward(t, of.columns, of.outputs);
        self.matmul("low rank", &product, of.grad, of.b, 0, of.du, 0)?;
        let product = MatmulSpec::backward(t, of.inputs, of.columns);
        self.matmul("low rank", &product, of.du, of.a, 0, d_x, 0)?;
        let product = gradient(of.columns, of.inputs, t);
        self.matmul("low rank gradients", &product, of.du, of.x, 0, self.at(b.d_dense_a), 0)?;
        let product = gradient(of.outputs, of.columns, t);
        self.matmul("low rank gradients", &product, of.grad, of.u, 0, self.at(b.d_dense_b), 0)
    }

    /// The sites' parts of the common gradients of A and B.
    fn unpack_dense(
        &self,
        a: Vec<lora::Part>,
        b: Vec<lora::Part>,
        [outputs, inputs]: [usize; 2],
        columns: usize,
    ) -> Result<()> {
        let of_a = (self.at(self.buffers.d_dense_a), [columns, inputs], a);
        let of_b = (self.at(self.buffers.d_dense_b), [outputs, columns], b);
        let wholes = [of_a, of_b].map(|(address, shape, parts)| lora::Whole { address, shape, parts });
        lora::unpack(self.run, &wholes)
    }
}

/// A dense product's low-rank path in the backward.
struct Dense {
    grad: u64,
    outputs: usize,
    x: u64,
    inputs: usize,
    columns: usize,
    a: u64,
    b: u64,
    u: u64,
    du: u64,
}

/// Packed experts are stored by output, unpacked ones by input.
fn forward_side(experts: &Experts) -> Side {
    match experts.data {
        ExpertData::Mxfp4 { .. } => Side::Columns,
        ExpertData::Bf16(_) => Side::Rows,
    }
}

fn backward_side(experts: &Experts) -> Side {
    match forward_side(experts) {
        Side::Columns => Side::Rows,
        Side::Rows => Side::Columns,
    }
}

/// D `[m, n]` in f32 = A^T B over `tokens` rows of A `[tokens, m]` and B `[tokens, n]`.
fn gradient(m: usize, n: usize, tokens: usize) -> MatmulSpec {
    let mut spec = MatmulSpec::backward(m, n, tokens);
    (spec.a.transposed, spec.a.stride) = (true, m);
    (spec.c.element, spec.d.element) = (Element::F32, Element::F32);
    spec
}

/// Largest rank of an expert pair.
pub(super) const MAX_EXPERT_RANK: usize = RANK_WIDTH;
