//! The layer on an NVIDIA card: what is prepared once, and one closure a direction on burn's stream.

use std::sync::Arc;

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Tensor};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::server::Handle;

use super::arena::{Lease, lease};
use super::autodiff::{LayerKernel, SITES, Saved};
use super::budget::Need;
use super::flow::{Flow, Frozen, MAX_EXPERT_RANK, Pair};
use super::layout::{Paths, Plan};
use super::plan::{Kept, LayerSizes};
use super::{Angles, LayerPairs, LayerPlace, LayerSpec, LayerTensors};
use crate::attention::Segments;
use crate::attention::table::{Sequences, Table};
use crate::cuda::{CudaError, Gpu, contiguous, empty, gpu_of, primitive};
use crate::experts::cuda::{ExpertData, Experts, wants_order};
use crate::linear::FrozenWeight;
use crate::site::{PerSite, SiteKind};

/// A layer's frozen tensors on their card.
#[derive(Debug)]
pub(super) struct Prepared {
    gpu: Gpu,
    spec: LayerSpec,
    place: LayerPlace,
    sizes: LayerSizes,
    tensors: Vec<CubeTensor>,
    gate_up: Form,
    down: Form,
    placeholder: Tensor<1>,
}

/// How experts are stored: packed ones are two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Packed,
    Transposed,
}

impl Prepared {
    /// `None` where the tensors are on no CUDA card, or in a form that the operators here do not read.
    pub(super) fn new(of: &LayerTensors, spec: LayerSpec, place: LayerPlace) -> Option<Self> {
        crate::cuda::index_of(&of.router.device())?;
        let plain = |tensor: CubeTensor| contiguous(tensor);
        let vector = |tensor: &Tensor<1>| primitive(tensor.clone()).ok().map(plain);
        let matrix = |tensor: &Tensor<2>| primitive(tensor.clone()).ok().map(plain);
        let [n_experts, hidden] = of.router.dims();
        let sizes = LayerSizes {
            hidden,
            query: spec.n_heads * spec.head_dim,
            key_value: spec.n_kv * spec.head_dim,
            n_heads: spec.n_heads,
            n_experts,
            top_k: spec.top_k,
            inner: of.down.d_in(),
        };
        let mut tensors = vec![
            vector(&of.input_norm)?,
            matrix(&of.attention_input)?,
            vector(&of.attention_input_bias)?,
            vector(&of.sinks)?,
            matrix(&of.output)?,
            vector(&of.output_bias)?,
            vector(&of.post_norm)?,
            matrix(&of.router)?,
            vector(&of.router_bias)?,
            matrix(&of.gate_up_bias)?,
            matrix(&of.down_bias)?,
        ];
        let mut bank = |weight: &FrozenWeight| {
            let form = match weight {
                FrozenWeight::Mxfp4 { blocks, scales } => {
                    tensors.push(plain(crate::cuda::int_primitive(blocks.clone()).ok()?));
                    tensors.push(plain(crate::cuda::int_primitive(scales.clone()).ok()?));
                    Form::Packed
                }
                FrozenWeight::Transposed(weight) => {
                    tensors.push(plain(primitive(weight.clone()).ok()?));
                    Form::Transposed
                }
                FrozenWeight::Dense(_) => return None,
            };
            Some(form)
        };
        let (gate_up, down) = (bank(&of.gate_up)?, bank(&of.down)?);
        let gpu = gpu_of(&tensors[0]);
        let placeholder = Tensor::zeros([1], (&of.router.device(), DType::F32));
        Some(Self { gpu, spec, place, sizes, tensors, gate_up, down, placeholder })
    }

    /// Whether the experts' products want their rows in order.
    fn in_order(&self) -> bool {
        [self.gate_up, self.down].contains(&Form::Packed) && wants_order(&self.gpu)
    }

    /// Stands for the tensors of a site that has no pair.
    pub(super) fn placeholder(&self) -> Tensor<1> {
        self.placeholder.clone()
    }

