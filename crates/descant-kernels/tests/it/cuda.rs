//! Every operator's form for a CUDA card against its definition in f32 on the CPU, forward and backward, on inputs
//! that bf16 holds exactly.

#![expect(clippy::print_stdout, reason = "the differences are what the reader of a run on a card wants")]

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels as k;
use descant_kernels::cuda::{Gpu, Uploader};
use descant_kernels::{AttentionSpec, FrozenWeight, Groups, Segments};

use crate::card::{card, error, floats, ints_on, mxfp4_on, on, rounded};
use crate::support::{Random, ints, nf4};

/// Norm of the difference by norm of the definition's result: results are rounded to 8 bits once or twice.
const TOLERANCE: f64 = 1e-2;

/// Sizes with tails: one row, an odd few, more than a tile, more than a block of them.
const ROWS: [usize; 4] = [1, 7, 129, 1000];

/// Result of `f` on a device, and the gradient of `sum(f * seed)` at each input.
fn run<const D: usize, const N: usize, const O: usize>(
    device: &Device,
    dtypes: [DType; N],
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    f: &dyn Fn([Tensor<D>; N], &Device) -> Tensor<O>,
) -> Vec<Vec<f32>> {
    let graph = device.clone().autodiff();
    let mut leaves = Vec::new();
    for (input, dtype) in inputs.into_iter().zip(dtypes) {
        leaves.push(on(input, &graph, dtype).detach().require_grad());
    }
    let leaves: [Tensor<D>; N] = leaves.try_into().expect("as many");
    let y = f(leaves.clone(), device);
    let seed = on(seed, &graph, y.dtype());
    let gradients = (y.clone() * seed).sum().backward();
    let mut all = vec![floats(y.inner())];
    all.extend(leaves.iter().map(|leaf| floats(leaf.grad(&gradients).expect("a gradient"))));
    all
}

/// Asserts that the card's form, run twice, gives the same bits, and nearly those of the definition.
fn same<const D: usize, const N: usize, const O: usize>(
    card: &Device,
    what: &str,
    dtypes: [DType; N],
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    own: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
    definition: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
) {
    let first = run(card, dtypes, inputs, seed, &own);
    assert_eq!(Gpu::of(0).expect("the card").take_error(), None, "{what}");
    let again = run(card, dtypes, inputs, seed, &own);
    k::cuda::portable_kernels(true);
    let portable = run(card, dtypes, inputs, seed, &own);
    k::cuda::portable_kernels(false);
    let slow = run(&Device::flex(), [DType::F32; N], inputs, seed, &definition);
    for (i, (a, b)) in portable.iter().zip(&slow).enumerate() {
        let e = error(a, b);
        assert!(e <= TOLERANCE, "{what}, portable: tensor {i} (0 is the output) differs by {e:e}");
    }
    for (i, ((a, again), b)) in first.iter().zip(&again).zip(&slow).enumerate() {
        let e = error(a, b);
        println!("{what}: tensor {i}: {e:.2e}");
        assert!(
            a.iter().zip(again).all(|(a, b)| a.to_bits() == b.to_bits()),
            "{what}: other bits in tensor {i}"
        );
        assert!(e <= TOLERANCE, "{what}: tensor {i} (0 is the output) differs by {e:e}");
    }
}

const BF16: DType = DType::BF16;

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
            k::token_losses(h, &on(&head, d, DType::F32), &ints_on(&targets, d), &k::LogitsRoom::default())
        };
        same(&card, &what, [BF16], [&hidden], &seed, own, definition);
    }
}

/// Rows of eight experts: none, one, and many.
const SPREADS: [&[usize]; 3] = [&[3, 0, 1, 130, 7, 0, 2, 40], &[0, 0, 0, 200, 0, 0, 0, 0], &[1]];

/// More rows than a tile has, and just more and just fewer than a step of its width.
const TILES: &[usize] = &[193, 65, 0, 400, 145, 97, 1, 2];

fn groups(spread: &[usize]) -> (Tensor<1, Int>, usize) {
    let mut offsets = vec![0i32];
    for rows in spread {
        offsets.push(offsets[offsets.len() - 1] + *rows as i32);
    }
    (ints(&offsets, [offsets.len()]), spread.iter().sum())
}

