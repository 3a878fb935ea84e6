//! What an enqueued closure can do: kernels, products and copies on burn's stream.

use super::args::{Arg, Extent};
use super::blas::Products;
use super::driver::{self, Stream};
use super::error::Result;
use super::event::Event;
use super::gpu::Gpu;
use super::launch::{Function, launch};
use super::recorder::Recorded;
use super::store::Choices;
use super::table::Define;

/// The inside of an enqueued closure: everything here puts work on burn's stream.
pub struct Run<'a> {
    pub(super) gpu: &'a Gpu,
    pub(crate) stream: Stream,
    pub(super) choices: Option<&'a Choices>,
}

impl Run<'_> {
    /// The card.
    pub fn gpu(&self) -> &Gpu {
        self.gpu
    }

    /// The same, with another stream.
    pub(crate) fn on(&self, stream: Stream) -> Run<'_> {
        Run { gpu: self.gpu, stream, choices: self.choices }
    }

    /// The kernel `entry` of the file `unit` with these constants; compiled at first use.
    ///
    /// # Errors
    /// It is not in the table, does not compile, or there is no compiler.
    pub fn kernel(
        &self,
        unit: &'static str,
        entry: &'static str,
        defines: &[Define],
    ) -> Result<&'static Function> {
        self.gpu.compiled().get(self.gpu.architecture(), unit, entry, defines)
    }

    /// Launches a kernel; nothing at all for an empty grid.
    ///
    /// # Errors
    /// The arguments are not the kernel's, or the driver refuses.
    pub(crate) fn launch(
        &self,
        function: &Function,
        grid: impl Into<Extent>,
        block: impl Into<Extent>,
        shared_bytes: u32,
        arguments: &[Arg],
    ) -> Result<()> {
        launch(self.stream, function, grid.into(), block.into(), shared_bytes, arguments, false)
    }

    /// The same for a kernel that waits by itself for the one before (`step.cuh`): where the card can, it may start
    /// while that is still at work.
    pub(crate) fn launch_early(
        &self,
        function: &Function,
        grid: impl Into<Extent>,
        block: impl Into<Extent>,
        shared_bytes: u32,
        arguments: &[Arg],
    ) -> Result<()> {
        let can = self.gpu.is_hopper();
        launch(self.stream, function, grid.into(), block.into(), shared_bytes, arguments, can)
    }

    /// Matrix products.
    pub(crate) fn blas(&self) -> Products<'_> {
        self.gpu.products().on(self.gpu.name(), self.stream, self.choices)
    }

    /// Sets bytes.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) fn memset(&self, to: u64, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { driver::memset(self.stream, to, value, bytes) }
    }

    /// Copies on the device.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if bytes == 0 { Ok(()) } else { driver::copy(self.stream, to, from, bytes) }
    }

    /// Copies small host data, for example a list of segments; the source may go right after.
    ///
    /// # Errors
    /// The driver refuses.
    pub(crate) fn upload(&self, to: u64, from: &[u8]) -> Result<()> {
        if from.is_empty() { Ok(()) } else { driver::copy_from_host(self.stream, to, from) }
    }

    /// Does `work`, a part of an operator that has so many operations to do and bytes to move at least.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn stage(
        &self,
        name: &'static str,
        flops: f64,
        bytes: f64,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.gpu().recorder().with(|recorded| recorded.is_none()) {
            return work();
        }
        let (start, end) = (Event::new(true)?, Event::new(true)?);
        start.record(self.stream)?;
        work()?;
        end.record(self.stream)?;
        self.gpu().recorder().with(|recorded| {
            if let Some(recorded) = recorded {
                recorded.push(Recorded { name, flops, bytes, start, end });
            }
        });
        Ok(())
    }
}
