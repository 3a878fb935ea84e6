//! Dense products by cuBLASLt, with the fastest of its eight best guesses for each shape.
//!
//! The library's first guess is up to a third slower than its best one. Guesses are timed once a shape, on the
//! product's own operands, and the choice is kept in the process and in the store: two algorithms may add in another
//! order, so that a choice made again could change the last bits of a run that is repeated. Of several processes that
//! choose at the same time, all compute with what the first has kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::algorithm::{Sizes, alignment, key};
use super::driver::{self, Stream};
use super::error::{CudaError, Result};
use super::event::Event;
use super::lt::{Addresses, Algorithm, Description, Handle};
use super::spec::MatmulSpec;
use super::store::{self, Choices};

/// Guesses that are timed.
const GUESSES: usize = 8;
/// Timed runs of a guess; the fastest counts.
const RUNS: usize = 3;
/// Products of fewer operations are not worth a search.
const SMALL: f64 = 1e8;
/// Rows up to which a product waits for its matrix: before a guess is timed, its workspace is written, so that the matrix
/// comes from memory, as it will, and not from the cache that the guess before has filled.
const FEW_ROWS: usize = 256;
/// Bytes of a result that is written only to be timed, at most: nobody has planned them. A longer product is timed with
/// fewer of its rows.
const TIMED_BYTES: usize = 64 << 20;
/// A later guess must be faster by this factor, so that noise does not choose.
const CLEARLY: f32 = 0.97;

/// Addresses of a product's matrices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrices {
    /// The first factor.
    pub(crate) a: u64,
    /// The second.
    pub(crate) b: u64,
    /// What the result is added to, where the product's beta is not 0; may be `d`.
    pub(crate) c: Option<u64>,
    /// The result.
    pub(crate) d: u64,
    /// Where the product has one.
    pub(crate) bias: Option<u64>,
    /// An address and its bytes, for this product alone until the stream is past it.
    pub(crate) workspace: (u64, usize),
}

/// A card's products.
#[derive(Debug, Default)]
pub(crate) struct Blas(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    handle: Option<Handle>,
    /// By the run that chose, 0 without one, and by name.
    chosen: BTreeMap<(usize, String), Algorithm>,
}

/// Products in a stream.
pub(crate) struct Products<'a> {
    state: &'a Mutex<State>,
    /// The card's name, by which choices are kept.
    card: &'a str,
    stream: Stream,
    choices: Option<&'a Choices>,
}

impl State {
    fn handle(&mut self) -> Result<Handle> {
        match self.handle {
            Some(handle) => Ok(handle),
            None => Ok(*self.handle.insert(Handle::new()?)),
        }
    }
}

impl Blas {
    /// Opens the library, which takes a while where it comes from a disk.
    ///
    /// # Errors
    /// There is no cuBLASLt.
    pub(crate) fn open(&self) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).handle().map(|_| ())
    }

    pub(crate) fn on<'a>(
        &'a self,
        card: &'a str,
        stream: Stream,
        choices: Option<&'a Choices>,
    ) -> Products<'a> {
        Products { state: &self.0, card, stream, choices }
    }
}

