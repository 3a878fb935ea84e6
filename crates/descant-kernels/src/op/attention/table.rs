//! The work lists of a batch on the card.
//!
//! All layers of a step go over the same sequences, and they are asked for layer by layer: the last few batches'
//! lists stay on the card, for each thread its own, because a thread is a stream, and what one stream uploads
//! another would have to wait for. The lists themselves are made at the first launch, which knows how many
//! positions a tile has.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::tensor::Device;
use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::segments::Segments;
use super::strips;
use super::tiles::{self, Split};
use crate::cuda::geometry::{KEY_ROWS, MAX_GROUP, QUERY_ROWS, STRIP_KEYS, TILE_INTS};
use crate::cuda::{self, Result, Run};

/// Batches that a thread remembers: training's and evaluation's, and one in between.
const KEPT: usize = 4;
/// Positions of the smallest tile of queries.
const LEAST_POSITIONS: usize = QUERY_ROWS / MAX_GROUP;
const _: () = assert!(tiles::ENTRY == TILE_INTS, "the lists are what the kernels read");
const _: () = assert!(KEY_ROWS / tiles::MOST_SPLIT <= STRIP_KEYS, "there is room for the shortest strips");

thread_local! {
    static TABLES: RefCell<Vec<Table>> = const { RefCell::new(Vec::new()) };
}

/// A batch's sequences, and the memory of its work lists; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    segments: Segments,
    tensor: CubeTensor,
    /// Of a place, at most.
    entries: usize,
    filled: Arc<Mutex<[Option<Lists>; PLACES]>>,
}

/// Pairs of lists that a table has room for: layers that see everything and those with a window split keys differently.
const PLACES: usize = 2;

/// What lies at a place of a table's memory: the list of queries, then that of keys.
#[derive(Debug, Clone, Copy)]
struct Lists {
    positions: usize,
    split: Split,
    n_queries: usize,
    n_keys: usize,
}

impl Table {
    /// Of a batch, on a card; the one of the last time where this thread still has it.
    pub(crate) fn of(segments: &Segments, device: &Device<CubeBackend>) -> Self {
        TABLES.with_borrow_mut(|tables| {
            let known = tables.iter().position(|t| t.segments == *segments && t.tensor.device == *device);
            let table = if let Some(place) = known {
                tables.remove(place)
            } else {
                let entries = tiles::at_most(segments, LEAST_POSITIONS, KEY_ROWS / tiles::MOST_SPLIT).max(1);
                let tensor = cuda::empty([PLACES * entries * tiles::ENTRY], DType::I32, device);
                Self { segments: segments.clone(), tensor, entries, filled: Arc::default() }
            };
            tables.truncate(KEPT - 1);
            tables.insert(0, table.clone());
            table
        })
    }

    /// The memory, for the handles of a closure.
    pub(crate) fn tensor(&self) -> &CubeTensor {
        &self.tensor
    }

    /// With the address that the memory has inside a closure.
    pub(crate) fn at(&self, address: u64) -> Sequences {
        Sequences { table: self.clone(), address }
    }

    /// Keys of the longest sequence.
    pub(crate) fn longest(&self) -> usize {
        self.segments.as_slice().iter().map(|s| s.key_len).max().unwrap_or(0)
    }
}

/// A batch's sequences inside a closure.
#[derive(Debug)]
pub(crate) struct Sequences {
    table: Table,
    address: u64,
}

/// Addresses and lengths of the lists.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) queries: u64,
    pub(crate) n_queries: usize,
    pub(crate) keys: u64,
    pub(crate) n_keys: usize,
}

impl Sequences {
    /// The lists for tiles of so many positions, and of keys as they are split; brought to the card where they are not
    /// there yet.
    pub(crate) fn work(&self, run: &Run<'_>, positions: usize, split: Split) -> Result<Work> {
        let bytes = |entries: usize| (entries * tiles::ENTRY * size_of::<i32>()) as u64;
        let mut filled = self.table.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let is = |lists: &Option<Lists>| {
            lists.is_some_and(|lists| (lists.positions, lists.split) == (positions, split))
        };
        let free = || filled.iter().position(Option::is_none).unwrap_or(0);
        let place = filled.iter().position(is).unwrap_or_else(free);
        let address = self.address + bytes(place * self.table.entries);
        let lists = match filled[place] {
            Some(lists) if is(&Some(lists)) => lists,
            _ => {
                let mut all = tiles::of_queries(&self.table.segments, positions);
                let n_queries = all.len() / tiles::ENTRY;
                all.extend(match split {
                    Split::Strips { blocks } => strips::of_blocks(&self.table.segments, blocks),
                    _ => tiles::of_keys(&self.table.segments, KEY_ROWS, split),
                });
                let n_keys = all.len() / tiles::ENTRY - n_queries;
                let raw: Vec<u8> = all.iter().flat_map(|n| n.to_le_bytes()).collect();
                run.upload(address, &raw)?;
                *filled[place].insert(Lists { positions, split, n_queries, n_keys })
            }
        };
        let Lists { n_queries, n_keys, .. } = lists;
        Ok(Work { queries: address, n_queries, keys: address + bytes(n_queries), n_keys })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.table.segments.as_slice().len()
    }

    /// Pairs of a query and a key that it sees, for counting operations.
    pub(crate) fn visible(&self, window: Option<usize>) -> f64 {
        tiles::visible(&self.table.segments, window)
    }
}
