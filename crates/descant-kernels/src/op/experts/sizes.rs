//! Sizes of the experts' adapters as the kernels want them: what memory is planned with, on every device.

/// Largest rank of a pair at experts that a card's kernels are written for.
pub const MAX_EXPERT_RANK: usize = 64;
/// Columns of a packed factor of such a pair: ranks are padded with zeros to this.
pub(crate) const RANK_WIDTH: usize = MAX_EXPERT_RANK;

/// Columns that a block makes of a factor's gradient.
pub(crate) const GRADIENT_COLUMNS: usize = 64;

/// Sizes of one factor of an adapter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowRank {
    /// Matrices; 1 for a dense site.
    pub(crate) experts: usize,
    /// The side that is not the rank.
    pub(crate) features: usize,
    /// At most [`RANK_WIDTH`].
    pub(crate) rank: usize,
}

impl LowRank {
    /// Parts into which the places are cut for a gradient, so that there are enough blocks for a card: a question of
    /// sizes alone, never of the card, so that sums are the same everywhere.
    pub(crate) fn parts(&self, places: usize) -> usize {
        let blocks = self.features.div_ceil(GRADIENT_COLUMNS) * self.experts;
        (512 / blocks.max(1)).min(places / 2048).clamp(1, 8)
    }

    /// Bytes of workspace that the gradient of this factor wants.
    pub(crate) fn workspace(&self, places: usize) -> usize {
        match self.parts(places) {
            1 => 0,
            parts => parts * self.experts * self.features * self.rank * size_of::<f32>(),
        }
    }
}
