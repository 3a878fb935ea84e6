//! Gradients from card to card, by NCCL.

use anyhow::{Context as _, Result};
use burn::tensor::{Device, Tensor};
use descant_kernels::DeviceError;
use descant_kernels::cuda::{CudaError, nccl};
use descant_train::Link;
use descant_workers::{Group, Wait};

use crate::failure::Hinted;

/// The cards of a group's processes, connected.
#[derive(Debug)]
pub(super) struct OverNccl(nccl::CardGroup);

impl OverNccl {
    /// Connects this process's card with the others'.
    pub(super) fn connect(group: &Group, device: &Device) -> Result<Self> {
        let hinted = |error: CudaError| -> anyhow::Error {
            match error.hint() {
                Some(hint) => Hinted::new(error, hint).into(),
                None => error.into(),
            }
        };
        let version = nccl::version().map_err(hinted)?;
        // Other versions speak otherwise with each other.
        group.agree("nccl", &vec![("NCCL".to_owned(), version)], Wait::Long)?;
        let id = if group.is_first() { nccl::new_group().map_err(hinted)? } else { Vec::new() };
        let id = group.broadcast("nccl id", 0, id, Wait::Long)?;
        let joined = nccl::CardGroup::join(device, &id, group.rank(), group.world()).map_err(hinted);
        Ok(Self(joined.context("connect the cards")?))
    }
}

impl Link for OverNccl {
    fn exchange(
        &self,
        sent: Vec<(usize, Option<Tensor<3>>)>,
        numbers: usize,
        _: &Device,
    ) -> descant_train::Result<Vec<Tensor<3>>> {
        Ok(self.0.exchange(sent, numbers).map_err(DeviceError::from)?)
    }

    fn finish(&self) -> descant_train::Result<()> {
        Ok(self.0.finish().map_err(DeviceError::from)?)
    }
}
