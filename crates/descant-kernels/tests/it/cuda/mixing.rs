//! Operators that mix rows: routing to experts and back, and attention.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, Int, Tensor};
use descant_kernels as k;
use descant_kernels::{AttentionSpec, Segments};

use super::{BF16, run, same, same_as};
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

/// The definition's result and gradients, each head of each sequence by itself: all of them at once are too much for
/// one thread where sequences are long.
fn attention_by_heads(
    inputs: [&Tensor<3>; 3],
    sinks: &Tensor<1>,
    seed: &Tensor<3>,
    spec: AttentionSpec,
    lengths: &[usize],
) -> Vec<Vec<f32>> {
    let [q, key, value] = inputs;
    let [tokens, heads, dim] = q.dims();
    let n_kv = key.dims()[1];
    let starts = lengths.iter().scan(0, |end, len| Some(std::mem::replace(end, *end + len)));
    let pieces: Vec<_> =
        starts.zip(lengths.iter().copied()).flat_map(|at| (0..heads).map(move |head| (at, head))).collect();
    let piece = |((start, len), head): ((usize, usize), usize)| {
        let of = |x: &Tensor<3>, head| x.clone().narrow(0, start, len).narrow(1, head, 1);
        let kv = head * n_kv / heads;
        let sink = sinks.clone().narrow(0, head, 1);
        let segments = Segments::from_lengths(&[len]);
        let definition = |[q, key, value]: [Tensor<3>; 3], _: &Device| {
            k::reference::attention(q, key, value, &sink, spec, &segments)
        };
        let inputs = [&of(q, head), &of(key, kv), &of(value, kv)];
        run(&Device::flex(), [DType::F32; 3], inputs, &of(seed, head), &definition)
    };
    // Threads of their own: one that waits for another's graph must not be one of those that compute.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(pieces.len()) {
            scope.spawn(|| {
                while let Some(at) = pieces.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = (*at, piece(*at));
                    results.lock().expect("no panic").push(result);
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no panic");
    results.sort_by_key(|(at, _)| *at);
    let mut all = [heads, heads, n_kv, n_kv].map(|heads| vec![0.0; tokens * heads * dim]);
    for (((start, _), head), of_piece) in results {
        let kv = head * n_kv / heads;
        for ((to, from), (heads, head)) in
            all.iter_mut().zip(of_piece).zip([(heads, head), (heads, head), (n_kv, kv), (n_kv, kv)])
        {
            for (row, from) in from.chunks_exact(dim).enumerate() {
                let at = ((start + row) * heads + head) * dim;
                to[at..at + dim].iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
    }
    all.into()
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
    // About the blocks of keys of a window, and longer than the strips of several.
    let edges = vec![1usize, 31, 32, 33, 127, 128, 129, 160, 300, 500, 700];
    // Hardly longer than a window.
    let alike = vec![130usize; 17];
    for (dim, heads, n_kv, window, lengths) in [
        (64, 8, 1, None, &some),
        (64, 16, 2, Some(128), &some),
        (16, 6, 2, Some(5), &some),
        (32, 4, 1, None, &some),
        (64, 8, 1, None, &long),
        (64, 8, 1, Some(128), &long),
        (64, 16, 2, None, &many),
        // Tokens times key heads are enough for the portable backward of windows in one pass.
        (64, 64, 8, Some(128), &edges),
        (64, 64, 8, Some(97), &alike),
        // And what it does not take: other windows, shorter sequences, other groups.
        (64, 64, 8, Some(129), &alike),
        (64, 64, 8, Some(40), &alike),
        (64, 24, 3, Some(128), &many),
        (64, 32, 2, Some(97), &edges),
        (64, 8, 2, Some(97), &some),
        (64, 6, 2, Some(128), &some),
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
        let what = format!("attention {heads}/{n_kv} of {dim}, window {window:?}, {start} tokens");
        let inputs = [&q, &key, &value];
        let slow = attention_by_heads(inputs, &sinks, &seed, spec, lengths);
        same_as(&slow, &card, &what, [BF16; 3], inputs, &seed, own);
    }
}