fn weight_on(weight: &FrozenWeight, device: &Device, dtype: DType) -> FrozenWeight {
    match weight {
        FrozenWeight::Dense(w) => FrozenWeight::Dense(on(w, device, dtype)),
        FrozenWeight::Transposed(w) => FrozenWeight::Transposed(on(w, device, dtype)),
        FrozenWeight::Mxfp4 { .. } => mxfp4_on(weight, device),
        FrozenWeight::Mxfp4Tiles { .. } => unreachable!("cases are made on the CPU"),
        FrozenWeight::Nf4 { blocks, scales, tables } => FrozenWeight::Nf4 {
            blocks: ints_on(blocks, device),
            scales: ints_on(scales, device),
            tables: on(tables, device, DType::F32),
        },
        FrozenWeight::Streamed(_) => unreachable!("no case streams"),
    }
}

#[test]
#[ignore = "needs a card"]
fn products_on_a_card_equal_their_definitions_in_every_storage() {
    let card = card();
    let mut random = Random(33);
    for spread in SPREADS.into_iter().chain([TILES]) {
        let ((offsets, rows), n) = (groups(spread), spread.len());
        for (d_in, d_out) in [(64, 96), (2880, 128), (160, 416), (320, 416)] {
            let scale = (d_in as f32).sqrt().recip();
            let mut weights = vec![
                FrozenWeight::Dense(rounded(random.floats([n, d_out, d_in]) * scale)),
                FrozenWeight::Transposed(rounded(random.floats([n, d_in, d_out]) * scale)),
                FrozenWeight::Mxfp4 {
                    blocks: random.bytes([n, d_out, d_in / 32, 16], 0, 255),
                    scales: random.bytes([n, d_out, d_in / 32], 120, if d_in == 160 { 128 } else { 123 }),
                },
            ];
            weights.extend(d_in.is_multiple_of(64).then(|| nf4(&mut random, n, d_in, d_out)));
            for weight in &weights {
                let (x, bias) = (rounded(random.floats([rows, d_in])), rounded(random.floats([n, d_out])));
                let seed = rounded(random.floats([rows, d_out]));
                for one in [false, true] {
                    if one && n > 1 {
                        continue;
                    }
                    let grouping = |d: &Device| {
                        if one { Groups::One } else { Groups::Sorted { offsets: ints_on(&offsets, d) } }
                    };
                    let what = format!("linear {spread:?} {d_in}x{d_out} one {one}");
                    let own = |[x]: [Tensor<2>; 1], d: &Device| {
                        k::linear(x, &weight_on(weight, d, BF16), Some(&on(&bias, d, BF16)), &grouping(d))
                    };
                    let definition = |[x]: [Tensor<2>; 1], d: &Device| {
                        let bias = on(&bias, d, DType::F32);
                        k::linear(x, &weight_on(weight, d, DType::F32), Some(&bias), &grouping(d))
                    };
                    same(&card, &what, [BF16], [&x], &seed, own, definition);
                }
            }
        }
    }
}

