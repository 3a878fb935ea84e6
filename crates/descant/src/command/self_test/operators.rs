//! Each operator's form for the device against its definition in f32 on the CPU, forward and backward, on inputs that
//! bf16 holds exactly; and twice, for the same bits.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use descant_kernels as k;
use descant_kernels::{AttentionSpec, FrozenWeight, Groups, LogitsRoom, Segments};
use serde::Serialize;

use crate::command::random_ids::MersenneTwister;
use crate::talk::Talk;

/// Norm of the difference by norm of the definition's result: results are rounded to 8 bits once or twice
/// (docs/numerics.md).
pub(super) const TOLERANCE: f64 = 1e-2;

/// The sizes that are checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) rows: usize,
    pub(super) hidden: usize,
    /// Outputs of experts' products, and the words of the loss.
    pub(super) outputs: usize,
    /// Rows of each expert: none, one, tails of tiles.
    pub(super) spread: &'static [usize],
    /// As that, with few rows an expert.
    pub(super) few: &'static [usize],
    pub(super) lengths: &'static [usize],
    /// So many tokens that a window may be served otherwise.
    pub(super) many: &'static [usize],
    pub(super) window: usize,
}

/// Features of the 20b, and fewer of what only takes time on the CPU.
pub(super) const LIKE_20B: Sizes = Sizes {
    rows: 517,
    hidden: 2880,
    outputs: 832,
    spread: &[3, 0, 1, 130, 7, 0, 2, 400],
    few: &[1, 0, 2, 0, 3, 1, 0, 5],
    lengths: &[1, 150, 7, 700],
    many: &[300, 1, 127, 128, 129, 33, 300, 300, 300, 300, 300],
    window: 128,
};

/// What was found of an operator.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub(super) name: String,
    /// The largest of result and gradients; none where the device failed.
    pub(super) error: Option<f64>,
    pub(super) same_bits: bool,
    /// What the device said.
    pub(super) failed: Option<String>,
}

impl Checked {
    pub(super) fn passed(&self) -> bool {
        // NaN fails.
        self.same_bits && self.error.is_some_and(|error| error <= TOLERANCE)
    }
}

pub(super) fn check(device: &Device, sizes: &Sizes, talk: Talk) -> Vec<Checked> {
    let mut work = Work { device, random: Random(MersenneTwister::new(7)), all: Vec::new(), talk };
    work.rows(sizes);
    work.attention(sizes);
    work.products(sizes);
    work.routing(sizes);
    work.losses(sizes);
    work.all
}

struct Work<'a> {
    device: &'a Device,
    random: Random,
    all: Vec<Checked>,
    talk: Talk,
}

