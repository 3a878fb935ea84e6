//! Products with experts in fp8, and what they are made of: rows in E4M3, references of weights, and the kernels that
//! write rows beside something else, each against its definition on the CPU.

use burn::tensor::{DType, Device, Int, Tensor};
use descant_kernels as k;
use descant_kernels::fp8::{Codes, Fp8Experts};
use descant_kernels::{FrozenWeight, Groups};
use descant_quant::e4m3;

use super::{BF16, run};
use crate::card::{card, error, floats, ints_on, mxfp4_on, on, rounded};
use crate::support::{Random, ints, mxfp4, sorted, values};

/// Norm of the difference of a product by that of one in bf16: what rounding rows does.
const ROUNDED: f64 = 3.5e-2;
/// The same by that of exact sums of the same numbers: the tensor cores keep some 13 bits of a sum, and results are bf16.
const SUMMED: f64 = 5e-3;

/// Where number k of a row lies, as `fp8.cuh` has it: of each 16, places 4q to 4q + 3 have 2q, 2q + 1, 2q + 8, 2q + 9.
fn place(k: usize) -> usize {
    let (pair, half, odd) = (k % 8 / 2, k / 8 % 2, k % 2);
    k / 16 * 16 + 4 * pair + 2 * half + odd
}

/// Codes of a row in their places, and its factor, by the definition.
fn defined(row: &[f32]) -> (Vec<u8>, f32) {
    let mut codes = vec![0; row.len()];
    let factor = e4m3::encode_row(row, &mut codes);
    let mut placed = vec![0; row.len()];
    for (k, code) in codes.into_iter().enumerate() {
        placed[place(k)] = code;
    }
    (placed, factor)
}

/// Rows of every size: of ones, of gradients, of zeros, of what is nearly zero.
fn rows_of_all_sizes(random: &mut Random, rows: usize, width: usize) -> Tensor<2> {
    let sizes: Vec<f32> = (0..rows).map(|row| [1.0, 3e-7, 0.0, 1e-34, 200.0][row % 5]).collect();
    let sizes = Tensor::<1>::from_data(sizes.as_slice(), &Device::flex()).unsqueeze_dim::<2>(1);
    rounded(random.floats([rows, width]) * sizes)
}

fn same_codes(what: &str, x: &Tensor<2>, (codes, factors): (Vec<u8>, Vec<f32>)) {
    let [_, width] = x.dims();
    for (row, (own, x)) in codes.chunks_exact(width).zip(values(x).chunks_exact(width)).enumerate() {
        let (expected, factor) = defined(x);
        assert_eq!(factors[row].to_bits(), factor.to_bits(), "{what}: factor of row {row}");
        assert!(own == expected, "{what}: row {row}");
    }
}

#[test]
#[ignore = "needs a card"]
fn rows_in_fp8_on_a_card_have_the_bits_of_their_definition() {
    let card = card();
    let mut random = Random(71);
    for (rows, width) in [(1, 64), (13, 192), (129, 2880), (40, 5760)] {
        let x = rows_of_all_sizes(&mut random, rows, width);
        let own = Codes::of(on(&x, &card, BF16)).unwrap().read().unwrap();
        same_codes(&format!("{rows} x {width}"), &x, own);
    }
}

#[test]
#[ignore = "needs a card"]
fn the_gradient_of_swiglu_in_fp8_is_that_in_bf16_rounded() {
    let card = card();
    let mut random = Random(72);
    for (rows, width) in [(1, 64), (37, 192), (70, 2880)] {
        let pre = rounded(random.floats([rows, 2 * width]) * 4.0);
        let dh = rounded(random.floats([rows, width]));
        let weights = Tensor::<1>::ones([rows], &Device::flex());
        let pairs: Vec<i32> = (0..rows as i32).collect();
        let all = [&pre, &dh].map(|x| on(x, &card, BF16));
        let pairs = ints_on(&ints(&pairs, [rows]), &card);
        let (codes, d_weights) =
            Codes::of_swiglu_backward(all, on(&weights, &card, DType::F32), pairs, 7.0).unwrap();
        let mut found = run(&card, [BF16], [&pre], &dh, &|[x], _| k::swiglu(x, 7.0));
        let gradient = Tensor::<1>::from_data(found.pop().unwrap().as_slice(), &Device::flex());
        let h = Tensor::<1>::from_data(found.pop().unwrap().as_slice(), &Device::flex());
        same_codes(&format!("{rows} x {width}"), &gradient.reshape([rows, 2 * width]), codes.read().unwrap());
        let own = (h.reshape([rows, width]) * dh).sum_dim(1);
        assert!(error(&d_weights, &values(&own)) < 1e-4, "gradients of the router's weights");
    }
}

#[test]
#[ignore = "needs a card"]
fn references_on_a_card_are_those_of_the_definition() {
    let card = card();
    let mut random = Random(73);
    let shape @ [n, d_out, d_in] = [3, 192, 320];
    for (low, high) in [(100, 116), (120, 120), (50, 66)] {
        let weight = mxfp4(&mut random, shape, low, high);
        let FrozenWeight::Mxfp4 { scales, .. } = &weight else { unreachable!("it was made above") };
        let scales: Vec<u8> = scales.clone().into_data().try_to_vec().unwrap();
        let blocks = d_in / 32;
        let forward = scales
            .chunks_exact(blocks)
            .map(|row| descant_quant::mxfp4::reference(row.iter().copied()).unwrap());
        let of_block = |e: usize, block: usize| {
            descant_quant::mxfp4::reference((0..d_out).map(|row| scales[(e * d_out + row) * blocks + block]))
                .unwrap()
        };
        let backward = (0..n).flat_map(|e| (0..blocks).map(move |block| (e, block)));
        let expected: Vec<u8> = forward.chain(backward.map(|(e, block)| of_block(e, block))).collect();
        let experts = Fp8Experts::of(&mxfp4_on(&weight, &card)).unwrap().expect("scales near each other");
        assert_eq!(experts.references().unwrap(), expected, "{low} to {high}");
    }
    // Scales too far apart in one direction alone: across a row, and down a column.
    for across in [true, false] {
        let far = |at: usize| if at.is_multiple_of(2) { 100 } else { 117 };
        let scales = (0..n * d_out * d_in / 32)
            .map(|at| if across { far(at % (d_in / 32)) } else { far(at / (d_in / 32)) });
        let scales: Vec<i32> = scales.collect();
        let weight = FrozenWeight::Mxfp4 {
            blocks: random.bytes([n, d_out, d_in / 32, 16], 0, 255),
            scales: bytes(&scales, [n, d_out, d_in / 32]),
        };
        assert!(Fp8Experts::of(&mxfp4_on(&weight, &card)).unwrap().is_none(), "across {across}");
    }
}

