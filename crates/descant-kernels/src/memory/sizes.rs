//! What the memory of a layer depends on: its sizes, the adapters' ranks, the tokens, and what is kept.

use descant_quant::mxfp4;

use super::keep::Kept;
use crate::op::experts::ExpertForm;
use crate::site::{DensePath, Paths, SiteKind};

/// How many tokens go through the experts' half of a layer at once, where there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Chunks {
    /// So many that more would make no product faster.
    #[default]
    Long,
    /// Half as many, in half the memory. Every token's result is the same, but gradients of pairs at the router and at
    /// experts are summed chunk by chunk: with such pairs chunks are long, so that no limit changes a bit.
    Short,
}

impl Chunks {
    /// What these pairs allow.
    pub(crate) fn allowed(self, paths: &Paths) -> Self {
        if paths.router + paths.gate_up + paths.down > 0 { Self::Long } else { self }
    }
}

/// The sizes of a layer that decide bytes and operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSizes {
    /// Features of the residual stream.
    pub hidden: usize,
    /// Query heads times head_dim.
    pub query: usize,
    /// Key heads times head_dim.
    pub key_value: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Experts.
    pub n_experts: usize,
    /// Experts a token goes to.
    pub top_k: usize,
    /// Features between an expert's products.
    pub inner: usize,
    /// Whether matrices of attention's dense products come packed, to be unpacked before each.
    pub packed_attention: bool,
}

impl LayerSizes {
    /// Width of queries, keys and values beside each other.
    pub(crate) fn qkv(&self) -> usize {
        self.query + 2 * self.key_value
    }

    /// Outputs and inputs of a site's matrix; of one expert where there are several.
    pub(crate) fn matrix(&self, kind: SiteKind) -> [usize; 2] {
        match kind {
            SiteKind::Query => [self.query, self.hidden],
            SiteKind::Key | SiteKind::Value => [self.key_value, self.hidden],
            SiteKind::Output => [self.hidden, self.query],
            SiteKind::Router => [self.n_experts, self.hidden],
            SiteKind::GateUp => [2 * self.inner, self.hidden],
            SiteKind::Down => [self.hidden, self.inner],
        }
    }

    /// Sites that read the same rows have their matrices below each other in one: the first row of this one.
    #[cfg(any(feature = "cuda", test))]
    pub(crate) fn first_row(&self, kind: SiteKind) -> usize {
        let above = SiteKind::ALL.into_iter().filter(|other| *other < kind && other.path() == kind.path());
        above.map(|other| self.matrix(other)[0]).sum()
    }

    /// Outputs and inputs of the product that a dense path lies beside.
    pub(crate) fn product(&self, path: DensePath) -> [usize; 2] {
        path.sites()
            .map(|kind| self.matrix(kind))
            .fold([0; 2], |[all, _], [rows, inputs]| [all + rows, inputs])
    }

    /// How many of so many tokens go through the experts' half of a layer at once.
    pub(crate) fn chunk(&self, tokens: usize, chunks: Chunks) -> usize {
        let most = self.largest_chunk(chunks);
        match tokens.div_ceil(most) {
            0 | 1 => tokens,
            chunks => tokens.div_ceil(chunks).next_multiple_of(CHUNK_TOKENS_MULTIPLE),
        }
    }

    /// The longest chunk: more tokens make an expert's products no faster, and what they work in grows with it.
    pub(crate) fn largest_chunk(&self, chunks: Chunks) -> usize {
        let rows = CHUNK_ROWS * self.n_experts / self.top_k.max(1);
        let long = rows.next_multiple_of(CHUNK_TOKENS_MULTIPLE).max(CHUNK_TOKENS);
        match chunks {
            Chunks::Long => long,
            Chunks::Short => long / 2,
        }
    }

    /// Bytes of the references of a layer's experts in fp8: one for each row of a matrix, and for each block of its
    /// columns.
    pub fn reference_bytes(&self) -> usize {
        let of = |[rows, columns]: [usize; 2]| self.n_experts * (rows + columns / mxfp4::BLOCK);
        [SiteKind::GateUp, SiteKind::Down].map(|kind| of(self.matrix(kind))).iter().sum()
    }

