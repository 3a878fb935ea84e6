//! Adapters as mlx-lm keeps them: `adapter_config.json` and `adapters.safetensors`.
//!
//! ```text
//! tensors of layer n, all below model.layers.n.
//!   self_attn.{q,k,v,o}_proj.lora_a           [in, r]        .lora_b  [r, out]
//!   mlp.router.lora_a                         [in, r]        .lora_b  [r, E]
//!   mlp.experts.{gate,up,down}_proj.lora_a    [E, r, in]     .lora_b  [E, out, r]
//! ```
//!
//! One rank and one scale in a file. Gate and up are layers of their own there: where each has its own A, ours has both
//! in one of twice the rank. Only LoRA is read; DoRA and full fine-tunes are refused by name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use descant_files::{MappedFile, RelPath, read_bounded};
use descant_model::{Config, Site, SiteDims, SiteKind, module_in_layer, path_in_layer};
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::config::MAX_RANK;
use crate::peft::{CONFIG_FILE, Error, Factors, Files, MAX_CONFIG_BYTES, Result, Sites, floats};
use crate::written::{Written, file_of};

/// The tensors' name in a folder; PEFT's has another.
pub const TENSORS_FILE: &str = "adapters.safetensors";

/// Which rows of a site's B a layer of MLX has: all, those of gate, or those of up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    Gate,
    Up,
}

impl Rows {
    fn of(self, d_out: usize) -> usize {
        if self == Self::All { d_out } else { d_out / 2 }
    }

    /// Row `i` of the layer as a row of the site.
    fn place(self, i: usize) -> usize {
        match self {
            Self::All => i,
            Self::Gate => 2 * i,
            Self::Up => 2 * i + 1,
        }
    }

    /// The rows of a site's B, `[n, d_out, rank]`, that the layer has: `[n, out, rank]`.
    fn of_b(self, b: &[f32], dims: SiteDims, rank: usize) -> Vec<f32> {
        let out = self.of(dims.d_out);
        let mut taken = Vec::with_capacity(dims.n_matrices * out * rank);
        for matrix in b.chunks_exact(dims.d_out * rank) {
            for i in 0..out {
                taken.extend_from_slice(&matrix[self.place(i) * rank..][..rank]);
            }
        }
        taken
    }
}

/// The layers of a site, below `model.layers.n.`.
fn layers(kind: SiteKind) -> Vec<(String, Rows)> {
    match kind {
        SiteKind::GateUp => {
            let experts = module_in_layer(kind);
            vec![(format!("{experts}.gate_proj"), Rows::Gate), (format!("{experts}.up_proj"), Rows::Up)]
        }
        other => vec![(path_in_layer(other), Rows::All)],
    }
}

/// The files of a folder for mlx-lm. `sites` have one rank, and no scaling but 1.
///
/// # Errors
/// The sites are not of one rank and scaling.
pub fn files(model: &Config, sites: &Sites) -> Result<Files> {
    let first = sites.values().next().ok_or(Error::Empty)?;
    let rank = first.rank;
    if let Some((&site, _)) =
        sites.iter().find(|(_, f)| f.rank != rank || f.scaling.to_bits() != 1.0_f32.to_bits())
    {
        return Err(Error::Factors {
            site,
            reason: "MLX has one rank and one scale for all; fold first".to_owned(),
        });
    }
    let (mut tensors, mut keys) = (Vec::new(), Vec::new());
    for kind in SiteKind::ALL {
        let dims = model.site_dims(kind);
        let SiteDims { d_in, d_out, n_matrices: n } = dims;
        for (layer, rows) in layers(kind) {
            let mut any = false;
            for (site, factors) in sites.iter().filter(|(site, _)| site.kind == kind) {
                any = true;
                let name = format!("model.layers.{}.{layer}", site.layer);
                let out = rows.of(d_out);
                let (a_shape, b_shape) = if kind.is_expert() {
                    (vec![n, rank, d_in], vec![n, out, rank])
                } else {
                    (vec![d_in, rank], vec![rank, out])
                };
                let expert = kind.is_expert();
                let a = move || {
                    if expert {
                        Cow::Borrowed(&*factors.a)
                    } else {
                        Cow::Owned(turned(&factors.a, rank, d_in))
                    }
                };
                let b = move || {
                    let b = rows.of_b(&factors.b, dims, rank);
                    Cow::Owned(if expert { b } else { turned(&b, out, rank) })
                };
                tensors.push((format!("{name}.lora_a"), Written::new(a_shape, a)));
                tensors.push((format!("{name}.lora_b"), Written::new(b_shape, b)));
            }
            if any {
                keys.push(layer);
            }
        }
    }
    let config = json!({
        "fine_tune_type": "lora",
        "num_layers": model.num_hidden_layers,
        "lora_parameters": {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": keys},
    });
    let tensors = file_of(tensors, "mlx", None)
        .map_err(|source| Error::Header { path: TENSORS_FILE.into(), source })?;
    Ok(vec![(CONFIG_FILE, format!("{config:#}\n").into_bytes()), (TENSORS_FILE, tensors)])
}

/// Whether `dir` is a folder of mlx-lm's.
pub fn is_mlx(dir: &Path) -> bool {
    dir.join(TENSORS_FILE).is_file() && !dir.join(crate::peft::TENSORS_FILE).exists()
}

/// Reads an adapter of mlx-lm's for `model`.
///
/// # Errors
/// A file is missing or malformed, is not a LoRA, or does not fit the model.
pub fn load(dir: &Path, model: &Config) -> Result<Sites> {
    let path = RelPath::new(CONFIG_FILE)?.under(dir)?;
    let config: Value = serde_json::from_slice(&read_bounded(&path, MAX_CONFIG_BYTES)?)
        .map_err(|source| Error::Json { path: path.clone(), source })?;
    let key = |key: &str, reason: String| Error::Key { path: path.clone(), key: key.to_owned(), reason };
    if config["fine_tune_type"] != "lora" {
        let value = config["fine_tune_type"].to_string();
        return Err(Error::Unsupported { path: path.clone(), key: "fine_tune_type".to_owned(), value });
    }
    let about = &config["lora_parameters"];
    let rank = about["rank"].as_u64().filter(|rank| (1..=MAX_RANK as u64).contains(rank));
    let rank = rank.ok_or_else(|| {
        key("lora_parameters.rank", format!("is {}; expected 1 to {MAX_RANK}", about["rank"]))
    })?;
    let scale = about["scale"].as_f64().filter(|scale| scale.is_finite() && *scale > 0.0);
    let scaling = scale.ok_or_else(|| {
        key("lora_parameters.scale", format!("is {}; expected a positive number", about["scale"]))
    })?;
    let file = MappedFile::open(&RelPath::new(TENSORS_FILE)?.under(dir)?)?;
    let path = file.path().to_owned();
    let tensors = SafeTensors::deserialize(file.bytes())
        .map_err(|source| Error::Header { path: path.clone(), source })?;
    let mut reader = Reader { path: &path, left: tensors.tensors().into_iter().collect() };
    let mut sites = Sites::new();
    for layer in 0..model.num_hidden_layers {
        for kind in SiteKind::ALL {
            let site = Site { layer, kind };
            if let Some(factors) = reader.site(site, model.site_dims(kind), rank as usize, scaling as f32)? {
                sites.insert(site, factors);
            }
        }
    }
    match reader.left.pop_first() {
        Some((tensor, _)) => Err(Error::ExtraTensor { path, tensor }),
        None if sites.is_empty() => Err(Error::Empty),
        None => Ok(sites),
    }
}

/// The file's tensors, taken out as they are read.
struct Reader<'a> {
    path: &'a Path,
    left: BTreeMap<String, TensorView<'a>>,
}

