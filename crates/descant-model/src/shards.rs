//! The weight files of a model directory, one shard mapped at a time.
//!
//! ```text
//! model.safetensors                      everything, or
//! model.safetensors.index.json           {"weight_map": {tensor: file}} and the files it names
//! ```
//!
//! Where both are there, the whole file counts if files of the index are missing, which is said; else both must hold
//! the same tensors, to the byte.
//!
//! Knows files and bytes; which tensors belong there is the business of `names.rs` and of the reader.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use descant_files::{MappedFile, RelPath};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::{Error, Result};

/// Longest index we read; gpt-oss-120b's is 60 kB.
const MAX_INDEX_BYTES: u64 = 64 << 20;

#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// Bytes of a tensor that may be kept: their shard stays mapped meanwhile.
#[derive(Debug)]
pub(crate) enum Bytes {
    Mapped { file: Arc<MappedFile>, range: Range<usize> },
    Read(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped { file, range } => &file.bytes()[range.clone()],
            Self::Read(bytes) => bytes,
        }
    }
}

/// Calls `visit` with every tensor of the directory: shards in the order of their names, and in a shard in the
/// order of the tensors' names. One shard is mapped at a time, and those of which bytes are kept.
///
/// # Errors
/// A file that is missing or broken, a tensor that is not where the index says or is twice, or what `visit`
/// returns.
pub(crate) fn visit_tensors(
    dir: &Path,
    mut visit: impl FnMut(&Path, &str, TensorView<'_>, Bytes) -> Result<()>,
) -> Result<()> {
    walk(dir, |path, name, file, range, view| {
        let bytes = Bytes::Mapped { file: Arc::clone(file), range };
        visit(path, name, view, bytes)
    })
}

/// As [`visit_tensors`], with the place of each tensor in its file.
fn walk(
    dir: &Path,
    mut visit: impl FnMut(&Path, &str, &Arc<MappedFile>, Range<usize>, TensorView<'_>) -> Result<()>,
) -> Result<()> {
    let Found { files, map, beside, .. } = files(dir)?;
    let beside = beside.map(|path| MappedFile::open(&path).map(|mapped| (path, mapped))).transpose()?;
    let mut beside =
        beside.as_ref().map(|(path, mapped)| Beside::new(dir, path, mapped.bytes())).transpose()?;
    let mut seen = BTreeSet::new();
    for file in &files {
        let path = dir.join(file);
        let mapped = Arc::new(MappedFile::open(&path)?);
        let broken = |reason| Error::Shard { path: path.clone(), reason };
        let (header, metadata) = SafeTensors::read_metadata(mapped.bytes())
            .map_err(|e| broken(shard_defect(&e, mapped.bytes())))?;
        let tensors: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
        for (name, info) in tensors {
            if !seen.insert(name.clone()) {
                return Err(Error::TensorTwice { path: path.display().to_string(), name });
            }
            if let Some(map) = &map
                && map.get(&name) != Some(file)
            {
                let reason = format!("tensor `{name}` is in `{file}`, but the index says otherwise");
                return Err(Error::Index { path: index_path(dir), reason });
            }
            let body = size_of::<u64>() + header;
            let (start, end) = (body + info.data_offsets.0, body + info.data_offsets.1);
            let view = TensorView::new(info.dtype, info.shape.clone(), &mapped.bytes()[start..end])
                .map_err(|e| broken(format!("tensor `{name}`: {e}")))?;
            if let Some(beside) = &mut beside {
                beside.compare(file, &name, &view)?;
            }
            visit(&path, &name, &mapped, start..end, view)?;
        }
    }
    if let Some(beside) = beside {
        beside.finish()?;
    }
    if let Some(name) = map.iter().flat_map(BTreeMap::keys).find(|name| !seen.contains(*name)) {
        let reason = format!("tensor `{name}` is in the index and in no file");
        return Err(Error::Index { path: index_path(dir), reason });
    }
    Ok(())
}

/// A whole file that lies beside an index and its shards.
struct Beside<'a> {
    index: PathBuf,
    path: &'a Path,
    tensors: SafeTensors<'a>,
    /// Tensors that no shard had so far.
    left: BTreeSet<String>,
}

impl<'a> Beside<'a> {
    fn new(dir: &Path, path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let broken = |e| Error::Shard { path: path.to_owned(), reason: shard_defect(&e, bytes) };
        let tensors = SafeTensors::deserialize(bytes).map_err(broken)?;
        let left = tensors.names().into_iter().map(str::to_owned).collect();
        Ok(Self { index: index_path(dir), path, tensors, left })
    }

    fn compare(&mut self, shard: &str, name: &str, view: &TensorView<'_>) -> Result<()> {
        let same = self.tensors.tensor(name).is_ok_and(|other| {
            (other.dtype(), other.shape(), other.data()) == (view.dtype(), view.shape(), view.data())
        });
        self.left.remove(name);
        if same {
            Ok(())
        } else {
            Err(self.differs(&format!("tensor `{name}` of `{shard}` is another there, or missing")))
        }
    }

    fn finish(self) -> Result<()> {
        match self.left.first() {
            Some(name) => Err(self.differs(&format!("tensor `{name}` is there alone"))),
            None => Ok(()),
        }
    }

    fn differs(&self, how: &str) -> Error {
        let reason = format!(
            "the files it names and {} are not the same model: {how}; take the index or that file away",
            self.path.display()
        );
        Error::Index { path: self.index.clone(), reason }
    }
}

/// Where the bytes of a tensor lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// The shard.
    pub path: PathBuf,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// First byte in the file.
    pub start: u64,
    /// Bytes.
    pub length: u64,
}

