//! A call of a layer on an NVIDIA card, as one closure on burn's stream.

use std::sync::Arc;

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::frame::{Chunk, Frame, PairSpec};
use super::operands::{Gradients, Operands, SiteFactors, Source, map_factors};
use super::prepared::Prepared;
use super::types::{Angles, LayerPairs, LowRankPair};
use crate::cuda::{CudaError, DeviceMemory, Run, contiguous, empty_within, primitive};
use crate::memory::arena::Lease;
use crate::memory::budget::Need;
use crate::memory::layout::Layout;
use crate::memory::sizes::Plan;
use crate::memory::table::Phase;
use crate::op::attention::Segments;
use crate::op::attention::table::Table;
use crate::op::experts::{ExpertForm, RANK_WIDTH};
use crate::site::{Paths, PerSite};
use crate::stream::StreamedMatrix;
use crate::stream::inputs::HostedInputs;
use crate::stream::slots::Course;

/// One use of a layer.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) layer: Arc<Prepared>,
    cos: CubeTensor,
    sin: CubeTensor,
    sequences: Table,
    pairs: PerSite<Option<PairSpec>>,
    turn: Turn,
    /// Where the forward's choice of experts goes, if somebody wants to know.
    chosen: Option<CubeTensor>,
}

/// The place of a call among those of a step.
#[derive(Debug, Clone)]
pub(super) enum Turn {
    /// What goes in and comes out are tensors, of a graph or of none.
    Tensors,
    /// Input and output lie in places of the step.
    Placed {
        /// Where the places are.
        memory: Arc<DeviceMemory>,
        /// Who takes inputs to the host and back, where not all are on the card.
        hosted: Option<Arc<HostedInputs>>,
        /// Which of the step's batches it is.
        batch: usize,
        /// Whether another batch goes through the layer next.
        again: bool,
        /// Whether experts are in bf16 all the same.
        in_bf16: bool,
    },
}

/// A call's way in one direction, inside its closure.
#[derive(Clone, Copy)]
struct Way<'a> {
    run: &'a Run<'a>,
    plan: &'a Plan,
    lease: &'a Lease,
    phase: Phase,
}

impl Turn {
    fn is_followed(&self) -> bool {
        matches!(self, Self::Placed { again: true, .. })
    }
}

impl Call {
    pub(super) fn new(
        layer: &Arc<Prepared>,
        pairs: &LayerPairs,
        angles: &Angles,
        segments: &Segments,
        turn: Turn,
    ) -> Self {
        let on_card = |tensor: &Tensor<2>| {
            primitive(tensor.clone()).map(contiguous).expect("angles lie where the layer lies")
        };
        let spec = |pair: &LowRankPair| PairSpec { rank: pair.a.dims()[1], scaling: pair.scaling };
        Self {
            layer: Arc::clone(layer),
            cos: on_card(&angles.cos),
            sin: on_card(&angles.sin),
            sequences: Table::of(segments, &layer.frozen.input_norm.device),
            pairs: pairs.map(|pair| pair.as_ref().map(spec)),
            turn,
            chosen: None,
        }
    }

    /// The same, which also says which experts it chose.
    pub(super) fn noting(self, chosen: Option<CubeTensor>) -> Self {
        Self { chosen, ..self }
    }

    fn paths(&self) -> Paths {
        Paths::new(&self.pairs.map(|pair| pair.map_or(0, |pair| pair.rank)))
    }

    fn plan(&self, tokens: usize, lease: &Lease) -> Plan {
        let (sizes, in_order) = (self.layer.sizes, self.layer.in_order());
        Plan::new(sizes, tokens, self.paths(), lease.kept, in_order).within(lease.chunks).with(lease.experts)
    }

    /// What no kernel was written for.
    pub(super) fn check(&self) -> Result<(), CudaError> {
        let ranks = self.pairs.iter().filter(|(kind, _)| kind.is_expert()).filter_map(|(_, pair)| *pair);
        match ranks.map(|pair| pair.rank).find(|rank| *rank > RANK_WIDTH) {
            None => Ok(()),
            Some(rank) => {
                let what = format!("rank {rank} at experts; the largest is {RANK_WIDTH}");
                Err(CudaError::NoKernel { operator: "decoder layer", what })
            }
        }
    }

    pub(super) fn need(&self, tokens: usize) -> Need {
        self.layer.need(self.paths(), tokens, self.sequences.longest())
    }

    /// A new tensor like `x` in a buffer that is large enough for the longest batch that was announced, so that
    /// batches of all lengths use the same pages of burn's pool.
    pub(super) fn stream(&self, x: &CubeTensor) -> CubeTensor {
        let announced = self.layer.workspace.settings().claimed.tokens;
        let width = self.layer.sizes.hidden * DType::BF16.size();
        empty_within(x.shape(), DType::BF16, &x.device, announced * width)
    }