impl Products<'_> {
    /// Queues the product.
    ///
    /// # Errors
    /// There is no cuBLASLt, it has no algorithm for this product, or an operand is missing or not wanted.
    pub(crate) fn matmul(&self, spec: &MatmulSpec, of: &Matrices) -> Result<()> {
        let Matrices { a, b, c, d, bias, workspace } = *of;
        let wrong = |what| CudaError::Product { product: spec.to_string(), what };
        if spec.m == 0 || spec.n == 0 {
            return Ok(());
        }
        if let Some(text) = spec.wrong() {
            return Err(wrong(text));
        }
        if c.is_some() != (spec.beta != 0.0) {
            return Err(wrong("beta and what is added do not agree"));
        }
        if bias.is_some() != spec.bias.is_some() {
            return Err(wrong("the product's bias and the one given do not agree"));
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = state.handle()?;
        let (c, bias) = (c.unwrap_or(d), bias.unwrap_or(0));
        let at = Addresses { a, b, c, d, workspace: workspace.0, workspace_bytes: workspace.1 };
        let description = Description::new(handle, spec, bias)?;
        let aligned = alignment(&[a, b, c, d]);
        // What was chosen for a size serves its neighbours, but not all it fits. What it does not fit has a choice of
        // its own: a choice that was made is never replaced, or the next process would begin with another.
        for sizes in [Sizes::Octave, Sizes::Exact] {
            let name = key(spec, sizes, aligned, workspace.1, Handle::version(), self.card);
            let key = (self.choices.map_or(0, Choices::id), name);
            let kept = || store::load_choice(self.choices, &key.1).and_then(|bytes| decode(&bytes));
            let known = if let Some(known) = state.chosen.get(&key).copied().or_else(kept) {
                known
            } else {
                let best = self.choose(&description, aligned, bias, &at)?;
                // Another process of the run may have been quicker, with another sequence of this octave.
                decode(&store::publish_choice(self.choices, &key.1, &encode(&best))).unwrap_or(best)
            };
            state.chosen.insert(key, known);
            if description.fits(&known, workspace.1) {
                return description.run(self.stream, &known, &at);
            }
        }
        // What was kept for these very sizes does not fit them: it is of no use to anybody.
        let best = self.choose(&description, aligned, bias, &at)?;
        description.run(self.stream, &best, &at)
    }

    /// The best guess for a product; small ones are not timed.
    fn choose(
        &self,
        description: &Description<'_>,
        aligned: u32,
        bias: u64,
        at: &Addresses,
    ) -> Result<Algorithm> {
        let spec = description.spec;
        let guesses = description.guesses(aligned, at.workspace_bytes, GUESSES)?;
        let none = || CudaError::Product { product: spec.to_string(), what: "no algorithm" };
        let first = *guesses.first().ok_or_else(none)?;
        let work = 2.0 * spec.count as f64 * spec.m as f64 * spec.n as f64 * spec.k as f64;
        if work < SMALL {
            return Ok(first);
        }
        let fewer = fewer_rows(spec);
        if fewer.m == spec.m {
            return self.fastest(description, &guesses, at)?.ok_or_else(none);
        }
        let shorter = Description::new(description.handle, &fewer, bias)?;
        Ok(self.fastest(&shorter, &guesses, at)?.unwrap_or(first))
    }

    /// The fastest of the guesses on these operands, unless none runs; D is computed again afterwards.
    fn fastest(
        &self,
        description: &Description<'_>,
        guesses: &[Algorithm],
        at: &Addresses,
    ) -> Result<Option<Algorithm>> {
        let spec = description.spec;
        // Where C counts, D may be C, and must keep what it has until the one real run.
        let scratch = if spec.beta == 0.0 { None } else { Some(driver::Scratch::new(spec.d_bytes())?) };
        let at = Addresses { d: scratch.as_ref().map_or(at.d, |scratch| scratch.address), ..*at };
        let (start, end) = (Event::new(true)?, Event::new(true)?);
        let mut best: Option<(Algorithm, f32)> = None;
        for guess in guesses {
            // The first run loads the kernel. A guess that fails here is not a candidate.
            if description.run(self.stream, guess, &at).is_err() {
                continue;
            }
            let mut time = f32::INFINITY;
            for _ in 0..RUNS {
                if spec.m <= FEW_ROWS && at.workspace_bytes > 0 {
                    driver::memset(self.stream, at.workspace, 0, at.workspace_bytes)?;
                }
                start.record(self.stream)?;
                description.run(self.stream, guess, &at)?;
                end.record(self.stream)?;
                end.wait()?;
                time = time.min(end.since(&start)?);
            }
            if best.is_none_or(|(_, least)| time < least * CLEARLY) {
                best = Some((*guess, time));
            }
        }
        Ok(best.map(|(algorithm, _)| algorithm))
    }
}

/// The product with as many of its rows as are timed: all, unless its result would have to be written elsewhere and is
/// large.
fn fewer_rows(spec: &MatmulSpec) -> MatmulSpec {
    let of_row = spec.d.stride * spec.d.element.bytes();
    let is_whole = spec.beta == 0.0 || spec.count > 1;
    let m = if is_whole { spec.m } else { spec.m.min((TIMED_BYTES / of_row).max(1)) };
    MatmulSpec { m, ..*spec }
}

fn encode(algorithm: &Algorithm) -> Vec<u8> {
    algorithm.data.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Option<Algorithm> {
    let mut algorithm = Algorithm { data: [0; 8] };
    if bytes.len() != 64 {
        return None;
    }
    for (word, bytes) in algorithm.data.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(algorithm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_takes_little_memory_of_its_own() {
        let long = MatmulSpec { beta: 1.0, ..MatmulSpec::forward(131_072, 2880, 4096) };
        let timed = fewer_rows(&long);
        assert!(timed.d_bytes() <= TIMED_BYTES && timed.m > 8192, "{timed}");
        let short = MatmulSpec { m: 8192, ..long };
        assert_eq!(fewer_rows(&short), short);
        let elsewhere = MatmulSpec { beta: 0.0, ..long };
        assert_eq!(fewer_rows(&elsewhere), elsewhere, "its result is written where it belongs");
    }
}
