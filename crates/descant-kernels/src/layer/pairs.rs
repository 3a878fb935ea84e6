//! The low-rank pairs inside a layer: brought into the form that products read, applied, and their gradients.
//!
//! The pairs at query, key and value are one path whose columns are all their ranks. `b` is used in products with its
//! scaling, `a` without.

use super::factors::{self, Columns, Pair, Stored};
use super::frame::{Frame, Product};
use super::gradients::{self, FactorGradient, Job, pair_gradients};
use super::lora;
use super::operands::{Factors, Gradients};
use super::thin::{Band, thin_rows};
use crate::cuda::{Element, MatmulSpec, Result};
use crate::memory::table::{Buffer, DenseBuffers, ExpertBuffers};
use crate::op::experts::RANK_WIDTH;
use crate::op::experts::cuda::{self as experts, Factor, Gradient, Sorted};
use crate::site::{DensePath, ExpertPath, PerSite, SiteKind};

/// Up to so many tokens rows go through a factor in a kernel of ours: the library's products have few blocks then.
const FEW_TOKENS: usize = 4096;

impl Pair {
    /// Where the gradients of A and B go; its columns begin at `first`.
    fn gradients(&self, to: Factors<u64>, first: usize) -> [FactorGradient; 2] {
        let part = |to, factor, alpha| FactorGradient { to, factor, first, rank: self.rank, alpha };
        [part(to.a, gradients::Factor::A, 1.0), part(to.b, gradients::Factor::B, self.scaling)]
    }
}

