//! Reading an adapter's folder, every tensor accounted for.
//!
//! PEFT above 0.18 over transformers below 5 stores expert factors the other way round: A over the output features, B
//! over the input features. The shapes decide for gate_up, and for down where the widths differ; a layer's down follows
//! its gate_up. What they cannot decide is down alone in a model as wide as its experts (the published ones): that is
//! read as the usual layout.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use descant_files::{MappedFile, RelPath, read_bounded};
use descant_model::{Config, Site, SiteDims, SiteKind};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::config::{MAX_CONFIG_BYTES, PeftConfig};
use super::error::{Error, Result};
use super::names::{self, Part};
use super::resolve::{Form, Resolved, resolve};
use super::{CONFIG_FILE, EXPERTS, Factors, Sites, TENSORS_FILE, layout};

/// Longest name of a kind of numbers.
const MAX_NUMBERS: usize = 16;
/// What older releases of PEFT wrote: a program that is run to be read.
const PICKLED_FILE: &str = "adapter_model.bin";

/// What an adapter's folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Its configuration.
    pub config: PeftConfig,
    /// Its factors.
    pub sites: Sites,
    /// Targets that match nothing in this model; PEFT passes over them too.
    pub passed_over: Vec<String>,
    /// In which numbers training multiplied with experts, where the tensors' file says so.
    pub experts: Option<String>,
}

/// Reads the adapter in `dir` for `model`.
///
/// # Errors
/// A file is missing or malformed, asks for what is not computed here, or does not fit the model: a missing,
/// extra, misshapen, mistyped or non-finite tensor, or a target that matches nothing.
pub fn load(dir: &Path, model: &Config) -> Result<Adapter> {
    let path = RelPath::new(CONFIG_FILE)?.under(dir)?;
    let config = PeftConfig::from_slice(&read_bounded(&path, MAX_CONFIG_BYTES)?, &path)?;
    let (targets, passed_over) = resolve(&config, model, &path)?;

    let tensors = RelPath::new(TENSORS_FILE)?.under(dir)?;
    let pickled = RelPath::new(PICKLED_FILE)?.under(dir)?;
    if !tensors.exists() && pickled.exists() {
        return Err(Error::Pickled { path: pickled });
    }
    let file = MappedFile::open(&tensors)?;
    let path = file.path().to_owned();
    let tensors = SafeTensors::deserialize(file.bytes())
        .map_err(|source| Error::Header { path: path.clone(), source })?;
    let experts = numbers_of_experts(file.bytes(), &path)?;
    let left = tensors.tensors().into_iter().collect();
    let mut reader = Reader { path, left, swapped_layers: BTreeSet::new() };
    let mut sites = Sites::new();
    for (&site, &resolved) in &targets {
        let gate_up_inside = is_nested(&targets, site.layer);
        let swapped = resolved.form == Form::Whole
            && site.kind.is_expert()
            && reader.is_swapped(site, &targets, gate_up_inside, model);
        sites.insert(
            site,
            reader.factors(site, resolved, gate_up_inside, swapped, model.site_dims(site.kind))?,
        );
    }
    match reader.left.pop_first() {
        Some((tensor, _)) => Err(Error::ExtraTensor { path: reader.path, tensor }),
        None => Ok(Adapter { config, sites, passed_over, experts }),
    }
}

/// What a tensors' file says of the numbers in which training multiplied with experts. It goes on into cards and reports,
/// so it must be a plain word.
fn numbers_of_experts(file: &[u8], path: &Path) -> Result<Option<String>> {
    let header = SafeTensors::read_metadata(file);
    let (_, header) = header.map_err(|source| Error::Header { path: path.to_owned(), source })?;
    let Some(word) = header.metadata().as_ref().and_then(|said| said.get(EXPERTS)) else { return Ok(None) };
    if word.is_empty() || word.len() > MAX_NUMBERS || !word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let reason = format!("is {word:?}; expected a word such as \"fp8\"");
        return Err(Error::Key { path: path.to_owned(), key: EXPERTS.to_owned(), reason });
    }
    Ok(Some(word.clone()))
}

/// Whether PEFT wraps both expert parameters of a layer, gate_up inside.
fn is_nested(targets: &BTreeMap<Site, Resolved>, layer: usize) -> bool {
    [SiteKind::GateUp, SiteKind::Down]
        .into_iter()
        .all(|kind| targets.get(&Site { layer, kind }).is_some_and(|found| found.form == Form::Whole))
}

