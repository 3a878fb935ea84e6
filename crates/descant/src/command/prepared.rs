//! The prepared examples of a data set: made once, kept in the user's cache, found again by what they were made of.
//!
//! ```text
//! CACHE/descant/data/KEY/examples   KEY: a hash of files, tokenizer, template, settings and this program
//! CACHE/descant/data/stamps.json    hashes of files that have not changed since
//! ```
//!
//! What is found is checked whole before it is used, and made again where it is damaged. Losing the cache costs the
//! time of preparing; a cache that cannot be written costs memory. Neither stops a run.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use descant_files::{Growing, NewDir, RelPath};
use descant_harmony::prepare::{PrepareOptions, Survey, each_example};
use descant_harmony::read::{ReadOptions, data_files};
use descant_harmony::store::{Store, Writer};
use descant_harmony::{Error, Renderer};

use super::room::size;
use super::stamps::content_sha256;
use crate::observe::Reading;
use crate::settings::Settings;
use crate::talk::Talk;
use crate::user_cache;

/// The part of a key that changes when the same input gives other examples, or the same in another form.
const FORM: u32 = 2;
/// Data sets from this size on are kept; shorter ones are prepared in a moment.
const KEPT_FROM: u64 = 4 << 20;
/// What is left free on the disk.
const LEFT_FREE: u64 = 1 << 30;
/// Bytes written at once.
const BUFFER: usize = 1 << 20;
/// A folder of a process that ended without finishing it is removed after so many seconds.
const ABANDONED_AFTER: u64 = 3600;
/// The file in a key's folder.
const EXAMPLES: &str = "examples";

/// Where prepared examples are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    most: u64,
}

/// What examples are made of.
pub(crate) struct Recipe<'a> {
    pub(crate) renderer: &'a Renderer,
    pub(crate) path: &'a Path,
    pub(crate) read: ReadOptions,
    pub(crate) options: PrepareOptions,
}