impl Work<'_> {
    fn rows(&mut self, s: &Sizes) {
        let (x, seed) = (self.random.rounded([s.rows, s.hidden]), self.random.rounded([s.rows, s.hidden]));
        let weight = self.random.floats([s.hidden]);
        let norm = |w: &Tensor<1>, d: &Device| on(w, d, DType::F32);
        self.compare(
            "rms norm",
            [&x],
            &seed,
            |[x], d| k::rms_norm(x, &norm(&weight, d), 1e-5),
            |[x], d| k::reference::rms_norm(x, &norm(&weight, d), 1e-5),
        );
        let wide = self.random.rounded([s.rows, 2 * s.hidden]) * 4.0;
        self.compare(
            "swiglu",
            [&wide],
            &seed,
            |[x], _| k::swiglu(x, 7.0),
            |[x], _| k::reference::swiglu(x, 7.0),
        );
        let (x, seed) = (self.random.rounded([s.rows, 9, 64]), self.random.rounded([s.rows, 9, 64]));
        let angles = self.random.floats([s.rows, 32]);
        let turn =
            |d: &Device| (on(&angles.clone().cos(), d, DType::F32), on(&angles.clone().sin(), d, DType::F32));
        let own = |[x]: [Tensor<3>; 1], d: &Device| k::rotary(x, &turn(d).0, &turn(d).1);
        let definition = |[x]: [Tensor<3>; 1], d: &Device| k::reference::rotary(x, &turn(d).0, &turn(d).1);
        self.compare("rotary", [&x], &seed, own, definition);
    }

    fn attention(&mut self, s: &Sizes) {
        let dim = 64;
        for (name, window, lengths, n_kv) in [
            ("attention, full", None, s.lengths, 2),
            ("attention, window", Some(s.window), s.lengths, 2),
            ("attention, window, many tokens", Some(s.window), s.many, 8),
        ] {
            let (tokens, heads) = (lengths.iter().sum(), 8 * n_kv);
            let segments = Segments::from_lengths(lengths);
            let q = self.random.rounded([tokens, heads, dim]);
            let (key, value) =
                (self.random.rounded([tokens, n_kv, dim]), self.random.rounded([tokens, n_kv, dim]));
            let (sinks, seed) = (self.random.floats([heads]), self.random.rounded([tokens, heads, dim]));
            let spec = AttentionSpec { window, scale: (dim as f32).sqrt().recip() };
            let f = |[q, key, value]: [Tensor<3>; 3], d: &Device| {
                k::attention(q, key, value, &on(&sinks, d, DType::F32), spec, &segments)
            };
            let definition = |[q, key, value]: [Tensor<3>; 3], d: &Device| {
                k::reference::attention(q, key, value, &on(&sinks, d, DType::F32), spec, &segments)
            };
            self.compare(name, [&q, &key, &value], &seed, f, definition);
        }
    }

    fn products(&mut self, s: &Sizes) {
        for (rows, spread) in [("many rows", s.spread), ("few rows", s.few)] {
            let (n, [d_in, d_out]) = (spread.len(), [s.hidden, s.outputs]);
            let scale = (d_in as f32).sqrt().recip();
            let weights = [
                ("MXFP4", self.random.mxfp4(n, d_in, d_out)),
                ("NF4", self.random.nf4(n, d_in, d_out)),
                ("bf16", FrozenWeight::Transposed(self.random.rounded([n, d_in, d_out]) * scale)),
            ];
            for (packing, weight) in &weights {
                let (x, bias) =
                    (self.random.rounded([spread.iter().sum(), d_in]), self.random.rounded([n, d_out]));
                let seed = self.random.rounded([spread.iter().sum(), d_out]);
                let product = |[x]: [Tensor<2>; 1], d: &Device| {
                    let dtype = number(d);
                    k::linear(x, &placed(weight, d), Some(&on(&bias, d, dtype)), &groups(spread, d))
                };
                let definition = |[x]: [Tensor<2>; 1], d: &Device| {
                    let bias = on(&bias, d, DType::F32);
                    k::reference::linear(x, weight, Some(&bias), &groups(spread, d))
                };
                self.compare(&format!("experts, {packing}, {rows}"), [&x], &seed, product, definition);
            }
        }
    }

    fn routing(&mut self, s: &Sizes) {
        let (tokens, experts, top) = (s.rows, 32, 4);
        let logits = self.random.floats([tokens, experts]);
        let routing = |d: &Device| k::route(&on(&logits, d, DType::F32), top);
        let (x, seed) =
            (self.random.rounded([tokens, s.hidden]), self.random.rounded([tokens * top, s.hidden]));
        let take = |[x]: [Tensor<2>; 1], d: &Device| k::take_tokens(x, &routing(d));
        let definition = |[x]: [Tensor<2>; 1], d: &Device| k::reference::take_tokens(x, &routing(d));
        self.compare("rows in order", [&x], &seed, take, definition);
        let weights = self.random.floats([tokens, top]);
        let (y, seed) =
            (self.random.rounded([tokens * top, s.hidden]), self.random.rounded([tokens, s.hidden]));
        let combine =
            |[y]: [Tensor<2>; 1], d: &Device| k::combine_experts(y, on(&weights, d, DType::F32), &routing(d));
        let definition = |[y]: [Tensor<2>; 1], d: &Device| {
            k::reference::combine_experts(y, on(&weights, d, DType::F32), &routing(d))
        };
        self.compare("combine", [&y], &seed, combine, definition);
    }

    fn losses(&mut self, s: &Sizes) {
        let (hidden, head) = (
            self.random.rounded([s.rows, s.hidden]),
            self.random.rounded([s.outputs, s.hidden]) * (s.hidden as f32).sqrt().recip(),
        );
        let head = head.cast(DType::BF16).cast(DType::F32);
        let targets: Vec<i32> = (0..s.rows).map(|row| (row * 31 % s.outputs) as i32).collect();
        let seed = self.random.floats([s.rows]);
        let loss = |[h]: [Tensor<2>; 1], d: &Device| {
            let targets = ints(targets.clone(), [s.rows], DType::I32, d);
            k::token_losses(h, &on(&head, d, number(d)), &targets, &LogitsRoom::default())
        };
        self.compare("loss", [&hidden], &seed, loss, loss);
    }

    /// Runs `own` twice on the device and `definition` on the CPU.
    fn compare<const D: usize, const N: usize, const O: usize>(
        &mut self,
        name: &str,
        inputs: [&Tensor<D>; N],
        seed: &Tensor<O>,
        own: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
        definition: impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
    ) {
        self.talk.item("operator", name);
        let wanted = outcome(&Device::flex(), inputs, seed, &definition);
        let twice = || -> Result<_, k::DeviceError> {
            Ok([outcome(self.device, inputs, seed, &own)?, outcome(self.device, inputs, seed, &own)?])
        };
        let mut checked = Checked { name: name.to_owned(), error: None, same_bits: false, failed: None };
        match (wanted, twice()) {
            (Ok(wanted), Ok([first, again])) => {
                let errors = first.iter().zip(&wanted).map(|(a, b)| error(a, b));
                checked.error = Some(errors.fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b) }));
                let bits =
                    |all: &[Vec<f32>]| -> Vec<u32> { all.iter().flatten().map(|x| x.to_bits()).collect() };
                checked.same_bits = bits(&first) == bits(&again);
            }
            (Err(error), _) | (_, Err(error)) => checked.failed = Some(error.to_string()),
        }
        self.all.push(checked);
    }
}

