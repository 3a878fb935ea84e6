//! The products of a layer's experts in the numbers that a step takes.
//!
//! Here alone is asked in which form a product is: rows are brought into what its kernel reads, and the kernel is called.

use descant_quant::e4m3;

use super::frame::Frame;
use crate::cuda::{CudaError, Result};
use crate::memory::table::Buffer;
use crate::op::experts::cuda::{self as experts, Output};
use crate::op::experts::fp8::{self, Rounded};
use crate::op::experts::fp8_rows::{self, Fp8Rows, RowFactors};
use crate::op::experts::matrices::{Experts, Side};
use crate::op::swiglu::cuda as swiglu;
use crate::site::ExpertPath;

/// A product of the experts.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExpertProduct {
    Forward(ExpertPath),
    Backward(ExpertPath),
}

/// Rows that one reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum ExpertRows {
    /// One a token.
    Tokens(u64),
    /// One a pair, in the order of the experts.
    Pairs(u64),
    /// The same in fp8, already where they are to be, with these factors.
    Written(RowFactors),
}

impl ExpertProduct {
    fn path(self) -> ExpertPath {
        match self {
            Self::Forward(path) | Self::Backward(path) => path,
        }
    }

    fn side(self, experts: &Experts) -> Side {
        match self {
            Self::Forward(_) => experts.forward_side(),
            Self::Backward(_) => experts.backward_side(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Forward(ExpertPath::GateUp) => "experts gate_up",
            Self::Forward(ExpertPath::Down) => "experts down",
            Self::Backward(ExpertPath::GateUp) => "experts gate_up, back",
            Self::Backward(ExpertPath::Down) => "experts down, back",
        }
    }
}

impl Frame<'_> {
    /// Rows times the experts' frozen matrices. `to` is where rows are put in the order and the numbers that the product
    /// reads, where they are not read as they are. `codes` is where its activation goes in E4M3, if it is in fp8 itself.
    pub(super) fn expert_product(
        &self,
        product: ExpertProduct,
        rows: ExpertRows,
        to: Buffer,
        result: &Output,
        codes: Option<Rounded>,
    ) -> Result<()> {
        let (s, path) = (&self.plan.sizes, product.path());
        let experts = match path {
            ExpertPath::GateUp => self.operands.frozen.gate_up(s),
            ExpertPath::Down => self.operands.frozen.down(s),
        };
        let side = product.side(&experts);
        let [outputs, inputs] = s.matrix(path.site());
        let width = if matches!(product, ExpertProduct::Forward(_)) { inputs } else { outputs };
        let (flops, bytes) = self.expert_cost(&experts);
        if let Some(references) = self.fp8.and_then(|fp8| fp8.of(path)) {
            let rows = self.rows_in_fp8(rows, width, to)?;
            return self.run.stage(product.name(), flops, bytes, || {
                fp8::product(self.run, &rows, &experts, references.of(side), side, result, codes)
            });
        }
        let rows = match rows {
            ExpertRows::Tokens(data) => self.rows_for(&experts, data, to)?,
            ExpertRows::Pairs(data) => self.sorted(data, width)?,
            ExpertRows::Written(_) => {
                return Err(CudaError::backend("rows in fp8 for a product that reads bf16"));
            }
        };
        self.run
            .stage(product.name(), flops, bytes, || experts::product(self.run, &rows, &experts, side, result))
    }

    /// Where the first product writes its activation in E4M3, where the second reads it so. The clamp bounds it, so that all
    /// rows have one factor and no largest magnitude is looked for.
    pub(super) fn activation_codes(&self) -> Result<Option<Rounded>> {
        let Some(fp8) = self.fp8 else { return Ok(None) };
        if ExpertPath::ALL.into_iter().any(|path| fp8.of(path).is_none()) {
            return Ok(None);
        }
        let limit = self.spec.limit;
        let factor = (limit + 1.0) * limit / e4m3::LARGEST;
        Ok(Some(Rounded { to: self.at(Buffer::InnerRows)?, factor, limit }))
    }

    /// Where SwiGLU's backward is to write its result in E4M3, and its factors: where the product that follows reads such
    /// rows and the kernel has room for them.
    pub(super) fn swiglu_codes(&self) -> Result<Option<[u64; 2]>> {
        let is_read = self.fp8.is_some_and(|fp8| fp8.of(ExpertPath::GateUp).is_some());
        if !is_read || !swiglu::fits_fp8(self.plan.sizes.inner) {
            return Ok(None);
        }
        Ok(Some([self.at(Buffer::BackwardRows)?, self.at(Buffer::RowFactors)?]))
    }

    /// Rows in E4M3, in order.
    fn rows_in_fp8(&self, rows: ExpertRows, width: usize, to: Buffer) -> Result<Fp8Rows> {
        let (data, factors, offsets) =
            (self.at(to)?, self.at(Buffer::RowFactors)?, self.at(Buffer::Offsets)?);
        let in_fp8 = Fp8Rows { data, factors: RowFactors::Each(factors), offsets, places: self.n_pairs() };
        let (x, places, sizes) = match rows {
            ExpertRows::Tokens(x) => {
                (x, Some(self.at(Buffer::Places)?), [self.tokens(), width, self.spec.top_k])
            }
            ExpertRows::Pairs(x) => (x, None, [self.n_pairs(), width, 1]),
            ExpertRows::Written(factors) => return Ok(Fp8Rows { factors, ..in_fp8 }),
        };
        let bytes = 2.0 * (sizes[0] * width) as f64 + (self.n_pairs() * width) as f64;
        self.run.stage("rows in fp8", 0.0, bytes, || {
            fp8_rows::rows(self.run, x, places, [data, factors], sizes)
        })?;
        Ok(in_fp8)
    }
}