/// The file's tensors, taken out as they are read.
struct Reader<'a> {
    path: PathBuf,
    left: BTreeMap<String, safetensors::tensor::TensorView<'a>>,
    /// Layers whose gate_up was found the other way round.
    swapped_layers: BTreeSet<usize>,
}

/// Input and output features exchanged.
fn turned(dims: SiteDims) -> SiteDims {
    SiteDims { d_in: dims.d_out, d_out: dims.d_in, ..dims }
}

impl Reader<'_> {
    /// Whether the factors of an expert site lie the other way round, by the shapes of its own tensors, or where
    /// those say nothing by the ones of its layer's other site.
    fn is_swapped(
        &self,
        site: Site,
        targets: &BTreeMap<Site, Resolved>,
        nested: bool,
        model: &Config,
    ) -> bool {
        [site.kind, SiteKind::GateUp, SiteKind::Down].into_iter().any(|kind| {
            let other = Site { kind, ..site };
            let dims = model.site_dims(kind);
            let Some(found) = targets.get(&other).filter(|found| found.form == Form::Whole) else {
                return false;
            };
            let view = self.left.get(&names::tensor(other, Part::A, nested));
            let usual = names::shape(dims, found.rank, dims.n_matrices, Part::A);
            let turned = names::shape(turned(dims), found.rank, dims.n_matrices, Part::A);
            view.map_or_else(
                || self.swapped_layers.contains(&site.layer),
                |view| view.shape() == turned && view.shape() != usual,
            )
        })
    }

    fn factors(
        &mut self,
        site: Site,
        found: Resolved,
        nested: bool,
        swapped: bool,
        dims: SiteDims,
    ) -> Result<Factors> {
        let Resolved { form, rank, scaling } = found;
        let (a, b) = match form {
            Form::Whole if swapped => {
                self.swapped_layers.insert(site.layer);
                let (n, turned) = (dims.n_matrices, turned(dims));
                let a =
                    self.take(names::tensor(site, Part::A, nested), names::shape(turned, rank, n, Part::A))?;
                let b =
                    self.take(names::tensor(site, Part::B, nested), names::shape(turned, rank, n, Part::B))?;
                let b = layout::b_by_expert(&b, turned, rank);
                // Each expert's update is the transpose of the usual one: A and B change places, and axes.
                (layout::axes_changed(&b, n, dims.d_in, rank), layout::axes_changed(&a, n, rank, dims.d_out))
            }
            Form::Whole => {
                let n = dims.n_matrices;
                let a =
                    self.take(names::tensor(site, Part::A, nested), names::shape(dims, rank, n, Part::A))?;
                let b =
                    self.take(names::tensor(site, Part::B, nested), names::shape(dims, rank, n, Part::B))?;
                (a, layout::b_by_expert(&b, dims, rank))
            }
            Form::PerExpert => {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                for expert in 0..dims.n_matrices {
                    for (part, all) in [(Part::A, &mut a), (Part::B, &mut b)] {
                        let name = names::expert_tensor(site, expert, part);
                        all.extend(self.take(name, names::shape(dims, rank, 1, part))?);
                    }
                }
                (a, b)
            }
        };
        Ok(Factors { rank, scaling, a, b })
    }

    fn take(&mut self, tensor: String, expected: [usize; 2]) -> Result<Vec<f32>> {
        let path = || self.path.clone();
        let Some(view) = self.left.remove(&tensor) else {
            return Err(Error::MissingTensor { path: path(), tensor });
        };
        if view.shape() != expected {
            return Err(Error::Shape { path: path(), tensor, expected, actual: view.shape().to_vec() });
        }
        floats(&self.path, &tensor, &view)
    }
}

/// The numbers of a tensor of floats, all finite.
pub(crate) fn floats(
    path: &Path,
    tensor: &str,
    view: &safetensors::tensor::TensorView<'_>,
) -> Result<Vec<f32>> {
    let (path, tensor) = (|| path.to_owned(), || tensor.to_owned());
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        Dtype::BF16 => halves(view.data(), |bytes| bf16::from_le_bytes(bytes).to_f32()),
        Dtype::F16 => halves(view.data(), |bytes| f16::from_le_bytes(bytes).to_f32()),
        other => return Err(Error::Dtype { path: path(), tensor: tensor(), actual: format!("{other:?}") }),
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(Error::NonFinite { path: path(), tensor: tensor(), index }),
        None => Ok(values),
    }
}

fn halves(bytes: &[u8], read: fn([u8; 2]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| read(bytes)).collect()
}
