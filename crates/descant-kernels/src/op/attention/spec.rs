//! What attention depends on beside its tensors.

/// What does not depend on the tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionSpec {
    /// Keys a query sees, its own included; `None` for all earlier ones.
    pub window: Option<usize>,
    /// Factor on the scores, 1 / sqrt(dim) in gpt-oss.
    pub scale: f32,
}
