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

use super::layout::{At, Buffers, DENSE_COLUMNS, EXPERT_COLUMNS, Plan, WORKSPACE};
use super::plan::Kept;
use super::{LayerSpec, lora};
use crate::attention::cuda as attention;
use crate::cuda::{Element, MatmulSpec, Result, Run};
use crate::experts::cuda as experts;
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
    pub(super) gate_up: experts::Weight,
    pub(super) gate_up_bias: u64,
    pub(super) down: experts::Weight,
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

/// What both directions work with.
pub(super) struct Flow<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) spec: &'a LayerSpec,
    pub(super) plan: Plan,
    pub(super) frozen: Frozen,
    /// By site, in the order of `LayerPairs`.
    pub(super) pairs: [Option<Pair>; 7],
    pub(super) sequences: attention::Sequences,
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
            if paths.input > 0 {
                let (a_to, b_to) = (self.at(b.input_a), self.at(b.input_b));
                self.run.memset(a_to, 0, paths.input * s.hidden * 2)?;
                self.run.memset(b_to, 0, self.width() * paths.input * 2)?;
                let mut column = 0;
                for (site, (row, rows)) in self.first_rows().into_iter().zip(self.widths()).enumerate() {
                    let Some(pair) = self.pairs[QUERY + site] else { continue };
                    lora::pack(self.run, pair.a, a_to, [pair.rank, s.hidden], [column, 0], s.hidden, 1.0)?;
                    lora::pack(
                        self.run,
                        pair.b,
                        b_to,
                        [rows, pair.rank],
                        [row, column],
                        paths.input,
                        pair.scaling,
                    )?;
                    column += pair.rank;
                }
            }
            if let Some(pair) = self.pairs[OUTPUT] {
                let (a_to, b_to) = (self.at(b.output_a), self.at(b.output_b));
                self.run.memset(a_to, 0, paths.output * s.query * 2)?;
                self.run.memset(b_to, 0, s.hidden * paths.output * 2)?;
                lora::pack(self.run, pair.a, a_to, [pair.rank, s.query], [0, 0], s.query, 1.0)?;
                lora::pack(
                    self.run,
                    pair.b,
                    b_to,
                    [s.hidden, pair.rank],
                    [0, 0],
                    paths.output,
                    pair.scaling,
                )?;
            }
            if let Some(pair) = self.pairs[ROUTER] {
                let to = self.at(b.merged_router);
                lora::merge_router(self.run, self.frozen.router, pair, to, s.n_experts, s.hidden)?;
            }
            Ok(())
        })
    }

    fn normed(&self, x: u64, weight: u64, out: At, rms: At) -> Result<()> {
        let (t, hidden) = (self.tokens(), self.plan.sizes.hidden);
        self.run.stage("norm", 0.0, 4.0 * (t * hidden) as f64, || {
            norm::rms_norm(
                self.run,
                x,
                weight,
                self.at(out),
                self.at(rms),
                t,
                hidden,
                hidden,
                self.spec.epsilon as f32,
            )
        })
    }

    /// From the layer's input to rotated queries and keys, and values.
    fn attention_input(&self, x: u64) -> Result<()> {
        let (b, s, t) = (&self.buffers, &self.plan.sizes, self.tokens());
        self.normed(x, self.frozen.input_norm, b.normed, b.first_rms)?;
        let (normed, qkv) = (self.at(b.normed), self.at(b.qkv));
        let mut product = MatmulSpec::forward(t, self.width(), s.hidden);
        product.bias = Some(Element::Bf16);
        self.matmul("q k v", &product, normed, self.frozen.qkv, 0, qkv, self.frozen.qkv_bias)?;
        if self.plan.paths.input > 0 {
            self.input_u()?;
            let mut product = MatmulSpec::forward(t, self.width(), self.plan.paths.input);
            product.beta = 1.0;
            self.matmul("low rank", &product, self.at(b.input_u), self.at(b.input_b), qkv, qkv, 0)?;
        }
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
            rotary::rotary(
                self.run,
                qkv,
                self.cos,
                self.sin,
                [self.tokens(), heads, self.spec.head_dim, self.width()],
                sign,
            )
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
        self.matmul("output", &product, attended, self.frozen.output, x, middle, self.frozen.output_bias)?;
        if self.plan.paths.output > 0 {
            self.output_u()?;
            let mut product = MatmulSpec::forward(t, s.hidden, self.plan.paths.output);
            product.beta = 1.0;
            self.matmul("low rank", &product, self.at(b.output_u), self.at(b.output_b), middle, middle, 0)?;
        }
        Ok(())
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

    fn rows(&self) -> experts::Rows {
        experts::Rows {
            offsets: self.at(self.buffers.offsets),
            pairs: self.at(self.buffers.pairs),
            n_pairs: self.n_pairs(),
            n_experts: self.plan.sizes.n_experts,
            top_k: self.spec.top_k,
        }
    }

    fn expert_cost(&self, inputs: usize, outputs: usize) -> (f64, f64) {
        let (pairs, s) = (self.n_pairs() as f64, &self.plan.sizes);
        let weights = (s.n_experts * inputs * outputs) as f64 * 17.0 / 32.0;
        (2.0 * pairs * (inputs * outputs) as f64, weights + 2.0 * pairs * (inputs + outputs) as f64)
    }

    /// u = x A^T of an expert pair, `[pairs, EXPERT_COLUMNS]`.
    fn expert_u(&self, pair: &Pair, x: experts::Input, inputs: usize, to: At) -> Result<()> {
        let pairs = self.n_pairs() as f64;
        let cost = (2.0 * pairs * (inputs * pair.rank) as f64, 2.0 * pairs * inputs as f64);
        self.run.stage("experts low rank", cost.0, cost.1, || {
            experts::low_rank_in(self.run, &self.rows(), x, inputs, pair.a, pair.rank, self.at(to))
        })
    }

    /// The experts' first product and its activation.
    fn gate_up(&self, pre: u64, inner: u64) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let x = experts::Input::Gathered { x: self.at(b.second_normed), stride: s.hidden };
        if let Some(pair) = &self.pairs[GATE_UP] {
            let shape = [2 * s.inner, pair.rank];
            lora::pack_experts(
                self.run,
                pair.b,
                self.at(b.gate_up_v),
                s.n_experts,
                shape,
                false,
                pair.scaling,
            )?;
            self.expert_u(pair, x, s.hidden, b.gate_up_u)?;
        }
        let low_rank = self.pairs[GATE_UP].map(|_| (self.at(b.gate_up_u), self.at(b.gate_up_v)));
        let (flops, bytes) = self.expert_cost(s.hidden, 2 * s.inner);
        self.run.stage("experts gate_up", flops, bytes, || {
            let to = experts::Outputs { product: pre, activated: inner, limit: self.spec.limit };
            experts::forward(
                self.run,
                &self.rows(),
                x,
                &self.frozen.gate_up,
                self.frozen.gate_up_bias,
                low_rank,
                [s.hidden, 2 * s.inner],
                to,
            )
        })
    }

    /// The experts' second product.
    fn down(&self) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let x = experts::Input::Sorted { x: self.at(b.inner) };
        if let Some(pair) = &self.pairs[DOWN] {
            let shape = [s.hidden, pair.rank];
            lora::pack_experts(self.run, pair.b, self.at(b.down_v), s.n_experts, shape, false, pair.scaling)?;
            self.expert_u(pair, x, s.inner, b.down_u)?;
        }
        let low_rank = self.pairs[DOWN].map(|_| (self.at(b.down_u), self.at(b.down_v)));
        let (flops, bytes) = self.expert_cost(s.inner, s.hidden);
        self.run.stage("experts down", flops, bytes, || {
            let to = experts::Outputs { product: self.at(b.expert_out), activated: 0, limit: 0.0 };
            experts::forward(
                self.run,
                &self.rows(),
                x,
                &self.frozen.down,
                self.frozen.down_bias,
                low_rank,
                [s.inner, s.hidden],
                to,
            )
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
            if let Some(pair) = &self.pairs[GATE_UP] {
                let x =
                    experts::Input::Gathered { x: self.at(b.second_normed), stride: self.plan.sizes.hidden };
                self.expert_u(pair, x, self.plan.sizes.hidden, b.gate_up_u)?;
            }
        }
        self.experts_backward(grad, gradients)?;
        self.route_backward(grad, dx, gradients[ROUTER])?;
        self.attention_backward(x, dx, gradients)
    }

    /// From the gradient of the layer's output to that of each pair's expert input.
    fn experts_backward(&self, grad: u64, gradients: &[Option<[u64; 2]>; 7]) -> Result<()> {
        let (b, s) = (&self.buffers, &self.plan.sizes);
        let rows = self.rows();
        let out = experts::Input::Gathered { x: grad, stride: s.hidden };
        let mut low_rank = None;
        if let Some(pair) = &self.pairs[DOWN] {
            let [up, back] = [[s.hidden, pair.rank], [s.inner, pair.rank]];
            lora::pack_experts(self.run, pair.b, self.at(b.down_v), s.n_experts, up, false, pair.scaling)?;
            lora::pack_experts(self.run, pair.a, self.at(b.down_dv), s.n_experts, back, true, 1.0)?;
            self.run.stage("experts low rank", 0.0, 0.0, || {
                let packed = self.at(b.down_v);
                experts::low_rank_back(self.run, &rows, out, s.hidden, packed, pair.rank, self.at(b.down_du))
            })?;
            low_rank = Some((self.at(b.down_du), self.at(b.down_dv)));
        }
        let (flops, bytes) = self.expert_cost(s.inner, s.hidden);
        self.run.stage("experts down, back", flops, bytes, || {
            let sizes = [s.hidden, s.inner];
            experts::backward(self.run, &rows, out, &self.frozen.down, low_rank, sizes, self.at(b.d_inner))
        })?;
        let h = self.pairs[DOWN].map_or(0, |_| self.at(b.inner));
        let bytes = 2.0 * self.n_pairs() as f64 * (5 * s.inner + s.hidden) as f64;
        self.run.stage("swiglu, back", 0.0, bytes, || {
            swiglu::backward(
                self.run,
                &swiglu::Backward {
                    pre: self.at(b.pre),
                    dh: self.at(b.d_inner),
                    dpre: self.at(b.pre),
                    h_out: h,
                    dh_weighted: 0,
                    pairs: self.at(b.pairs),
                    experts: self.at(b.experts),
                    weights: self.at(b.weights),
                    d_out: grad,
                    bias: self.frozen.down_bias,
                    d_weights: self.at(b.d_weights),
                },
                [self.n_pairs(), s.inner, s.hidden, s.top_k],
                self.spec.limit,
            )
        })?;
        if let (Some(pair), Some([da, db])) = (&self.pairs[DOWN], gradients[DOWN]) {
            let inner = experts::Input::Sorted { x: self.at(b.inner) };
            self.expert_u(pair, inner, s.inner, b.down_u)?;
            for side in [b.down_u, b.down_du] {
                lora::weigh_rows(self.run, self.at(side), rows.pairs, self.at(b.weights), rows.n_pairs)?;
            }
            self.run.stage(
                "experts gradients",
                0.0,
                2.0 * (rows.n_pairs * (s.inner + s.hidden)) as f64,
                || {
                    let partial = self.at(b.skinny);
                    experts::gradient_b(
                        self.run,
                        &rows,
                        out,
                        s.hidden,
                        self.at(b.down_u),
                        pair.rank,
                        pair.scaling,
                        db,
                        partial,
                    )?;
                    experts::gradient_a(
                        self.run,
                        &rows,
                        inner,
                        s.inner,
                        self.at(b.down_du),
                        pair.rank,
                        1.0,
                        da,
                        partial,
                    )
                },
            )?;
        }
        let dpre = experts::Input::Sorted { x: self.at(b.pre) };
        let mut low_rank = None;
        if let Some(pair) = &self.pairs[GATE_UP] {
            let [up, back] = [[2 * s.inner, pair.rank], [s.hidden, pair.rank]];
            lora::pack_experts(self.run, pair.b, self.at(b.gate_up_v), s.n_experts, up, false, pair.scaling)?;
            lora::pack_experts(self.run, pair.a, self.at(b.gate_up_dv), s.n_experts, back, true, 1.0)?;
            self.run.stage("experts low rank", 0.0, 0.0, || {
                let packed = self.at(b.gate_up_v);
                experts::low_rank_back(
                    self.run,
                    &rows,
                    dpre,
                    2 * s.inner,
                    packed,
                    pair.rank,
                    self.at(b.gate_up_du),
                )
            })?;
            low_rank = Some((self.at(b.gate_up_du), self.at(b.gate_up_dv)));
        }
        let (flops, bytes) = self.expert_cost(s.hidden, 2 * s.inner);
        self.run.stage("experts gate_up, back", flops, bytes, || {
            let sizes = [2 * s.inner, s.hidden];
            experts::backward(
                self.run,
                &rows,
                dpre,
                &self.frozen.gate_up,
                low_rank,
                sizes,
                self.at(b.d_expert_in),
            )
        })?;
        if let (Some(pair), Some([da, db])) = (&self.pairs[GATE_UP], gradients[GATE_UP]) {
            let x = experts::Input::Gathered { x: self.at(b.second_normed), stride: s.hidden };
            self.run.stage(
                "experts gradients",
                0.0,
                2.0 * (rows.n_pairs * (2 * s.inner + s.hidden)) as f64,
                || {
                    let (u, du, partial) = (self.at(b.gate_up_u), self.at(b.gate_up_du), self.at(b.skinny));
                    experts::gradient_b(
                        self.run,
                        &rows,
                        dpre,
                        2 * s.inner,
                        u,
                        pair.rank,
                        pair.scaling,
                        db,
                        partial,
                    )?;
                    experts::gradient_a(self.run, &rows, x, s.hidden, du, pair.rank, 1.0, da, partial)
                },
            )?;
        }
        Ok(())
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
        let product = MatmulSpec::backward(t, s.query, s.hidden);
        self.matmul("output, back", &product, dx, self.frozen.output, 0, d_attended, 0)?;
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
            self.unpack_dense(pair, to, 0, 0, [s.hidden, s.query], columns)?;
        }
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
        let product = MatmulSpec::backward(t, s.hidden, self.width());
        self.matmul("q k v, back", &product, d_qkv, self.frozen.qkv, 0, d_normed, 0)?;
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
            for site in QUERY..=VALUE {
                let Some(pair) = &self.pairs[site] else { continue };
                if let Some(to) = gradients[site] {
                    let shape = [self.widths()[site], s.hidden];
                    self.unpack_dense(pair, to, self.first_rows()[site], column, shape, columns)?;
                }
                column += pair.rank;
            }
        }
        self.run.stage("norm, back", 0.0, 8.0 * (t * s.hidden) as f64, || {
            norm::rms_norm_backward(
                self.run,
                x,
                self.frozen.input_norm,
                self.at(b.first_rms),
                d_normed,
                dx,
                dx,
                t,
                s.hidden,
                s.hidden,
            )
        })
    }

    /// du = grad B, d_x += du A, and the gradients of A and B for all columns.
    fn dense_low_rank_backward(&self, of: &Dense, d_x: u64) -> Result<()> {
        let (b, t) = (&self.buffers, self.tokens());
        let product = MatmulSpec::backward(t, of.columns, of.outputs);
        self.matmul("low rank", &product, of.grad, of.b, 0, of.du, 0)?;
        let mut product = MatmulSpec::backward(t, of.inputs, of.columns);
        product.beta = 1.0;
        self.matmul("low rank", &product, of.du, of.a, d_x, d_x, 0)?;
        let product = gradient(of.columns, of.inputs, t);
        self.matmul("low rank gradients", &product, of.du, of.x, 0, self.at(b.d_dense_a), 0)?;
        let product = gradient(of.outputs, of.columns, t);
        self.matmul("low rank gradients", &product, of.grad, of.u, 0, self.at(b.d_dense_b), 0)
    }

    /// A site's part of the common gradients. B stands in products with its scaling, A without.
    fn unpack_dense(
        &self,
        pair: &Pair,
        [da, db]: [u64; 2],
        row: usize,
        column: usize,
        [outputs, inputs]: [usize; 2],
        columns: usize,
    ) -> Result<()> {
        let b = &self.buffers;
        let rank = pair.rank;
        lora::unpack(self.run, self.at(b.d_dense_a), da, [rank, inputs], [column, 0], inputs, 1.0)?;
        lora::unpack(
            self.run,
            self.at(b.d_dense_b),
            db,
            [outputs, rank],
            [row, column],
            columns,
            pair.scaling,
        )
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

/// D `[m, n]` in f32 = A^T B over `tokens` rows of A `[tokens, m]` and B `[tokens, n]`.
fn gradient(m: usize, n: usize, tokens: usize) -> MatmulSpec {
    let mut spec = MatmulSpec::backward(m, n, tokens);
    (spec.a.transposed, spec.a.stride) = (true, m);
    (spec.c.element, spec.d.element) = (Element::F32, Element::F32);
    spec
}

/// A rank as the columns that products read.
pub(super) fn dense_columns(rank: usize) -> usize {
    rank.next_multiple_of(DENSE_COLUMNS)
}

/// Largest rank of an expert pair.
pub(super) const MAX_EXPERT_RANK: usize = EXPERT_COLUMNS;