/// Rows that are one at one place and else zero read single numbers out of a matrix, so that what a card decodes is
/// seen as it is: forward by the kernels for few and for many rows, backward, on Hopper's and on other cards' kernels.
#[test]
#[ignore = "needs a card"]
fn packed_numbers_on_a_card_have_the_bits_of_their_formats() {
    let card = card();
    let mut random = Random(37);
    for (n, d_in, d_out) in [(3, 320, 416), (1, 64, 96), (2, 2880, 128)] {
        let weights = [
            nf4(&mut random, n, d_in, d_out),
            FrozenWeight::Mxfp4 {
                blocks: random.bytes([n, d_out, d_in / 32, 16], 0, 255),
                scales: random.bytes([n, d_out, d_in / 32], 90, 128),
            },
        ];
        for weight in &weights {
            // A row a number that goes in; the definition gives the matrices themselves.
            let identity = |n: usize| Tensor::<2>::eye(n, &Device::flex());
            let all = |size: usize| Tensor::cat(vec![identity(size); n], 0);
            let offsets = |size: usize| {
                let offsets: Vec<i32> = (0..=n).map(|i| (i * size) as i32).collect();
                Groups::Sorted { offsets: ints(&offsets, [n + 1]) }
            };
            let expected = flat_values(&k::reference::linear(all(d_in), weight, None, &offsets(d_in)));
            for portable in [false, true] {
                k::cuda::portable_kernels(portable);
                let on_card = weight_on(weight, &card, BF16);
                let groups = |size: usize| match offsets(size) {
                    Groups::Sorted { offsets } => Groups::Sorted { offsets: ints_on(&offsets, &card) },
                    Groups::One => Groups::One,
                };
                let many = k::linear(on(&all(d_in), &card, BF16), &on_card, None, &groups(d_in));
                assert_eq!(bits_of(&many), bits(&expected), "{n} x {d_out} x {d_in}, portable {portable}");
                // Eight rows at a time of the first matrix alone.
                for first in (0..d_in).step_by(8).take(40) {
                    let rows = identity(d_in).narrow(0, first, 8);
                    let counts: Vec<i32> = std::iter::once(0).chain([8].repeat(n)).collect();
                    let few = Groups::Sorted { offsets: ints_on(&ints(&counts, [n + 1]), &card) };
                    let few = k::linear(on(&rows, &card, BF16), &on_card, None, &few);
                    assert_eq!(bits_of(&few), bits(&expected[first * d_out..][..8 * d_out]), "few, {first}");
                }
                // Backward: the gradient of x, for a gradient of the result that is an identity.
                let x =
                    on(&Tensor::zeros([n * d_out, d_in], &Device::flex()), &card.clone().autodiff(), BF16);
                let x = x.detach().require_grad();
                let y = k::linear(x.clone(), &on_card, None, &groups(d_out));
                let seed = on(&all(d_out), &y.device(), BF16);
                let back = x.grad(&(y * seed).sum().backward()).expect("a gradient");
                let back = flat_values(&back);
                for (e, i, j) in (0..n).flat_map(|e| [(e, 0, 0), (e, d_out - 1, d_in - 1), (e, 33, 63)]) {
                    assert_eq!(
                        back[(e * d_out + i) * d_in + j].to_bits(),
                        expected[(e * d_in + j) * d_out + i].to_bits(),
                        "backward, matrix {e}, {i}, {j}"
                    );
                }
                let turned = (0..n * d_out * d_in).all(|at| {
                    let (e, i, j) = (at / (d_out * d_in), at / d_in % d_out, at % d_in);
                    back[at].to_bits() == expected[(e * d_in + j) * d_out + i].to_bits()
                });
                assert!(turned, "backward, {n} x {d_out} x {d_in}, portable {portable}");
            }
            k::cuda::portable_kernels(false);
        }
    }
}

