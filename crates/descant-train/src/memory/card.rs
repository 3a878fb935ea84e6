//! What a run takes on a card beside the tensors that are counted: what its layers say that they will take
//! ([`LayerLoad`]), and what the driver, NCCL and burn's pool take, which was found by measuring.

use std::fmt;

use descant_kernels::{Claim, ExpertForm, Keep, LayerLoad, LayerMemory, MAX_EXPERT_RANK, PerSite, pool_page};
use descant_lora::LoraConfig;
use descant_model::{Config, Packing, SiteKind};

use super::account::{FULL, HALF, Place};
use super::arrangement::Arrangement;
use super::load::Load;
use crate::error::{Error, Result};
use crate::fp8::limits;

/// What a card's driver takes for kernels, libraries and their workspaces, and what lies unused in the pages of burn's
/// pool. This and what the pool holds (`POOLED`, `POOLED_MANY`) were fitted to 28 runs on an H100 on 25 November 2026, all
/// then within 4 %; thirteen runs of 29 November to which nothing was fitted: -2.7 to +2.9 % (docs/benchmarks.md).
pub(super) const RUNTIME: u64 = 340 << 20;
/// What NCCL takes of a card that is one of several: 0.52 and 0.59 GiB with two H200s (NCCL 2.28.9, NVLink).
const BETWEEN_CARDS: u64 = 560 << 20;
/// What burn's pool holds on a card beside the tensors of adapters that are counted, in copies of the adapter. Its pages
/// are as large as the largest tensor, so that little ones leave holes; the more there are, the fewer.
const POOLED: f64 = 3.45;
/// The same where there are many: so many bytes, and fewer copies.
const POOLED_MANY: (f64, f64) = (0.95 * (1_u64 << 30) as f64, 0.45);

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

/// Why steps cannot multiply with experts in fp8; in words, what that needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoFp8 {
    /// There are no such kernels, for this reason.
    Kernels(String),
    /// The card has no room for all experts.
    Room,
}

impl fmt::Display for NoFp8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernels(why) => {
                write!(f, "needs a Hopper GPU (compute capability 9.0) and experts in MXFP4: {why}")
            }
            Self::Room => f.write_str("needs all experts on the GPU, and there is no room for them"),
        }
    }
}

impl NoFp8 {
    /// Where settings asked for it.
    pub fn of_settings(&self) -> Error {
        let first = match self {
            Self::Kernels(_) => "",
            Self::Room => "raise memory.limit, use fewer or shorter sequences at once, or ",
        };
        Error::Config(format!("train.experts is \"fp8\", which {self}; {first}set train.experts = \"bf16\""))
    }
}

/// Whether steps can multiply with experts in fp8, so that it is known before anything is loaded. `other` is why the card
/// does not take Hopper's kernels, where it does not; without an architecture only the device is looked at.
///
/// # Errors
/// There are no such kernels for the device, the weights, or where they lie.
pub fn check_fp8(
    config: Option<&Config>,
    place: Place,
    other: Option<&str>,
) -> std::result::Result<(), NoFp8> {
    let why = match (place, other, config) {
        (Place::Cpu { .. }, ..) => "the device is the CPU",
        (_, Some(other), _) => other,
        (.., Some(config)) if config.packing == Packing::Nf4 => "this model's experts are in NF4",
        (.., Some(config)) if !config.has_packed_experts() => "this model's experts are not in MXFP4",
        (Place::Card { arrangement, .. }, ..) if arrangement.placement.streamed_layers > 0 => {
            return Err(NoFp8::Room);
        }
        _ => return Ok(()),
    };
    Err(NoFp8::Kernels(why.to_owned()))
}

/// Bytes that experts in fp8 take: their references, and what measures them before the first step.
pub(super) fn of_fp8(config: &Config) -> u64 {
    (config.num_hidden_layers * config.layer_sizes().reference_bytes()) as u64 + limits::bytes(config)
}

/// Adapters of one rank at these kinds of sites.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adapters<'a> {
    pub(super) kinds: &'a [SiteKind],
    pub(super) rank: usize,
    /// Bytes of their numbers.
    pub(super) bytes: u64,
    /// The same with gradients and moments.
    pub(super) with_state: u64,
}

/// What is taken beside what is counted.
pub(super) fn runtime(config: &Config, adapters: Adapters<'_>, load: Load) -> u64 {
    let copy = adapters.bytes as f64;
    let (few, many) = (POOLED * copy, POOLED_MANY.0 + POOLED_MANY.1 * copy);
    let pooled = if few < many {
        few
    } else {
        let holes = holes(config, adapters.kinds, adapters.rank, load.tokens);
        many + holes * adapters.with_state as f64
    };
    let between = if load.copies > 0 { BETWEEN_CARDS } else { 0 };
    RUNTIME + between + pooled as u64
}

/// What the layers take of so many bytes that are free for them.
pub(super) fn layers(
    config: &Config,
    adapters: Adapters<'_>,
    load: Load,
    (in_order, experts): (bool, ExpertForm),
    arrangement: Arrangement,
    keep: Keep,
    free: u64,
) -> LayerMemory {
    let layers = LayerLoad {
        sizes: config.layer_sizes(),
        windows: (0..config.num_hidden_layers).map(|layer| config.window(layer)).collect(),
        ranks: PerSite::from_fn(|kind| if adapters.kinds.contains(&kind) { adapters.rank } else { 0 }),
        claim: Claim { tokens: load.tokens as usize, experts, ..arrangement.claim() },
        longest: load.longest as usize,
        in_order: in_order && config.has_packed_experts(),
    };
    layers.memory(keep, free)
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
    let page = pool_page(largest);
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use descant_model::Placement;

    use super::*;

    fn config(name: &str) -> Config {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs")).join(name);
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
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
    fn experts_in_fp8_are_refused_where_no_kernel_takes_them() {
        let of_20b = config("gpt-oss-20b.json");
        let placed = |streamed_layers| {
            let placement = Placement { embedding_on_host: true, streamed_layers };
            let arrangement = Arrangement { placement, ..Arrangement::default() };
            Place::Card { free: 1 << 40, keep: Keep::Auto, in_order: true, arrangement }
        };
        let cpu = Place::Cpu { threads: 1 };
        let of = |config: &Config, place, other: Option<&str>| check_fp8(Some(config), place, other);
        assert_eq!(of(&of_20b, placed(0), None), Ok(()));
        assert_eq!(check_fp8(None, placed(0), None), Ok(()), "whatever the model");
        let plain = Config { packing: Packing::Plain, ..of_20b.clone() };
        let nf4 = Config { packing: Packing::Nf4, ..of_20b.clone() };
        for (refused, word) in [
            (of(&of_20b, cpu, None), "the device is the CPU"),
            (check_fp8(None, cpu, None), "the device is the CPU"),
            (of(&of_20b, placed(0), Some("an L4 is none")), "9.0) and experts in MXFP4: an L4 is none;"),
            (of(&nf4, placed(0), None), "NF4"),
            (of(&plain, placed(0), None), "not in MXFP4"),
            (of(&of_20b, placed(1), None), "memory.limit"),
        ] {
            let error = refused.unwrap_err().of_settings().to_string();
            let names = ["train.experts", "\"fp8\"", "\"bf16\"", word];
            assert!(names.into_iter().all(|name| error.contains(name)), "{error}");
        }
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
}
