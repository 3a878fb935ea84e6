//! The arrangement of a run: the least that goes to the host so that it fits, and as few passes over the bus as can be.

use descant_kernels::{Chunks, Keep};
use descant_model::{Config, Placement};

use super::account::{Memory, Place};
use super::arrangement::Arrangement;

/// Which weights go to the host, so that what `needs` says fits: as few as can be, but for the embedding, which goes as
/// soon as layers keep more for it. The inputs of layers go too where that is not enough, where layers keep more for it
/// and no weights are on the bus, and in place of experts where they are fewer bytes over the bus. Where nothing fits,
/// the one that needs least. Of steps of several micro-batches so many go through a layer together as bring the fewest
/// bytes over the bus.
///
/// Where weights are on the bus or nothing fits, tokens go through experts in short chunks, if that brings fewer bytes
/// over the bus or lets it fit.
///
/// `host` are the bytes that the host may pin.
///
/// # Errors
/// Those of `needs`.
pub fn arrange<E>(
    config: &Config,
    place: Place,
    micro_batches: usize,
    host: Option<u64>,
    mut needs: impl FnMut(Place) -> std::result::Result<Memory, E>,
    fits: impl Fn(&Memory) -> bool,
) -> std::result::Result<(Arrangement, Memory), E> {
    let mut in_chunks = |chunks| {
        let none = Arrangement { chunks, ..Arrangement::default() };
        arrange_from(config, place, none, micro_batches, host, &mut needs, &fits)
    };
    let long = in_chunks(Chunks::Long)?;
    let is_on_card = matches!(place, Place::Card { .. });
    if !is_on_card || fits(&long.1) && long.0.placement.streamed_layers == 0 {
        return Ok(long);
    }
    let short = in_chunks(Chunks::Short)?;
    let bus = |of: &(Arrangement, Memory)| of.0.bus_bytes_of_step(config, micro_batches, of.1.on_host);
    let is_better = match [fits(&long.1), fits(&short.1)] {
        [true, true] => bus(&short) < bus(&long),
        [false, false] => short.1.least() < long.1.least(),
        [_, fits] => fits,
    };
    Ok(if is_better { short } else { long })
}

/// The same from an arrangement that says how all else is done.
fn arrange_from<E>(
    config: &Config,
    place: Place,
    none: Arrangement,
    micro_batches: usize,
    host: Option<u64>,
    needs: &mut impl FnMut(Place) -> std::result::Result<Memory, E>,
    fits: &impl Fn(&Memory) -> bool,
) -> std::result::Result<(Arrangement, Memory), E> {
    let mut best = place_weights(config, place, none, host, needs, fits)?;
    // Inputs of layers cross the bus within the time of a layer where no weights do; what they leave free keeps results.
    let may_keep_more = matches!(place, Place::Card { keep: Keep::Auto, .. });
    let streams = best.0.placement.streamed_layers > 0;
    let mut without_experts = None;
    if matches!(place, Place::Card { .. }) && (!fits(&best.1) || may_keep_more || streams) {
        let hosted = Arrangement { inputs_on_host: true, ..none };
        let one = place_weights(config, place, hosted, host, needs, fits)?;
        let keeps_more =
            fits(&one.1) && !streams && one.0.placement == best.0.placement && one.1.kept > best.1.kept;
        let is_better = if fits(&best.1) { keeps_more } else { one.1.least() < best.1.least() };
        let is_pinned = host.is_none_or(|host| one.1.on_host <= host);
        if is_better {
            best = one;
        } else if streams && fits(&one.1) && is_pinned && one.0.placement.streamed_layers == 0 {
            without_experts = Some(one);
        }
    }
    // Whoever says what layers keep wants that kept.
    let may_run_again = matches!(place, Place::Card { keep: Keep::Auto | Keep::Minimal, .. });
    let together = if may_run_again && fits(&best.1) { micro_batches } else { 1 };
    for together in groups(together) {
        if best.0.bus_bytes(config, micro_batches) == 0 {
            break;
        }
        let such = Arrangement { together, placement: none.placement, ..best.0 };
        let one = place_weights(config, place, such, host, needs, fits)?;
        let bus = |of: &Arrangement| of.bus_bytes(config, micro_batches);
        if fits(&one.1) && bus(&one.0) < bus(&best.0) {
            best = one;
        }
    }
    let bus = |of: &(Arrangement, Memory)| of.0.bus_bytes_of_step(config, micro_batches, of.1.on_host);
    Ok(without_experts.filter(|one| bus(one) < bus(&best)).unwrap_or(best))
}

