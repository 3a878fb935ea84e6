//! The low-rank pairs inside a layer: brought into the form that products read, applied, and their gradients.
//!
//! The pairs at query, key and value are one path whose columns are all their ranks. `b` is used in products with its
//! scaling, `a` without.

use super::frame::{Frame, Pair, Product};
use super::lora;
use super::operands::Factors;
use crate::cuda::{Element, MatmulSpec, Result};
use crate::memory::table::Buffer;
use crate::op::experts::RANK_WIDTH;
use crate::op::experts::cuda::{self as experts, Factor, Gradient, Sorted};
use crate::site::SiteKind;

impl Pair {
    /// A, `[rank, inputs]`, at a place in a larger matrix.
    fn part_a(&self, at: [usize; 2], inputs: usize) -> lora::Part {
        lora::Part { address: self.a, at, shape: [self.rank, inputs], factor: 1.0 }
    }

    /// s B, `[outputs, rank]`.
    fn part_b(&self, at: [usize; 2], outputs: usize) -> lora::Part {
        lora::Part { address: self.b, at, shape: [outputs, self.rank], factor: self.scaling }
    }

    /// Where the gradients of A and B go, from common ones.
    fn gradients(
        &self,
        to: Factors<u64>,
        [row, column]: [usize; 2],
        [outputs, inputs]: [usize; 2],
    ) -> [lora::Part; 2] {
        let of = Self { a: to.a, b: to.b, ..*self };
        [of.part_a([column, 0], inputs), of.part_b([row, column], outputs)]
    }
}

/// Buffers of an expert pair.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpertBuffers {
    /// s B, packed.
    pub(super) v: Buffer,
    /// A, packed and transposed.
    pub(super) dv: Buffer,
    /// Rows by A.
    pub(super) u: Buffer,
    /// Gradient rows by s B.
    pub(super) du: Buffer,
}

impl ExpertBuffers {
    pub(super) const GATE_UP: Self =
        Self { v: Buffer::GateUpV, dv: Buffer::GateUpDv, u: Buffer::GateUpU, du: Buffer::GateUpDu };
    pub(super) const DOWN: Self =
        Self { v: Buffer::DownV, dv: Buffer::DownDv, u: Buffer::DownU, du: Buffer::DownDu };
}

/// A dense product's low-rank path in the backward.
pub(super) struct Dense {
    /// Gradient of the product, `[tokens, outputs]`.
    pub(super) grad: u64,
    pub(super) outputs: usize,
    /// What the product read, `[tokens, inputs]`.
    pub(super) x: u64,
    pub(super) inputs: usize,
    pub(super) columns: usize,
    pub(super) a: Buffer,
    pub(super) b: Buffer,
    pub(super) u: Buffer,
    pub(super) du: Buffer,
}