impl Cache {
    /// The cache that the settings allow; `None` where they forbid one, or the system names no place for it.
    ///
    /// # Errors
    /// `run.cache` is no number of bytes.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>> {
        let most = settings.run.cache().map_err(|reason| anyhow!(reason))?;
        let folder = user_cache::folder().map(|cache| cache.join("data"));
        Ok(folder.zip(most).map(|(folder, most)| Self { folder, most }))
    }

    /// The examples of a key, whole; `None` where there are none. What is damaged is removed.
    fn find(&self, key: &str, talk: Talk) -> Option<Store> {
        let path = self.folder.join(key).join(EXAMPLES);
        let file = File::options().read(true).open(&path).ok()?;
        let store = Store::open(file.try_clone().ok()?, key).and_then(|store| store.verify().map(|()| store));
        match store {
            Ok(store) => {
                // The last use, by which the oldest is found.
                let _ = file.set_modified(std::time::SystemTime::now());
                Some(store)
            }
            Err(error) => {
                talk.warn(format_args!("{}: {error}; made again", path.display()));
                let _ = descant_files::remove(&self.folder.join(key));
                None
            }
        }
    }

    /// Whether there is room for examples of so many bytes of data.
    fn has_room(&self, data: u64) -> bool {
        let free = descant_files::free_bytes(&self.folder).ok().flatten();
        free.is_none_or(|free| free >= data + data / 2 + LEFT_FREE)
    }

    /// Removes what was used longest ago until all fits, and what other processes left unfinished.
    fn clean(&self, keep: &str) {
        let mut all: Vec<(std::time::SystemTime, u64, String)> = Vec::new();
        for name in descant_files::list(&self.folder).unwrap_or_default() {
            let path = self.folder.join(&name);
            if descant_files::is_temporary(&name) {
                // Whoever is at work writes to the file, and not to its folder.
                let at_work = path.join(EXAMPLES).metadata().or_else(|_| path.metadata());
                let age = at_work.and_then(|metadata| metadata.modified()).ok();
                let age = age.and_then(|modified| modified.elapsed().ok());
                if age.is_some_and(|age| age.as_secs() > ABANDONED_AFTER) {
                    let _ = descant_files::remove(&path);
                }
            } else if let Ok(metadata) = path.join(EXAMPLES).metadata() {
                all.push((metadata.modified().unwrap_or(std::time::UNIX_EPOCH), metadata.len(), name));
            }
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, length, name) in all.iter().filter(|(_, _, name)| name != keep) {
            if bytes <= self.most {
                break;
            }
            if descant_files::remove(&self.folder.join(name)).is_ok() {
                bytes -= length;
            }
        }
    }
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
        let Some(cache) = cache.filter(|_| data >= KEPT_FROM) else { return Ok(self.in_memory(talk)?) };
        if let Err(error) = descant_files::create_dirs(&cache.folder) {
            talk.warn(format_args!("prepared data is not kept: {error}"));
            return Ok(self.in_memory(talk)?);
        }
        let key = self.key(&files, &cache.folder)?;
        if let Some(store) = cache.find(&key, talk) {
            talk.detail(format_args!("prepared data of {}", cache.folder.join(&key).display()));
            return Ok(store);
        }
        if !cache.has_room(data) {
            let (folder, free) = (cache.folder.display(), size(LEFT_FREE + data + data / 2));
            talk.warn(format_args!("prepared data is not kept: {folder} has less than {free} free"));
            return Ok(self.in_memory(talk)?);
        }
        let store = match self.in_cache(cache, &key, talk)? {
            Ok(store) => store,
            Err(reason) => {
                talk.warn(format_args!("prepared data is not kept: {reason}"));
                self.in_memory(talk)?
            }
        };
        cache.clean(&key);
        Ok(store)
    }

    /// Makes the examples in memory.
    fn in_memory(&self, talk: Talk) -> Result<Store, Error> {
        let writer = Writer::new(Vec::new()).map_err(memory)?;
        let (writer, survey) = self.write(writer, talk, &mut |error| memory(error))?;
        Store::from_bytes(writer.finish(&survey, "").map_err(memory)?, "")
    }

    /// Makes the examples in a file of the cache; inside, why the file could not be written.
    fn in_cache(&self, cache: &Cache, key: &str, talk: Talk) -> Result<Result<Store, String>> {
        let path = cache.folder.join(key);
        let mut unwritten = None;
        let made = (|| {
            let mut folder = NewDir::create(&path).map_err(|error| error.to_string())?;
            let name = RelPath::new(EXAMPLES).map_err(|error| error.to_string())?;
            let file = Growth(folder.start(&name).map_err(|error| error.to_string())?);
            let writer =
                Writer::new(BufWriter::with_capacity(BUFFER, file)).map_err(|error| error.to_string())?;
            Ok::<_, String>((folder, writer))
        })();
        let (folder, writer) = match made {
            Ok(made) => made,
            Err(reason) => return Ok(Err(reason)),
        };
        let written = self.write(writer, talk, &mut |error| {
            let reason = error.to_string();
            unwritten = Some(reason.clone());
            Error::Store { reason }
        });
        let (writer, survey) = match (written, unwritten) {
            (Ok(written), _) => written,
            (Err(_), Some(reason)) => return Ok(Err(reason)),
            (Err(error), None) => return Err(error.into()),
        };
        let finished =
            writer.finish(&survey, key).and_then(|out| out.into_inner().map_err(std::io::Error::from));
        let ended = finished.map_err(|error| error.to_string()).and_then(|file| {
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

    fn write<W: Write>(
        &self,
        mut writer: Writer<W>,
        talk: Talk,
        unwritten: &mut dyn FnMut(std::io::Error) -> Error,
    ) -> Result<(Writer<W>, Survey), Error> {
        let mut reading = Reading::new(talk);
        let survey = each_example(
            self.renderer,
            self.path,
            &self.read,
            &self.options,
            &mut |progress| reading.on(progress),
            &mut |example| writer.push(&example).map_err(&mut *unwritten),
        );
        reading.finish();
        Ok((writer, survey?))
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

/// What tells this program from another build of it.
fn program() -> String {
    let of = |path: PathBuf| {
        let modified = path.metadata().and_then(|metadata| metadata.modified()).ok();
        let print = descant_files::fingerprint(&path).ok()?;
        Some(format!("{print} {modified:?}"))
    };
    std::env::current_exe().ok().and_then(of).unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned())
}

fn memory(error: std::io::Error) -> Error {
    Error::Store { reason: error.to_string() }
}

/// A file of a new folder that takes bytes as any other.
struct Growth(Growing);

impl Write for Growth {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