/// Result of `f` on a device, and the gradient of `sum(f * seed)` at each input.
fn outcome<const D: usize, const N: usize, const O: usize>(
    device: &Device,
    inputs: [&Tensor<D>; N],
    seed: &Tensor<O>,
    f: &impl Fn([Tensor<D>; N], &Device) -> Tensor<O>,
) -> Result<Vec<Vec<f32>>, k::DeviceError> {
    let graph = device.clone().autodiff();
    let leaves = inputs.map(|input| on(input, &graph, number(device)).detach().require_grad());
    let y = f(leaves.clone(), device);
    let seed = on(seed, &graph, y.dtype());
    let gradients = (y.clone() * seed).sum().backward();
    let mut all = vec![k::read_floats(y.inner())?];
    for leaf in &leaves {
        all.push(leaf.grad(&gradients).map_or(Ok(Vec::new()), k::read_floats)?);
    }
    Ok(all)
}

/// Norm of the difference by norm of `b`; NaN stays NaN, and other lengths are infinitely far.
pub(super) fn error(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (difference / norm.max(1e-30)).sqrt()
}

/// What activations are on a device.
fn number(device: &Device) -> DType {
    if k::is_cpu(device) { DType::F32 } else { DType::BF16 }
}

fn on<const D: usize>(x: &Tensor<D>, device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::<D>::from_data(x.clone().into_data(), (device, DType::F32)).cast(dtype)
}

fn ints<const D: usize, T: burn::tensor::Element>(
    values: Vec<T>,
    shape: [usize; D],
    dtype: DType,
    device: &Device,
) -> Tensor<D, Int> {
    Tensor::from_data(TensorData::new(values, shape), (device, dtype))
}

fn groups(spread: &[usize], device: &Device) -> Groups {
    let ends = spread.iter().scan(0, |end, rows| {
        *end += *rows as i32;
        Some(*end)
    });
    let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
    let length = offsets.len();
    Groups::Sorted { offsets: ints(offsets, [length], DType::I32, device) }
}

