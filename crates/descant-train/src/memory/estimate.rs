//! How much memory a run will need, from sizes alone, before any of it is asked for.
//!
//! On the CPU it is a count of what the operators keep for their backward passes, and a share, found by measuring, of what
//! a layer holds beside that while it is computed. On a card the layers say what they will take ([`LayerLoad`]), and what
//! the driver and burn's pool take beside what is counted was found by measuring. How well both agree with what runs
//! took is R19 of docs/reliability.md.

use descant_kernels::{Keep, LayerLoad, MAX_EXPERT_RANK, PerSite};
use descant_lora::LoraConfig;
use descant_model::{CacheSize, Config, SiteKind, weight_bytes};

use super::arrangement::Arrangement;
use crate::config::{OptimizerKind, TrainConfig};
use crate::error::{Error, Result};
use crate::feed::Feed;
use crate::sample::Samples;
use crate::workers::copies;

/// Bytes of a number on the CPU, and of adapters everywhere.
const FULL: u64 = 4;
/// Bytes of an activation on a card.
const HALF: u64 = 2;
/// Rows of logits that a thread of the loss holds at once.
const LOGIT_ROWS: u64 = 64;
/// What the CPU's allocator asks of the system for a byte that is kept: pieces of many sizes come and go and leave holes.
const HOLES: f64 = 1.055;
/// Of what a layer holds while it is computed, the share that is there at the worst moment: with adapters in attention,
/// whose products are in memory beside those of the base, and without.
const IN_WORK: [f64; 2] = [0.6, 0.2];
/// The program's own pages, and what products are rearranged in.
const PROGRAM: u64 = 4 << 20;
/// What a card's driver takes for kernels, libraries and their workspaces, and what lies unused in the pages of burn's
/// pool.
const RUNTIME: u64 = 340 << 20;
/// What NCCL takes of a card that is one of several: 0.52 and 0.59 GiB with two H200s (NCCL 2.28.9, NVLink).
const BETWEEN_CARDS: u64 = 560 << 20;
/// What burn's pool holds on a card beside the tensors of adapters that are counted, in copies of the adapter. Its pages
/// are as large as the largest tensor, so that little ones leave holes; the more there are, the fewer.
const POOLED: f64 = 3.45;
/// The same where there are many: so many bytes, and fewer copies.
const POOLED_MANY: (f64, f64) = (0.95 * (1_u64 << 30) as f64, 0.45);
/// What a page of burn's pool has beyond the tensor that it was made for, and the unit of its size.
const PAGE_SLACK: u64 = 1 << 20;
/// Micro-batches that are looked at for the longest; a run of more is taken for one of so many.
const MOST_LOOKED_AT: u64 = 100_000;

/// What goes through the model at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Tokens of the longest micro-batch.
    pub tokens: u64,
    /// Most trained tokens of a micro-batch.
    pub trained: u64,
    /// Tokens of the longest sequence.
    pub longest: u64,
    /// Tokens of all steps.
    pub in_all: u64,
    /// Copies of the adapters' gradients that are kept beside those of a process alone; see [`Load::shared`].
    pub copies: u64,
}

/// Where a run is to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the CPU.
    Cpu {
        /// Threads that work at once.
        threads: usize,
    },
    /// On a card.
    Card {
        /// Bytes that may be taken.
        free: u64,
        /// What layers keep from forward to backward.
        keep: Keep,
        /// See [`LayerLoad::in_order`].
        in_order: bool,
        /// Which weights lie on the host instead, and how they cross the bus.
        arrangement: Arrangement,
    },
}

/// How prompts are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// Prompts at once.
    pub batch: u64,
    /// Tokens of the longest prompt with its reply.
    pub tokens: u64,
    /// Tokens of the longest row whose loss is measured beside the prompts, one row at a time; 0 for none.
    pub scored: u64,
}