    /// Numbers of attention's largest matrix.
    pub(crate) fn dense_numbers(&self) -> usize {
        self.hidden * self.qkv().max(self.query)
    }
}

/// Tokens of a chunk, and rows that an expert has in it on average, at least where there are as many.
const CHUNK_TOKENS: usize = 16_384;
const CHUNK_ROWS: usize = 1024;
/// Chunks are of so many tokens, so that buffers of one begin where memory is aligned.
const CHUNK_TOKENS_MULTIPLE: usize = 64;

/// What is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sizes: LayerSizes,
    pub(crate) tokens: usize,
    /// Tokens that go through the experts' half at once.
    pub(crate) chunk: usize,
    pub(crate) paths: Paths,
    pub(crate) kept: Kept,
    /// Whether experts' products want their rows in order, so that those of tokens are copied first.
    pub(crate) in_order: bool,
    /// In which numbers a training step multiplies with experts; a plan has room for that beside bf16.
    pub(crate) experts: ExpertForm,
}

impl Plan {
    /// In long chunks, in bf16.
    pub(crate) fn new(sizes: LayerSizes, tokens: usize, paths: Paths, kept: Kept, in_order: bool) -> Self {
        let (chunk, experts) = (sizes.chunk(tokens, Chunks::Long), ExpertForm::Bf16);
        Self { sizes, tokens, chunk, paths, kept, in_order, experts }
    }

    /// The same in chunks of this kind.
    pub(crate) fn within(self, chunks: Chunks) -> Self {
        Self { chunk: self.sizes.chunk(self.tokens, chunks), ..self }
    }

    /// The same with room for these numbers.
    pub(crate) fn with(self, experts: ExpertForm) -> Self {
        Self { experts, ..self }
    }

    /// Chunks that all tokens make.
    pub(crate) fn chunks(&self) -> usize {
        self.tokens.div_ceil(self.chunk.max(1)).max(1)
    }

    /// Pairs of a token and an expert that it goes to, of a chunk.
    pub(crate) fn pairs(&self) -> usize {
        self.chunk * self.sizes.top_k
    }
}

#[cfg(test)]
impl LayerSizes {
    /// Those of gpt-oss-20b.
    pub(crate) const OF_20B: Self = Self {
        hidden: 2880,
        query: 4096,
        key_value: 512,
        n_heads: 64,
        n_experts: 32,
        top_k: 4,
        inner: 2880,
        packed_attention: false,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_of_one_length_and_sizes_alone_decide() {
        let of_20b = LayerSizes::OF_20B;
        let of_120b = LayerSizes { n_experts: 128, ..of_20b };
        for (sizes, tokens, chunk) in [
            (of_20b, 1, 1),
            (of_20b, 16_384, 16_384),
            (of_20b, 16_385, 8256),
            (of_20b, 131_072, 16_384),
            (of_120b, 32_768, 32_768),
            (of_120b, 131_072, 32_768),
        ] {
            let long = Chunks::Long;
            assert_eq!(sizes.chunk(tokens, long), chunk, "{tokens} tokens of {} experts", sizes.n_experts);
            for chunks in [long, Chunks::Short] {
                let plan = Plan::new(sizes, tokens, Paths::default(), Kept::Input, true).within(chunks);
                assert!(plan.chunk * (plan.chunks() - 1) < tokens && tokens <= plan.chunk * plan.chunks());
            }
        }
        let short = |tokens| of_20b.chunk(tokens, Chunks::Short);
        assert_eq!([8192, 8193, 16_384, 131_072].map(short), [8192, 4160, 8192, 8192]);
    }

    #[test]
    fn chunks_are_long_where_gradients_are_summed_chunk_by_chunk() {
        let none = Paths { input: 32, output: 16, ..Paths::default() };
        assert_eq!(Chunks::Short.allowed(&none), Chunks::Short);
        for paths in [Paths { router: 8, ..none }, Paths { gate_up: 8, ..none }, Paths { down: 8, ..none }] {
            assert_eq!(Chunks::Short.allowed(&paths), Chunks::Long, "{paths:?}");
        }
    }
}
