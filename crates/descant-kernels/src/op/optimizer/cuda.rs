//! The update on a CUDA card: all tensors in one launch, nothing read back.

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use super::moments::Moments;
use super::numbers::{Clip, StepNumbers};
use super::table::{Entry, Table, chunks, tables};
use crate::cuda::plain::{NORM_SUM, OPTIMIZER};
use crate::cuda::structures::UPDATE_BYTES;
use crate::cuda::{self, Arg, Gpu, InPlace, Result, Run};

const ON_A_CARD: &str = "the caller looked where the tensors lie";

pub(super) fn floats(tensor: Tensor<3>) -> CubeTensor {
    cuda::contiguous(cuda::primitive(tensor).expect(ON_A_CARD))
}

fn elements(tensor: &CubeTensor) -> usize {
    tensor.shape().num_elements()
}

/// The buffers of a step, and which of them each tensor uses.
#[derive(Default)]
struct Buffers {
    handles: Vec<Handle>,
    /// Their places in `handles`.
    entries: Vec<Entry<Option<usize>>>,
}

impl Buffers {
    #[expect(clippy::unnecessary_wraps, reason = "a place that is there, where others may be none")]
    fn add(&mut self, tensor: &CubeTensor) -> Option<usize> {
        self.handles.push(tensor.handle.clone());
        Some(self.handles.len() - 1)
    }

    /// The tables, once the addresses are known.
    fn tables(entries: &[Entry<Option<usize>>], addresses: &[u64]) -> Vec<Table> {
        let address = |place: Option<usize>| place.map_or(0, |place| addresses[place]);
        tables(&entries.iter().map(|entry| entry.map(address)).collect::<Vec<_>>())
    }
}

/// Bytes that so many f32 numbers for each element are.
fn bytes(entries: &[Entry<Option<usize>>], numbers: usize) -> f64 {
    let elements: usize = entries.iter().map(|entry| entry.n).sum();
    (numbers * elements * size_of::<f32>()) as f64
}

/// Blocks that fill the card.
pub(super) fn grid(run: &Run<'_>, table: &Table) -> usize {
    table.chunks.min(run.gpu().multiprocessors() as usize * 8)
}

/// See [`super::grad_norm`]: a sum a chunk, then their sum.
pub(super) fn grad_norm(grads: &[Tensor<3>]) -> Tensor<1> {
    let grads: Vec<CubeTensor> = grads.iter().cloned().map(floats).collect();
    let device = &grads[0].device;
    let n_chunks = chunks(grads.iter().map(elements));
    let (norm, partials) =
        (cuda::empty([1], DType::F32, device), cuda::empty([n_chunks.max(1)], DType::F32, device));
    let mut buffers = Buffers::default();
    for grad in &grads {
        let place = buffers.add(grad);
        buffers.entries.push(Entry { grad: place, n: elements(grad), ..Entry::default() });
    }
    buffers.handles.extend(cuda::handles([&norm, &partials]));
    let Buffers { handles, entries } = buffers;
    let gpu: Gpu = cuda::gpu_of(&norm);
    gpu.enqueue(handles, move |run, p| {
        let [.., norm, partials] = p else { unreachable!("the last two are ours") };
        run.stage("gradient norm", 0.0, bytes(&entries, 1), || {
            let mut done = 0;
            for table in Buffers::tables(&entries, p) {
                let arguments = [Arg::Struct(&table.bytes), Arg::Ptr(*partials), Arg::U32(done)];
                let kernel = run.kernel("optimizer", "square_sums", &[])?;
                run.launch(kernel, grid(run, &table), OPTIMIZER.threads, 0, &arguments)?;
                done += table.chunks as u32;
            }
            let arguments = [Arg::Ptr(*partials), Arg::Ptr(*norm), Arg::U32(done)];
            run.launch(run.kernel("optimizer", "norm_of_sums", &[])?, 1usize, NORM_SUM.threads, 0, &arguments)
        })
    });
    cuda::tensor(norm)
}

/// See [`super::reached`]: a flag a matrix, a launch a tensor.
pub(super) fn reached(grads: &[Tensor<3>]) -> Tensor<1> {
    let grads: Vec<CubeTensor> = grads.iter().cloned().map(floats).collect();
    let matrices: Vec<usize> = grads.iter().map(|grad| grad.shape()[0]).collect();
    let sizes: Vec<usize> = grads.iter().zip(&matrices).map(|(grad, n)| elements(grad) / n.max(&1)).collect();
    let flags = cuda::empty([matrices.iter().sum::<usize>()], DType::F32, &grads[0].device);
    let mut handles = cuda::handles([&flags]);
    handles.extend(grads.iter().map(|grad| grad.handle.clone()));
    cuda::gpu_of(&flags).enqueue(handles, move |run, p| {
        let [flags, grads @ ..] = p else { unreachable!("the first is ours") };
        let mut to = *flags;
        for ((grad, matrices), n) in grads.iter().zip(matrices).zip(sizes) {
            let arguments = [Arg::Ptr(*grad), Arg::Ptr(to), Arg::I64(n as i64)];
            run.launch(
                run.kernel("optimizer", "any_nonzero", &[])?,
                matrices,
                OPTIMIZER.threads,
                0,
                &arguments,
            )?;
            to += (matrices * size_of::<f32>()) as u64;
        }
        Ok(())
    });
    cuda::tensor(flags)
}