/// Bytes that a run needs, by what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The frozen base.
    pub base: u64,
    /// The adapter's numbers.
    pub adapter: u64,
    /// Its gradients.
    pub gradients: u64,
    /// The optimizer's moments.
    pub optimizer: u64,
    /// Activations of a micro-batch, kept and in work.
    pub activations: u64,
    /// Activations that are kept because there is room, instead of computing them again.
    pub kept: u64,
    /// Keys, values and logits of the prompts that are answered together, before and after training.
    pub asking: u64,
    /// Programs, libraries and what allocators hold beside what was asked of them.
    pub runtime: u64,
    /// Of the host's memory, what stays in place (pinned) because a card reads and writes it. Not a part of the sums.
    pub on_host: u64,
}

impl Place {
    /// The same with another arrangement; the CPU has but one.
    #[must_use]
    pub fn with(self, arrangement: Arrangement) -> Self {
        match self {
            Self::Cpu { .. } => self,
            Self::Card { free, keep, in_order, .. } => Self::Card { free, keep, in_order, arrangement },
        }
    }

    /// Bytes of the base.
    fn base(&self, config: &Config) -> u64 {
        match self {
            Self::Cpu { .. } => weight_bytes(config, false),
            Self::Card { arrangement, .. } => arrangement.placement.card_bytes(config),
        }
    }

    /// Bytes of a card's base that lie on the host.
    fn on_host(&self, config: &Config) -> u64 {
        match self {
            Self::Cpu { .. } => 0,
            Self::Card { arrangement, .. } => arrangement.placement.host_bytes(config),
        }
    }
}

impl Memory {
    /// Bytes at the worst moment.
    pub fn total(&self) -> u64 {
        self.least().max(self.base + self.adapter + self.runtime + self.training() + self.kept)
    }

    /// Bytes that it cannot do without.
    pub fn least(&self) -> u64 {
        self.base + self.adapter + self.runtime + self.training().max(self.asking)
    }

    fn training(&self) -> u64 {
        self.gradients + self.optimizer + self.activations
    }
}

impl Load {
    /// Of a whole run, its longest micro-batch.
    ///
    /// # Errors
    /// There are no samples, or with packing one is too long.
    pub fn of_run(samples: &dyn Samples, config: &TrainConfig) -> Result<Self> {
        let mut feed = Feed::new(samples, config)?;
        let mut longest = Self::default();
        let mut position = 0;
        // Every pass has an order of its own, so the last one may bring the longest together.
        let of_run = config.max_steps.saturating_mul(config.accumulation as u64);
        let looked_at = of_run.min(MOST_LOOKED_AT);
        for _ in 0..looked_at {
            let batch = feed.places(&mut position)?;
            let tokens: u64 = batch.iter().map(|at| samples.tokens(*at) as u64).sum();
            let trained = batch.iter().map(|at| samples.trained(*at) as u64).sum();
            let of_one = batch.iter().map(|at| samples.tokens(*at) as u64).max().unwrap_or(0);
            longest = Self {
                tokens: longest.tokens.max(tokens),
                trained: longest.trained.max(trained),
                longest: longest.longest.max(of_one),
                in_all: longest.in_all + tokens,
                copies: 0,
            };
        }
        // The rest of a long run is taken to be like what was looked at.
        let in_all = longest.in_all as f64 * of_run as f64 / looked_at.max(1) as f64;
        longest.in_all = in_all as u64;
        Ok(longest)
    }
}

impl Load {
    /// The same in each of so many processes that share steps of so many micro-batches.
    #[must_use]
    pub fn shared(self, micro_batches: usize, workers: usize) -> Self {
        Self { copies: copies(micro_batches, workers) as u64, ..self }
    }
}

/// What no kernel of a card is written for, so that it is known before anything is loaded.
///
/// # Errors
/// The rank at experts is larger than the kernels' largest.
pub fn check_card(lora: &LoraConfig) -> Result<()> {
    let experts = lora.targets.iter().filter_map(|name| SiteKind::from_name(name)).any(SiteKind::is_expert);
    if experts && lora.r > MAX_EXPERT_RANK {
        return Err(Error::Config(format!(
            "lora.r is {}, and lora.targets has experts: on a card their largest rank is {MAX_EXPERT_RANK}; lower \
             lora.r, take the experts out of lora.targets, or train on the CPU",
            lora.r
        )));
    }
    Ok(())
}

