//! Which row comes at which position, from a seed alone.
//!
//! A run's place in its data is one number. Position `p` belongs to epoch `p / rows`; each epoch is a permutation drawn
//! from the seed and the epoch's number, so nothing has to be replayed to resume: seeking costs one permutation,
//! however far. The shuffle is written out here because library shuffles change between versions, and a data order
//! that changes with an update is a run that cannot be repeated.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A seeded order over rows, epoch after epoch without end.
#[derive(Clone, Debug)]
pub struct Order {
    rows: usize,
    seed: u64,
    shuffle: bool,
    /// The permutation in use and its epoch.
    current: Option<(u64, Vec<u32>)>,
}

impl Order {
    /// An order over `rows` rows; `None` for no rows, or more than `u32` can count.
    pub fn shuffled(rows: usize, seed: u64) -> Option<Self> {
        Self::new(rows, seed, true)
    }

    /// The rows as they come, again and again; `None` as for [`Order::shuffled`].
    pub fn sequential(rows: usize) -> Option<Self> {
        Self::new(rows, 0, false)
    }

    fn new(rows: usize, seed: u64, shuffle: bool) -> Option<Self> {
        (rows > 0 && u32::try_from(rows).is_ok()).then_some(Self { rows, seed, shuffle, current: None })
    }

    /// How many rows an epoch has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The epoch of a position.
    pub fn epoch_of(&self, position: u64) -> u64 {
        position / self.rows as u64
    }

    /// The row at a position. Costs one permutation when the epoch changes, and a look-up otherwise.
    pub fn index_at(&mut self, position: u64) -> usize {
        let within = (position % self.rows as u64) as usize;
        if !self.shuffle {
            return within;
        }
        let epoch = self.epoch_of(position);
        let (_, permutation) = match self.current.take() {
            Some(current) if current.0 == epoch => self.current.insert(current),
            _ => self.current.insert((epoch, permutation(self.rows, epoch_key(ROWS, self.seed, epoch)))),
        };
        permutation[within] as usize
    }

    /// Puts the sequences that an epoch's rows were packed into in a seeded order of their own.
    pub(crate) fn shuffle_bins<T>(&self, epoch: u64, bins: Vec<T>) -> Vec<T> {
        if !self.shuffle {
            return bins;
        }
        let places = permutation(bins.len(), epoch_key(BINS, self.seed, epoch));
        let mut placed: Vec<(u32, T)> = places.into_iter().zip(bins).collect();
        placed.sort_unstable_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, bin)| bin).collect()
    }
}

/// What a permutation is of: the two never share a stream.
const ROWS: &[u8] = b"descant data order 1";
const BINS: &[u8] = b"descant bin order 1";

/// The permutation of a key: Fisher and Yates, from the end.
fn permutation(rows: usize, key: [u8; 32]) -> Vec<u32> {
    let mut rng = ChaCha8Rng::from_seed(key);
    let mut order: Vec<u32> = (0..rows as u32).collect();
    for last in (1..rows).rev() {
        let other = below(&mut rng, last as u64 + 1) as usize;
        order.swap(last, other);
    }
    order
}

/// The key of an epoch's stream. Hashed, so that neighbouring seeds and epochs share nothing.
fn epoch_key(of: &[u8], seed: u64, epoch: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update(of).chain_update(seed.to_le_bytes());
    hash.chain_update(epoch.to_le_bytes()).finalize().into()
}

/// A number below `bound`, every one equally likely: the high half of a widening product, redrawn in the part of the
/// range that would favour some.
fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(rng.next_u64()) * u128::from(bound);
        if product as u64 >= unfair {
            return (product >> 64) as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_permutation_and_epochs_differ() {
        let mut order = Order::shuffled(1000, 3407).unwrap();
        let mut epoch = |n: u64| (0..1000).map(|p| order.index_at(n * 1000 + p)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        assert_ne!(first, second);
        assert_ne!(first, (0..1000).collect::<Vec<_>>());
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..1000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_order_of_a_seed_never_changes() {
        const FROZEN: [usize; 20] = [1, 3, 5, 0, 9, 6, 2, 8, 7, 4, 1, 0, 9, 5, 7, 4, 6, 2, 8, 3];
        let mut order = Order::shuffled(10, 3407).unwrap();
        let seen: Vec<_> = (0..20).map(|p| order.index_at(p)).collect();
        assert_eq!(seen, FROZEN, "an existing run would resume on other data");
    }

    #[test]
    fn small_bounds_are_drawn_evenly() {
        let mut rng = ChaCha8Rng::from_seed([7; 32]);
        let mut counts = [0u32; 6];
        for _ in 0..60_000 {
            counts[below(&mut rng, 6) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
    }

    #[test]
    fn no_rows_have_no_order() {
        assert!(Order::shuffled(0, 1).is_none());
        assert_eq!(Order::shuffled(1, 1).unwrap().index_at(u64::MAX), 0);
        assert_eq!(Order::sequential(3).unwrap().index_at(7), 1);
    }
}