fn placed(weight: &FrozenWeight, device: &Device) -> FrozenWeight {
    let bytes = |x: &Tensor<4, Int>| Tensor::from_data(x.clone().into_data(), (device, DType::U8));
    let scale = |x: &Tensor<3, Int>| Tensor::from_data(x.clone().into_data(), (device, DType::U8));
    match weight {
        FrozenWeight::Mxfp4 { .. } => weight.mxfp4_on(device).expect("sizes that kernels know"),
        FrozenWeight::Nf4 { blocks, scales, tables } => FrozenWeight::Nf4 {
            blocks: bytes(blocks),
            scales: scale(scales),
            tables: on(tables, device, DType::F32),
        },
        FrozenWeight::Transposed(w) => FrozenWeight::Transposed(on(w, device, number(device))),
        other => other.clone(),
    }
}

/// Random inputs, on the CPU.
struct Random(MersenneTwister);

impl Random {
    /// From -1 to 1.
    fn floats<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let mut unit = || self.0.next() as f32 / (1_u64 << 31) as f32 - 1.0;
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| unit()).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// The same as bf16 holds it.
    fn rounded<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.floats(shape).cast(DType::BF16).cast(DType::F32)
    }

    fn bytes<const D: usize>(&mut self, shape: [usize; D], low: u8, high: u8) -> Tensor<D, Int> {
        let span = u32::from(high - low) + 1;
        let values: Vec<u8> =
            (0..shape.iter().product()).map(|_| low + (self.0.next() % span) as u8).collect();
        ints(values, shape, DType::U8, &Device::flex())
    }

    fn mxfp4(&mut self, n: usize, d_in: usize, d_out: usize) -> FrozenWeight {
        FrozenWeight::Mxfp4 {
            blocks: self.bytes([n, d_out, d_in / 32, 16], 0, 255),
            scales: self.bytes([n, d_out, d_in / 32], 120, 123),
        }
    }

    /// Of any sixteen levels and any map: the kernels look them up.
    fn nf4(&mut self, n: usize, d_in: usize, d_out: usize) -> FrozenWeight {
        let blocks = d_in / 64;
        let nested = n * (d_out * blocks).div_ceil(256);
        let ramp = |of: usize| (0..of).map(move |i| 2.0 * i as f32 / (of - 1) as f32 - 1.0);
        let tables: Vec<f32> = ramp(16)
            .chain(ramp(256))
            .chain(std::iter::repeat_n(0.1, n))
            .chain(std::iter::repeat_n(0.03, nested))
            .collect();
        let length = tables.len();
        FrozenWeight::Nf4 {
            blocks: self.bytes([n, d_out, blocks, 32], 0, 255),
            scales: self.bytes([n, d_out, blocks], 0, 255),
            tables: Tensor::from_data(TensorData::new(tables, [length]), &Device::flex()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Sizes = Sizes {
        rows: 37,
        hidden: 192,
        outputs: 96,
        spread: &[3, 0, 40, 1],
        few: &[1, 0, 2, 1],
        lengths: &[1, 30, 7],
        many: &[5, 1, 9],
        window: 8,
    };

    #[test]
    fn every_operator_of_the_cpu_passes() {
        let all = check(&Device::flex(), &SMALL, Talk::SILENT);
        assert_eq!(all.len(), 15);
        for checked in &all {
            assert!(checked.passed(), "{checked:?}");
        }
    }

    #[test]
    fn a_wrong_result_a_moving_one_and_none_fail() {
        let good = || Checked { name: "x".into(), error: Some(0.0), same_bits: true, failed: None };
        assert!(good().passed());
        assert!(!Checked { error: Some(f64::NAN), ..good() }.passed());
        assert!(!Checked { error: Some(0.02), ..good() }.passed());
        assert!(!Checked { error: None, ..good() }.passed());
        assert!(!Checked { same_bits: false, ..good() }.passed());
        let device = Device::flex();
        let random = Random(MersenneTwister::new(1));
        let mut work = Work { device: &device, random, all: Vec::new(), talk: Talk::SILENT };
        let (x, seed) = (work.random.rounded([4, 8]), work.random.rounded([4, 8]));
        work.compare("doubled", [&x], &seed, |[x], _| x * 1.02, |[x], _| x);
        assert!(!work.all[0].passed() && work.all[0].same_bits, "{:?}", work.all[0]);
    }
}
