//! The low-rank pairs inside a layer: brought into the form that products read, applied, and their gradients.
//!
//! The pairs at query, key and value are one path whose columns are all their ranks. `b` is used in products with its
//! scaling, `a` without.

use super::frame::{Frame, Pair, Product};
use super::gradients::{self, Job, pair_gradients};
use super::lora::{self, Stored};
use super::operands::{Factors, Gradients};
use super::thin::{Part, thin_rows};
use crate::cuda::{Element, MatmulSpec, Result};
use crate::memory::table::Buffer;
use crate::op::experts::RANK_WIDTH;
use crate::op::experts::cuda::{self as experts, Factor, Gradient, Sorted};
use crate::site::SiteKind;

/// Up to so many tokens rows go through a factor in a kernel of ours: the library's products have few blocks then.
const FEW_TOKENS: usize = 4096;

impl Pair {
    /// A, `[rank, inputs]`, at a place in a larger matrix.
    fn part_a(&self, at: [usize; 2], inputs: usize) -> lora::Part {
        lora::Part { address: self.a, at, shape: [self.rank, inputs], factor: 1.0 }
    }

    /// s B transposed, `[rank, outputs]`.
    fn part_b(&self, at: [usize; 2], outputs: usize) -> lora::Part {
        lora::Part { address: self.b, at, shape: [self.rank, outputs], factor: self.scaling }
    }

