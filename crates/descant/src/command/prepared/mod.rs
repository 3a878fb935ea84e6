//! The prepared examples of a data set: made once, kept in the user's cache, found again by what they were made of.
//!
//! ```text
//! CACHE/descant/data/KEY/examples   KEY: a hash of files, tokenizer, template, settings and this program
//! CACHE/descant/data/stamps.json    hashes of files that have not changed since
//! ```
//!
//! What is found is checked whole before it is used, and made again where it is damaged. Losing the cache costs the
//! time of preparing, and so does one that cannot be written: then the examples lie in a file without a name, which is
//! gone with the process. Only what is small stays in memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use descant_files::{NewDir, RelPath};
use descant_harmony::prepare::{PrepareOptions, each_example};
use descant_harmony::read::{ReadOptions, data_files};
use descant_harmony::store::{Store, Writer};
use descant_harmony::{Error, Renderer};

pub(crate) use self::cache::Cache;
use self::cache::EXAMPLES;
use self::places::{Bounded, Growth, IN_MEMORY, room};
use super::stamps::content_sha256;
use crate::failure::Hinted;
use crate::observe::Reading;
use crate::talk::Talk;
use crate::user_cache;
use crate::words::size;

mod cache;
mod places;

/// The part of a key that changes when the same input gives other examples, or the same in another form.
const FORM: u32 = 3;
/// Data sets from this size on are kept; shorter ones are prepared in a moment.
const KEPT_FROM: u64 = 4 << 20;
/// Bytes written at once.
const BUFFER: usize = 1 << 20;

/// What examples are made of.
pub(crate) struct Recipe<'a> {
    pub(crate) renderer: &'a Renderer,
    pub(crate) path: &'a Path,
    pub(crate) read: ReadOptions,
    pub(crate) options: PrepareOptions,
}

