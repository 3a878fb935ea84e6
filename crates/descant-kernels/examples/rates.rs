//! What this machine's cores give the CPU operators: the rate of a large f32 product, and of the same product with
//! the weight packed in MXFP4. The ceiling that figures of training steps are compared with.
//!
//! `cargo run --release -p descant-kernels --example rates`
#![expect(clippy::print_stdout, reason = "an example talks")]

use std::time::Instant;

use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use descant_kernels::{FrozenWeight, Groups, linear};

/// Rows, input and output features.
const SHAPE: [usize; 3] = [2048, 1024, 1024];
const REPETITIONS: usize = 20;

fn main() {
    let device = Device::flex();
    let [rows, d_in, d_out] = SHAPE;
    let x = Tensor::<2>::random([rows, d_in], Distribution::Default, &device);
    let bytes = |n: usize, byte: u8| TensorData::new(vec![byte; n], [n]);
    let u8s = |data| Tensor::<1, burn::tensor::Int>::from_data(data, (&device, DType::U8));
    let weights = [
        ("dense f32", FrozenWeight::Dense(Tensor::random([1, d_out, d_in], Distribution::Default, &device))),
        (
            "packed MXFP4",
            FrozenWeight::Mxfp4 {
                blocks: u8s(bytes(d_out * d_in / 2, 0x3a)).reshape([1, d_out, d_in / 32, 16]),
                scales: u8s(bytes(d_out * d_in / 32, 120)).reshape([1, d_out, d_in / 32]),
            },
        ),
    ];
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for (name, weight) in weights {
        let _ = linear(x.clone(), &weight, None, &Groups::One);
        let best = (0..REPETITIONS)
            .map(|_| {
                let start = Instant::now();
                let _ = linear(x.clone(), &weight, None, &Groups::One);
                start.elapsed().as_secs_f64()
            })
            .fold(f64::INFINITY, f64::min);
        let rate = 2.0 * (rows * d_in * d_out) as f64 / best / 1e9;
        println!("{name}: {rows} x {d_in} x {d_out} on {threads} threads: {rate:.0} GFLOP/s");
    }
}
