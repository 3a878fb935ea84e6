//! The rows of a data set in chunks, one file after the other, read in a thread of their own.
//!
//! Chunks are bounded in rows and bytes, and few wait at a time, so that a data set of any length takes little memory.
//! The first ones are small: whoever waits for the first row does not wait for a thousand.

use crate::error::{Error, Result};
use crate::read::passed_over::PassedOver;
use crate::read::raw::{Raw, each_raw};
use crate::read::{folder, inflate, parquet};
use crate::row::columns::COLUMNS;
use crate::row::ignored::{Ignored, Place, carries_nothing};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Rows of the first chunk; each further one has twice as many, up to [`MOST_ROWS`].
const FIRST_ROWS: usize = 16;
/// Most rows of a chunk.
const MOST_ROWS: usize = 1024;
/// A chunk that has so many bytes is given, however few its rows are.
const CHUNK_BYTES: usize = 2 << 20;
/// Chunks that wait while one is worked on.
const WAITING: usize = 2;

/// Some rows, in their order.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    /// Rows with their numbers, counted through all files.
    pub(crate) rows: Vec<(u64, Result<Raw>)>,
    /// Columns of files that end in this chunk, which no form uses.
    pub(crate) ignored: Ignored,
    /// Bytes of all files that were read so far.
    pub(crate) read: u64,
}

/// Of several files: how many rows are before each, and its path. None where there is one.
pub(crate) type Files = Vec<(u64, PathBuf)>;

/// The file of a row, and the row's number in it.
pub(crate) fn place<'f>(path: &'f Path, files: &'f Files, number: u64) -> (&'f Path, u64) {
    let file = files.iter().rev().find(|(before, _)| *before < number);
    file.map_or((path, number), |(before, file)| (file, number - before))
}

/// What is going to be read.
pub(crate) struct Walk {
    files: Vec<PathBuf>,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files that are not.
    pub(crate) passed_over: PassedOver,
}

impl Walk {
    /// Finds the files of a data set.
    pub(crate) fn new(path: &Path) -> Result<Self> {
        let folder::DataFiles { files, passed_over } = folder::files(path)?;
        let length = |file: &PathBuf| {
            let io = |source| Error::Io { path: file.clone(), source };
            file.metadata().map(|metadata| metadata.len()).map_err(io)
        };
        let bytes = files.iter().map(length).sum::<Result<u64>>()?;
        Ok(Self { files, bytes, passed_over })
    }

    /// Gives every chunk to `take`, while the next one is read. Ends at the first error of either side.
    pub(crate) fn each(self, mut take: impl FnMut(Chunk, &Files) -> Result<()>) -> Result<()> {
        let mut starts = Files::new();
        let several = self.files.len() > 1;
        std::thread::scope(|scope| {
            let (give, got) = sync_channel(WAITING);
            let reader = scope.spawn(move || read(&self.files, give));
            let taken = drain(&got, |told| match told {
                Told::File(before, path) => {
                    if several {
                        starts.push((before, path));
                    }
                    Ok(())
                }
                Told::Chunk(chunk) => take(chunk, &starts),
            });
            // A reader that nobody listens to any more ends at its next chunk.
            drop(got);
            // A panic is one of this thread, wherever it happened.
            let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            taken.and(read)
        })
    }
}

fn drain(got: &Receiver<Told>, take: impl FnMut(Told) -> Result<()>) -> Result<()> {
    got.iter().try_for_each(take)
}

enum Told {
    /// A file begins, with so many rows before it.
    File(u64, PathBuf),
    Chunk(Chunk),
}

/// The reading thread.
fn read(files: &[PathBuf], give: SyncSender<Told>) -> Result<()> {
    let mut sender = Sender { give, chunk: Chunk::default(), held: 0, most: FIRST_ROWS, gone: false };
    let (mut before, mut bytes) = (0, 0);
    for file in files {
        sender.tell(Told::File(before, file.clone()));
        let (mut last, mut beside) = (0, Ignored::default());
        let ended = each_raw(file, Some(&COLUMNS), &mut beside, &mut |number, raw, read| {
            last = number;
            sender.push(before + number, raw, bytes + read)
        });
        if sender.gone {
            return Ok(());
        }
        // Rows before what cannot be read are looked at first: one of them may be what is wrong.
        if ended.is_err() {
            sender.send();
        }
        ended?;
        sender.chunk.ignored.merge(&beside);
        if inflate::magic(file)? == parquet::MAGIC {
            for name in parquet::other_columns(file, &COLUMNS)? {
                if !carries_nothing(Place::Row, &name) {
                    sender.chunk.ignored.add_times(Place::Row, &name, last);
                }
            }
        }
        before += last;
        bytes += file.metadata().map_or(0, |metadata| metadata.len());
        // A row's file is the last one that was sent before it.
        sender.chunk.read = bytes;
        sender.send();
    }
    Ok(())
}

struct Sender {
    give: SyncSender<Told>,
    chunk: Chunk,
    /// Bytes in it.
    held: usize,
    most: usize,
    /// Nobody listens any more.
    gone: bool,
}

impl Sender {
    fn push(&mut self, number: u64, raw: Result<Raw>, read: u64) -> Result<()> {
        self.held += raw.as_ref().map_or(0, Raw::bytes);
        self.chunk.rows.push((number, raw));
        self.chunk.read = read;
        if self.chunk.rows.len() >= self.most || self.held >= CHUNK_BYTES {
            self.send();
        }
        // Any error ends the reading; this one is not looked at.
        if self.gone { Err(Error::NoDocuments) } else { Ok(()) }
    }

    fn send(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        self.tell(Told::Chunk(chunk));
        self.held = 0;
        self.most = (2 * self.most).min(MOST_ROWS);
    }

    fn tell(&mut self, told: Told) {
        self.gone |= self.give.send(told).is_err();
    }
}
