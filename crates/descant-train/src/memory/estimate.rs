//! How much memory a run will need, from sizes alone, before any of it is asked for: the sum of what is counted and of
//! what was found by measuring (`cpu.rs`, `card.rs`).
//!
//! How well it agrees with what runs took is R19 of docs/reliability.md.

use descant_kernels::{Keep, MomentFormat};
use descant_lora::LoraConfig;
use descant_model::{CacheSize, Config, SiteKind};

use super::account::{Asking, FULL, HALF, Memory, Place};
use super::card::{self, Adapters, RUNTIME};
use super::cpu::{PROGRAM, Widths};
use super::load::Load;
use crate::config::{Experts, OptimizerKind, TrainConfig};

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
        OptimizerKind::AdamW => MomentFormat::Float.bytes(parameters),
        OptimizerKind::AdamW8bit => MomentFormat::Blocks.bytes(parameters),
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
            let with_state = adapter + gradients + optimizer;
            let adapters = Adapters { kinds: &kinds, rank: lora.r, bytes: adapter, with_state };
            let in_fp8 = if train.experts == Experts::Fp8 { card::of_fp8(config) } else { 0 };
            let runtime = card::runtime(config, adapters, load) + in_fp8;
            let left = free.saturating_sub(base + with_state + runtime);
            let experts = train.experts.form();
            let of_layers =
                card::layers(config, adapters, load, (in_order, experts), arrangement, keep, left);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::arrangement::Arrangement;
    use super::*;

    fn config(name: &str) -> Config {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs")).join(name);
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn of(train: &TrainConfig, lora: &LoraConfig, tokens: u64) -> Memory {
        let load = Load { tokens, trained: tokens / 2, longest: tokens, in_all: tokens, copies: 0 };
        estimate(&config("gpt-oss-20b.json"), lora, train, load, None, Place::Cpu { threads: 2 })
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

    #[test]
    fn experts_in_fp8_take_references_factors_of_rows_and_what_measures_them() {
        let arrangement = Arrangement::default();
        let place = Place::Card { free: 80 << 30, keep: Keep::Minimal, in_order: true, arrangement };
        let load = Load { tokens: 16_384, trained: 8192, longest: 4096, in_all: 0, copies: 0 };
        let of = |experts| {
            let train = TrainConfig { experts, ..TrainConfig::default() };
            estimate(&config("gpt-oss-20b.json"), &LoraConfig::default(), &train, load, None, place)
        };
        let (bf16, fp8) = (of(Experts::Bf16), of(Experts::Fp8));
        assert_eq!(fp8.activations - bf16.activations, 16_384 * 4 * 4);
        // A byte for each row of a matrix and for each block of its columns, of 24 layers of 32 experts, and the hidden
        // states that are compared once.
        let references = 24 * 32 * (5760 + 90 + 2880 + 90);
        assert_eq!(fp8.runtime - bf16.runtime, references + 2 * 2048 * 2880 * 2);
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
}