fn flat_values(x: &Tensor<2>) -> Vec<f32> {
    // Zeros of both signs are one number: a sum may have either.
    x.clone().cast(DType::F32).into_data().iter::<f32>().map(|x| x + 0.0).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

fn bits_of(x: &Tensor<2>) -> Vec<u32> {
    bits(&flat_values(x))
}

#[test]
#[ignore = "needs a card"]
fn the_trainable_path_on_a_card_equals_its_definition() {
    let card = card();
    let mut random = Random(34);
    let few: &[usize] = &[0, 2, 0, 1, 4, 0];
    for (spread, rank, d_out) in [
        (SPREADS[2], 64, 64),
        (few, 3, 416),
        (few, 8, 64),
        (few, 64, 288),
        (&[17][..], 8, 64),
        (SPREADS[1], 3, 64),
        (SPREADS[0], 8, 64),
        (SPREADS[0], 64, 64),
    ] {
        let ((offsets, rows), n) = (groups(spread), spread.len());
        let d_in = 96;
        let x = rounded(random.floats([1, rows, d_in]));
        let (a, b) =
            (rounded(random.floats([n, rank, d_in]) * 0.1), rounded(random.floats([n, d_out, rank])));
        let seed = rounded(random.floats([rows, d_out]));
        let f = |[x, a, b]: [Tensor<3>; 3], d: &Device| {
            let groups = Groups::Sorted { offsets: ints_on(&offsets, d) };
            k::low_rank(x.squeeze_dim(0), a, b, 1.7, &groups)
        };
        let what = format!("low_rank {spread:?} rank {rank}");
        same(&card, &what, [BF16, DType::F32, DType::F32], [&x, &a, &b], &seed, f, f);
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
        let data = TensorData::new(values, [rows, width]);
        let own = Tensor::<2>::from_data(data.clone(), (&card, BF16));
        let definition = Tensor::<2>::from_data(data, (&Device::flex(), DType::F32));
        assert_eq!(k::best_tokens(own).unwrap(), k::best_tokens(definition).unwrap(), "{rows} x {width}");
    }
}

#[test]
#[ignore = "needs a card"]
fn routing_on_a_card_equals_its_definition() {
    let card = card();
    let mut random = Random(35);
    for (tokens, experts, top) in [(1, 4, 4), (7, 8, 2), (1000, 32, 4)] {
        let logits = random.floats([tokens, experts]);
        let slow = k::route(&logits, top);
        let fast = k::route(&on(&logits, &card, DType::F32), top);
        let same_ints = |a: Vec<i64>, b: Vec<i64>, what: &str| assert_eq!(a, b, "{what} of {tokens}");
        let values = |x: &Tensor<1, Int>| x.clone().into_data().iter::<i64>().collect::<Vec<_>>();
        same_ints(values(&fast.pairs), values(&slow.pairs), "pairs");
        same_ints(values(&fast.places), values(&slow.places), "places");
        same_ints(values(&fast.offsets), values(&slow.offsets), "offsets");
        let routing = |d: &Device| k::route(&on(&logits, d, DType::F32), top);
        let seed = random.floats([tokens, top]);
        let weigh = |[l]: [Tensor<2>; 1], d: &Device| k::expert_weights(l, &routing(d));
        same(&card, "expert_weights", [DType::F32], [&logits], &seed, weigh, weigh);
        let width = 96;
        let (x, seed) =
            (rounded(random.floats([tokens, width])), rounded(random.floats([tokens * top, width])));
        let take = |[x]: [Tensor<2>; 1], d: &Device| k::take_tokens(x, &routing(d));
        same(&card, "take_tokens", [BF16], [&x], &seed, take, take);
        let (y, weights) = (rounded(random.floats([tokens * top, width])), random.floats([tokens, top]));
        let seed = rounded(random.floats([tokens, width]));
        let combine = |[y, w]: [Tensor<2>; 2], d: &Device| k::combine_experts(y, w, &routing(d));
        same(&card, "combine_experts", [BF16, DType::F32], [&y, &weights], &seed, combine, combine);
    }
}

#[test]
#[ignore = "needs a card"]
fn attention_on_a_card_equals_its_definition() {
    let card = card();
    let mut random = Random(36);
    // The last are long enough for several runs of queries a tile of keys, and so many that none is divided.
    let (some, long, many) = (vec![1usize, 150, 7, 300], vec![1100], (1..=110).collect::<Vec<usize>>());
    for (dim, heads, n_kv, window, lengths) in [
        (64, 8, 1, None, &some),
        (64, 16, 2, Some(128), &some),
        (16, 6, 2, Some(5), &some),
        (32, 4, 1, None, &some),
        (64, 8, 1, None, &long),
        (64, 8, 1, Some(128), &long),
        (64, 16, 2, None, &many),
        (64, 16, 2, Some(40), &many),
    ] {
        let start: usize = lengths.iter().sum();
        let segments = Segments::from_lengths(lengths);
        let (q, kv) = ([start, heads, dim], [start, n_kv, dim]);
        let (q, key, value) =
            (rounded(random.floats(q)), rounded(random.floats(kv)), rounded(random.floats(kv)));
        let (sinks, seed) = (random.floats([heads]), rounded(random.floats([start, heads, dim])));
        let spec = AttentionSpec { window, scale: (dim as f32).sqrt().recip() };
        let f = |[q, key, value]: [Tensor<3>; 3], d: &Device| {
            k::attention(q, key, value, &on(&sinks, d, DType::F32), spec, &segments)
        };
        let what = format!("attention {heads}/{n_kv} of {dim}, window {window:?}, {start} tokens");
        same(&card, &what, [BF16; 3], [&q, &key, &value], &seed, f, f);
    }
}

#[test]
#[ignore = "needs a card"]
fn the_optimizer_on_a_card_equals_that_of_the_cpu() {
    let card = card();
    let spec = k::AdamWSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    // 8-bit moments may round to another code where a value is between two.
    for (format, tolerance) in [(k::MomentFormat::Float, 1e-6), (k::MomentFormat::Blocks, 2e-4)] {
        let train = |device: &Device| {
            let mut random = Random(38);
            let mut tensors = || -> Vec<Tensor<3>> {
                let shapes = [[1, 8, 96], [2, 5, 3], [1, 1, 257], [3, 64, 1000]];
                shapes.map(|shape| on(&random.floats(shape), device, DType::F32)).to_vec()
            };
            let mut params = tensors();
            let mut optimizer = k::AdamW::new(format, &params);
            let mut norms = Vec::new();
            for _ in 0..4 {
                let gradients = k::accumulate(tensors(), &tensors());
                let norm = k::grad_norm(&gradients);
                norms.extend(floats(norm.clone()));
                let clip = Some(k::Clip { norm: &norm, max_norm: 1.0 });
                params = optimizer.step(params, &gradients, 2e-3, &spec, clip);
            }
            params.into_iter().map(floats).chain([norms]).collect::<Vec<_>>()
        };
        let (fast, again, slow) = (train(&card), train(&card), train(&Device::flex()));
        assert_eq!(Gpu::of(0).expect("the card").take_error(), None);
        for (i, ((fast, again), slow)) in fast.iter().zip(&again).zip(&slow).enumerate() {
            let other = fast.iter().zip(again).position(|(a, b)| a.to_bits() != b.to_bits());
            let which = other.map(|at| (at, fast[at], again[at]));
            assert_eq!(which, None, "{format:?}, tensor {i}: other bits");
            let e = error(fast, slow);
            println!("optimizer {format:?}: {e:.2e}");
            assert!(e <= tolerance, "{format:?}: {e:e}");
        }
    }
}

/// What several cards send each other: into one piece, apart again, and added in order, as tensors are added.
#[test]
#[ignore = "needs a card"]
fn gradients_in_one_piece_come_apart_and_are_summed_to_the_bit() {
    let card = card();
    let mut random = Random(40);
    // Places that are and are not multiples of 16 bytes, and more tensors than one launch takes.
    let shapes = [[2, 5, 3], [1, 8, 96], [3, 64, 1000], [1, 1, 257], [1, 1, 1]];
    let shapes: Vec<[usize; 3]> = shapes.iter().copied().cycle().take(500).collect();
    let mut piece = || -> Vec<Tensor<3>> {
        shapes.iter().map(|shape| on(&random.floats(*shape), &card, DType::F32)).collect()
    };
    let pieces = [piece(), piece(), piece()];
    let bits = |tensors: &[Tensor<3>]| -> Vec<Vec<u32>> {
        tensors.iter().map(|one| floats(one.clone()).into_iter().map(f32::to_bits).collect()).collect()
    };
    let flat = k::flattened(pieces[0].clone());
    assert_eq!(bits(std::slice::from_ref(&flat))[0], bits(&pieces[0]).concat());
    assert_eq!(bits(&k::FlatSum::of(flat, &shapes).into_tensors()), bits(&pieces[0]));
    let summed = |order: [usize; 3]| {
        let [first, second, third] = order.map(|at| k::flattened(pieces[at].clone()));
        bits(&k::FlatSum::of(first, &shapes).plus(second).plus(third).into_tensors())
    };
    let [first, second, third] = pieces.clone();
    let right = bits(&k::accumulate(k::accumulate(first, &second), &third));
    assert!(summed([0, 1, 2]) == right);
    assert!(summed([2, 1, 0]) != right, "the order of a sum is seen");
    assert_eq!(Gpu::of(0).expect("the card").take_error(), None);
}

/// What is written in place is copied first where somebody else holds it, whatever the length of its rows.
#[test]
#[ignore = "needs a card"]
fn what_somebody_holds_is_copied_and_not_changed() {
    let card = card();
    let mut random = Random(39);
    for shape in [[2, 5, 3], [1, 8, 96], [3, 64, 1000], [1, 1, 257]] {
        let (old, new) = (random.floats(shape), random.floats(shape));
        let on_card = on(&old, &card, DType::F32);
        let held = on_card.clone();
        let sums = k::accumulate(vec![on_card], &[on(&new, &card, DType::F32)]);
        let expected = floats(old.clone() + new);
        assert_eq!(floats(sums[0].clone()), expected, "{shape:?}");
        assert_eq!(floats(held), floats(old), "{shape:?}: what is held was changed");
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
    assert_eq!(floats(fast), floats(k::write_rows(cache, &rows, new)));
}

#[test]
#[ignore = "needs a card"]
fn uploaded_bytes_arrive() {
    let _ = card();
    let gpu = Gpu::of(0).expect("the card");
    let mut uploader = Uploader::new(&gpu).expect("pinned memory");
    // More than both buffers, and no multiple of one.
    let bytes: Vec<u8> =
        (0..(100u64 << 20) + 12).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let n = bytes.len() / 4;
    let start = std::time::Instant::now();
    let tensor = uploader.tensor(&bytes.as_slice().into(), [n], DType::F32).expect("a copy");
    uploader.finish().expect("the copies");
    println!("upload: {:.1} GB/s", bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e9);
    let back = k::cuda::tensor::<1>(tensor).into_data();
    assert!(back.as_bytes() == bytes, "other bytes");
}

#[test]
#[ignore = "needs a card"]
fn integers_keep_their_type_on_the_way() {
    let card = card();
    let bytes = Tensor::<1, Int>::from_data(TensorData::new(vec![0u8, 255, 7], [3]), (&card, DType::U8));
    assert_eq!(bytes.into_data().as_bytes(), [0, 255, 7]);
}