    fn frozen(&self, at: &[u64]) -> Frozen {
        let mut next = 11;
        // As stored: packed experts as `[out, in]`, unpacked ones as `[in, out]`.
        let mut bank = |form: Form, outputs: usize, inputs: usize| {
            let count = self.sizes.n_experts;
            match form {
                Form::Packed => {
                    next += 2;
                    let data = ExpertData::Mxfp4 { blocks: at[next - 2], scales: at[next - 1] };
                    Experts { data, count, rows: outputs, columns: inputs }
                }
                Form::Transposed => {
                    next += 1;
                    Experts { data: ExpertData::Bf16(at[next - 1]), count, rows: inputs, columns: outputs }
                }
            }
        };
        let gate_up = bank(self.gate_up, 2 * self.sizes.inner, self.sizes.hidden);
        let down = bank(self.down, self.sizes.hidden, self.sizes.inner);
        Frozen {
            input_norm: at[0],
            qkv: at[1],
            qkv_bias: at[2],
            sinks: at[3],
            output: at[4],
            output_bias: at[5],
            post_norm: at[6],
            router: at[7],
            router_bias: at[8],
            gate_up,
            gate_up_bias: at[9],
            down,
            down_bias: at[10],
        }
    }
}

/// One use of a layer.
#[derive(Debug, Clone)]
pub(super) struct Call {
    layer: Arc<Prepared>,
    cos: CubeTensor,
    sin: CubeTensor,
    sequences: Table,
    /// Rank and scaling of each site that has a pair.
    pairs: [Option<(usize, f32)>; SITES],
}

impl Call {
    pub(super) fn new(
        layer: &Arc<Prepared>,
        pairs: &LayerPairs,
        angles: &Angles,
        segments: &Segments,
    ) -> Self {
        let on_card = |tensor: &Tensor<2>| {
            primitive(tensor.clone()).map(contiguous).expect("angles lie where the layer lies")
        };
        Self {
            layer: Arc::clone(layer),
            cos: on_card(&angles.cos),
            sin: on_card(&angles.sin),
            sequences: Table::of(segments, &layer.tensors[0].device),
            pairs: SiteKind::ALL
                .map(|kind| pairs[kind].as_ref().map(|pair| (pair.a.dims()[1], pair.scaling))),
        }
    }

    fn paths(&self) -> Paths {
        Paths::new(&PerSite::from_fn(|kind| self.pairs[kind as usize].map_or(0, |(rank, _)| rank)))
    }

    fn plan(&self, tokens: usize, kept: Kept) -> Plan {
        Plan { sizes: self.layer.sizes, tokens, paths: self.paths(), kept, in_order: self.layer.in_order() }
    }

    /// What no kernel was written for.
    fn check(&self) -> Result<(), CudaError> {
        for (rank, _) in self.pairs[5..].iter().flatten() {
            if *rank > MAX_EXPERT_RANK {
                let what = format!("rank {rank} at experts; the largest is {MAX_EXPERT_RANK}");
                return Err(CudaError::NoKernel { operator: "decoder layer", what });
            }
        }
        Ok(())
    }

    fn need(&self, tokens: usize) -> Need {
        Need {
            sizes: self.layer.sizes,
            paths: self.paths(),
            tokens,
            in_order: self.layer.in_order(),
            longest: self.sequences.longest(),
            windows: Arc::clone(&self.layer.place.windows),
        }
    }
}

/// The forward's claim on what it kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticket(Option<Lease>);

impl LayerKernel for CubeBackend {
    fn layer_forward(
        x: CubeTensor,
        pairs: &[CubeTensor; 2 * SITES],
        call: &Call,
        keep: bool,
    ) -> (CubeTensor, Ticket) {
        let gpu = &call.layer.gpu;
        let (x, pairs) = (contiguous(x), &compact(pairs));
        let tokens = x.shape()[0];
        let out = empty(x.shape(), DType::BF16, &x.device);
        if let Err(error) = call.check() {
            gpu.fail(error);
            return (out, Ticket(None));
        }
        let lease = match lease(gpu, &call.need(tokens), call.layer.place.index, keep) {
            Ok(lease) => lease,
            Err(error) => {
                gpu.fail(error);
                return (out, Ticket(None));
            }
        };
        let plan = call.plan(tokens, lease.kept);
        let held = call.clone();
        let running = lease.clone();
        gpu.enqueue(handles(call, pairs, [&x, &out]), move |run, at| {
            running.poison_scratch(run)?;
            let (flow, [x, out]) = flow(run, &held, plan, at, &running, Direction::Forward);
            flow.forward(x, out)
        });
        (out, Ticket(keep.then_some(lease)))
    }

