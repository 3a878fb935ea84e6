//! Operators on rows: norms, SwiGLU, rotations, choices of rows, losses, the largest of a row.

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels as k;

use super::{BF16, same};
use crate::card::{card, floats, ints_on, on, rounded};
use crate::support::{Random, ints};

/// Sizes with tails: one row, an odd few, more than a tile, more than a block of them.
const ROWS: [usize; 4] = [1, 7, 129, 1000];

#[test]
#[ignore = "needs a card"]
fn rows_on_a_card_equal_their_definitions() {
    let card = card();
    let mut random = Random(31);
    for rows in ROWS {
        for width in [64, 96, 2880] {
            let (x, weight) = (rounded(random.floats([rows, width])), random.floats([width]));
            let seed = rounded(random.floats([rows, width]));
            let norm = |w: &Tensor<1>, d: &Device| on(w, d, DType::F32);
            same(
                &card,
                &format!("rms_norm {rows}x{width}"),
                [BF16],
                [&x],
                &seed,
                |[x], d| k::rms_norm(x, &norm(&weight, d), 1e-5),
                |[x], d| k::reference::rms_norm(x, &norm(&weight, d), 1e-5),
            );
            let (x, seed) = (rounded(random.floats([rows, 2 * width]) * 4.0), seed);
            let what = format!("swiglu {rows}x{width}");
            same(
                &card,
                &what,
                [BF16],
                [&x],
                &seed,
                |[x], _| k::swiglu(x, 7.0),
                |[x], _| k::reference::swiglu(x, 7.0),
            );
        }
        for dim in [16, 64] {
            let (x, angles) = (rounded(random.floats([rows, 5, dim])), random.floats([rows, dim / 2]));
            let seed = rounded(random.floats([rows, 5, dim]));
            let turn = |a: &Tensor<2>, d: &Device| {
                (on(&a.clone().cos(), d, DType::F32), on(&a.clone().sin(), d, DType::F32))
            };
            let own = |[x]: [Tensor<3>; 1], d: &Device| {
                let (cos, sin) = turn(&angles, d);
                k::rotary(x, &cos, &sin)
            };
            let definition = |[x]: [Tensor<3>; 1], d: &Device| {
                let (cos, sin) = turn(&angles, d);
                k::reference::rotary(x, &cos, &sin)
            };
            same(&card, &format!("rotary {rows}x{dim}"), [BF16], [&x], &seed, own, definition);
        }
    }
}

#[test]
#[ignore = "needs a card"]
fn rows_by_index_on_a_card_equal_their_definition() {
    let card = card();
    let mut random = Random(39);
    let every_third: Vec<usize> = (0..1000).filter(|row| row % 3 != 1).collect();
    // Rows that rise, all of them, and such as no kernel takes: with one twice, and too narrow.
    for (count, width, rows) in [
        (1000, 96, every_third),
        (9, 64, vec![8]),
        (9, 64, (0..9).collect()),
        (9, 64, vec![3, 3, 1]),
        (9, 6, vec![0, 5]),
    ] {
        let x = rounded(random.floats([count, width]));
        let seed = rounded(random.floats([rows.len(), width]));
        let what = format!("{} of {count} rows", rows.len());
        let own = |[x]: [Tensor<2>; 1], _: &Device| k::select_rows(x, &rows);
        let definition = |[x]: [Tensor<2>; 1], _: &Device| k::reference::select_rows(x, &rows);
        same(&card, &what, [BF16], [&x], &seed, own, definition);
        for dtype in [BF16, DType::F32] {
            let table = on(&x, &card, dtype);
            let expected = floats(definition([x.clone()], &card));
            assert_eq!(floats(k::gather_rows(&table, &rows)), expected, "{what}, {dtype:?}");
        }
    }
}