/// Where every tensor of the directory lies, by name: for those who read some of them, in an order of their own.
///
/// # Errors
/// A file is missing or broken, or a tensor is not where the index says, or in two files.
pub fn tensor_places(dir: &Path) -> Result<BTreeMap<String, TensorPlace>> {
    let mut places = BTreeMap::new();
    walk(dir, |path, name, _, range, view| {
        let place = TensorPlace {
            path: path.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            start: range.start as u64,
            length: view.data().len() as u64,
        };
        places.insert(name.to_owned(), place);
        Ok(())
    })?;
    Ok(places)
}

/// The files that make a model what it is: its configuration, its index if it has one, and its shards, in order.
///
/// # Errors
/// There are no weights, or the index cannot be followed.
pub fn identity_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let found = files(dir)?;
    let mut all = vec![dir.join("config.json")];
    all.extend(found.map.map(|_| index_path(dir)));
    all.extend(found.files.into_iter().map(|name| dir.join(name)));
    Ok(all)
}

/// What is wrong with a shard, and its length, which shows a download that was cut.
fn shard_defect(error: &safetensors::SafeTensorError, bytes: &[u8]) -> String {
    format!("{error} (the file has {} bytes)", bytes.len())
}

fn index_path(dir: &Path) -> PathBuf {
    dir.join("model.safetensors.index.json")
}

/// The file of each tensor.
type WeightMap = BTreeMap<String, String>;

/// The file that holds everything.
const WHOLE: &str = "model.safetensors";

/// The weight files of a directory.
struct Found {
    /// Their names, in order.
    files: Vec<String>,
    /// The index, if they have one.
    map: Option<WeightMap>,
    /// A whole file that is not one of them.
    beside: Option<PathBuf>,
    /// Why an index is not followed.
    left_over: Option<String>,
}

/// Why the index of a directory is not followed, where there is one and a whole file is read in its place.
///
/// # Errors
/// There are no weights, or the index cannot be read.
pub fn left_over_index(dir: &Path) -> Result<Option<String>> {
    Ok(files(dir)?.left_over)
}

fn files(dir: &Path) -> Result<Found> {
    let path = index_path(dir);
    let whole = dir.join(WHOLE);
    let whole_alone = || Found { files: vec![WHOLE.to_owned()], map: None, beside: None, left_over: None };
    if !path.exists() {
        return if whole.exists() {
            Ok(whole_alone())
        } else {
            Err(Error::NoWeights { dir: dir.to_owned() })
        };
    }
    let bytes = descant_files::read_bounded(&path, MAX_INDEX_BYTES)?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|e| Error::Index { path: path.clone(), reason: e.to_string() })?;
    if index.weight_map.is_empty() {
        return Err(Error::Index { path, reason: "`weight_map` names no tensor".to_owned() });
    }
    let files: BTreeSet<String> = index.weight_map.values().cloned().collect();
    for file in &files {
        let refused = |reason| Error::Index { path: path.clone(), reason };
        RelPath::new(file).map_err(|e| refused(e.to_string()))?;
        // Shards lie beside the index, as every tool writes them.
        if file.contains('/') {
            return Err(refused(format!("`{file}` is in another folder")));
        }
    }
    let beside = (whole.exists() && !files.contains(WHOLE)).then_some(whole);
    if let Some(whole) = &beside
        && let Some(missing) = files.iter().find(|file| !dir.join(file).exists())
    {
        let left_over = format!(
            "{} names {missing}, which is not there: it is left from another form of the model; {} is read",
            path.display(),
            whole.display()
        );
        return Ok(Found { left_over: Some(left_over), ..whole_alone() });
    }
    Ok(Found { files: files.into_iter().collect(), map: Some(index.weight_map), beside, left_over: None })
}