/// Estimates the answering of prompts alone.
pub fn estimate_asking(config: &Config, asking: Asking, place: Place) -> Memory {
    let on_card = matches!(place, Place::Card { .. });
    Memory {
        base: place.base(config),
        adapter: 0,
        gradients: 0,
        optimizer: 0,
        activations: 0,
        kept: 0,
        asking: asking_bytes(config, asking, on_card),
        runtime: if on_card { RUNTIME } else { PROGRAM },
        on_host: place.on_host(config),
    }
}

/// Keys, values and logits of prompts that are answered together, and what they work in.
fn asking_bytes(config: &Config, asking: Asking, on_card: bool) -> u64 {
    let prompts = CacheSize::of(asking.batch as usize, asking.tokens as usize).with_work(config, on_card);
    // Rows are scored one at a time, before or after.
    let number = if on_card { HALF } else { FULL };
    prompts.max(asking.scored * Widths::new(config, &[]).in_work() * number)
}

/// Estimates a run.
pub fn estimate(
    config: &Config,
    lora: &LoraConfig,
    train: &TrainConfig,
    load: Load,
    asking: Option<Asking>,
    place: Place,
) -> Memory {
    let kinds: Vec<SiteKind> = lora.targets.iter().filter_map(|name| SiteKind::from_name(name)).collect();
    let a_layer: usize = kinds.iter().map(|kind| config.site_dims(*kind).lora_parameters(lora.r)).sum();
    let parameters = (config.num_hidden_layers * a_layer) as u64;
    let adapter = parameters * FULL;
    let layers = config.num_hidden_layers as u64;
    let on_card = matches!(place, Place::Card { .. });
    // The sum of earlier micro-batches lies beside the gradients of the one at work.
    let gradients = adapter * (load.copies + if train.accumulation > 1 { 2 } else { 1 });
    let optimizer = match train.optimizer {
        OptimizerKind::AdamW => 2 * adapter,
        OptimizerKind::AdamW8bit => 2 * (parameters + parameters.div_ceil(256) * FULL),
    };
    // A card's decoder has the adapter packed a second time.
    let packed = if on_card { adapter } else { 0 };
    let asking = asking.map_or(0, |asking| asking_bytes(config, asking, on_card) + packed);
    let base = place.base(config);
    let on_host = place.on_host(config);
    let none =
        Memory { base, adapter, gradients, optimizer, activations: 0, kept: 0, asking, runtime: 0, on_host };
    match place {
        Place::Cpu { threads } => {
            let activations = Widths::new(config, &kinds).activations(layers, load, threads as u64);
            Memory { activations, runtime: PROGRAM, ..none }
        }
        Place::Card { free, keep, in_order, arrangement } => {
            let copy = adapter as f64;
            let (few, many) = (POOLED * copy, POOLED_MANY.0 + POOLED_MANY.1 * copy);
            let pooled = if few < many {
                few
            } else {
                let holes = holes(config, &kinds, lora.r, load.tokens);
                many + holes * (adapter + gradients + optimizer) as f64
            };
            let between = if load.copies > 0 { BETWEEN_CARDS } else { 0 };
            let runtime = RUNTIME + between + pooled as u64;
            let others = base + adapter + gradients + optimizer + runtime;
            let layers = LayerLoad {
                together: arrangement.together,
                inputs_on_host: arrangement.inputs_on_host,
                ..layer_load(config, &kinds, lora.r, load, in_order && config.has_packed_experts())
            };
            let of_layers = layers.memory(keep, free.saturating_sub(others));
            let least = of_layers.scratch + of_layers.streams;
            // What is kept on demand is needed; what is kept where there is room is not.
            let (activations, kept) = match keep {
                Keep::Auto => (least, of_layers.kept),
                _ => (least + of_layers.kept, 0),
            };
            Memory { activations, kept, runtime, on_host: on_host + of_layers.on_host, ..none }
        }
    }
}

