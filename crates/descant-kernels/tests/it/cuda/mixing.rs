//! Operators that mix rows: routing to experts and back, and attention.

use burn::tensor::{DType, Device, Int, Tensor};
use descant_kernels as k;
use descant_kernels::{AttentionSpec, Segments};

use super::{BF16, same};
use crate::card::{card, on, rounded};
use crate::support::Random;

#[test]
#[ignore = "needs a card"]
fn routing_on_a_card_equals_its_definition() {
    let card = card();
    let mut random = Random(35);
    for (tokens, experts, top) in [(1, 4, 4), (7, 8, 2), (1000, 32, 4)] {
        let logits = random.floats([tokens, experts]);
        let slow = k::reference::route(&logits, top);
        let fast = k::route(&on(&logits, &card, DType::F32), top);
        let same_ints = |a: Vec<i64>, b: Vec<i64>, what: &str| assert_eq!(a, b, "{what} of {tokens}");
        let values = |x: &Tensor<1, Int>| x.clone().into_data().iter::<i64>().collect::<Vec<_>>();
        same_ints(values(&fast.pairs), values(&slow.pairs), "pairs");
        same_ints(values(&fast.places), values(&slow.places), "places");
        same_ints(values(&fast.offsets), values(&slow.offsets), "offsets");
        let (of_card, of_cpu) = (&fast, &slow);
        let seed = random.floats([tokens, top]);
        let own = |[l]: [Tensor<2>; 1], _: &Device| k::expert_weights(l, of_card);
        let definition = |[l]: [Tensor<2>; 1], _: &Device| k::reference::expert_weights(l, of_cpu);
        same(&card, "expert_weights", [DType::F32], [&logits], &seed, own, definition);
        let width = 96;
        let (x, seed) =
            (rounded(random.floats([tokens, width])), rounded(random.floats([tokens * top, width])));
        let own = |[x]: [Tensor<2>; 1], _: &Device| k::take_tokens(x, of_card);
        let definition = |[x]: [Tensor<2>; 1], _: &Device| k::reference::take_tokens(x, of_cpu);
        same(&card, "take_tokens", [BF16], [&x], &seed, own, definition);
        let (y, weights) = (rounded(random.floats([tokens * top, width])), random.floats([tokens, top]));
        let seed = rounded(random.floats([tokens, width]));
        let own = |[y, w]: [Tensor<2>; 2], _: &Device| k::combine_experts(y, w, of_card);
        let definition = |[y, w]: [Tensor<2>; 2], _: &Device| k::reference::combine_experts(y, w, of_cpu);
        same(&card, "combine_experts", [BF16, DType::F32], [&y, &weights], &seed, own, definition);
    }
}

#[test]
#[ignore = "needs a card"]
fn attention_on_a_card_equals_its_definition() {
    let card = card();
    let mut random = Random(36);
    // The last are long enough for several runs of queries a tile of keys, and so many that none is divided.
    let (some, long, many) = (vec![1usize, 150, 7, 300], vec![1100], (1..=110).collect::<Vec<usize>>());
    // Hopper's backward is one pass here. The second begins in the middle of a tile.
    let far = vec![4100usize, 4111];
    for (dim, heads, n_kv, window, lengths) in [
        (64, 8, 1, None, &some),
        (64, 16, 2, Some(128), &some),
        (16, 6, 2, Some(5), &some),
        (32, 4, 1, None, &some),
        (64, 8, 1, None, &long),
        (64, 8, 1, Some(128), &long),
        (64, 16, 2, None, &many),
        (64, 16, 2, Some(40), &many),
        (64, 8, 1, None, &far),
        (64, 6, 2, None, &far),
    ] {
        let start: usize = lengths.iter().sum();
        let segments = Segments::from_lengths(lengths);
        let (q, kv) = ([start, heads, dim], [start, n_kv, dim]);
        let (q, key, value) =
            (rounded(random.floats(q)), rounded(random.floats(kv)), rounded(random.floats(kv)));
        let (sinks, seed) = (random.floats([heads]), rounded(random.floats([start, heads, dim])));
        let spec = AttentionSpec { window, scale: (dim as f32).sqrt().recip() };
        let own = |[q, key, value]: [Tensor<3>; 3], d: &Device| {
            k::attention(q, key, value, &on(&sinks, d, DType::F32), spec, &segments)
        };
        let definition = |[q, key, value]: [Tensor<3>; 3], d: &Device| {
            k::reference::attention(q, key, value, &on(&sinks, d, DType::F32), spec, &segments)
        };
        let what = format!("attention {heads}/{n_kv} of {dim}, window {window:?}, {start} tokens");
        same(&card, &what, [BF16; 3], [&q, &key, &value], &seed, own, definition);
    }
}