/// The sizes of groups that take so many micro-batches in fewer passes than one each, the smallest first.
fn groups(micro_batches: usize) -> impl Iterator<Item = usize> {
    let mut last = 1;
    (1..micro_batches).rev().map(move |passes| micro_batches.div_ceil(passes)).filter(move |size| {
        let is_new = *size > last;
        last = (*size).max(last);
        is_new
    })
}

/// The same where all but the weights' places is given.
fn place_weights<E>(
    config: &Config,
    place: Place,
    given: Arrangement,
    host: Option<u64>,
    needs: &mut impl FnMut(Place) -> std::result::Result<Memory, E>,
    fits: &impl Fn(&Memory) -> bool,
) -> std::result::Result<(Arrangement, Memory), E> {
    let mut best = (given, needs(place.with(given))?);
    if matches!(place, Place::Cpu { .. }) {
        return Ok(best);
    }
    for placement in Placement::all(config).skip(1) {
        let arranged = Arrangement { placement, ..given };
        let one = (arranged, needs(place.with(arranged))?);
        let keeps_more = best.0 == given && one.1.kept > best.1.kept;
        let is_enough = fits(&best.1) && !keeps_more;
        if is_enough || host.is_some_and(|host| one.1.on_host > host) {
            break;
        }
        // A ring that is as large as what streams saves nothing.
        if one.1.least() < best.1.least() {
            best = one;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use descant_lora::LoraConfig;

    use super::super::estimate::estimate;
    use super::super::load::Load;
    use super::*;
    use crate::config::TrainConfig;
    use crate::error::Error;

    fn config() -> Config {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs/gpt-oss-20b.json");
        Config::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    /// The placement of the 20b, and what it needs, with `may` bytes on a card and `host` to pin.
    fn placed(sequences: u64, length: u64, may: u64, host: Option<u64>) -> (Placement, Memory) {
        let config = config();
        let (lora, train) = (LoraConfig::default(), TrainConfig::default());
        let load = Load { tokens: sequences * length, trained: 0, longest: length, in_all: 0, copies: 0 };
        let needs = |place| Ok::<_, Error>(estimate(&config, &lora, &train, load, None, place));
        let (arrangement, needs) =
            arrange(&config, card(may), 1, host, needs, |needs| needs.least() <= may).unwrap();
        assert_eq!(arrangement.together, 1);
        (arrangement.placement, needs)
    }

    fn card(free: u64) -> Place {
        Place::Card { free, keep: Keep::Auto, in_order: true, arrangement: Arrangement::default() }
    }

    /// Rows that ran on an H200, 28 November 2026: sequences, their length, limit in 1e9 bytes, layers that stream. A
    /// context of 0.55e9 is in use before.
    const PLACED: [(u64, u64, f64, usize); 3] = [(1, 4096, 12.0, 8), (1, 1024, 12.0, 6), (1, 4096, 8.0, 19)];

    #[test]
    fn as_few_layers_stream_as_a_limit_asks_for() {
        for (sequences, length, limit, layers) in PLACED {
            let may = (limit * 1e9 - 0.55e9) as u64;
            let (placement, needs) = placed(sequences, length, may, None);
            assert_eq!(placement, Placement { embedding_on_host: true, streamed_layers: layers });
            assert!(needs.least() <= may && needs.total() <= may);
            let fewer = Placement { streamed_layers: layers - 1, ..placement };
            let config = config();
            let more = needs.least() + fewer.card_bytes(&config) - placement.card_bytes(&config);
            assert!(more > may, "one layer fewer would do as well");
        }
    }

    #[test]
    fn with_room_for_everything_nothing_goes_to_the_host_and_the_embedding_goes_for_what_is_kept() {
        assert_eq!(placed(1, 4096, 80 << 30, None).0, Placement::default());
        let (placement, needs) = placed(1, 1024, 14 << 30, None);
        assert_eq!(placement, Placement { embedding_on_host: true, streamed_layers: 0 });
        assert!(needs.kept > 0);
    }

    #[test]
    fn inputs_of_layers_go_to_the_host_where_weights_are_not_enough() {
        let config = config();
        let of = |tokens: u64, may: u64| {
            let load = Load { tokens, trained: 0, longest: tokens, in_all: 0, copies: 0 };
            let (lora, train) = (LoraConfig::default(), TrainConfig::default());
            let needs = |place| Ok::<_, Error>(estimate(&config, &lora, &train, load, None, place));
            arrange(&config, card(may), 1, None, needs, |needs| needs.least() <= may).unwrap()
        };
        let (arrangement, needs) = of(131_072, 23_450_000_000);
        assert!(arrangement.inputs_on_host && needs.least() <= 23_450_000_000, "{arrangement:?} {needs:?}");
        // 21 layers' inputs of 131,072 tokens beside the weights.
        let inputs = 21 * 131_072 * 2880 * 2;
        assert_eq!(needs.on_host, inputs + arrangement.placement.host_bytes(&config));
        // Where all would fit, for what layers keep instead; not beside weights on the bus, nor where all is kept.
        let (arrangement, needs) = of(131_072, 64_000_000_000);
        assert!(arrangement.inputs_on_host && needs.total() <= 64_000_000_000, "{needs:?}");
        assert_eq!(arrangement.placement.streamed_layers, 0);
        assert!(!of(4096, 11_450_000_000).0.inputs_on_host);
        assert!(!of(4096, 80_000_000_000).0.inputs_on_host);
    }

    #[test]
    fn inputs_of_layers_go_to_the_host_in_place_of_experts_where_they_are_fewer_bytes() {
        const LACKING: u64 = 300 << 20;
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs/gpt-oss-120b.json");
        let of_120b = Config::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let embedding = Placement { embedding_on_host: true, streamed_layers: 0 };
        // With a little less memory than all experts need beside the inputs of layers.
        let of = |config: &Config, tokens: u64| {
            let load = Load { tokens, trained: 0, longest: tokens, in_all: 0, copies: 0 };
            let (lora, train) = (LoraConfig::default(), TrainConfig::default());
            let needs = |place| Ok::<_, Error>(estimate(config, &lora, &train, load, None, place));
            let with = Arrangement { placement: embedding, ..Arrangement::default() };
            let may = needs(card(0).with(with)).unwrap().least() - LACKING;
            let found = arrange(config, card(may), 1, None, needs, |needs| needs.least() <= may).unwrap();
            assert!(found.1.total() <= may, "{found:?}");
            found
        };
        let (arrangement, needs) = of(&of_120b, 4096);
        let hosted = Arrangement { placement: embedding, inputs_on_host: true, ..Arrangement::default() };
        assert_eq!(arrangement, hosted);
        let inputs = 33 * 4096 * 2880 * 2;
        assert_eq!(arrangement.bus_bytes_of_step(&of_120b, 1, needs.on_host), 2 * inputs);
        let streamed = Placement { streamed_layers: 2, ..embedding };
        assert!(2 * inputs < streamed.bus_bytes(&of_120b), "two layers are the fewest that save anything");
        // Those of more tokens are more bytes than experts of the 20b, which are fewer.
        let (arrangement, _) = of(&config(), 16_384);
        assert_eq!(arrangement, Arrangement { placement: streamed, ..Arrangement::default() });
    }

    #[test]
    fn chunks_are_short_where_that_leaves_fewer_experts_on_the_host() {
        let config = config();
        let of = |targets: &[&str], tokens: u64, may: u64| {
            let load = Load { tokens, trained: 0, longest: 1024, in_all: 0, copies: 0 };
            let targets = targets.iter().map(|name| (*name).to_owned()).collect();
            let (lora, train) = (LoraConfig { targets, ..LoraConfig::default() }, TrainConfig::default());
            let needs = |place| Ok::<_, Error>(estimate(&config, &lora, &train, load, None, place));
            let found = arrange(&config, card(may), 1, None, needs, |needs| needs.least() <= may).unwrap();
            assert!(found.1.total() <= may, "{found:?}");
            found.0
        };
        let (attention, router) = (["q_proj", "o_proj"], ["q_proj", "router"]);
        let may = 11_450_000_000;
        let short = of(&attention, 16_384, may);
        assert_eq!(short.chunks, Chunks::Short);
        // Gradients of the router's pair are summed chunk by chunk.
        let long = of(&router, 16_384, may);
        assert_eq!(long.chunks, Chunks::Long);
        assert!(short.placement.streamed_layers + 2 <= long.placement.streamed_layers, "{short:?} {long:?}");
        // Where nothing streams, and where a batch is no longer than a short chunk.
        assert_eq!(of(&attention, 16_384, 40_000_000_000).chunks, Chunks::Long);
        assert_eq!(of(&attention, 4096, may).chunks, Chunks::Long);
    }

    #[test]
    fn what_cannot_fit_is_not_said_to_fit() {
        let may = 4_000_000_000;
        let (placement, needs) = placed(1, 4096, may, None);
        assert!(needs.least() > may && placement.streamed_layers == 24, "{placement:?}");
        // A host that can pin no more than the embedding lets no layer stream.
        let (placement, needs) = placed(1, 4096, 11_450_000_000, Some(2_000_000_000));
        assert_eq!(placement, Placement { embedding_on_host: true, streamed_layers: 0 });
        assert!(needs.least() > 11_450_000_000);
    }

    #[test]
    fn micro_batches_go_together_where_that_brings_fewer_bytes_over_the_bus_and_not_otherwise() {
        let config = config();
        let of = |micro_batches: usize, may: u64, keep: Keep| {
            let train = TrainConfig { accumulation: micro_batches, ..TrainConfig::default() };
            let load = Load { tokens: 1024, trained: 0, longest: 1024, in_all: 0, copies: 0 };
            let needs =
                |place| Ok::<_, Error>(estimate(&config, &LoraConfig::default(), &train, load, None, place));
            let arrangement = Arrangement::default();
            let place = Place::Card { free: may, keep, in_order: true, arrangement };
            arrange(&config, place, micro_batches, None, needs, |needs| needs.least() <= may).unwrap()
        };
        let may = 11_450_000_000;
        let (arrangement, needs) = of(16, may, Keep::Auto);
        assert_eq!(arrangement.together, 16);
        assert!(needs.least() <= may && needs.kept == 0, "{needs:?}");
        // All inputs of 16 micro-batches are on the card, so that more layers stream, once each way.
        let alone = of(1, may, Keep::Auto).0;
        assert!(arrangement.placement.streamed_layers > alone.placement.streamed_layers);
        assert!(4 * arrangement.bus_bytes(&config, 16) < alone.bus_bytes(&config, 16));
        // Where nothing streams they go alone, and where layers are to keep something.
        assert_eq!(of(16, 20_000_000_000, Keep::Auto).0.together, 1);
        assert_eq!(of(16, may, Keep::Bytes(1 << 20)).0.together, 1);
        assert_eq!(groups(16).collect::<Vec<_>>(), [2, 3, 4, 6, 8, 16]);
        assert_eq!((groups(1).count(), groups(2).collect::<Vec<_>>()), (0, vec![2]));
        // So many that not all inputs fit: in groups.
        let many = of(512, may, Keep::Auto).0.together;
        assert!((2..512).contains(&many), "{many}");
    }
}