/// What the pages of burn's pool leave empty between the tensors of an adapter, in parts of these: a page is as large as
/// the largest tensor that was asked for, which may be the stream of so many tokens, and holds whole tensors.
fn holes(config: &Config, kinds: &[SiteKind], rank: usize, tokens: u64) -> f64 {
    let factors = |kind: &SiteKind| {
        let dims = config.site_dims(*kind);
        [dims.d_in, dims.d_out].map(|width| (dims.n_matrices * width * rank) as u64 * FULL)
    };
    let of_layer: Vec<u64> = kinds.iter().flat_map(factors).collect();
    let stream = tokens * config.hidden_size as u64 * HALF;
    let largest = of_layer.iter().copied().max().unwrap_or(0).max(stream);
    let page = (largest + PAGE_SLACK).next_multiple_of(PAGE_SLACK);
    let mut pages: Vec<u64> = Vec::new();
    for bytes in (0..config.num_hidden_layers).flat_map(|_| &of_layer) {
        match pages.iter_mut().find(|left| **left >= *bytes) {
            Some(left) => *left -= bytes,
            None => pages.push(page - bytes),
        }
    }
    let held = (config.num_hidden_layers as u64 * of_layer.iter().sum::<u64>()).max(1);
    pages.iter().sum::<u64>() as f64 / held as f64
}

/// What goes through the layers of a model.
fn layer_load(config: &Config, kinds: &[SiteKind], rank: usize, load: Load, in_order: bool) -> LayerLoad {
    LayerLoad {
        sizes: config.layer_sizes(),
        windows: (0..config.num_hidden_layers).map(|layer| config.window(layer)).collect(),
        ranks: PerSite::from_fn(|kind| if kinds.contains(&kind) { rank } else { 0 }),
        tokens: load.tokens as usize,
        together: 1,
        inputs_on_host: false,
        longest: load.longest as usize,
        in_order,
    }
}

/// Numbers a token, by what they are.
struct Widths {
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
    fn new(config: &Config, kinds: &[SiteKind]) -> Self {
        let hidden = config.hidden_size as u64;
        let top = config.num_experts_per_tok as u64;
        let inner = top * config.intermediate_size as u64;
        let (query, key_value) = (config.query_width() as u64, config.key_value_width() as u64);
        let any = |of: &[SiteKind]| of.iter().any(|kind| kinds.contains(kind));
        let for_adapters = [
            (any(&[SiteKind::Query, SiteKind::Key, SiteKind::Value]), hidden),
            (any(&[SiteKind::Router]), hidden),
            (any(&[SiteKind::GateUp]), top * hidden),
            (any(&[SiteKind::Down]), inner),
        ];
        let attention = 2 * query + 2 * key_value + config.num_attention_heads as u64;
        let before_adapters = if any(&[SiteKind::Query, SiteKind::Key, SiteKind::Value]) {
            hidden
        } else if any(&[SiteKind::Output]) {
            hidden + attention - query
        } else if any(&[SiteKind::Router]) {
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
            for_adapters: for_adapters.iter().filter(|(is, _)| *is).map(|(_, width)| width).sum(),
            before_adapters,
            attention_adapts: any(&[SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output]),
        }
    }

    /// What a layer keeps for its backward: the stream before attention and before the experts, and what the
    /// operators in between read again; routing is a handful of numbers an expert.
    fn kept(&self) -> u64 {
        2 * self.hidden + self.attention + self.gate_up + self.mixed + self.for_adapters + 16
    }

    /// What a layer holds at once when nothing is kept.
    fn in_work(&self) -> u64 {
        2 * self.hidden + self.taken + self.gate_up + self.inner + self.mixed
    }

