//! NF4 on a card against what bitsandbytes itself made of the same bytes, bit for bit.

use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels::cuda::portable_kernels;
use descant_kernels::{FrozenWeight, Groups, linear, read_floats};
use descant_testkit::nf4::{BLOCK, Packed, STATE, Stack};
use descant_testkit::shard::{f32s, tensors_of};

use crate::{card, is_portable};

/// A matrix of the golden file on the card, its shape, and its numbers.
fn golden(name: &str, card: &Device) -> (FrozenWeight, [usize; 2], Vec<f32>) {
    let file = "../../fixtures/golden/bnb/nf4_double_quant.safetensors";
    let file = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the fixture is there");
    let tensors = tensors_of(&file);
    let part = |part: &str| &tensors[&format!("{name}.{part}")];
    let state: serde_json::Value =
        serde_json::from_slice(&part(&format!("weight{STATE}")).2).expect("a state");
    let (nested, levels, map) = ["nested_absmax", "quant_map", "nested_quant_map"]
        .map(|of| f32s(&part(&format!("weight.{of}")).2))
        .into();
    let stack = Stack::new(&[Packed {
        packed: &part("weight").2,
        codes: &part("weight.absmax").2,
        nested_absmax: &nested,
        nested_offset: state["nested_offset"].as_f64().expect("a number") as f32,
        levels: &levels,
        map: &map,
    }]);
    let Stack { blocks, scales, tables } = stack.expect("it fits");
    let (_, shape, numbers) = part("dequant");
    let [d_out, d_in] = [shape[0], shape[1]];
    let bytes = |bytes: Vec<u8>| {
        let data = TensorData::new(bytes.clone(), [bytes.len()]);
        Tensor::<1, Int>::from_data(data, (card, DType::U8))
    };
    let length = tables.len();
    let weight = FrozenWeight::Nf4 {
        blocks: bytes(blocks).reshape([1, d_out, d_in / BLOCK, BLOCK / 2]),
        scales: bytes(scales).reshape([1, d_out, d_in / BLOCK]),
        tables: Tensor::from_data(TensorData::new(tables, [length]), (card, DType::F32)),
    };
    let numbers =
        numbers.chunks_exact(2).map(|b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16));
    (weight, [d_out, d_in], numbers.collect())
}

/// Values with zeros of one sign, as a sum of zeros may have either.
fn values(x: Tensor<2>) -> Vec<u32> {
    read_floats(x).expect("values").into_iter().map(|x| (x + 0.0).to_bits()).collect()
}

#[test]
#[ignore = "needs a card"]
fn numbers_of_bitsandbytes_have_its_bits() {
    let card = card();
    for (name, portable) in [("a", false), ("b", false), ("a", true), ("b", true)] {
        portable_kernels(portable || is_portable());
        let (weight, [d_out, d_in], expected) = golden(name, &card);
        let identity = |n: usize| Tensor::<2>::eye(n, &card).cast(DType::BF16);
        // Rows of an identity read columns: forward for many rows and for eight, backward rows of the matrix itself.
        let turned: Vec<u32> =
            (0..d_in * d_out).map(|at| (expected[at % d_out * d_in + at / d_out] + 0.0).to_bits()).collect();
        assert_eq!(values(linear(identity(d_in), &weight, None, &Groups::One)), turned, "{name}, many rows");
        for first in (0..d_in).step_by(8) {
            let few = linear(identity(d_in).narrow(0, first, 8), &weight, None, &Groups::One);
            assert_eq!(values(few), turned[first * d_out..][..8 * d_out], "{name}, rows from {first}");
        }
        let x = Tensor::<2>::zeros([d_out, d_in], (&card.clone().autodiff(), DType::BF16)).require_grad();
        let y = linear(x.clone(), &weight, None, &Groups::One);
        let seed = Tensor::from_inner(identity(d_out));
        let back = x.grad(&(y * seed).sum().backward()).expect("a gradient");
        let own: Vec<u32> = expected.iter().map(|x| (x + 0.0).to_bits()).collect();
        assert_eq!(values(back), own, "{name}, backward");
    }
    portable_kernels(is_portable());
}
