//! The ring that streamed experts pass through: slots on the card, each with room for one layer's experts, filled on a
//! stream of their own.
//!
//! ```text
//! host   l0 l1 l2 ...          one copy, pinned where the system lets us
//! bus      l1 ─────▶ slot      while the card computes the layers before it
//! card   ... layer, layer, [l1 in its slot], layer ...
//! ```
//!
//! Everything here runs on CubeCL's thread, between launches, so that its order is the order of the work: whoever uses a
//! slot makes its stream wait for the copy, marks the slot when it is done, and starts the copy of the layer that comes
//! next. A guess about what comes next that turns out wrong costs time and nothing else.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

use super::host::{Half, HostBytes, HostExperts};
use super::slots::{Course, Slots, next};
use crate::DeviceError;
use crate::cuda::{Brake, DeviceMemory, Event, Gpu, OwnStream, Result, Run, copy_from_host, index_of};
use crate::op::experts::matrices::{ExpertData, PackedData};

/// Pieces begin at multiples of this, as kernels and tensor copies want them.
const ALIGNMENT: usize = 256;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Ring {
    layers: Vec<[HostExperts; 2]>,
    slots: Vec<Slot>,
    copies: OwnStream,
    state: Mutex<Slots>,
    /// For measurements as on a slower bus.
    brake: Brake,
}

#[derive(Debug)]
struct Slot {
    memory: DeviceMemory,
    /// The copy is done.
    filled: Event,
    /// Nobody reads it any more.
    left: Event,
}

/// A layer's experts on the card, until they are [left](Ring::leave).
#[derive(Debug)]
pub(crate) struct Entered {
    slot: usize,
    layer: usize,
    pub(crate) gate_up: ExpertData,
    pub(crate) down: ExpertData,
}

impl Entered {
    pub(crate) fn half(&self, half: Half) -> ExpertData {
        match half {
            Half::GateUp => self.gate_up,
            Half::Down => self.down,
        }
    }
}

/// Where the pieces of a layer lie in a slot, those of its first product first, and the slot's length.
fn places(layer: &[HostExperts; 2]) -> (Vec<u64>, usize) {
    let mut end = 0;
    let starts = pieces(layer).map(|bytes| {
        let start = end;
        end = (start + bytes.len()).next_multiple_of(ALIGNMENT);
        start as u64
    });
    (starts.collect(), end)
}

fn pieces(layer: &[HostExperts; 2]) -> impl Iterator<Item = &[u8]> {
    layer.iter().flat_map(|half| half.pieces.iter().map(|bytes| bytes.0.bytes()))
}

impl Ring {
    pub(super) fn new(
        layers: Vec<[HostExperts; 2]>,
        slots: usize,
        device: &Device,
    ) -> std::result::Result<Self, DeviceError> {
        let index = index_of(device).ok_or_else(|| DeviceError::new("experts stream to a card alone"))?;
        let gpu = Gpu::of(index)?;
        gpu.enter()?;
        let (_, bytes) = places(&layers[0]);
        let slot = |_| -> Result<Slot> {
            let memory = DeviceMemory::new(&gpu, bytes)?;
            Ok(Slot { memory, filled: Event::new(false)?, left: Event::new(false)? })
        };
        let slots: Vec<Slot> = (0..slots.clamp(1, layers.len())).map(slot).collect::<Result<_>>()?;
        let state = Slots::new(slots.len());
        Ok(Self {
            layers,
            slots,
            copies: OwnStream::new()?,
            state: Mutex::new(state),
            brake: Brake::default(),
        })
    }

    /// Lets copies take as long as on a bus of so many bytes a second.
    pub(crate) fn slow_down(&self, bytes_per_second: f64) {
        self.brake.set(bytes_per_second);
    }

    fn state(&self) -> MutexGuard<'_, Slots> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the stream wait until the layer is on the card, and says where.
    pub(crate) fn enter(&self, run: &Run<'_>, layer: usize) -> Result<Entered> {
        let mut state = self.state();
        let slot = match state.slot_of(layer) {
            Some(slot) => slot,
            None => self.fill(&mut state, layer)?,
        };
        self.slots[slot].filled.hold(run.stream)?;
        state.touch(slot);
        let first = self.slots[slot].memory.address();
        let addresses: Vec<u64> =
            places(&self.layers[layer]).0.into_iter().map(|start| first + start).collect();
        let [of_gate_up, of_down] = &self.layers[layer];
        let (gate_up, down) = addresses.split_at(of_gate_up.pieces.len());
        let gate_up = ExpertData::Packed(PackedData::new(of_gate_up.packing, gate_up)?);
        let down = ExpertData::Packed(PackedData::new(of_down.packing, down)?);
        Ok(Entered { slot, layer, gate_up, down })
    }

    /// Says that all work that reads the layer is queued, and brings the one that comes next, where there is one. With
    /// `again` the layer itself comes next, and what follows it waits where that would take its slot.
    pub(crate) fn leave(
        &self,
        run: &Run<'_>,
        entered: &Entered,
        course: Option<Course>,
        again: bool,
    ) -> Result<()> {
        // Behind another stream that read it too: whoever waits for one waits for both.
        self.slots[entered.slot].left.hold(run.stream)?;
        self.slots[entered.slot].left.record(run.stream)?;
        if again && self.slots.len() == 1 {
            return Ok(());
        }
        let Some(next) = course.and_then(|course| next(entered.layer, self.layers.len(), course)) else {
            return Ok(());
        };
        let mut state = self.state();
        if state.slot_of(next).is_none() {
            self.fill(&mut state, next)?;
        }
        Ok(())
    }

    /// Where the layer's matrices are read over the bus: for products of few rows, which then read what is chosen alone.
    /// `None` where the host's memory is not pinned, so that the card does not see it.
    pub(crate) fn in_place(&self, layer: usize, half: Half) -> Result<Option<ExpertData>> {
        let HostExperts { packing, pieces, .. } = &self.layers[layer][half as usize];
        let addresses: Option<Vec<u64>> = pieces.iter().map(HostBytes::address).collect();
        let data = addresses.map(|addresses| PackedData::new(*packing, &addresses)).transpose()?;
        Ok(data.map(ExpertData::Packed))
    }

    /// Whether all layers can be [read in place](Self::in_place).
    pub(super) fn is_in_place(&self) -> bool {
        self.layers.iter().flatten().flat_map(|half| &half.pieces).all(|bytes| bytes.address().is_some())
    }

    /// Starts the copy of a layer into the slot that was used longest ago.
    fn fill(&self, state: &mut Slots, layer: usize) -> Result<usize> {
        let slot = state.oldest();
        let to = &self.slots[slot];
        // Nothing is known of the slot until the copy is on its way.
        state.empty(slot);
        to.left.hold(self.copies.0)?;
        let (starts, length) = places(&self.layers[layer]);
        self.brake.begin(&self.copies)?;
        for (start, bytes) in starts.into_iter().zip(pieces(&self.layers[layer])) {
            copy_from_host(self.copies.0, to.memory.address() + start, bytes)?;
        }
        self.brake.end(&self.copies, length)?;
        to.filled.record(self.copies.0)?;
        state.put(slot, layer);
        Ok(slot)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Copies read the host's memory and write the slots: both end with the ring.
        let _ = self.copies.wait();
    }
}
