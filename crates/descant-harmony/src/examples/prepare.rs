//! From a data set to training examples, with an account of everything that was left out.
//!
//! Rows are rendered in parallel (`ready.rs`) and taken in the file's order (`sink.rs`), so the result does not depend
//! on the number of threads. What is dropped (a row that fails, a view that repeats another, one that is too long or in
//! which nothing is trained) is either an error or counted, as asked; never neither.

pub use crate::examples::example::{Account, Example, OnTooLong, PrepareOptions};

use crate::error::{Error, Result};
use crate::examples::ready::{Maker, Ready};
use crate::examples::render::Renderer;
use crate::examples::sink::Sink;
use crate::read::data_set::some_row;
use crate::read::raw::Raw;
use crate::read::walk::{Chunk, Files, Walk};
use crate::read::{DataSet, Format, PassedOver, ReadOptions, Rejects};
use crate::row::ignored::Ignored;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

/// A prepared data set.
#[derive(Debug)]
pub struct Prepared {
    /// The examples, in the file's order.
    pub examples: Vec<Example>,
    /// What became of the rows.
    pub account: Account,
}

/// Prepares a data set.
///
/// # Errors
/// At the first bad row under [`OnBadRow::Fail`](crate::read::OnBadRow::Fail); [`Error::NothingLeft`] when no example
/// remains.
pub fn prepare(renderer: &Renderer, set: &DataSet, options: &PrepareOptions) -> Result<Prepared> {
    let prepared = survey(renderer, set, options)?;
    if prepared.examples.is_empty() {
        return Err(Error::NothingLeft { path: set.path.clone() });
    }
    Ok(prepared)
}

/// As [`prepare`], for looking at a data set: that no example remains is an answer too.
///
/// # Errors
/// At the first bad row under [`OnBadRow::Fail`](crate::read::OnBadRow::Fail).
pub fn survey(renderer: &Renderer, set: &DataSet, options: &PrepareOptions) -> Result<Prepared> {
    let maker = Maker::new(renderer, options)?;
    let mut examples = Vec::new();
    let mut sink = Sink::new(set.rejects.clone(), set.ignored.clone());
    let made: Vec<_> = set.rows.par_iter().map(|row| (row.number, maker.row(row))).collect();
    for (number, made) in made {
        sink.take(number, made, options.on_bad_row, &set.path, &set.files, &mut |example| {
            examples.push(example);
            Ok(())
        })?;
    }
    Ok(Prepared { examples, account: sink.finish() })
}

/// How far a data set is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that were prepared or rejected.
    pub rows: u64,
    /// Bytes that were read of its files.
    pub bytes: u64,
    /// Bytes of its files.
    pub of: u64,
}

/// What [`each_example`] saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// The file or folder.
    pub path: PathBuf,
    /// The form of its rows; absent when no row was good.
    pub format: Option<Format>,
    /// What became of the rows.
    pub account: Account,
    /// Files of a folder that were not read; what a file of prepared examples says is that of its own time.
    #[serde(skip)]
    pub passed_over: PassedOver,
}

/// Reads and prepares a data set of any length in bounded memory: every example goes to `take`, in the order of the
/// rows, as soon as the rows before it are done. The examples are those of [`read`](crate::read::read) and [`survey`].
///
/// `watch` is called now and then.
///
/// # Errors
/// When a file cannot be read; at the first bad row under [`OnBadRow::Fail`](crate::read::OnBadRow::Fail); whatever
/// `take` returns.
pub fn each_example(
    renderer: &Renderer,
    path: &Path,
    read: &ReadOptions,
    options: &PrepareOptions,
    watch: &mut dyn FnMut(Progress),
    take: &mut dyn FnMut(Example) -> Result<()>,
) -> Result<Survey> {
    let maker = Maker::new(renderer, options)?;
    let walk = Walk::new(path)?;
    let passed_over = walk.passed_over.clone();
    let mut progress = Progress { of: walk.bytes, ..Progress::default() };
    let mut sink = Sink::new(Rejects::default(), Ignored::default());
    watch(progress);
    let format = in_turns(&maker, walk, read.format, |chunk| {
        progress.rows += chunk.rows.len() as u64;
        progress.bytes = chunk.read;
        sink.ignore(&chunk.ignored);
        for (number, made) in chunk.rows {
            // `read.on_bad_row` is for rows that cannot be read, `options.on_bad_row` for all others.
            let (made, on_bad_row) = match made {
                Made::Unread(error) => (Err(error), read.on_bad_row),
                Made::Read(made) => (made, options.on_bad_row),
            };
            sink.take(number, made, on_bad_row, path, &chunk.files, take)?;
        }
        watch(progress);
        Ok(())
    })?;
    some_row(path, progress.rows)?;
    Ok(Survey { path: path.to_path_buf(), format, account: sink.finish(), passed_over })
}

/// What became of a row of a file.
enum Made {
    Unread(Error),
    Read(Result<Ready>),
}

/// A chunk whose rows are ready.
struct MadeChunk {
    rows: Vec<(u64, Made)>,
    ignored: Ignored,
    read: u64,
    files: Files,
}

/// Gives every chunk to `take`, in this thread, while the next one is made ready. What form the rows have.
fn in_turns(
    maker: &Maker<'_>,
    walk: Walk,
    mut format: Option<Format>,
    mut take: impl FnMut(MadeChunk) -> Result<()>,
) -> Result<Option<Format>> {
    std::thread::scope(|scope| {
        let (give, got) = sync_channel(1);
        let making = scope.spawn(move || {
            walk.each(|chunk, files| {
                let Chunk { rows, ignored, read } = chunk;
                let rows = a_chunk(maker, rows, &mut format);
                let made = MadeChunk { rows, ignored, read, files: files.clone() };
                // Nobody listens once a row was an error, and that error is the one to be returned.
                give.send(made).map_err(|_| Error::NoDocuments)
            })
            .map(|()| format)
        });
        let taken = got.iter().try_for_each(&mut take);
        drop(got);
        // A panic is one of this thread, wherever it happened.
        let made = making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(made)
    })
}

/// Prepares the rows of a chunk side by side. Until a good row has said which form all have, one after the other.
fn a_chunk(
    maker: &Maker<'_>,
    rows: Vec<(u64, Result<Raw>)>,
    format: &mut Option<Format>,
) -> Vec<(u64, Made)> {
    let mut rows = rows.into_iter();
    let mut first = Vec::new();
    while format.is_none() {
        let Some((number, raw)) = rows.next() else { return first };
        let made = match raw.and_then(|raw| raw.row(number, None)) {
            Ok((form, row)) => {
                *format = Some(form);
                Made::Read(maker.row(&row))
            }
            Err(error) => Made::Unread(error),
        };
        first.push((number, made));
    }
    let form = *format;
    let rows: Vec<_> = rows.collect();
    let made = rows.into_par_iter().map(|(number, raw)| match raw.and_then(|raw| raw.row(number, form)) {
        Ok((_, row)) => (number, Made::Read(maker.row(&row))),
        Err(error) => (number, Made::Unread(error)),
    });
    first.par_extend(made);
    first
}
