//! What a run takes on the CPU: a count of what the operators keep for their backward passes, and a share, found by
//! measuring, of what a layer holds beside that while it is computed.

use descant_model::{Config, SiteKind};

use super::account::FULL;
use super::load::Load;

/// Rows of logits that a thread of the loss holds at once.
const LOGIT_ROWS: u64 = 64;
/// What the CPU's allocator asks of the system for a byte that is kept: pieces of many sizes come and go and leave holes.
const HOLES: f64 = 1.055;
/// Of what a layer holds while it is computed, the share that is there at the worst moment: with adapters in attention,
/// whose products are in memory beside those of the base, and without.
const IN_WORK: [f64; 2] = [0.6, 0.2];
/// The program's own pages, and what products are rearranged in.
pub(super) const PROGRAM: u64 = 4 << 20;

/// Numbers a token, by what they are.
pub(super) struct Widths {
    hidden: u64,
    /// Queries, keys, values, attention's result and the logarithm of its denominator.
    attention: u64,
    /// Of all chosen experts: their inputs, both halves of the first product, its activation, their results.
    taken: u64,
    gate_up: u64,
    inner: u64,
    mixed: u64,
    vocabulary: u64,
    /// What an adapter's backward reads beyond what the base's does.
    for_adapters: u64,
    /// What the first layer does not keep: no gradient goes further back than to the first adapter.
    before_adapters: u64,
    /// Whether attention has adapters.
    attention_adapts: bool,
}

impl Widths {
    pub(super) fn new(config: &Config, kinds: &[SiteKind]) -> Self {
        let hidden = config.hidden_size as u64;
        let top = config.num_experts_per_tok as u64;
        let inner = top * config.intermediate_size as u64;
        let (query, key_value) = (config.query_width() as u64, config.key_value_width() as u64);
        let has = |kind: SiteKind| kinds.contains(&kind);
        let adapts_input = SiteKind::ATTENTION_INPUTS.into_iter().any(has);
        // The rows that a product reads; attention's result is there in any case.
        let rows = |kind: SiteKind| {
            let of_token = if kind.is_expert() { top } else { 1 };
            of_token * config.site_dims(kind).d_in as u64
        };
        let alone = |kind: &SiteKind| {
            has(*kind) && *kind != SiteKind::Output && !SiteKind::ATTENTION_INPUTS.contains(kind)
        };
        let of_others: u64 = SiteKind::ALL.into_iter().filter(alone).map(rows).sum();
        let for_adapters = of_others + if adapts_input { hidden } else { 0 };
        let attention = 2 * query + 2 * key_value + config.num_attention_heads as u64;
        let before_adapters = if adapts_input {
            hidden
        } else if has(SiteKind::Output) {
            hidden + attention - query
        } else if has(SiteKind::Router) {
            hidden + attention
        } else {
            2 * hidden + attention
        };
        Self {
            hidden,
            attention,
            taken: top * hidden,
            gate_up: 2 * inner,
            inner,
            mixed: top * hidden,
            vocabulary: config.vocab_size as u64,
            for_adapters,
            before_adapters,
            attention_adapts: kinds.iter().any(|kind| kind.is_attention()),
        }
    }

    /// What a layer keeps for its backward: the stream before attention and before the experts, and what the
    /// operators in between read again; routing is a handful of numbers an expert.
    fn kept(&self) -> u64 {
        2 * self.hidden + self.attention + self.gate_up + self.mixed + self.for_adapters + 16
    }

    /// What a layer holds at once when nothing is kept.
    pub(super) fn in_work(&self) -> u64 {
        2 * self.hidden + self.taken + self.gate_up + self.inner + self.mixed
    }

    /// Bytes of a micro-batch at the worst moment.
    pub(super) fn activations(&self, layers: u64, load: Load, threads: u64) -> u64 {
        let Load { tokens, trained, .. } = load;
        let kept = tokens * (layers * self.kept() + self.hidden - self.before_adapters);
        let tasks = trained.div_ceil(LOGIT_ROWS).min(threads.max(1));
        let in_loss = 2 * trained * self.hidden + tasks * trained.min(LOGIT_ROWS) * self.vocabulary;
        let share = if self.attention_adapts { IN_WORK[0] } else { IN_WORK[1] };
        let in_layer = share * (tokens * self.in_work()) as f64;
        (kept as f64 * HOLES + in_layer.max(in_loss as f64)) as u64 * FULL
    }
}