#[test]
#[ignore = "needs a card"]
fn losses_on_a_card_equal_their_definition() {
    let card = card();
    let mut random = Random(32);
    for (rows, features, words) in [(1, 64, 304), (129, 96, 1000), (600, 64, 201_088)] {
        let (hidden, head) =
            (rounded(random.floats([rows, features])), rounded(random.floats([words, features]) * 0.25));
        let targets: Vec<i32> = (0..rows).map(|_| (random.bits() % words as u64) as i32).collect();
        let targets = ints(&targets, [rows]);
        let seed = random.floats([rows]);
        let what = format!("token_losses {rows}x{features}x{words}");
        let own = |[h]: [Tensor<2>; 1], d: &Device| {
            k::token_losses(h, &on(&head, d, BF16), &ints_on(&targets, d), &k::LogitsRoom::default())
        };
        let definition = |[h]: [Tensor<2>; 1], d: &Device| {
            k::reference::token_losses(h, &on(&head, d, DType::F32), &ints_on(&targets, d))
        };
        same(&card, &what, [BF16], [&hidden], &seed, own, definition);
    }
    for rows in [1, 7, 129, 5000] {
        // Of one sign: a sum that nearly vanishes says nothing about its parts.
        let (losses, weights) = (random.floats([rows]).abs(), random.floats([rows]).abs());
        let what = format!("weighted_sum {rows}");
        let own = |[x]: [Tensor<1>; 1], d: &Device| k::weighted_sum(x, on(&weights, d, DType::F32));
        let definition =
            |[x]: [Tensor<1>; 1], d: &Device| k::reference::weighted_sum(x, on(&weights, d, DType::F32));
        same(&card, &what, [DType::F32], [&losses], &random.floats([1]), own, definition);
    }
}

/// Divergences of a card's own f32 logits, up to what exponentials in f32 lose.
#[test]
#[ignore = "needs a card"]
fn divergences_on_a_card_equal_their_definition() {
    let card = card();
    let mut random = Random(33);
    for (rows, features, words) in [(1, 64, 304), (129, 96, 1000), (600, 64, 201_088)] {
        let one = rounded(random.floats([rows, features]));
        let other = rounded(one.clone() + random.floats([rows, features]) * 0.02);
        let head = rounded(random.floats([words, features]) * 0.5);
        let [p, q] = [&one, &other].map(|hidden| floats(hidden.clone().matmul(head.clone().transpose())));
        let [one, other, head] = [&one, &other, &head].map(|x| on(x, &card, BF16));
        let found = k::divergences(&one, &other, &head, &k::LogitsRoom::default()).unwrap();
        assert_eq!(found, k::divergences(&one, &other, &head, &k::LogitsRoom::default()).unwrap());
        let all = p.chunks_exact(words).zip(q.chunks_exact(words));
        let expected: Vec<f64> = all.map(|(p, q)| k::reference::divergence(p, q)).collect();
        for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let off = (f64::from(*found) - expected).abs();
            assert!(off < 1e-2 * expected + 1e-6, "{rows} x {words}, row {row}: {found} {expected}");
        }
        assert!(expected.iter().all(|expected| *expected > 1e-5), "rows are apart");
        let same = k::divergences(&one, &one, &head, &k::LogitsRoom::default()).unwrap();
        assert!(same.iter().all(|found| *found == 0.0), "{same:?}");
    }
}

#[test]
#[ignore = "needs a card"]
fn the_greedy_choice_on_a_card_equals_its_definition() {
    let card = card();
    let mut random = Random(41);
    for (rows, width) in [(1, 8), (3, 201_088), (40, 1536), (128, 4096)] {
        // Few values, so that the largest comes several times.
        let coarse = (random.floats([rows, width]) * 4.0).round();
        let mut values: Vec<f32> = coarse.into_data().try_to_vec().unwrap();
        values[width / 2] = f32::NAN;
        if rows > 1 {
            values[width] = f32::NAN;
        }
        let own = Tensor::<2>::from_data(TensorData::new(values.clone(), [rows, width]), (&card, BF16));
        let best = values.chunks_exact(width).map(|row| k::reference::best_token(row) as u32);
        assert_eq!(k::best_tokens(own).unwrap(), best.collect::<Vec<_>>(), "{rows} x {width}");
    }
}

#[test]
#[ignore = "needs a card"]
fn cache_rows_on_a_card_are_written_and_the_rest_stays() {
    let card = card();
    let mut random = Random(37);
    let (cache, new) = (rounded(random.floats([9, 64])), rounded(random.floats([3, 64])));
    let rows = ints(&[8, 0, 5], [3]);
    let fast = k::write_rows(on(&cache, &card, BF16), &ints_on(&rows, &card), on(&new, &card, BF16));
    assert_eq!(floats(fast), floats(k::reference::write_rows(cache, &rows, new)));
}