impl Frame<'_> {
    /// The pairs of attention and router in the form that products read.
    pub(super) fn pack(&self) -> Result<()> {
        self.run.stage("pack pairs", 0.0, 0.0, || {
            let (s, paths) = (&self.plan.sizes, &self.plan.paths);
            let mut wholes = Vec::new();
            if paths.input > 0 {
                let (mut column, mut a, mut b) = (0, Vec::new(), Vec::new());
                for (kind, row, rows) in self.input_rows() {
                    let Some(pair) = self.pair(kind) else { continue };
                    a.push(pair.part_a([column, 0], s.hidden));
                    b.push(pair.part_b([row, column], rows));
                    column += pair.rank;
                }
                let (address, shape) = (self.at(Buffer::InputA)?, [paths.input, s.hidden]);
                wholes.push(lora::Whole { address, shape, parts: a });
                let (address, shape) = (self.at(Buffer::InputB)?, [s.qkv(), paths.input]);
                wholes.push(lora::Whole { address, shape, parts: b });
            }
            if let Some(pair) = self.pair(SiteKind::Output) {
                let (address, shape) = (self.at(Buffer::OutputA)?, [paths.output, s.query]);
                wholes.push(lora::Whole { address, shape, parts: vec![pair.part_a([0, 0], s.query)] });
                let (address, shape) = (self.at(Buffer::OutputB)?, [s.hidden, paths.output]);
                wholes.push(lora::Whole { address, shape, parts: vec![pair.part_b([0, 0], s.hidden)] });
            }
            lora::pack(self.run, &wholes)?;
            if let Some(pair) = self.pair(SiteKind::Router) {
                let (weight, to) = (self.operands.frozen.router, self.at(Buffer::MergedRouter)?);
                lora::merge_router(self.run, weight, pair, to, s.n_experts, s.hidden)?;
            }
            Ok(())
        })
    }

    /// What the path at q, k and v reads: normed x by A.
    pub(super) fn input_u(&self) -> Result<()> {
        let product = MatmulSpec::forward(self.tokens(), self.plan.paths.input, self.plan.sizes.hidden);
        let (x, a, u) = (self.at(Buffer::Normed)?, self.at(Buffer::InputA)?, self.at(Buffer::InputU)?);
        self.matmul("low rank", &product, Product::new(x, a, u))
    }

    /// What the path at the output reads: attention's result by A.
    pub(super) fn output_u(&self) -> Result<()> {
        let product = MatmulSpec::forward(self.tokens(), self.plan.paths.output, self.plan.sizes.query);
        let (x, a, u) = (self.at(Buffer::Attended)?, self.at(Buffer::OutputA)?, self.at(Buffer::OutputU)?);
        self.matmul("low rank", &product, Product::new(x, a, u))
    }

    /// An expert pair in the form that products read.
    pub(super) fn pack_expert_pair(
        &self,
        kind: SiteKind,
        to: ExpertBuffers,
        [outputs, inputs]: [usize; 2],
    ) -> Result<()> {
        // It stays for the chunks that follow.
        let Some(pair) = self.pair(kind).filter(|_| self.is_first_chunk()) else { return Ok(()) };
        let (n, v, dv) = (self.plan.sizes.n_experts, self.at(to.v)?, self.at(to.dv)?);
        self.run.stage("pack pairs", 0.0, 0.0, || {
            lora::pack_experts(
                self.run,
                pair.b,
                v,
                n,
                [outputs, pair.rank],
                false,
                pair.scaling,
                RANK_WIDTH,
            )?;
            lora::pack_experts(self.run, pair.a, dv, n, [inputs, pair.rank], true, 1.0, RANK_WIDTH)
        })
    }

    /// Rows by a packed factor: u = x A^T, or du = dy (s B).
    pub(super) fn expert_u(
        &self,
        pair: &Pair,
        rows: &Sorted,
        factor: Buffer,
        features: usize,
        to: Buffer,
    ) -> Result<()> {
        let pairs = self.n_pairs() as f64;
        let (flops, bytes) = (2.0 * pairs * (features * pair.rank) as f64, 2.0 * pairs * features as f64);
        let (factor, to, sizes) = (self.at(factor)?, self.at(to)?, self.low_rank(pair, features));
        self.run.stage("experts low rank", flops, bytes, || {
            experts::low_rank_rows(self.run, rows, factor, to, sizes)
        })
    }

    /// dB = s dy^T u and dA = du^T x of an expert pair; `du` has the scaling already.
    pub(super) fn expert_gradients(
        &self,
        pair: &Pair,
        to: Factors<u64>,
        of: [(&Sorted, usize, Buffer); 2],
    ) -> Result<()> {
        let [(dy, outputs, u), (x, inputs, du)] = of;
        let n = self.plan.sizes.n_experts * pair.rank;
        let flops = 2.0 * self.n_pairs() as f64 * (pair.rank * (outputs + inputs)) as f64;
        let bytes = 2.0 * (self.n_pairs() * (outputs + inputs)) as f64;
        let (u, du) = (self.at(u)?, self.at(du)?);
        let (b, a) = (self.low_rank(pair, outputs), self.low_rank(pair, inputs));
        // Where a sum has one part, it needs no place for others.
        let workspace = if b.workspace(self.n_pairs()).max(a.workspace(self.n_pairs())) > 0 {
            self.at(Buffer::Partial)?
        } else {
            0
        };
        self.run.stage("experts gradients", flops, bytes, || {
            // The kernels add to what is there.
            if self.is_first_chunk() {
                self.run.memset(to.b, 0, n * outputs * size_of::<f32>())?;
                self.run.memset(to.a, 0, n * inputs * size_of::<f32>())?;
            }
            let of_b = Gradient { grad: to.b, factor: Factor::B, alpha: pair.scaling, workspace };
            experts::low_rank_gradient(self.run, dy, u, of_b, b)?;
            let of_a = Gradient { grad: to.a, factor: Factor::A, alpha: 1.0, workspace };
            experts::low_rank_gradient(self.run, x, du, of_a, a)
        })
    }

    /// du = grad B, d_x = du A, and the gradients of A and B for all columns.
    pub(super) fn dense_low_rank_backward(&self, of: &Dense, d_x: u64) -> Result<()> {
        let t = self.tokens();
        let (a, b) = (self.at(of.a)?, self.at(of.b)?);
        let (u, du) = (self.at(of.u)?, self.at(of.du)?);
        let product = MatmulSpec::backward(t, of.columns, of.outputs);
        self.matmul("low rank", &product, Product::new(of.grad, b, du))?;
        let product = MatmulSpec::backward(t, of.inputs, of.columns);
        self.matmul("low rank", &product, Product::new(du, a, d_x))?;
        let product = gradient(of.columns, of.inputs, t);
        self.matmul("low rank gradients", &product, Product::new(du, of.x, self.at(Buffer::DDenseA)?))?;
        let product = gradient(of.outputs, of.columns, t);
        self.matmul("low rank gradients", &product, Product::new(of.grad, u, self.at(Buffer::DDenseB)?))
    }

    /// The gradient of the output's pair, out of the common ones.
    pub(super) fn unpack_output(&self, pair: &Pair, to: Factors<u64>) -> Result<()> {
        let s = &self.plan.sizes;
        let [a, b] = pair.gradients(to, [0, 0], [s.hidden, s.query]);
        self.unpack(vec![a], vec![b], [s.hidden, s.query], self.plan.paths.output)
    }

    /// The gradients of the pairs at q, k and v, out of the common ones.
    pub(super) fn unpack_input(&self, to: impl Fn(SiteKind) -> Option<Factors<u64>>) -> Result<()> {
        let s = &self.plan.sizes;
        let (mut column, mut a, mut b) = (0, Vec::new(), Vec::new());
        for (kind, row, rows) in self.input_rows() {
            let Some(pair) = self.pair(kind) else { continue };
            if let Some(to) = to(kind) {
                let [of_a, of_b] = pair.gradients(to, [row, column], [rows, s.hidden]);
                a.push(of_a);
                b.push(of_b);
            }
            column += pair.rank;
        }
        self.unpack(a, b, [s.qkv(), s.hidden], self.plan.paths.input)
    }

    fn unpack(
        &self,
        a: Vec<lora::Part>,
        b: Vec<lora::Part>,
        [outputs, inputs]: [usize; 2],
        columns: usize,
    ) -> Result<()> {
        let of_a = lora::Whole { address: self.at(Buffer::DDenseA)?, shape: [columns, inputs], parts: a };
        let of_b = lora::Whole { address: self.at(Buffer::DDenseB)?, shape: [outputs, columns], parts: b };
        lora::unpack(self.run, &[of_a, of_b])
    }
}

/// D `[m, n]` in f32 = A^T B over `tokens` rows of A `[tokens, m]` and B `[tokens, n]`.
fn gradient(m: usize, n: usize, tokens: usize) -> MatmulSpec {
    let mut spec = MatmulSpec::backward(m, n, tokens);
    (spec.a.transposed, spec.a.stride) = (true, m);
    (spec.c.element, spec.d.element) = (Element::F32, Element::F32);
    spec
}
