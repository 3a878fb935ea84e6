//! What a device has before a run, and how much of it may be planned for.

use anyhow::Result;
use burn::tensor::Device;
use descant_kernels::{Keep, gauge};
use descant_model::Config;
use descant_train::Experts;
use descant_train::memory::{Arrangement, Memory, NoFp8, Place, arrange, check_fp8};

use super::refusal::refusal;
use crate::command::host_memory::{available, resident};
use crate::command::load::Chosen;
use crate::gpus::{Card, HOPPER};
use crate::settings::Settings;
use crate::words::size;

/// Why a card that is here does not take Hopper's kernels.
const OTHER: &str = "this GPU has another compute capability, or portable kernels were asked for";

/// What a device has, before a run.
pub(crate) struct Found {
    /// What the process used before; on a card, what was in use there.
    pub(crate) held: u64,
    pub(super) free: Option<u64>,
    /// Bytes that may be planned for.
    pub(super) may: Option<u64>,
    /// Bytes that may lie on the host.
    pub(crate) host: Option<u64>,
    /// The card, where it is here.
    pub(super) card: Option<Device>,
    /// Bytes a second of its bus, where the card is not here and the rate is known.
    pub(super) bus: Option<f64>,
    /// For an estimate.
    pub(crate) place: Place,
    /// Why it is a card that does not take Hopper's kernels, where it does not.
    other: Option<String>,
    /// Processes that share the run.
    pub(super) workers: usize,
}

impl Found {
    /// Refuses what cannot do with what there is.
    pub(crate) fn refuse(&self, needs: &Memory, device: &Chosen) -> Result<()> {
        self.refuse_with(needs, device, "raise --memory, or use fewer or shorter sequences at once")
    }

    pub(super) fn refuse_with(&self, needs: &Memory, device: &Chosen, advice: &str) -> Result<()> {
        if self.fits(needs) { Ok(()) } else { Err(refusal(needs, self.free, device, advice)) }
    }

    pub(super) fn fits(&self, needs: &Memory) -> bool {
        self.may.is_none_or(|may| needs.least() <= may)
    }

    /// How steps of so many micro-batches are laid out so that what `needs` says fits, if it can, with so many bytes of
    /// the host at most.
    pub(crate) fn arranged(
        &self,
        config: &Config,
        micro_batches: usize,
        host: Option<u64>,
        needs: impl FnMut(Place) -> Result<Memory>,
    ) -> Result<(Arrangement, Memory)> {
        arrange(config, self.place, micro_batches, host, needs, |needs| self.fits(needs))
    }

    /// Refuses numbers that no kernel of the device multiplies experts with, where things are arranged so.
    pub(crate) fn check_experts(
        &self,
        config: &Config,
        experts: Experts,
        arrangement: Arrangement,
    ) -> Result<()> {
        match experts {
            Experts::Bf16 => Ok(()),
            Experts::Fp8 => {
                Ok(self.check_fp8(Some(config), arrangement).map_err(|refused| refused.of_settings())?)
            }
        }
    }

    /// The same of fp8 alone, for one who asks for it elsewhere than in settings; the model may be unknown.
    pub(crate) fn check_fp8(
        &self,
        config: Option<&Config>,
        arrangement: Arrangement,
    ) -> std::result::Result<(), NoFp8> {
        check_fp8(config, self.place.with(arrangement), self.other.as_deref())
    }

    /// What to do where only the host's memory lacks for what `needs` says.
    pub(super) fn lacking_on_host(&self, needs: &Memory) -> String {
        format!(
            "the card would do: {} are to lie in the host's memory, which has {} available (MemAvailable and the limit of \
             this process's group, without swap); free host memory or raise the container's limit",
            size(needs.on_host),
            size(self.host.unwrap_or(0))
        )
    }

    /// The same for one of so many processes that share a run, of which so many share this host's memory.
    pub(crate) fn among(self, workers: usize, of_host: usize) -> Self {
        let part = |bytes: Option<u64>| bytes.map(|bytes| bytes / of_host.max(1) as u64);
        let on_cpu = matches!(self.place, Place::Cpu { .. });
        let (free, may) = if on_cpu { (part(self.free), part(self.may)) } else { (self.free, self.may) };
        Self { free, may, host: part(self.host), workers, ..self }
    }

    /// Asks the device, with what the settings say of it.
    pub(crate) fn by(settings: &Settings, device: &Chosen) -> Result<Self> {
        let (limit, keep) = settings.memory.limit_and_keep()?;
        Ok(Self::on(device, limit, keep))
    }

    /// A card that is not here, of so many bytes, by its name where that was said.
    pub(crate) fn imagined(bytes: u64, limit: Option<u64>, keep: Keep, card: Option<&Card>) -> Self {
        let held = gauge::CONTEXT.min(bytes);
        let other = card.filter(|card| card.capability != HOPPER).map(|card| {
            let (major, minor) = card.capability;
            format!("the {} has compute capability {major}.{minor}", card.name)
        });
        // Which card it is nobody knows; the larger of both layouts fits either.
        let found = Self::of_card(held, Some(bytes - held), limit, keep, true);
        Self { bus: card.map(Card::bus), other, ..found }
    }

    /// A card, here or not, where so many bytes are in use and so many free.
    fn of_card(held: u64, free: Option<u64>, limit: Option<u64>, keep: Keep, in_order: bool) -> Self {
        let limit = limit.map(|limit| limit.saturating_sub(held));
        // The layers keep to a limit on their own.
        let may = [free.map(share), limit].into_iter().flatten().min();
        let free = [free, limit].into_iter().flatten().min();
        let arrangement = Arrangement::default();
        let place = Place::Card { free: free.unwrap_or(0), keep, in_order, arrangement };
        Self { held, free, may, host: None, card: None, bus: None, place, other: None, workers: 1 }
    }

    /// Asks the device.
    pub(crate) fn on(device: &Chosen, limit: Option<u64>, keep: Keep) -> Self {
        if descant_kernels::is_cpu(&device.device) {
            let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let held = resident("VmRSS").unwrap_or(0);
            let limit = limit.map(|limit| limit.saturating_sub(held));
            let free = [available(), limit].into_iter().flatten().min();
            let place = Place::Cpu { threads };
            return Self {
                held,
                free,
                may: free.map(share),
                host: None,
                card: None,
                bus: None,
                place,
                other: None,
                workers: 1,
            };
        }
        let held = gauge::memory_in_use(&device.device).unwrap_or(0);
        let in_order = descant_kernels::wants_rows_in_order(&device.device);
        let found = Self::of_card(held, device.free(), limit, keep, in_order);
        let other = (!in_order).then(|| OTHER.to_owned());
        Self { host: available().map(share), card: Some(device.device.clone()), other, ..found }
    }
}

/// What may be planned for of so many bytes that are free.
fn share(bytes: u64) -> u64 {
    (gauge::FREE_SHARE * bytes as f64) as u64
}

/// Most memory that this process ever used; on a card, what is in use there now, which grows to its most within a few
/// steps. Nothing where the system does not report it.
pub(crate) fn in_use(device: &Chosen) -> Option<u64> {
    if descant_kernels::is_cpu(&device.device) {
        return resident("VmHWM");
    }
    gauge::memory_in_use(&device.device)
}