    /// Where the gradients of A and B go; its columns begin at `first`.
    fn gradients(&self, to: Factors<u64>, first: usize) -> [gradients::Part; 2] {
        let part = |to, factor, alpha| gradients::Part { to, factor, first, rank: self.rank, alpha };
        [part(to.a, gradients::Factor::A, 1.0), part(to.b, gradients::Factor::B, self.scaling)]
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

impl Frame<'_> {
    /// The pairs of attention and router in the form that products read.
    pub(super) fn pack(&self) -> Result<()> {
        self.run.stage("pack pairs", 0.0, 0.0, || {
            let (s, paths) = (&self.plan.sizes, &self.plan.paths);
            let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
            if paths.input > 0 {
                let (mut column, mut a, mut b) = (0, Vec::new(), Vec::new());
                for (kind, row, rows) in self.plan.sizes.input_rows() {
                    let Some(pair) = self.pair(kind) else { continue };
                    a.push(pair.part_a([column, 0], s.hidden));
                    b.push(pair.part_b([column, row], rows));
                    column += pair.rank;
                }
                let (address, shape) = (self.at(Buffer::InputA)?, [paths.input, s.hidden]);
                of_a.push(lora::Whole { address, shape, parts: a });
                let (address, shape) = (self.at(Buffer::InputB)?, [paths.input, s.qkv()]);
                of_b.push(lora::Whole { address, shape, parts: b });
            }
            if let Some(pair) = self.pair(SiteKind::Output) {
                let (address, shape) = (self.at(Buffer::OutputA)?, [paths.output, s.query]);
                of_a.push(lora::Whole { address, shape, parts: vec![pair.part_a([0, 0], s.query)] });
                let (address, shape) = (self.at(Buffer::OutputB)?, [paths.output, s.hidden]);
                of_b.push(lora::Whole { address, shape, parts: vec![pair.part_b([0, 0], s.hidden)] });
            }
            let of_a = of_a.iter().map(|whole| (whole, Stored::Plain));
            let of_b = of_b.iter().map(|whole| (whole, Stored::Transposed));
            lora::pack_stored(self.run, &of_a.chain(of_b).collect::<Vec<_>>())?;
            if let Some(pair) = self.pair(SiteKind::Router) {
                let (weight, to) = (self.operands.frozen.router, self.at(Buffer::MergedRouter)?);
                lora::merge_router(self.run, weight, pair, to, s.n_experts, s.hidden)?;
            }
            Ok(())
        })
    }

    /// What the path at q, k and v reads: normed x by A.
    pub(super) fn input_u(&self) -> Result<()> {
        let [x, a, u] = [self.at(Buffer::Normed)?, self.at(Buffer::InputA)?, self.at(Buffer::InputU)?];
        let (width, columns) = (self.plan.sizes.hidden, self.plan.paths.input);
        self.thin([x, a, u], [width, columns], &[Part::whole(width, columns)])
    }

    /// What the path at the output reads: attention's result by A.
    pub(super) fn output_u(&self) -> Result<()> {
        let [x, a, u] = [self.at(Buffer::Attended)?, self.at(Buffer::OutputA)?, self.at(Buffer::OutputU)?];
        let (width, columns) = (self.plan.sizes.query, self.plan.paths.output);
        self.thin([x, a, u], [width, columns], &[Part::whole(width, columns)])
    }

    /// Rows of `width` times the `columns` rows of a factor.
    fn thin(&self, at: [u64; 3], [width, columns]: [usize; 2], parts: &[Part]) -> Result<()> {
        let t = self.tokens();
        let (flops, bytes) =
            (2.0 * (t * width * columns) as f64, 2.0 * (t * (width + columns) + width * columns) as f64);
        if t > FEW_TOKENS {
            let [x, w, u] = at;
            let product = MatmulSpec::forward(t, columns, width);
            return self.matmul("low rank, in", &product, Product::new(x, w, u));
        }
        self.run.stage("low rank, in", flops, bytes, || thin_rows(self.run, at, [t, width, columns], parts))
    }

    /// d = u b, for u `[tokens, columns]` and a factor b `[columns, outputs]`, to which `c` is added.
    pub(super) fn expanded(
        &self,
        [u, b, d]: [u64; 3],
        c: Option<u64>,
        [columns, outputs]: [usize; 2],
    ) -> Result<()> {
        let mut product = MatmulSpec::backward(self.tokens(), outputs, columns);
        product.beta = if c.is_some() { 1.0 } else { 0.0 };
        self.matmul("low rank, out", &product, Product { c, ..Product::new(u, b, d) })
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

    /// du = grad (s B), d_x = du A, where the gradient is that of q, k and v.
    pub(super) fn input_low_rank_backward(&self, grad: u64, d_x: u64) -> Result<()> {
        let (s, columns) = (&self.plan.sizes, self.plan.paths.input);
        let (mut column, mut parts) = (0, Vec::new());
        for (kind, row, rows) in self.plan.sizes.input_rows() {
            let Some(pair) = self.pair(kind) else { continue };
            parts.push(Part { rows: [column, pair.rank], columns: [row, rows] });
            column += pair.rank;
        }
        let (a, b, du) = (self.at(Buffer::InputA)?, self.at(Buffer::InputB)?, self.at(Buffer::DInputU)?);
        self.thin([grad, b, du], [s.qkv(), columns], &parts)?;
        self.expanded([du, a, d_x], None, [columns, s.hidden])
    }

    /// The same where it is that of the output.
    pub(super) fn output_low_rank_backward(&self, grad: u64, d_x: u64) -> Result<()> {
        let (s, columns) = (&self.plan.sizes, self.plan.paths.output);
        let (a, b, du) = (self.at(Buffer::OutputA)?, self.at(Buffer::OutputB)?, self.at(Buffer::DOutputU)?);
        self.thin([grad, b, du], [s.hidden, columns], &[Part::whole(s.hidden, columns)])?;
        self.expanded([du, a, d_x], None, [columns, s.query])
    }

    /// The gradients of the pairs at q, k, v and output, once both of the above are done; `grad` is that of the
    /// residual stream behind attention.
    pub(super) fn dense_gradients(&self, to: &Gradients<u64>, grad: u64) -> Result<()> {
        let (s, paths, mut jobs) = (&self.plan.sizes, &self.plan.paths, Vec::new());
        let (mut of_a, mut column) = (Vec::new(), 0);
        for (kind, row, rows) in self.plan.sizes.input_rows() {
            let Some(pair) = self.pair(kind) else { continue };
            if let Some(to) = to.pairs[kind] {
                let [a, b] = pair.gradients(to, column);
                of_a.push(a);
                jobs.push(Job {
                    wide: self.at(Buffer::DQkv)? + (row * Element::Bf16.bytes()) as u64,
                    width: rows,
                    wide_stride: s.qkv(),
                    thin: self.at(Buffer::InputU)?,
                    ranks: paths.input,
                    parts: vec![b],
                });
            }
            column += pair.rank;
        }
        if !of_a.is_empty() {
            jobs.push(Job {
                wide: self.at(Buffer::Normed)?,
                width: s.hidden,
                wide_stride: s.hidden,
                thin: self.at(Buffer::DInputU)?,
                ranks: paths.input,
                parts: of_a,
            });
        }
        if let (Some(pair), Some(to)) = (self.pair(SiteKind::Output), to.pairs[SiteKind::Output]) {
            let [a, b] = pair.gradients(to, 0);
            let job = |wide, width, thin: Buffer, part| {
                let (thin, ranks) = (self.at(thin)?, paths.output);
                Ok(Job { wide, width, wide_stride: width, thin, ranks, parts: vec![part] })
            };
            jobs.push(job(self.at(Buffer::Attended)?, s.query, Buffer::DOutputU, a)?);
            jobs.push(job(grad, s.hidden, Buffer::OutputU, b)?);
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let columns: usize = jobs.iter().map(|job| job.width + job.ranks).sum();
        let bytes = 2.0 * (self.tokens() * columns) as f64;
        self.run.stage("low rank gradients", 0.0, bytes, || pair_gradients(self.run, &jobs, self.tokens()))
    }
}
