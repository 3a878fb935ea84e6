//! Several documents in one sequence, without padding and without leaking into each other.
//!
//! ```text
//! ids       | a0 a1 a2 | b0 b1 | c0 c1 c2 c3 |
//! targets   | a1 a2  - | b1  - | c1 c2 c3  - |     the last token of a document predicts nothing
//! positions |  0  1  2 |  0  1 |  0  1  2  3 |
//! borders   0          3       5             9     cumulative, for attention that stays inside a document
//! ```
//!
//! Targets are shifted here, once, so that no later shift can pair the end of one document with the start of the next.
//! Bins are filled best fit, longest document first; ties go to the earlier document and the earlier bin, so the result
//! is a function of the lengths alone.

use crate::error::{Error, Result};
use crate::examples::order::Order;
use std::collections::{BTreeMap, BTreeSet};

/// The target of a token that predicts nothing; the number that every trainer of this family uses.
pub const IGNORE: i32 = -100;

/// Documents in one sequence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packed {
    /// Indices of the documents, in their order here.
    pub documents: Vec<usize>,
    /// Their tokens, one after the other.
    pub ids: Vec<u32>,
    /// For each token the next one of its document, or [`IGNORE`] where that one is not trained or there is none.
    pub targets: Vec<i32>,
    /// What each target counts for; 0 where it is ignored.
    pub weights: Vec<f32>,
    /// The position of each token in its document.
    pub positions: Vec<u32>,
    /// Where documents begin, and the end: one more than there are documents.
    pub borders: Vec<u32>,
}

impl Packed {
    /// Packs documents, each with the loss weight of every token of it.
    pub fn new<'d>(documents: impl IntoIterator<Item = (usize, &'d [u32], &'d [f32])>) -> Self {
        let mut packed = Self { borders: vec![0], ..Self::default() };
        for (index, ids, weights) in documents {
            packed.documents.push(index);
            packed.ids.extend(ids);
            packed.positions.extend(0..ids.len() as u32);
            for at in 0..ids.len() {
                let next = ids.get(at + 1).zip(weights.get(at + 1)).filter(|(_, weight)| **weight > 0.0);
                packed.targets.push(next.map_or(IGNORE, |(id, _)| *id as i32));
                packed.weights.push(next.map_or(0.0, |(_, weight)| *weight));
            }
            packed.borders.push(packed.ids.len() as u32);
        }
        packed
    }
}

/// Puts documents of these lengths into as few bins of `capacity` as best fit finds. Bins come in the order of their
/// first document, and so do the documents in a bin.
///
/// # Errors
/// [`Error::TooLong`] for a document that no bin can hold.
pub fn best_fit(lengths: &[usize], capacity: usize) -> Result<Vec<Vec<usize>>> {
    let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
    longest_first.sort_by_key(|document| std::cmp::Reverse(lengths[*document]));
    let mut bins: Vec<Vec<usize>> = Vec::new();
    // Bins by the room that is left in them.
    let mut by_room: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for document in longest_first {
        let tokens = lengths[document];
        if tokens > capacity {
            return Err(Error::TooLong { tokens, limit: capacity });
        }
        let tightest = by_room.range(tokens..).next().and_then(|(room, bins)| Some((*room, *bins.first()?)));
        let (room, bin) = tightest.unwrap_or((capacity, bins.len()));
        if tightest.is_some() {
            if let Some(same_room) = by_room.get_mut(&room) {
                same_room.remove(&bin);
                if same_room.is_empty() {
                    by_room.remove(&room);
                }
            }
        } else {
            bins.push(Vec::new());
        }
        bins[bin].push(document);
        by_room.entry(room - tokens).or_default().insert(bin);
    }
    for bin in &mut bins {
        bin.sort_unstable();
    }
    bins.sort_unstable();
    Ok(bins)
}

/// The bins of one epoch: documents in the epoch's order, packed, the bins then in a seeded order of their own, since
/// best fit leaves those with many short documents in front. Depends on the seed, the epoch and the lengths alone.
///
/// # Errors
/// As [`best_fit`].
pub fn epoch_bins(
    order: &mut Order,
    epoch: u64,
    lengths: &[usize],
    capacity: usize,
) -> Result<Vec<Vec<usize>>> {
    let first = epoch * order.rows() as u64;
    let shuffled: Vec<usize> =
        (first..first + order.rows() as u64).map(|position| order.index_at(position)).collect();
    let shuffled_lengths: Vec<usize> =
        shuffled.iter().map(|document| lengths.get(*document).copied().unwrap_or(0)).collect();
    let bins = best_fit(&shuffled_lengths, capacity)?;
    let bins = bins.into_iter().map(|bin| bin.into_iter().map(|at| shuffled[at]).collect()).collect();
    Ok(order.shuffle_bins(epoch, bins))
}

/// Packed sequences in a seeded order, epoch after epoch without end; as [`Order`], with bins in place of rows.
///
/// Every epoch packs again, so that documents meet other neighbours, and has equally many bins: how many best fit needs
/// follows from the lengths alone, and only documents of equal length change places between epochs' packings.
#[derive(Clone, Debug)]
pub struct PackedOrder {
    order: Order,
    lengths: Vec<usize>,
    capacity: usize,
    bins: usize,
    current: (u64, Vec<Vec<usize>>),
}

impl PackedOrder {
    /// An order over bins of `capacity` tokens that documents of these lengths are packed into.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a document that no bin can hold; [`Error::NoDocuments`] without any.
    pub fn shuffled(lengths: Vec<usize>, capacity: usize, seed: u64) -> Result<Self> {
        let mut order = Order::shuffled(lengths.len(), seed).ok_or(Error::NoDocuments)?;
        let first = epoch_bins(&mut order, 0, &lengths, capacity)?;
        Ok(Self { order, lengths, capacity, bins: first.len(), current: (0, first) })
    }

    /// How many bins an epoch has.
    pub fn bins(&self) -> usize {
        self.bins
    }

    /// The documents of the bin at a position. Costs one packing when the epoch changes, and a look-up otherwise.
    ///
    /// # Errors
    /// None after [`PackedOrder::shuffled`] succeeded: every document fits.
    pub fn bin_at(&mut self, position: u64) -> Result<&[usize]> {
        let epoch = position / self.bins as u64;
        if self.current.0 != epoch {
            let bins = epoch_bins(&mut self.order, epoch, &self.lengths, self.capacity)?;
            self.current = (epoch, bins);
        }
        let within = (position % self.bins as u64) as usize;
        Ok(self.current.1.get(within).map_or(&[], Vec::as_slice))
    }
}
