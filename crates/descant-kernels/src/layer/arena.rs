//! The memory that layers work in: one piece of scratch that all of them use in turn, and a slot a layer for what its
//! forward keeps.
//!
//! There is one arena a card, allocated when the first layer runs and again when a longer batch comes. It is not of
//! burn's pool: its pages would grow to the largest piece, and it would not know what may be planned. A slot belongs
//! to the last forward that took it; a backward that comes later finds its lease outdated and runs the layer again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Budget, Need};
use super::layout::Paths;
use super::plan::Kept;
use crate::cuda::{DeviceMemory, Gpu, Result, Run, poison};
use crate::memory::MemorySettings;

#[derive(Debug)]
struct Arena {
    need: Need,
    settings: MemorySettings,
    memory: Arc<DeviceMemory>,
    scratch_bytes: u64,
    kept: Vec<Kept>,
    /// The plan in words.
    words: String,
    /// Where each layer's slot begins, behind the scratch.
    slots: Vec<u64>,
    /// Which forward has each slot.
    owners: Arc<[AtomicU64]>,
}

/// The right to use the scratch, and a slot.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    memory: Arc<DeviceMemory>,
    scratch_bytes: u64,
    slot: u64,
    /// What the slot has room for.
    pub(super) kept: Kept,
    owner: Option<(Arc<[AtomicU64]>, usize, u64)>,
}

static ARENAS: Mutex<BTreeMap<usize, Arena>> = Mutex::new(BTreeMap::new());
static OWNERS: AtomicU64 = AtomicU64::new(1);

/// Where batches grow, memory is laid out anew for one that is longer by this part, so that it is not done for every
/// few tokens more: it waits for the card.
const ROOM: usize = 8;

/// How many tokens to lay memory out for: those that are needed, and some more where fewer were enough before.
fn with_room(need: &Need, before: Option<&Need>) -> usize {
    let grows = before.is_some_and(|old| old.sizes == need.sizes && old.tokens < need.tokens);
    if grows { need.tokens + need.tokens / ROOM } else { need.tokens }
}

/// The memory for a layer. With `keep` the layer's slot is taken from whoever had it; without, only scratch.
pub(super) fn lease(gpu: &Gpu, need: &Need, layer: usize, keep: bool) -> Result<Lease> {
    let settings = crate::memory::settings_of_card(gpu.index());
    let mut arenas = ARENAS.lock().unwrap_or_else(PoisonError::into_inner);
    let serves = |arena: &Arena| {
        let (have, want) = (&arena.need, need);
        arena.settings == settings
            && have.tokens >= want.tokens
            && have.sizes == want.sizes
            && have.windows == want.windows
            && have.in_order == want.in_order
            && (have.paths == want.paths || !keep && want.paths == Paths::default())
    };
    if !arenas.get(&gpu.index()).is_some_and(serves) {
        // The old one goes first: both may not fit.
        let before = arenas.remove(&gpu.index()).map(|old| old.need);
        let roomy = Need { tokens: with_room(need, before.as_ref()), ..need.clone() };
        let arena = Arena::new(gpu, roomy, settings).or_else(|_| Arena::new(gpu, need.clone(), settings))?;
        arenas.insert(gpu.index(), arena);
    }
    let arena = &arenas[&gpu.index()];
    let memory = Arc::clone(&arena.memory);
    if !keep {
        return Ok(Lease {
            memory,
            scratch_bytes: arena.scratch_bytes,
            slot: 0,
            kept: Kept::Input,
            owner: None,
        });
    }
    let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
    arena.owners[layer].store(owner, Ordering::Relaxed);
    Ok(Lease {
        memory,
        scratch_bytes: arena.scratch_bytes,
        slot: arena.slots[layer],
        kept: arena.kept[layer],
        owner: Some((Arc::clone(&arena.owners), layer, owner)),
    })
}

/// The scratch that layers share on a card, and its bytes, for an operator that runs between them; none before the
/// first layer ran.
pub(crate) fn scratch(gpu: &Gpu) -> Option<(Arc<DeviceMemory>, u64)> {
    let arenas = ARENAS.lock().unwrap_or_else(PoisonError::into_inner);
    arenas.get(&gpu.index()).map(|arena| (Arc::clone(&arena.memory), arena.scratch_bytes))
}

/// The plan in force on a card, in words; none before the first layer ran.
pub(crate) fn words(index: usize) -> Option<String> {
    let arenas = ARENAS.lock().unwrap_or_else(PoisonError::into_inner);
    arenas.get(&index).map(|arena| arena.words.clone())
}

impl Lease {
    /// Whether what was kept is still there.
    pub(super) fn is_current(&self) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|(owners, layer, owner)| owners[*layer].load(Ordering::Relaxed) == *owner)
    }

    pub(super) fn scratch_address(&self) -> u64 {
        self.memory.address()
    }

    /// Overwrites the scratch where buffers are poisoned: what a layer reads there, it has to write first.
    pub(super) fn poison_scratch(&self, run: &Run<'_>) -> Result<()> {
        poison(run, self.scratch_address(), self.scratch_bytes as usize)
    }

    pub(super) fn kept_address(&self) -> u64 {
        self.memory.address() + self.slot
    }
}

impl Arena {
    fn new(gpu: &Gpu, need: Need, settings: MemorySettings) -> Result<Self> {
        let (free, total) = gpu.memory()?;
        let used = (total - free) as u64;
        let allowed = settings.limit.unwrap_or(total as u64).min(total as u64);
        let budget = Budget::new(&need, settings.keep, allowed.saturating_sub(used + settings.reserved));
        let Budget { scratch_bytes, kept, slots, bytes, .. } = budget;
        let memory = Arc::new(DeviceMemory::new(gpu, bytes as usize)?);
        let count = |kind: Kept| kept.iter().filter(|kept| **kept == kind).count();
        let gib = |n: u64| n as f64 / (1_u64 << 30) as f64;
        let words = format!(
            "{:.2} GiB to work in for {} tokens at once; {:.2} GiB of it keep results for the backward: everything in \
             {} layers, queries keys and values in {}, attention in {}, the input alone in {} (policy {})",
            gib(bytes),
            need.tokens,
            gib(bytes - scratch_bytes),
            count(Kept::Experts),
            count(Kept::Projections),
            count(Kept::Attention),
            count(Kept::Input),
            settings.keep,
        );
        let owners = kept.iter().map(|_| AtomicU64::new(0)).collect();
        Ok(Self { need, settings, memory, scratch_bytes, kept, words, slots, owners })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::LayerSizes;

    #[test]
    fn a_batch_that_grows_gets_room_and_one_that_comes_first_gets_what_it_needs() {
        let sizes = LayerSizes {
            hidden: 64,
            query: 64,
            key_value: 32,
            n_heads: 4,
            n_experts: 4,
            top_k: 2,
            inner: 64,
        };
        let (paths, windows) = (Paths::default(), Arc::from([]));
        let need = Need { sizes, paths, tokens: 0, longest: 9, in_order: false, windows };
        let of = |tokens| Need { tokens, ..need.clone() };
        assert_eq!(with_room(&of(800), None), 800);
        assert_eq!(with_room(&of(800), Some(&of(790))), 900);
        assert_eq!(with_room(&of(800), Some(&of(801))), 800, "other paths, no growth");
        let other = Need { sizes: LayerSizes { hidden: 96, ..sizes }, ..of(10) };
        assert_eq!(with_room(&of(800), Some(&other)), 800, "another model");
    }
}