impl Recipe<'_> {
    /// The examples: those of the cache, or made now.
    ///
    /// # Errors
    /// The data set cannot be read, or has a bad row where that is an error.
    pub(crate) fn examples(&self, cache: Option<&Cache>, talk: Talk) -> Result<Store> {
        let files = data_files(self.path)?.files;
        let length = |file: &PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
        let data: u64 = files.iter().map(length).sum();
        let Some(cache) = cache.filter(|_| data >= KEPT_FROM) else { return self.unkept(data, talk) };
        if let Err(error) = descant_files::create_dirs(&cache.folder) {
            talk.warn(format_args!("prepared data is not cached: {error}"));
            return self.unkept(data, talk);
        }
        // What processes left that were killed while they wrote; of those at work, the folders are locked.
        let _ = descant_files::sweep_stopped_in(&cache.folder);
        let key = self.key(&files, &cache.folder)?;
        if let Some(store) = cache.find(&key, talk) {
            talk.detail(format_args!("prepared data of {}", cache.folder.join(&key).display()));
            return Ok(store);
        }
        let store = match room(&cache.folder, data) {
            Ok(()) => self.in_cache(cache, &key, talk)?,
            Err(reason) => Err(reason),
        };
        let store = match store {
            Ok(store) => store,
            Err(reason) => {
                talk.warn(format_args!("prepared data is not cached: {reason}"));
                self.unkept(data, talk)?
            }
        };
        cache.clean(&key);
        Ok(store)
    }

    /// Makes the examples for this process alone: where they are few in memory, else in a file without a name. Without
    /// such a file they stay in memory as far as that is bounded.
    fn unkept(&self, data: u64, talk: Talk) -> Result<Store> {
        let few = data < KEPT_FROM;
        if few && let Some(store) = self.in_memory(talk)? {
            return Ok(store);
        }
        let folder = user_cache::passing();
        let unnamed = match room(&folder, data) {
            Ok(()) => self.in_unnamed(&folder, talk)?,
            Err(reason) => Err(reason),
        };
        let reason = match unnamed {
            Ok(store) => {
                talk.detail(format_args!("prepared data in {}, for this run alone", folder.display()));
                return Ok(store);
            }
            Err(reason) => reason,
        };
        if !few {
            talk.warn(format_args!("prepared data stays in memory: {reason}"));
            if let Some(store) = self.in_memory(talk)? {
                return Ok(store);
            }
        }
        let error = anyhow!(
            "the examples of {} take more than {} of memory, and no disk takes them: {reason}",
            self.path.display(),
            size(IN_MEMORY as u64)
        );
        Err(Hinted::new(error, "make room, or name a folder on another disk with TMPDIR").into())
    }

    /// Makes the examples in memory; `None` where they take more than that is meant for.
    fn in_memory(&self, talk: Talk) -> Result<Option<Store>> {
        let out = self.written(Bounded(Vec::new()), "", talk)?;
        Ok(out.ok().map(|out| Store::from_bytes(out.0, "")).transpose()?)
    }

    /// Makes the examples in a file without a name; inside, why it could not be written.
    fn in_unnamed(&self, folder: &Path, talk: Talk) -> Result<Result<Store, String>> {
        let file = match descant_files::unnamed(folder) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let in_folder = |reason: String| format!("{}: {reason}", folder.display());
        let written = self.written(BufWriter::with_capacity(BUFFER, file), "", talk)?;
        let file = written.and_then(|out| out.into_inner().map_err(|error| error.to_string()));
        Ok(match file {
            Ok(file) => Ok(Store::open(file, "")?),
            Err(reason) => Err(in_folder(reason)),
        })
    }

    /// Makes the examples in a file of the cache; inside, why the file could not be written.
    fn in_cache(&self, cache: &Cache, key: &str, talk: Talk) -> Result<Result<Store, String>> {
        let path = cache.folder.join(key);
        let started = || {
            let mut folder = NewDir::create(&path)?;
            let file = folder.start(&RelPath::new(EXAMPLES)?)?;
            Ok::<_, descant_files::Error>((folder, Growth(file)))
        };
        let (folder, file) = match started() {
            Ok(started) => started,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let out = match self.written(BufWriter::with_capacity(BUFFER, file), key, talk)? {
            Ok(out) => out,
            Err(reason) => return Ok(Err(reason)),
        };
        let ended = out.into_inner().map_err(|error| error.to_string()).and_then(|file| {
            file.0.finish().and_then(|()| folder.commit()).map_err(|error| error.to_string())
        });
        // Another process may have made the same meanwhile.
        let opened = File::open(path.join(EXAMPLES)).map_err(|error| error.to_string());
        let opened = opened.and_then(|file| Store::open(file, key).map_err(|error| error.to_string()));
        Ok(match (ended, opened) {
            (_, Ok(store)) => Ok(store),
            (Err(reason), _) | (_, Err(reason)) => Err(reason),
        })
    }

    /// Writes the examples; inside, why they could not be written.
    fn written<W: Write>(&self, out: W, key: &str, talk: Talk) -> Result<Result<W, String>> {
        let mut writer = match Writer::new(out) {
            Ok(writer) => writer,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let (mut reading, mut unwritten) = (Reading::new(talk), None);
        let survey = each_example(
            self.renderer,
            self.path,
            &self.read,
            &self.options,
            &mut |progress| reading.on(progress),
            &mut |example| {
                writer.push(&example).map_err(|error| {
                    let reason = error.to_string();
                    unwritten = Some(reason.clone());
                    Error::Store { reason }
                })
            },
        );
        reading.finish();
        match (survey, unwritten) {
            (_, Some(reason)) => Ok(Err(reason)),
            (Err(error), None) => Err(error.into()),
            (Ok(survey), None) => Ok(writer.finish(&survey, key).map_err(|error| error.to_string())),
        }
    }

    /// Everything that the examples depend on.
    fn key(&self, files: &[PathBuf], folder: &Path) -> Result<String> {
        use std::fmt::Write as _;
        let mut text = format!("form {FORM}\nprogram {}\n", program());
        for file in files {
            let content = content_sha256(file, folder)?;
            // Reasons of rejected rows name the file where there are several.
            let name = if files.len() > 1 { file.display().to_string() } else { String::new() };
            let _ = writeln!(text, "file {content} {name}");
        }
        let (template, tokenizer) = (self.renderer.template().sha256(), self.renderer.tokenizer().sha256());
        let _ =
            writeln!(text, "template {template}\ntokenizer {tokenizer}\n{:?}\n{:?}", self.read, self.options);
        Ok(descant_files::sha256(text.as_bytes()))
    }
}

/// What distinguishes this program from another build of it.
fn program() -> String {
    let of = |path: PathBuf| {
        let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
        let print = descant_files::fingerprint(&path).ok()?;
        Some(format!("{print} {modified:?}"))
    };
    std::env::current_exe().ok().and_then(of).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}
