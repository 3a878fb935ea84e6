//! Random inputs, and the comparison of two forms of an operator.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels::FrozenWeight;
use descant_quant::nf4::{QUANT_MAP, dynamic_map};

/// Largest difference allowed between two f32 forms, relative to the largest element (at least 1).
pub(crate) const TOLERANCE: f32 = 2e-5;

/// A small generator, so that tests need no dependency (Steele et al. 2014, "SplitMix").
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Roughly normal, mean 0 and variance 1.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum: f64 = (0..12).map(|_| (self.bits() >> 11) as f64 / (1u64 << 53) as f64).sum();
        (sum - 6.0) as f32
    }

    pub(crate) fn floats<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.normal()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    pub(crate) fn bytes<const D: usize>(&mut self, shape: [usize; D], low: u8, high: u8) -> Tensor<D, Int> {
        let span = u64::from(high - low) + 1;
        let values: Vec<u8> = (0..shape.iter().product()).map(|_| low + (self.bits() % span) as u8).collect();
        Tensor::from_data(TensorData::new(values, shape), (&Device::flex(), DType::U8))
    }
}

/// Random NF4 matrices, of numbers of about a tenth, with as many blocks as make several nested scales.
pub(crate) fn nf4(random: &mut Random, n: usize, d_in: usize, d_out: usize) -> FrozenWeight {
    let blocks = d_in / 64;
    let nested = n * (d_out * blocks).div_ceil(256);
    let offsets = (0..n).map(|_| 0.1 + random.normal().abs() * 0.02).collect::<Vec<_>>();
    let nested = (0..nested).map(|_| 0.02 + random.normal().abs() * 0.02).collect::<Vec<_>>();
    let tables = [QUANT_MAP.as_slice(), &dynamic_map(), &offsets, &nested].concat();
    let length = tables.len();
    FrozenWeight::Nf4 {
        blocks: random.bytes([n, d_out, blocks, 32], 0, 255),
        scales: random.bytes([n, d_out, blocks], 0, 255),
        tables: Tensor::from_data(TensorData::new(tables, [length]), &Device::flex()),
    }
}

/// Random MXFP4 matrices as published, `[matrices, out, in]`, whose scales lie between these.
pub(crate) fn mxfp4(random: &mut Random, [n, d_out, d_in]: [usize; 3], low: u8, high: u8) -> FrozenWeight {
    FrozenWeight::Mxfp4 {
        blocks: random.bytes([n, d_out, d_in / 32, 16], 0, 255),
        scales: random.bytes([n, d_out, d_in / 32], low, high),
    }
}

/// Where each matrix' rows begin if each has so many, and how many there are.
pub(crate) fn sorted(spread: &[usize]) -> (Tensor<1, Int>, usize) {
    let mut offsets = vec![0];
    offsets.extend(spread.iter().scan(0, |end, rows| {
        *end += *rows as i32;
        Some(*end)
    }));
    (ints(&offsets, [offsets.len()]), spread.iter().sum())
}

pub(crate) fn ints<const D: usize>(values: &[i32], shape: [usize; D]) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (&Device::flex(), DType::I32))
}

pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.clone().into_data().try_to_vec().expect("f32")
}

pub(crate) fn int_values<const D: usize>(tensor: &Tensor<D, Int>) -> Vec<i64> {
    tensor.clone().into_data().iter::<i64>().collect()
}

/// Largest difference of two tensors, relative to the largest element of the second (at least 1).
pub(crate) fn difference<const D: usize>(a: &Tensor<D>, b: &Tensor<D>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    assert!(a.iter().all(|x| x.is_finite()), "not finite");
    let scale = b.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0f32, |m, (x, y)| m.max((x - y).abs())) / scale
}

/// A leaf of the graph with the same values.
pub(crate) fn leaf<const D: usize>(x: &Tensor<D>) -> Tensor<D> {
    Tensor::from_data(x.clone().into_data(), &Device::flex().autodiff()).require_grad()
}

/// Result of `f`, and the gradients of `sum(f * seed)` at each leaf, all as 1-D tensors of the plain device.
pub(crate) fn run<const D: usize, const N: usize, const O: usize>(
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    f: impl Fn([Tensor<D>; N]) -> Tensor<O>,
) -> Vec<Tensor<1>> {
    let leaves = inputs.map(leaf);
    let y = f(leaves.clone());
    let seed = Tensor::from_data(seed.clone().into_data(), &y.device());
    let grads = (y.clone() * seed).sum().backward();
    let mut all = vec![flat(y.inner())];
    all.extend(leaves.iter().map(|leaf| flat(leaf.grad(&grads).expect("every leaf has a gradient"))));
    all
}

pub(crate) fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n: usize = x.dims().iter().product();
    x.reshape([n])
}

/// Asserts that two runs agree, output and all gradients.
pub(crate) fn assert_same(fast: &[Tensor<1>], slow: &[Tensor<1>], what: &str) {
    assert_eq!(fast.len(), slow.len());
    for (i, (a, b)) in fast.iter().zip(slow).enumerate() {
        let d = difference(a, b);
        assert!(d <= TOLERANCE, "{what}: tensor {i} (0 is the output) differs by {d:e}");
    }
}
