//! The memory that the layers of a model work in: one piece of scratch that all of them use in turn, and a slot a
//! layer for what its forward keeps.
//!
//! It is allocated when the first layer runs and again when a longer batch comes than it was laid out for. It is not
//! of burn's pool: its pages would grow to the largest piece, and it would not know what may be planned. A slot
//! belongs to the last forward that took it; a backward that comes later finds its lease outdated and runs the layer
//! again. Threads have streams of their own: an [`Order`] makes each wait for the one before it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Budget, Need};
use super::inputs::Inputs;
use super::keep::Kept;
use super::settings::{Claim, MemorySettings};
use super::sizes::Chunks;
use crate::cuda::gauge::{look_beside, own, release_unused};
use crate::cuda::{CudaError, DeviceMemory, Gpu, Result, Run, StreamOrder, poison};
use crate::op::experts::ExpertForm;
use crate::stream::inputs::HostedInputs;

/// The piece, and how it is laid out.
#[derive(Debug)]
pub(super) struct Arena {
    need: Need,
    settings: MemorySettings,
    memory: Arc<DeviceMemory>,
    scratch_bytes: u64,
    inputs: Inputs,
    hosted: Option<Arc<HostedInputs>>,
    /// Whoever holds this too has the places for inputs.
    step: Arc<()>,
    kept: Vec<Kept>,
    words: String,
    /// Where each layer's slot begins, behind the scratch.
    slots: Vec<u64>,
    /// Which forward has each slot; counted from 1.
    owners: Arc<[AtomicU64]>,
    forwards: u64,
}

/// Places for the inputs of layers. They stay where they are for as long as this lives, whatever is laid out meanwhile.
#[derive(Debug)]
pub(crate) struct Places {
    memory: Arc<DeviceMemory>,
    inputs: Inputs,
    hosted: Option<Arc<HostedInputs>>,
    /// Held by one step at a time.
    _step: Arc<()>,
}

impl Places {
    /// The memory that addresses are good in, for work that is queued.
    pub(crate) fn memory(&self) -> Arc<DeviceMemory> {
        Arc::clone(&self.memory)
    }

    /// Those who take inputs to the host and back, where not all are on the card.
    pub(crate) fn hosted(&self) -> Option<Arc<HostedInputs>> {
        self.hosted.clone()
    }

    /// Where the input of a layer begins while it is on the card.
    pub(crate) fn address(&self, layer: usize, batch: usize) -> u64 {
        self.memory.address() + self.inputs.at(layer, batch)
    }

    /// Whether there is a place for each of so many batches of so many tokens of this width in bf16.
    pub(crate) fn holds(&self, batches: usize, tokens: usize, width: usize) -> bool {
        batches <= self.inputs.batches && (2 * tokens * width) as u64 <= self.inputs.stride
    }
}

/// Which stream used the memory last.
#[derive(Debug, Default)]
pub(super) struct Order(Mutex<StreamOrder>);

/// The right to use the scratch, and a slot.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    order: Arc<Order>,
    memory: Arc<DeviceMemory>,
    scratch_bytes: u64,
    slot: u64,
    /// What the slot has room for.
    pub(crate) kept: Kept,
    /// How many tokens go through experts at once.
    pub(crate) chunks: Chunks,
    /// In which numbers there is room for a training step to multiply with experts.
    pub(crate) experts: ExpertForm,
    owner: Option<(Arc<[AtomicU64]>, usize, u64)>,
}

impl Lease {
    /// Whether what was kept is still there.
    pub(crate) fn is_current(&self) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|(owners, layer, owner)| owners[*layer].load(Ordering::Relaxed) == *owner)
    }

    /// To be called first in a closure that uses the memory: waits, on the card, for the stream that used it before.
    /// Overwrites the scratch where buffers are poisoned: what a layer reads there, it has to write first.
    pub(crate) fn begin(&self, run: &Run<'_>) -> Result<()> {
        self.order.0.lock().unwrap_or_else(PoisonError::into_inner).enter(run.stream)?;
        poison(run, self.scratch_address(), self.scratch_bytes as usize)
    }

    /// Whether a slot was taken for a backward.
    pub(crate) fn is_kept(&self) -> bool {
        self.owner.is_some()
    }

    pub(crate) fn scratch_address(&self) -> u64 {
        self.memory.address()
    }

    pub(crate) fn kept_address(&self) -> u64 {
        self.memory.address() + self.slot
    }
}

impl Arena {
    /// One that serves `need`, laid out again where `before` does not.
    pub(super) fn serving(
        before: Option<Self>,
        gpu: &Gpu,
        need: &Need,
        settings: MemorySettings,
        bus: Option<f64>,
    ) -> Result<Self> {
        let before = match before {
            Some(arena) if arena.serves(need, settings) => return Ok(arena),
            // The old one goes first: both may not fit.
            old => old.map(|old| old.need),
        };
        let tokens = need.tokens_with_room(settings.claimed.tokens, before.as_ref());
        // Layers may have other adapters than their neighbours; they take turns in one piece.
        let paths = before
            .filter(|old| old.sizes == need.sizes)
            .map_or(need.paths, |old| need.paths.union(&old.paths));
        let Claim { chunks, experts, .. } = settings.claimed;
        let need = Need { paths, chunks, experts, ..need.clone() };
        match Self::new(gpu, Need { tokens, ..need.clone() }, settings, bus) {
            // There is no room for more than is needed now.
            Err(error) if error.is_out_of_memory() && tokens > need.tokens => {
                Self::new(gpu, need, settings, bus)
            }
            arena => arena,
        }
    }

