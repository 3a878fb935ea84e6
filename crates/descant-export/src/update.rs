//! The update at a site, as rows to be added to those of the weight.

use descant_lora::peft::Factors;
use descant_model::SiteDims;
use descant_quant::mxfp4::Basis;

/// `scaling * B A`, for each matrix its own.
#[derive(Debug)]
pub(crate) struct Update {
    factors: Factors,
    dims: SiteDims,
}

impl Update {
    /// `None` where the product is zero throughout: such an update reaches nothing.
    pub(crate) fn new(factors: Factors, dims: SiteDims) -> Option<Self> {
        let update = Self { factors, dims };
        (0..dims.n_matrices).any(|matrix| update.reaches(matrix)).then_some(update)
    }

    /// A of one matrix, `[rank, d_in]`.
    fn a(&self, matrix: usize) -> &[f32] {
        let size = self.factors.rank * self.dims.d_in;
        &self.factors.a[matrix * size..(matrix + 1) * size]
    }

    /// One row of B, `[rank]`.
    fn b(&self, matrix: usize, row: usize) -> &[f32] {
        let rank = self.factors.rank;
        let start = (matrix * self.dims.d_out + row) * rank;
        &self.factors.b[start..start + rank]
    }

    /// Whether anything of a matrix is changed.
    pub(crate) fn reaches(&self, matrix: usize) -> bool {
        (0..self.dims.d_out).any(|row| self.reaches_row(matrix, row))
    }

    /// Whether a row is changed: some direction of A is read and written.
    pub(crate) fn reaches_row(&self, matrix: usize, row: usize) -> bool {
        let d_in = self.dims.d_in;
        let directions = self.a(matrix).chunks_exact(d_in);
        self.b(matrix, row).iter().zip(directions).any(|(b, a)| *b != 0.0 && a.iter().any(|a| *a != 0.0))
    }

    /// Writes the update of one row into `out`, `[d_in]`, in f32.
    pub(crate) fn row(&self, matrix: usize, row: usize, out: &mut [f32]) {
        out.fill(0.0);
        for (b, a) in self.b(matrix, row).iter().zip(self.a(matrix).chunks_exact(self.dims.d_in)) {
            let factor = self.factors.scaling * b;
            out.iter_mut().zip(a).for_each(|(out, a)| *out += factor * a);
        }
    }

    /// The space that A of one matrix reads.
    pub(crate) fn basis(&self, matrix: usize) -> Basis {
        Basis::of_rows(self.a(matrix), self.dims.d_in)
    }

    /// A in that basis: `[rank of the adapter][rank of the basis]`.
    pub(crate) fn projected(&self, matrix: usize, basis: &Basis) -> Vec<Vec<f64>> {
        self.a(matrix).chunks_exact(self.dims.d_in).map(|a| basis.project(a)).collect()
    }

    /// The update of one row in the basis in which A was [`projected`](Self::projected).
    pub(crate) fn row_in(&self, matrix: usize, row: usize, projected: &[Vec<f64>], rank: usize) -> Vec<f64> {
        let mut along = vec![0.0; rank];
        for (b, a) in self.b(matrix, row).iter().zip(projected) {
            let factor = f64::from(self.factors.scaling) * f64::from(*b);
            along.iter_mut().zip(a).for_each(|(along, a)| *along += factor * a);
        }
        along
    }
}
