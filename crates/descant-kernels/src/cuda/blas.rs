//! Dense products by cuBLASLt: for each shape the fastest of a few guesses that add in the same order.
//!
//! The library's first guess is up to two thirds slower than its best one. Guesses are timed once a shape, on the
//! product's own operands, but only those are that add as the first one does: which it is depends on sizes alone, so that
//! time decides how fast a run is and never its bits, whatever was computed before and whatever a cache holds. Choices
//! are kept in the process and in the store. Of several processes that choose at the same time, all compute with what the
//! first has kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::algorithm::{Sizes, alignment, fewer_rows, key, largest};
use super::driver::{self, Stream};
use super::error::{CudaError, Result};
use super::event::Event;
use super::lt::{Addresses, Algorithm, Description, Handle, order};
use super::spec::MatmulSpec;
use super::store::{self, Choices};

/// Guesses that the library is asked for.
const GUESSES: usize = 8;
/// Those that are timed at most: each has a kernel of its own, which takes 2 to 6 ms to come.
const TIMED: usize = 3;
/// Timed runs of a guess; the fastest counts.
const RUNS: usize = 2;
/// Products of fewer operations are not worth a search.
const SMALL: f64 = 1e8;
/// Rows up to which a product waits for its matrix: before a guess is timed, its workspace is written, so that the matrix
/// comes from memory, as it will, and not from the cache that the guess before has filled.
const FEW_ROWS: usize = 256;
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
        for sizes in [Sizes::Bucket, Sizes::Exact] {
            let name = key(spec, sizes, aligned, workspace.1, Handle::version(), self.card);
            let key = (self.choices.map_or(0, Choices::id), name);
            let kept = || store::load_choice(self.choices, &key.1).and_then(|bytes| decode(&bytes));
            let known = if let Some(known) = state.chosen.get(&key).copied().or_else(kept) {
                known
            } else {
                let best = self.choose(&description, sizes, aligned, bias, &at)?;
                // Another process of the run may have been quicker, with another sequence of this length or nearly so.
                decode(&store::publish_choice(self.choices, &key.1, &encode(&best))).unwrap_or(best)
            };
            state.chosen.insert(key, known);
            if description.fits(&known, workspace.1) {
                return description.run(self.stream, &known, &at);
            }
        }
        // What was kept for these very sizes does not fit them: it is of no use to anybody.
        let best = self.choose(&description, Sizes::Exact, aligned, bias, &at)?;
        description.run(self.stream, &best, &at)
    }

    /// The best guess for a product, or for all that share its choice; small ones are not timed.
    fn choose(
        &self,
        description: &Description<'_>,
        sizes: Sizes,
        aligned: u32,
        bias: u64,
        at: &Addresses,
    ) -> Result<Algorithm> {
        let spec = description.spec;
        let shared = match sizes {
            Sizes::Bucket => largest(spec),
            Sizes::Exact => *spec,
        };
        let guesses = Description::new(description.handle, &shared, bias)?.guesses(
            aligned,
            at.workspace_bytes,
            GUESSES,
        )?;
        let guesses = in_one_order(guesses);
        let none = || CudaError::Product { product: spec.to_string(), what: "no algorithm" };
        let first = *guesses.first().ok_or_else(none)?;
        let work = 2.0 * spec.count as f64 * spec.m as f64 * spec.n as f64 * spec.k as f64;
        if work < SMALL {
            return Ok(first);
        }
        let fewer = fewer_rows(spec);
        let best = if fewer.m == spec.m {
            self.fastest(description, &guesses, at)?
        } else {
            let shorter = Description::new(description.handle, &fewer, bias)?;
            self.fastest(&shorter, &guesses, at)?
        };
        // Where none runs at this size, whoever asks finds that the first does not fit.
        Ok(best.unwrap_or(first))
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

/// Those of the guesses that add as the first does, as many as are timed.
fn in_one_order(guesses: Vec<Algorithm>) -> Vec<Algorithm> {
    let first = guesses.first().map(order);
    guesses.into_iter().filter(|guess| Some(order(guess)) == first).take(TIMED).collect()
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