/// An update but for its launch.
#[derive(Debug)]
pub(super) struct Launch {
    gpu: Gpu,
    entry: &'static str,
    tables: Vec<Table>,
    norm: Option<u64>,
    step: Vec<u8>,
    bytes: f64,
    /// Where the tables say.
    held: InPlace,
}

/// See [`super::AdamW::prepare`]: the parameters as they are after the launch, which may be in new buffers, and the
/// moments. Of both, what nobody else holds is updated where it lies.
pub(super) fn prepare(
    params: Vec<Tensor<3>>,
    grads: &[Tensor<3>],
    moments: Vec<Moments>,
    numbers: StepNumbers,
    clip: Option<Clip<'_>>,
) -> (Vec<Tensor<3>>, Vec<Moments>, Option<Launch>) {
    let mut buffers = Buffers::default();
    let mut blocks = false;
    let mut results = Vec::with_capacity(params.len());
    let mut kept = Vec::with_capacity(params.len());
    for ((param, grad), moments) in params.into_iter().zip(grads).zip(moments) {
        let (param, grad) = (floats(param), floats(grad.clone()));
        let n = elements(&param);
        let out = if param.can_mut() {
            param.clone()
        } else {
            cuda::empty(param.shape(), DType::F32, &param.device)
        };
        let places = (buffers.add(&param), buffers.add(&out), buffers.add(&grad));
        let mut entry = Entry { param: places.0, out: places.1, grad: places.2, n, ..Entry::default() };
        kept.push(match moments {
            Moments::Float { first, second } => {
                let (first, second) = (cuda::owned(floats(first)), cuda::owned(floats(second)));
                entry.moments = [buffers.add(&first), buffers.add(&second)];
                Moments::Float { first: cuda::tensor(first), second: cuda::tensor(second) }
            }
            Moments::Blocks { codes, scales } => {
                blocks = true;
                let codes = codes.map(|c| cuda::owned(cuda::primitive(c).expect(ON_A_CARD)));
                let scales = scales.map(|s| cuda::owned(cuda::primitive(s).expect(ON_A_CARD)));
                entry.moments = codes.each_ref().map(|codes| buffers.add(codes));
                entry.scales = scales.each_ref().map(|scales| buffers.add(scales));
                let codes = codes.map(cuda::tensor);
                Moments::Blocks { codes, scales: scales.map(cuda::tensor) }
            }
        });
        buffers.entries.push(entry);
        results.push(out);
    }
    let Some(first) = results.first() else { return (Vec::new(), kept, None) };
    let gpu = cuda::gpu_of(first);
    let max_norm = clip.map_or(f64::MAX, |clip| clip.max_norm);
    let clips = clip.map(|clip| cuda::primitive(clip.norm.clone()).expect(ON_A_CARD));
    let norm = clips.as_ref().and_then(|norm| buffers.add(norm));
    let Buffers { handles, entries } = buffers;
    let launch = match gpu.in_place(handles) {
        Ok(held) => Some(Launch {
            entry: if blocks { "adamw8" } else { "adamw" },
            tables: Buffers::tables(&entries, held.addresses()),
            norm: norm.map(|norm| held.addresses()[norm]),
            step: step(numbers, max_norm),
            // Gradients, and parameters and moments both ways.
            bytes: bytes(&entries, if blocks { 4 } else { 7 }),
            held,
            gpu,
        }),
        // Whoever reads the norm gets it.
        Err(error) => {
            gpu.fail(error);
            None
        }
    };
    (results.into_iter().map(cuda::tensor).collect(), kept, launch)
}

impl Launch {
    /// Queues it.
    pub(super) fn run(self) {
        let Self { gpu, entry, tables, norm, step, bytes, held } = self;
        gpu.enqueue(Vec::new(), move |run, _| {
            let _held = &held;
            run.stage("optimizer", 0.0, bytes, || launch(run, entry, &tables, norm, &step))
        });
    }
}

fn launch(
    run: &Run<'_>,
    entry: &'static str,
    tables: &[Table],
    norm: Option<u64>,
    step: &[u8],
) -> Result<()> {
    let kernel = run.kernel("optimizer", entry, &[])?;
    for table in tables {
        let arguments = [Arg::Struct(&table.bytes), Arg::maybe(norm), Arg::Struct(step)];
        run.launch(kernel, grid(run, table), OPTIMIZER.threads, 0, &arguments)?;
    }
    Ok(())
}

/// The bytes of `struct Step`.
fn step(numbers: StepNumbers, max_norm: f64) -> Vec<u8> {
    let StepNumbers { beta1, beta2, correction2, epsilon, keep, rate } = numbers;
    let mut bytes = Vec::with_capacity(UPDATE_BYTES);
    bytes.extend(max_norm.to_le_bytes());
    for number in [beta1, 1.0 - beta1, beta2, 1.0 - beta2, correction2, epsilon, keep, rate] {
        bytes.extend((number as f32).to_le_bytes());
    }
    debug_assert_eq!(bytes.len(), UPDATE_BYTES);
    bytes
}