    fn layer_backward(saved: Saved<Self>, grad: CubeTensor) -> (CubeTensor, [Option<CubeTensor>; 2 * SITES]) {
        let Saved { x, pairs, call, ticket } = saved;
        let gpu = &call.layer.gpu;
        let (x, grad, pairs) = (contiguous(x), contiguous(grad), compact(&pairs));
        let tokens = x.shape()[0];
        let dx = empty(x.shape(), DType::BF16, &x.device);
        let present = |site: usize| call.pairs[site / 2].is_some();
        let gradients: [Option<CubeTensor>; 2 * SITES] =
            std::array::from_fn(|i| present(i).then(|| empty(pairs[i].shape(), DType::F32, &x.device)));
        // What was kept may have been overwritten by another forward pass since; then everything is run again.
        let kept = ticket.0.filter(Lease::is_current);
        let lease =
            match kept.map_or_else(|| lease(gpu, &call.need(tokens), call.layer.place.index, false), Ok) {
                Ok(lease) => lease,
                Err(error) => {
                    gpu.fail(error);
                    return (dx, gradients);
                }
            };
        let plan = call.plan(tokens, lease.kept);
        let mut buffers = handles(&call, &pairs, [&x, &dx]);
        buffers.push(grad.handle.clone());
        buffers.extend(gradients.iter().flatten().map(|tensor| tensor.handle.clone()));
        let held = call.clone();
        gpu.enqueue(buffers, move |run, at| {
            lease.poison_scratch(run)?;
            let (flow, [x, dx]) = flow(run, &held, plan, at, &lease, Direction::Backward);
            let mut rest = at[flow_handles(&held)..].iter().copied();
            let grad = rest.next().expect("the gradient's buffer was given");
            let to: [Option<[u64; 2]>; SITES] = std::array::from_fn(|site| {
                held.pairs[site]
                    .map(|_| [(); 2].map(|()| rest.next().expect("two buffers a pair were given")))
            });
            flow.backward(x, grad, dx, &to)
        });
        (dx, gradients)
    }
}

/// The pairs without gaps: those that the optimizer wrote are so, those that came from the host are copied.
fn compact(pairs: &[CubeTensor; 2 * SITES]) -> [CubeTensor; 2 * SITES] {
    pairs.each_ref().map(|tensor| contiguous(tensor.clone()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// Buffers of a call in their one order: frozen, angles, table of sequences, pairs, then the two given.
fn handles(call: &Call, pairs: &[CubeTensor; 2 * SITES], ends: [&CubeTensor; 2]) -> Vec<Handle> {
    let tensors = call.layer.tensors.iter().chain([&call.cos, &call.sin, call.sequences.tensor()]);
    tensors.chain(pairs).chain(ends).map(|tensor| tensor.handle.clone()).collect()
}

/// How many buffers [`handles`] gives.
fn flow_handles(call: &Call) -> usize {
    call.layer.tensors.len() + 3 + 2 * SITES + 2
}

fn flow<'a>(
    run: &'a crate::cuda::Run<'a>,
    call: &'a Call,
    plan: Plan,
    at: &[u64],
    lease: &Lease,
    direction: Direction,
) -> (Flow<'a>, [u64; 2]) {
    let n_frozen = call.layer.tensors.len();
    let rest = &at[n_frozen..];
    let (cos, sin, table) = (rest[0], rest[1], rest[2]);
    let sites = &rest[3..3 + 2 * SITES];
    let pairs = std::array::from_fn(|site| {
        call.pairs[site].map(|(rank, scaling)| Pair {
            a: sites[2 * site],
            b: sites[2 * site + 1],
            rank,
            scaling,
        })
    });
    let buffers = match direction {
        Direction::Forward => plan.forward(),
        Direction::Backward => plan.backward(),
    };
    let sequences: Sequences = call.sequences.at(table);
    let flow = Flow {
        run,
        spec: &call.layer.spec,
        plan,
        frozen: call.layer.frozen(at),
        pairs,
        sequences,
        cos,
        sin,
        buffers,
        kept: lease.kept_address(),
        scratch: lease.scratch_address(),
    };
    (flow, [rest[3 + 2 * SITES], rest[4 + 2 * SITES]])
}
