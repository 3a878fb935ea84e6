//! The inputs of a step's layers where a card has no room for all of them: those that are not needed soon lie in host
//! memory, pinned where the system lets us, and come back before the backward asks for them.
//!
//! ```text
//! forward   layer l writes the input of l + 1 ──▶ host        while the layers above compute
//! backward  layer l is done with its input    ◀── host        that of l - depth, into the same place
//! ```
//!
//! As with a [`Ring`](super::ring::Ring) everything runs on CubeCL's thread, between launches, so that its order is the
//! order of the work. A place on the card is written when what was there is on the host, and read when it has arrived.

use crate::cuda::{Brake, Event, Gpu, HostRoom, OwnStream, Result, Run, Stream};
use crate::memory::inputs::Inputs;

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct HostedInputs {
    of: Inputs,
    host: HostRoom,
    copies: OwnStream,
    /// Of each layer's place on the card, batch after batch.
    places: Vec<Place>,
    /// For measurements as on a slower bus.
    brake: Brake,
}

#[derive(Debug)]
struct Place {
    /// The card is done with what a copy reads or overwrites.
    used: Event,
    /// The last copy to or from it is done.
    copied: Event,
}

impl HostedInputs {
    /// Room for those of `of` that do not stay on the card.
    pub(crate) fn new(gpu: &Gpu, of: Inputs, bytes_per_second: Option<f64>) -> Result<Self> {
        let host = HostRoom::new(gpu, of.host_bytes() as usize)?;
        if let Some(why) = host.refusal() {
            let gigabytes = of.host_bytes() as f64 / 1e9;
            tracing::warn!(
                "inputs of layers ({gigabytes:.2} GB) wait for the backward in host memory that is not pinned ({why}): \
                 steps are slower, results are the same"
            );
        }
        let place = |_| Ok(Place { used: Event::new(false)?, copied: Event::new(false)? });
        let places = (0..of.depth * of.batches).map(place).collect::<Result<_>>()?;
        let brake = Brake::default();
        if let Some(rate) = bytes_per_second {
            brake.set(rate);
        }
        Ok(Self { of, host, copies: OwnStream::new()?, places, brake })
    }

    fn place(&self, layer: usize, batch: usize) -> &Place {
        &self.places[layer % self.of.depth * self.of.batches + batch]
    }

    /// To be called before the place of a layer's input is read in the backward, or written.
    pub(crate) fn enter(&self, run: &Run<'_>, layer: usize, batch: usize) -> Result<()> {
        if layer < self.of.layers { self.place(layer, batch).copied.hold(run.stream) } else { Ok(()) }
    }

    /// Says that the input of a layer is written by what is queued. `memory` is where the memory on the card begins.
    pub(crate) fn wrote(
        &self,
        run: &Run<'_>,
        memory: u64,
        layer: usize,
        batch: usize,
        bytes: usize,
    ) -> Result<()> {
        let Some(to) = self.of.on_host(layer, batch) else { return Ok(()) };
        let from = memory + self.of.at(layer, batch);
        let copy = |stream| self.host.copy_out(stream, to, from, bytes);
        self.copy(run, self.place(layer, batch), bytes, copy)
    }

    /// Says that what is queued was the last to read the input of a layer, whose place the input of an earlier layer gets.
    pub(crate) fn left(
        &self,
        run: &Run<'_>,
        memory: u64,
        layer: usize,
        batch: usize,
        bytes: usize,
    ) -> Result<()> {
        let Some(earlier) = layer.checked_sub(self.of.depth) else { return Ok(()) };
        let Some(from) = self.of.on_host(earlier, batch) else { return Ok(()) };
        let to = memory + self.of.at(earlier, batch);
        let copy = |stream| self.host.copy_in(stream, to, from, bytes);
        self.copy(run, self.place(earlier, batch), bytes, copy)
    }

    fn copy(
        &self,
        run: &Run<'_>,
        place: &Place,
        bytes: usize,
        copy: impl FnOnce(Stream) -> Result<()>,
    ) -> Result<()> {
        place.used.record(run.stream)?;
        place.used.hold(self.copies.0)?;
        self.brake.begin(&self.copies)?;
        copy(self.copies.0)?;
        self.brake.end(&self.copies, bytes)?;
        place.copied.record(self.copies.0)
    }
}

impl Drop for HostedInputs {
    fn drop(&mut self) {
        // Copies read and write the host's memory, which ends with this.
        let _ = self.copies.wait();
    }
}