fn bytes<const D: usize>(values: &[i32], shape: [usize; D]) -> Tensor<D, Int> {
    let values: Vec<u8> = values.iter().map(|value| *value as u8).collect();
    Tensor::from_data(burn::tensor::TensorData::new(values, shape), (&Device::flex(), DType::U8))
}

/// Rows of experts: none, one, few, more than a tile.
const SPREAD: [usize; 6] = [3, 0, 1, 193, 65, 130];

#[test]
#[ignore = "needs a card"]
fn products_in_fp8_are_exact_sums_of_rounded_rows_and_near_those_in_bf16() {
    let card = card();
    let mut random = Random(74);
    let (offsets, rows) = sorted(&SPREAD);
    for (d_in, d_out) in [(64, 128), (192, 320), (2880, 128), (320, 5760)] {
        let weight = mxfp4(&mut random, [SPREAD.len(), d_out, d_in], 108, 124);
        let experts = Fp8Experts::of(&mxfp4_on(&weight, &card)).unwrap().expect("scales near each other");
        let groups = Groups::Sorted { offsets: offsets.clone() };
        for back in [false, true] {
            let what = format!("{d_in} x {d_out}, back {back}");
            let width = if back { d_out } else { d_in };
            let x = rounded(random.floats([rows, width]));
            // The same numbers as the card multiplies: rounded, and with their factors.
            let (codes, factors) = Codes::of(on(&x, &card, BF16)).unwrap().read().unwrap();
            let number = |at: usize| {
                let (row, k) = (at / width, at % width);
                e4m3::decode(codes[row * width + place(k)]) * factors[row]
            };
            let numbers: Vec<f32> = (0..rows * width).map(number).collect();
            let numbers = Tensor::<1>::from_data(numbers.as_slice(), &Device::flex()).reshape([rows, width]);
            let exact = |x: Tensor<2>| {
                if !back {
                    return values(&k::reference::linear(x, &weight, None, &groups));
                }
                let inputs = Tensor::<2>::zeros([rows, d_in], &Device::flex().autodiff()).require_grad();
                let y = k::reference::linear(inputs.clone(), &weight, None, &groups);
                let grads = (y * Tensor::from_inner(x)).sum().backward();
                values(&inputs.grad(&grads).expect("a gradient"))
            };
            let own = experts.product(on(&x, &card, BF16), &ints_on(&offsets, &card), back).unwrap();
            let again = experts.product(on(&x, &card, BF16), &ints_on(&offsets, &card), back).unwrap();
            let own = floats(own);
            assert!(
                own.iter().zip(floats(again)).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{what}: other bits"
            );
            let (summed, by_rounding) = (error(&own, &exact(numbers)), error(&own, &exact(x.clone())));
            println!(
                "fp8 {what}: {summed:.2e} of the sums of its numbers, {by_rounding:.2e} of those in bf16"
            );
            assert!(summed <= SUMMED, "{what}: {summed:.2e}");
            assert!(by_rounding <= ROUNDED, "{what}: {by_rounding:.2e}");
            // The control: rows in another order are far.
            assert!(error(&own, &exact(x.flip([1]))) > 0.5, "{what}");
        }
        if d_out.is_multiple_of(64) {
            activation(&card, &experts, &rounded(random.floats([rows, d_in])), &offsets);
        }
    }
}

/// SwiGLU's result in both forms, which the first product stores.
fn activation(card: &Device, experts: &Fp8Experts, x: &Tensor<2>, offsets: &Tensor<1, Int>) {
    let (limit, factor) = (7.0_f32, 56.0 / e4m3::LARGEST);
    let (on_card, offsets) = (on(x, card, BF16), ints_on(offsets, card));
    let pre = experts.product(on_card.clone(), &offsets, false).expect("a product");
    let (h, codes) = experts.activation(on_card, &offsets, [limit, factor]).expect("a product");
    let h = floats(h);
    let expected = floats(k::reference::swiglu(on(&rounded_on(pre), &Device::flex(), DType::F32), limit));
    assert!(error(&h, &expected) < 1e-2, "{:.2e}", error(&h, &expected));
    let width = h.len() / x.dims()[0];
    for (at, h) in h.iter().enumerate() {
        let held = e4m3::decode(codes[at / width * width + place(at % width)]) * factor;
        // Half of the last bit, or of the smallest number; and what bf16 has rounded before.
        let most = (h.abs() / 16.0).max(factor / 1024.0) + h.abs() / 128.0;
        assert!((held - h).abs() <= most, "{held} for {h} at {at}");
    }
}

fn rounded_on(x: Tensor<2>) -> Tensor<2> {
    let shape = x.dims();
    Tensor::<1>::from_data(floats(x).as_slice(), &Device::flex()).reshape(shape)
}