    /// Queues a direction.
    pub(super) fn enqueue(&self, operands: &Operands<Source>, lease: Lease, tokens: usize, phase: Phase) {
        enum Place {
            Handle(usize),
            Address(u64),
        }
        let mut handles = Vec::new();
        let places = operands.map(&mut |source: &Source| match source {
            Source::Buffer(handle) => {
                handles.push(handle.clone());
                Place::Handle(handles.len() - 1)
            }
            Source::Address(address) => Place::Address(*address),
        });
        let (call, plan) = (self.clone(), self.plan(tokens, &lease));
        self.layer.gpu.enqueue(handles, move |run, addresses| {
            let operands = places.map(&mut |place| match place {
                Place::Handle(index) => addresses[*index],
                Place::Address(address) => *address,
            });
            call.launch(&Way { run, plan: &plan, lease: &lease, phase }, &operands)
        });
    }

    fn launch(&self, way: &Way<'_>, operands: &Operands<u64>) -> Result<(), CudaError> {
        let Way { run, plan, lease, .. } = *way;
        lease.begin(run)?;
        let Turn::Placed { memory, hosted: Some(hosted), batch, .. } = &self.turn else {
            return self.through_ring(way, operands);
        };
        let layer = self.layer.place.index;
        let (memory, bytes) = (memory.address(), plan.tokens * plan.sizes.hidden * DType::BF16.size());
        if operands.backward.is_some() {
            hosted.enter(run, layer, *batch)?;
            self.through_ring(way, operands)?;
            hosted.left(run, memory, layer, *batch, bytes)
        } else {
            hosted.enter(run, layer + 1, *batch)?;
            self.through_ring(way, operands)?;
            hosted.wrote(run, memory, layer + 1, *batch, bytes)
        }
    }

    /// The work, with experts that stream brought to the card.
    fn through_ring(&self, way: &Way<'_>, operands: &Operands<u64>) -> Result<(), CudaError> {
        let Some(StreamedMatrix { ring, layer, .. }) = &self.layer.streamed else {
            return self.work(way, operands);
        };
        let entered = ring.enter(way.run, *layer)?;
        let mut operands = operands.clone();
        (operands.frozen.gate_up, operands.frozen.down) = (entered.gate_up, entered.down);
        self.work(way, &operands)?;
        // A forward of tensors that keeps nothing has no backward.
        let has_backward = way.lease.is_kept() || matches!(self.turn, Turn::Placed { .. });
        let course = match (&operands.backward, has_backward) {
            (Some(_), _) => Course::Backward,
            (None, true) => Course::Forward,
            (None, false) => Course::Round,
        };
        ring.leave(way.run, &entered, Some(course), self.turn.is_followed())
    }

    fn work(&self, way: &Way<'_>, operands: &Operands<u64>) -> Result<(), CudaError> {
        let Way { run, plan, lease, phase } = *way;
        // Only a training step: whoever wants tensors evaluates.
        let is_step = matches!(self.turn, Turn::Placed { in_bf16: false, .. });
        let in_fp8 = plan.experts == ExpertForm::Fp8 && is_step;
        let fp8 = in_fp8.then(|| self.layer.fp8()).transpose()?;
        let frame = Frame {
            run,
            spec: &self.layer.spec,
            plan,
            layout: &Layout::new(plan),
            operands,
            pairs: &self.pairs,
            sequences: &self.sequences.at(operands.sequences),
            fp8,
            kept: lease.kept_address(),
            scratch: lease.scratch_address(),
            phase,
            chunk: Chunk::whole(plan.tokens),
        };
        match &operands.backward {
            None => frame.forward(),
            Some(to) => frame.backward(to),
        }
    }

    pub(super) fn operands(
        &self,
        pairs: &SiteFactors<CubeTensor>,
        x: Source,
        out: Source,
        backward: Option<Gradients<Source>>,
    ) -> Operands<Source> {
        let buffer = |tensor: &CubeTensor| Source::Buffer(tensor.handle.clone());
        Operands {
            frozen: self.layer.frozen.map(&mut |tensor| buffer(tensor)),
            cos: buffer(&self.cos),
            sin: buffer(&self.sin),
            sequences: buffer(self.sequences.tensor()),
            pairs: buffers(pairs),
            x,
            out,
            chosen: self.chosen.as_ref().map(buffer),
            backward,
        }
    }
}

/// The pairs' tensors as operands.
pub(super) fn buffers(pairs: &SiteFactors<CubeTensor>) -> SiteFactors<Source> {
    map_factors(pairs, &mut |tensor| Source::Buffer(tensor.handle.clone()))
}

/// The forward's claim on what it kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticket(pub(super) Option<Lease>);
