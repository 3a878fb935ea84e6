//! In which numbers a training step multiplies rows with the experts' frozen matrices.

/// The numbers of these products; everything else, and every product outside of a training step, is in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ExpertForm {
    /// MXFP4 decoded to bf16, exactly, times rows in bf16.
    #[default]
    Bf16,
    /// MXFP4 in E5M2, exactly, times rows rounded to E4M3 with a factor each: faster where a card multiplies such numbers,
    /// and different by what rounding rows does. See docs/numerics.md.
    Fp8,
}

impl ExpertForm {
    /// As it is written in settings and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }
}
