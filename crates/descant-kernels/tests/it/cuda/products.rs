//! Products with frozen matrices in every storage, and the trainable path beside them.

use burn::tensor::{DType, Device, Tensor};
use descant_kernels as k;
use descant_kernels::{FrozenWeight, Groups};

use super::{BF16, same};
use crate::card::{card, floats, ints_on, on, rounded, weight_on};
use crate::support::{Random, mxfp4, nf4, sorted};

/// Rows of eight experts: none, one, and many.
const SPREADS: [&[usize]; 3] = [&[3, 0, 1, 130, 7, 0, 2, 40], &[0, 0, 0, 200, 0, 0, 0, 0], &[1]];

/// More rows than a tile has, and just more and just fewer than a step of its width.
const TILES: &[usize] = &[193, 65, 0, 400, 145, 97, 1, 2];

/// Each storage by itself: most of the time goes into compiling its kernels.
fn products_equal_their_definitions(weights: impl Fn(&mut Random, [usize; 3]) -> Vec<FrozenWeight>) {
    let card = card();
    let mut random = Random(33);
    for spread in SPREADS.into_iter().chain([TILES]) {
        let ((offsets, rows), n) = (sorted(spread), spread.len());
        for (d_in, d_out) in [(64, 96), (2880, 128), (160, 416), (320, 416)] {
            for weight in &weights(&mut random, [n, d_out, d_in]) {
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
                        k::reference::linear(x, &weight_on(weight, d, DType::F32), Some(&bias), &grouping(d))
                    };
                    same(&card, &what, [BF16], [&x], &seed, own, definition);
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a card"]
fn products_on_a_card_equal_their_definitions_in_bf16() {
    products_equal_their_definitions(|random, [n, d_out, d_in]| {
        let mut scaled = |shape| rounded(random.floats(shape) * (d_in as f32).sqrt().recip());
        vec![
            FrozenWeight::Dense(scaled([n, d_out, d_in])),
            FrozenWeight::Transposed(scaled([n, d_in, d_out])),
        ]
    });
}

#[test]
#[ignore = "needs a card"]
fn products_on_a_card_equal_their_definitions_in_mxfp4() {
    products_equal_their_definitions(|random, shape @ [.., d_in]| {
        vec![mxfp4(random, shape, 120, if d_in == 160 { 128 } else { 123 })]
    });
}

#[test]
#[ignore = "needs a card"]
fn products_on_a_card_equal_their_definitions_in_nf4() {
    products_equal_their_definitions(|random, [n, d_out, d_in]| {
        d_in.is_multiple_of(64).then(|| nf4(random, n, d_in, d_out)).into_iter().collect()
    });
}

/// Rows that are one at one place and else zero read single numbers out of a matrix, so that what a card decodes is
/// seen as it is: forward by the kernels for few and for many rows, backward, on Hopper's and on other cards' kernels.
#[test]
#[ignore = "needs a card"]
fn packed_numbers_on_a_card_have_the_bits_of_their_formats() {
    let card = card();
    let mut random = Random(37);
    for (n, d_in, d_out) in [(3, 320, 416), (1, 64, 96), (2, 2880, 128)] {
        let weights = [nf4(&mut random, n, d_in, d_out), mxfp4(&mut random, [n, d_out, d_in], 90, 128)];
        for weight in &weights {
            // A row a number that goes in; the definition gives the matrices themselves.
            let identity = |n: usize| Tensor::<2>::eye(n, &Device::flex());
            let all = |size: usize| Tensor::cat(vec![identity(size); n], 0);
            let offsets = |size: usize| sorted(&vec![size; n]).0;
            let expected = flat_values(&k::reference::linear(
                all(d_in),
                weight,
                None,
                &Groups::Sorted { offsets: offsets(d_in) },
            ));
            for portable in [false, true] {
                k::cuda::portable_kernels(portable);
                let on_card = weight_on(weight, &card, BF16);
                let groups = |size: usize| Groups::Sorted { offsets: ints_on(&offsets(size), &card) };
                let many = k::linear(on(&all(d_in), &card, BF16), &on_card, None, &groups(d_in));
                assert_eq!(bits_of(&many), bits(&expected), "{n} x {d_out} x {d_in}, portable {portable}");
                // Eight rows at a time of the first matrix alone.
                for first in (0..d_in).step_by(8).take(40) {
                    let rows = identity(d_in).narrow(0, first, 8);
                    let mut spread = vec![0; n];
                    spread[0] = 8;
                    let few = Groups::Sorted { offsets: ints_on(&sorted(&spread).0, &card) };
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
    floats(x.clone()).into_iter().map(|x| x + 0.0).collect()
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
        let ((offsets, rows), n) = (sorted(spread), spread.len());
        let d_in = 96;
        let x = rounded(random.floats([1, rows, d_in]));
        let (a, b) =
            (rounded(random.floats([n, rank, d_in]) * 0.1), rounded(random.floats([n, d_out, rank])));
        let seed = rounded(random.floats([rows, d_out]));
        let groups = |d: &Device| Groups::Sorted { offsets: ints_on(&offsets, d) };
        let own =
            |[x, a, b]: [Tensor<3>; 3], d: &Device| k::low_rank(x.squeeze_dim(0), a, b, 1.7, &groups(d));
        let definition = |[x, a, b]: [Tensor<3>; 3], d: &Device| {
            k::reference::low_rank(x.squeeze_dim(0), a, b, 1.7, &groups(d))
        };
        let what = format!("low_rank {spread:?} rank {rank}");
        same(&card, &what, [BF16, DType::F32, DType::F32], [&x, &a, &b], &seed, own, definition);
    }
}

/// Some rows of the only matrix, or of each expert's, from the fifth on.
#[test]
#[ignore = "needs a card"]
fn rows_apart_are_what_they_are_with_others() {
    let (card, mut random) = (card(), Random(39));
    let (n, d_in, d_out, rank, most) = (4, 128, 192, 8, 300);
    let dense = FrozenWeight::Dense(rounded(random.floats([1, d_out, d_in])));
    let packed = mxfp4(&mut random, [n, d_out, d_in], 120, 123);
    let [a, b] =
        [[1, rank, d_in], [1, d_out, rank]].map(|shape| on(&random.floats(shape), &card, DType::F32));
    let x = on(&rounded(random.floats([n * most, d_in])), &card, BF16);
    for portable in [false, true] {
        k::cuda::portable_kernels(portable);
        for (what, weight, matrices) in [("dense", &dense, 1), ("packed", &packed, n)] {
            let on_card = weight_on(weight, &card, BF16);
            let of = |count: usize| {
                let part = |e: usize| x.clone().narrow(0, e * most + 5, count);
                let x = Tensor::cat((0..matrices).map(part).collect(), 0);
                let offsets = ints_on(&sorted(&vec![count; matrices]).0, &card);
                let groups = if matrices == 1 { Groups::One } else { Groups::Sorted { offsets } };
                let path = k::low_rank(x.clone(), a.clone(), b.clone(), 0.5, &Groups::One.apart());
                [k::linear(x, &on_card, None, &groups.apart()), path].map(|y| bits_of(&y))
            };
            let all = of(most - 5);
            for count in [1, 2, 9, 31, 33, 64, 200] {
                for (at, few) in of(count).iter().enumerate() {
                    for e in 0..matrices {
                        let size = count * d_out;
                        let (few, all) =
                            (&few[e * size..][..size], &all[at][e * (most - 5) * d_out..][..size]);
                        assert!(few == all, "{what} {at}, {count} rows, portable {portable}");
                    }
                }
            }
        }
        k::cuda::portable_kernels(false);
    }
}

/// A run's choices of algorithms that are gone with it.
struct Gone;

impl k::cuda::Store for Gone {
    fn load(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn save(&self, _: &str, _: &[u8]) {}

    fn publish(&self, _: &str, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[test]
#[ignore = "needs a card"]
fn a_product_has_the_same_bits_whatever_lengths_its_algorithm_was_chosen_with() {
    let card = card();
    let mut random = Random(35);
    for (d_in, d_out) in [(2880, 5120), (4096, 2880), (5120, 2880), (2880, 4096)] {
        let scale = (d_in as f32).sqrt().recip();
        let weight = on(&rounded(random.floats([1, d_out, d_in]) * scale), &card, BF16);
        let bias = on(&rounded(random.floats([1, d_out])), &card, BF16);
        let x = on(&rounded(random.floats([1024, d_in])), &card, BF16);
        for rows in [1024, 1000, 962, 300, 256, 70] {
            let weight = FrozenWeight::Dense(weight.clone());
            let product = |rows: usize| {
                let x = x.clone().slice([0..rows, 0..d_in]);
                k::linear(x, &weight, Some(&bias), &Groups::One).into_data()
            };
            let bits: Vec<_> = [rows, rows - 1, rows - 37, rows]
                .map(|first| {
                    let _apart = k::cuda::Choices::new(std::sync::Arc::new(Gone)).enter();
                    product(first);
                    product(rows)
                })
                .into();
            assert!(bits.iter().all(|found| *found == bits[0]), "{rows} x {d_out} x {d_in}");
        }
    }
}