    fn serves(&self, want: &Need, settings: MemorySettings) -> bool {
        let have = &self.need;
        // How much others want, and for how many tokens, changes nothing of what is laid out.
        let of = |settings: MemorySettings| {
            let claimed = Claim { bytes: 0, tokens: 0, ..settings.claimed };
            MemorySettings { claimed, ..settings }
        };
        of(self.settings) == of(settings)
            && have.tokens >= want.tokens
            && have.sizes == want.sizes
            && have.windows == want.windows
            && have.in_order == want.in_order
            && have.paths == have.paths.union(&want.paths)
    }

    /// The right to the scratch, and with a layer to its slot, which is taken from whoever had it.
    pub(super) fn lease(&mut self, layer: Option<usize>, order: &Arc<Order>) -> Lease {
        let (memory, scratch_bytes) = (Arc::clone(&self.memory), self.scratch_bytes);
        let none = Lease {
            order: Arc::clone(order),
            memory,
            scratch_bytes,
            slot: 0,
            kept: Kept::Input,
            chunks: self.need.chunks_of_pairs(),
            experts: self.need.experts,
            owner: None,
        };
        let Some(layer) = layer else { return none };
        self.forwards += 1;
        self.owners[layer].store(self.forwards, Ordering::Relaxed);
        let owner = Some((Arc::clone(&self.owners), layer, self.forwards));
        Lease { slot: self.slots[layer], kept: self.kept[layer], owner, ..none }
    }

    /// Where the inputs of layers lie; `None` while another step is at work there.
    pub(super) fn places(&self) -> Option<Places> {
        let step = Arc::clone(&self.step);
        let is_free = Arc::strong_count(&step) == 2;
        let (memory, hosted) = (Arc::clone(&self.memory), self.hosted.clone());
        is_free.then(|| Places { memory, inputs: self.inputs, hosted, _step: step })
    }

    /// Bytes of the scratch.
    pub(super) fn scratch_bytes(&self) -> u64 {
        self.scratch_bytes
    }

    fn new(gpu: &Gpu, need: Need, settings: MemorySettings, bus: Option<f64>) -> Result<Self> {
        // What burn's pool keeps for later, for example from prompts that were answered, would be in the way.
        release_unused(gpu)?;
        // Another program may have come meanwhile: what it has is not ours, and not free.
        let (used, on_card) = (own(gpu)?, gpu.memory()?.0 as u64);
        let limit = gpu.cap().limit();
        let allowed = limit.unwrap_or(u64::MAX).min(used + on_card);
        let free = allowed.saturating_sub(used + settings.claimed.bytes);
        let Claim { together, inputs_on_host, .. } = settings.claimed;
        let budget = Budget::new(&need, settings.keep, together, inputs_on_host, free);
        // What was reserved decided how much is kept; others have taken a part of it by now, so that it is not counted
        // against the limit twice.
        let wanted = used + budget.bytes + budget.stream_bytes;
        match limit {
            Some(limit) if wanted > limit => return Err(CudaError::Limit { wanted, allowed: limit }),
            _ if wanted > allowed => return Err(CudaError::Full { wanted: wanted - used, free: on_card }),
            _ => {}
        }
        let Budget { scratch_bytes, inputs, kept, slots, bytes, .. } = budget;
        let kept_from = slots.first().copied().unwrap_or(bytes);
        let memory = Arc::new(DeviceMemory::new(gpu, bytes as usize)?);
        look_beside(gpu)?;
        let hosted = match inputs.host_bytes() {
            0 => None,
            _ => Some(Arc::new(HostedInputs::new(gpu, inputs, bus)?)),
        };
        let count = |kind: Kept| kept.iter().filter(|kept| **kept == kind).count();
        let gib = |n: u64| n as f64 / (1_u64 << 30) as f64;
        let words = format!(
            "{:.2} GiB to work in for {} tokens at once; {:.2} GiB of it keep results for the backward: everything in \
             {} layers, queries keys and values in {}, attention in {}, the input alone in {} (policy {})",
            gib(bytes),
            need.tokens,
            gib(bytes - kept_from),
            count(Kept::Experts),
            count(Kept::Projections),
            count(Kept::Attention),
            count(Kept::Input),
            settings.keep,
        );
        let owners = kept.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self {
            need,
            settings,
            memory,
            scratch_bytes,
            inputs,
            hosted,
            step: Arc::new(()),
            kept,
            words,
            slots,
            owners,
            forwards: 0,
        })
    }

    /// The plan in words.
    pub(super) fn words(&self) -> &str {
        &self.words
    }
}