impl Reader<'_> {
    /// The factors at a site, if the file has any.
    fn site(&mut self, site: Site, dims: SiteDims, rank: usize, scaling: f32) -> Result<Option<Factors>> {
        let SiteDims { d_in, d_out, n_matrices: n } = dims;
        let expert = site.kind.is_expert();
        let mut found: Vec<(Rows, Vec<f32>, Vec<f32>)> = Vec::new();
        for (layer, rows) in layers(site.kind) {
            let name = format!("model.layers.{}.{layer}", site.layer);
            let out = rows.of(d_out);
            let a = self.take(
                &format!("{name}.lora_a"),
                if expert { vec![n, rank, d_in] } else { vec![d_in, rank] },
            )?;
            let b = self
                .take(&format!("{name}.lora_b"), if expert { vec![n, out, rank] } else { vec![rank, out] })?;
            match (a, b) {
                (None, None) => {}
                (Some(a), Some(b)) if expert => found.push((rows, a, b)),
                (Some(a), Some(b)) => found.push((rows, turned(&a, d_in, rank), turned(&b, rank, out))),
                (a, _) => {
                    let half = if a.is_some() { "lora_b" } else { "lora_a" };
                    return Err(Error::MissingTensor {
                        path: self.path.to_owned(),
                        tensor: format!("{name}.{half}"),
                    });
                }
            }
        }
        let Some((_, first, _)) = found.first() else { return Ok(None) };
        // Where gate and up read the same directions, one A will do.
        let shared = found.iter().all(|(_, a, _)| a == first);
        let parts = if shared { 1 } else { found.len() };
        let whole = rank * parts;
        let (mut all_a, mut all_b) = (vec![0.0; n * whole * d_in], vec![0.0; n * d_out * whole]);
        for (i, (rows, a, b)) in found.iter().enumerate() {
            let part = if shared { 0 } else { i };
            for e in 0..n {
                let to = (e * whole + part * rank) * d_in;
                all_a[to..to + rank * d_in].copy_from_slice(&a[e * rank * d_in..(e + 1) * rank * d_in]);
                let out = rows.of(d_out);
                for i in 0..out {
                    let to = (e * d_out + rows.place(i)) * whole + part * rank;
                    let from = (e * out + i) * rank;
                    all_b[to..to + rank].copy_from_slice(&b[from..from + rank]);
                }
            }
        }
        Ok(Some(Factors { rank: whole, scaling, a: all_a, b: all_b }))
    }

    fn take(&mut self, tensor: &str, expected: Vec<usize>) -> Result<Option<Vec<f32>>> {
        let Some(view) = self.left.remove(tensor) else { return Ok(None) };
        if view.shape() != expected {
            let reason = format!("tensor `{tensor}` is {:?}, expected {expected:?}", view.shape());
            return Err(Error::Key {
                path: self.path.to_owned(),
                key: "lora_parameters.rank".to_owned(),
                reason,
            });
        }
        floats(self.path, tensor, &view).map(Some)
    }
}

/// `[rows, columns]` with its axes changed.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}