impl Frame<'_> {
    /// The pairs of dense products and of the router in the form that products read.
    pub(super) fn pack(&self) -> Result<()> {
        let (s, pairs) = (&self.plan.sizes, PerSite::from_fn(|kind| self.pair(kind)));
        let mut wholes = Vec::new();
        for path in DensePath::ALL {
            let (all, at) = (self.plan.paths[path], DenseBuffers::of(path));
            if all > 0 {
                let columns = Columns::together(path, &factors::ranks(&pairs), all);
                let to = [self.at(at.a)?, self.at(at.b)?];
                wholes.extend(factors::dense(path, s, &pairs, &columns, to, Stored::Transposed));
            }
        }
        self.run.stage("pack pairs", 0.0, 0.0, || {
            lora::pack(self.run, &wholes)?;
            let Some(pair) = pairs[SiteKind::Router] else { return Ok(()) };
            let (weight, to) = (self.operands.frozen.router, self.at(Buffer::MergedRouter)?);
            lora::merge_router(self.run, weight, pair, to, s.n_experts, s.hidden)
        })
    }

    /// What a dense path adds to `d`, where there is such a pair: d = x A^T (s B)^T, to which `c` is added. Says whether
    /// there is.
    pub(super) fn dense_path(&self, path: DensePath, d: u64, c: Option<u64>) -> Result<bool> {
        let (columns, at) = (self.plan.paths[path], DenseBuffers::of(path));
        if columns == 0 {
            return Ok(false);
        }
        let [outputs, inputs] = self.plan.sizes.product(path);
        let (x, a, b, u) = (self.at(at.x)?, self.at(at.a)?, self.at(at.b)?, self.at(at.u)?);
        self.thin([x, a, u], [inputs, columns], &[Band::whole(inputs, columns)])?;
        self.expanded([u, b, d], c, [columns, outputs])?;
        Ok(true)
    }

    /// The same on the way back: du = grad (s B), d_x = du A.
    pub(super) fn dense_path_backward(&self, path: DensePath, grad: u64, d_x: u64) -> Result<bool> {
        let (s, columns, at) = (&self.plan.sizes, self.plan.paths[path], DenseBuffers::of(path));
        if columns == 0 {
            return Ok(false);
        }
        let ([outputs, inputs], mut column, mut bands) = (s.product(path), 0, Vec::new());
        for kind in path.sites() {
            let (Some(pair), [rows, _]) = (self.pair(kind), s.matrix(kind)) else { continue };
            bands.push(Band { rows: [column, pair.rank], columns: [s.first_row(kind), rows] });
            column += pair.rank;
        }
        let (a, b, du) = (self.at(at.a)?, self.at(at.b)?, self.at(at.du)?);
        self.thin([grad, b, du], [outputs, columns], &bands)?;
        self.expanded([du, a, d_x], None, [columns, inputs])?;
        Ok(true)
    }

    /// Rows of `width` times the `columns` rows of a factor.
    fn thin(&self, at: [u64; 3], [width, columns]: [usize; 2], bands: &[Band]) -> Result<()> {
        let t = self.tokens();
        let (flops, bytes) =
            (2.0 * (t * width * columns) as f64, 2.0 * (t * (width + columns) + width * columns) as f64);
        if t > FEW_TOKENS {
            let [x, w, u] = at;
            let product = MatmulSpec::forward(t, columns, width);
            return self.matmul("low rank, in", &product, Product::new(x, w, u));
        }
        self.run.stage("low rank, in", flops, bytes, || thin_rows(self.run, at, [t, width, columns], bands))
    }

    /// d = u b, for u `[tokens, columns]` and a factor b `[columns, outputs]`, to which `c` is added.
    fn expanded(&self, [u, b, d]: [u64; 3], c: Option<u64>, [columns, outputs]: [usize; 2]) -> Result<()> {
        let mut product = MatmulSpec::backward(self.tokens(), outputs, columns);
        product.beta = if c.is_some() { 1.0 } else { 0.0 };
        self.matmul("low rank, out", &product, Product { c, ..Product::new(u, b, d) })
    }

    /// An expert pair in the form that products read.
    pub(super) fn pack_expert_pair(&self, path: ExpertPath) -> Result<()> {
        // It stays for the chunks that follow.
        let Some(pair) = self.pair(path.site()).filter(|_| self.is_first_chunk()) else { return Ok(()) };
        let (to, shape) = (ExpertBuffers::of(path), self.plan.sizes.matrix(path.site()));
        let (n, v, dv) = (self.plan.sizes.n_experts, self.at(to.v)?, self.at(to.dv)?);
        self.run.stage("pack pairs", 0.0, 0.0, || {
            lora::pack_experts(self.run, pair.expert_b(shape), v, n, RANK_WIDTH)?;
            lora::pack_experts(self.run, pair.expert_a(shape, Stored::Transposed), dv, n, RANK_WIDTH)
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

    /// The gradients of the pairs at dense products, once their paths were gone back; `grad` is that of the residual
    /// stream behind attention.
    pub(super) fn dense_gradients(&self, to: &Gradients<u64>, grad: u64) -> Result<()> {
        let (s, mut jobs) = (&self.plan.sizes, Vec::new());
        for path in DensePath::ALL {
            let (at, columns, [outputs, inputs]) =
                (DenseBuffers::of(path), self.plan.paths[path], s.product(path));
            let (mut of_a, mut column) = (Vec::new(), 0);
            for kind in path.sites() {
                let Some(pair) = self.pair(kind) else { continue };
                if let Some(to) = to.pairs[kind] {
                    let [a, b] = pair.gradients(to, column);
                    of_a.push(a);
                    let rows = at.d_out.map_or(Ok(grad), |rows| self.at(rows))?;
                    let [width, _] = s.matrix(kind);
                    jobs.push(Job {
                        wide: rows + (s.first_row(kind) * Element::Bf16.bytes()) as u64,
                        width,
                        wide_stride: outputs,
                        thin: self.at(at.u)?,
                        ranks: columns,
                        parts: vec![b],
                    });
                }
                column += pair.rank;
            }
            if !of_a.is_empty() {
                let (wide, thin) = (self.at(at.x)?, self.at(at.du)?);
                jobs.push(Job {
                    wide,
                    width: inputs,
                    wide_stride: inputs,
                    thin,
                    ranks: columns,
                    parts: of_a,
                });
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let columns: usize = jobs.iter().map(|job| job.width + job.ranks).sum();
        let bytes = 2.0 * (self.tokens() * columns) as f64;
        self.run.stage("low rank gradients", 0.0, bytes, || pair_gradients(self.run, &jobs, self.tokens()))
    }
}