    /// Bytes of a micro-batch at the worst moment.
    fn activations(&self, layers: u64, load: Load, threads: u64) -> u64 {
        let Load { tokens, trained, .. } = load;
        let kept = tokens * (layers * self.kept() + self.hidden - self.before_adapters);
        let tasks = trained.div_ceil(LOGIT_ROWS).min(threads.max(1));
        let in_loss = 2 * trained * self.hidden + tasks * trained.min(LOGIT_ROWS) * self.vocabulary;
        let share = if self.attention_adapts { IN_WORK[0] } else { IN_WORK[1] };
        let in_layer = share * (tokens * self.in_work()) as f64;
        (kept as f64 * HOLES + in_layer.max(in_loss as f64)) as u64 * FULL
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sample::Sample;

    fn config(name: &str) -> Config {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs")).join(name);
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn of(train: &TrainConfig, lora: &LoraConfig, tokens: u64) -> Memory {
        let load = Load { tokens, trained: tokens / 2, longest: tokens, in_all: tokens, copies: 0 };
        estimate(&config("gpt-oss-20b.json"), lora, train, load, None, Place::Cpu { threads: 2 })
    }

    #[test]
    fn pages_as_large_as_a_tensor_and_a_half_leave_a_quarter_empty() {
        use SiteKind::{Down, GateUp, Key, Output, Query, Value};
        let kinds = [Query, Key, Value, Output, GateUp, Down];
        let of = |tokens| holes(&config("gpt-oss-20b.json"), &kinds, 8, tokens);
        // Factors of experts are 2.9 and 5.9e6 bytes, pages 11, 13 and 24 MiB.
        assert!((0.24..0.26).contains(&of(1700)), "{}", of(1700));
        assert!((0.10..0.12).contains(&of(2048)), "{}", of(2048));
        assert!(of(4096) < 0.03, "{}", of(4096));
    }

    #[test]
    fn the_20b_on_a_cpu_is_its_packed_experts_and_twice_the_rest() {
        let memory = of(&TrainConfig::default(), &LoraConfig::default(), 1000);
        // 10.15 GB packed, 1.27 and 2.32 GB of bf16 as f32, and biases.
        assert!((17.2e9..17.5e9).contains(&(memory.base as f64)), "{memory:?}");
        assert_eq!(
            (memory.adapter, memory.gradients, memory.optimizer),
            (15_925_248, 15_925_248, 31_850_496)
        );
    }

    #[test]
    fn tokens_cost_in_proportion_8_bits_a_quarter_and_accumulation_a_gradient() {
        let (train, lora) = (TrainConfig::default(), LoraConfig::default());
        let activations = |tokens| (of(&train, &lora, tokens).activations) as f64;
        assert!((activations(20_000) / activations(10_000) - 2.0).abs() < 1e-3);
        let eight = TrainConfig { optimizer: OptimizerKind::AdamW8bit, ..train.clone() };
        let ratio = of(&train, &lora, 1).optimizer as f64 / of(&eight, &lora, 1).optimizer as f64;
        assert!((3.9..4.0).contains(&ratio), "{ratio}");
        let two = TrainConfig { accumulation: 2, ..train.clone() };
        assert_eq!(of(&two, &lora, 1).gradients, 2 * of(&train, &lora, 1).gradients);
    }

    /// Sequences, their length, micro-batches, rank, whether experts have adapters, policy, limit, peak.
    type Row = (u64, u64, usize, usize, bool, &'static str, f64, f64);

    /// What was in use at most on an H100 80GB, 25 November 2026, in GiB, with the 20b's shapes: `descant bench step`,
    /// and one row of `descant train`.
    const ON_A_CARD: [Row; 14] = [
        (1, 1024, 4, 8, false, "auto", 14.5, 14.341),
        (1, 1024, 4, 8, false, "auto", 79.18, 15.571),
        (1, 4096, 4, 8, false, "auto", 16.2, 15.970),
        (4, 4096, 1, 8, false, "auto", 79.18, 43.973),
        (4, 4096, 1, 8, true, "auto", 79.18, 46.921),
        (4, 4096, 1, 8, true, "auto", 21.5, 21.069),
        (2, 2048, 2, 8, false, "minimal", 79.18, 14.794),
        (8, 512, 1, 8, false, "balanced", 79.18, 16.095),
        (1, 8192, 1, 8, false, "all", 79.18, 28.846),
        (1, 2048, 2, 8, true, "minimal", 79.18, 17.143),
        (2, 1024, 1, 8, true, "auto", 18.0, 17.622),
        (16, 256, 1, 8, false, "auto", 16.0, 15.749),
        (8, 4096, 2, 8, false, "auto", 79.18, 74.327),
        (2, 229, 1, 32, true, "minimal", 79.18, 20.815),
    ];

    #[test]
    fn a_plan_for_a_card_is_what_was_taken_there() {
        // In use before anything was loaded: the driver's context.
        let held = 0.516;
        let gib = (1_u64 << 30) as f64;
        let planned = |row: usize| {
            let (sequences, length, accumulation, r, experts, keep, limit, _) = ON_A_CARD[row];
            let mut lora = LoraConfig { r, ..LoraConfig::default() };
            if experts {
                lora.targets.extend(["gate_up_proj", "down_proj"].map(str::to_owned));
            }
            let train = TrainConfig { accumulation, ..TrainConfig::default() };
            let load = Load { tokens: sequences * length, trained: 0, longest: length, in_all: 0, copies: 0 };
            let free = ((limit - held) * gib) as u64;
            let arrangement = Arrangement::default();
            let place = Place::Card { free, keep: keep.parse().unwrap(), in_order: true, arrangement };
            let memory = estimate(&config("gpt-oss-20b.json"), &lora, &train, load, None, place);
            held + memory.total() as f64 / gib
        };
        for (row, (.., peak)) in ON_A_CARD.iter().enumerate() {
            let ratio = planned(row) / peak;
            assert!((0.98..=1.04).contains(&ratio), "{:?}: {:.3}", ON_A_CARD[row], planned(row));
        }
        // The control: the plan of one row is not what another took.
        assert!(planned(3) / ON_A_CARD[4].7 < 0.97 && planned(6) / ON_A_CARD[0].7 > 1.03);
    }

    #[test]
    fn a_rank_that_no_kernel_takes_is_known_from_the_settings() {
        let lora = |r, targets: &[&str]| LoraConfig {
            r,
            targets: targets.iter().map(|name| (*name).to_owned()).collect(),
            ..LoraConfig::default()
        };
        assert!(check_card(&lora(MAX_EXPERT_RANK, &["q_proj", "down_proj"])).is_ok());
        assert!(check_card(&lora(4096, &["q_proj", "router"])).is_ok(), "only experts have a largest rank");
        let error = check_card(&lora(MAX_EXPERT_RANK + 1, &["down_proj"])).unwrap_err().to_string();
        assert!(error.contains("65") && error.contains("64"), "{error}");
    }

    #[test]
    fn the_longest_micro_batch_of_a_run_is_found() {
        let sample = |row: usize| {
            let ids = vec![1; 3 + row * row % 17];
            Sample { row, weights: vec![1.0; ids.len()], ids, first_analysis: None }
        };
        let samples: Vec<Sample> = (0..23).map(sample).collect();
        for packing in [false, true] {
            let config = TrainConfig {
                micro_batch: 3.into(),
                max_steps: 400,
                packing,
                max_sequence: 24,
                ..TrainConfig::default()
            };
            let found = Load::of_run(&samples, &config).unwrap();
            let mut feed = Feed::new(&samples, &config).unwrap();
            let mut position = 0;
            let tokens: Vec<usize> = (0..400)
                .map(|_| feed.take(&mut position).unwrap().iter().map(|s| s.ids.len()).sum())
                .collect();
            assert_eq!(found.tokens, *tokens.iter().max().unwrap() as u64);
            assert_eq!(found.in_all, tokens.iter().sum::<usize>() as u64);
        }
    }
}
