//! Writing an adapter's folder: all of it or nothing, and the same bytes for the same numbers.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use descant_files::{NewDir, RelPath};
use descant_model::{Config, Site, SiteDims, SiteKind, parameter_in_layer};
use serde_json::{Map, Value, json};

use super::base::Base;
use super::card::card;
use super::error::{Error, Result};
use super::manifest::{Manifest, nested_layers};
use super::names::{self, Part};
use super::{CARD_FILE, CONFIG_FILE, EXPERTS, Factors, Sites, TENSORS_FILE, layout};
use crate::config::MAX_RANK;
use crate::written::{Written, file_of};

/// Files by name, in the order in which they are written.
pub type Files = Vec<(&'static str, Vec<u8>)>;

/// Writes the adapter to a new folder `dir`; the folder above must exist.
///
/// # Errors
/// The factors do not fit the model or are not finite, something is at `dir`, or the system refuses.
pub fn save<'a>(dir: &Path, model: &Config, base: impl Into<Base<'a>>, sites: &Sites) -> Result<Manifest> {
    let (manifest, files) = files(model, base, sites)?;
    let mut new = NewDir::create(dir)?;
    for (name, bytes) in files {
        new.write(&RelPath::new(name)?, &bytes)?;
    }
    new.commit()?;
    Ok(manifest)
}

/// The files of an adapter's folder, by name, with what they hold.
///
/// Ranks and scalings may differ between sites. The configuration has the keys that PEFT needs and no others,
/// because older releases refuse keys that they do not know.
///
/// # Errors
/// The factors do not fit the model or are not finite.
pub fn files<'a>(model: &Config, base: impl Into<Base<'a>>, sites: &Sites) -> Result<(Manifest, Files)> {
    let base = base.into();
    for (&site, factors) in sites {
        check(site, factors, model)?;
    }
    let first = sites.values().next().ok_or(Error::Empty)?;
    let (rank, alpha) = (first.rank, alpha_of(first));
    let targets = Targets::of(sites, model);
    let manifest = Manifest::new(model, sites.iter().map(|(&site, factors)| (site, factors.rank)));
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "revision": base.revision,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": number(alpha),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "init_lora_weights": true,
        "use_rslora": false,
        "use_dora": false,
        "target_modules": targets.modules,
        "target_parameters": if targets.parameters.is_empty() { Value::Null } else { json!(targets.parameters) },
        "modules_to_save": null,
        "rank_pattern": pattern(sites, |factors| (factors.rank != rank).then(|| json!(factors.rank))),
        "alpha_pattern": pattern(sites, |factors| {
            let own = alpha_of(factors);
            (own.to_bits() != alpha.to_bits()).then(|| number(own))
        }),
        "layers_to_transform": null,
        "layers_pattern": null,
    });
    let mut config = serde_json::to_string_pretty(&config).expect("maps with text keys are JSON");
    config.push('\n');
    let all_targets: Vec<_> = targets.modules.into_iter().chain(targets.parameters).collect();

    let card = card(base, &all_targets, rank, alpha, &manifest).into_bytes();
    let tensors = tensors(model, sites, base.experts)?;
    Ok((manifest, vec![(CARD_FILE, card), (CONFIG_FILE, config.into_bytes()), (TENSORS_FILE, tensors)]))
}

fn check(site: Site, factors: &Factors, model: &Config) -> Result<()> {
    let wrong = |reason: String| Err(Error::Factors { site, reason });
    let Factors { rank, scaling, a, b } = factors;
    if site.layer >= model.num_hidden_layers {
        return wrong(format!("the model has {} layers", model.num_hidden_layers));
    }
    if *rank == 0 || *rank > MAX_RANK {
        return wrong(format!("rank is {rank}; expected 1 to {MAX_RANK}"));
    }
    if !(scaling.is_finite() && *scaling > 0.0) {
        return wrong(format!("scaling is {scaling}; expected a positive number"));
    }
    let dims = model.site_dims(site.kind);
    for (name, values, expected) in
        [("A", a, dims.n_matrices * rank * dims.d_in), ("B", b, dims.n_matrices * dims.d_out * rank)]
    {
        if values.len() != expected {
            return wrong(format!("{name} has {} numbers; expected {expected}", values.len()));
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return wrong(format!("{name}: element {index} is not finite"));
        }
    }
    Ok(())
}

/// The alpha that gives back the scaling to the bit: a whole number where one does.
fn alpha_of(factors: &Factors) -> f64 {
    let rank = factors.rank as f64;
    let alpha = f64::from(factors.scaling) * rank;
    let whole = alpha.round();
    let same = whole > 0.0 && ((whole / rank) as f32).to_bits() == factors.scaling.to_bits();
    if same { whole } else { alpha }
}

/// Whole numbers without a point, as PEFT writes them.
fn number(value: f64) -> Value {
    // Below 2^53 every whole f64 is exact as an integer.
    if value.fract() == 0.0 && value < 9e15 { json!(value as u64) } else { json!(value) }
}

/// Names for `target_modules` and `target_parameters`.
struct Targets {
    modules: Vec<String>,
    parameters: Vec<String>,
}

impl Targets {
    /// A kind that is trained in every layer is named once, by its ending; others layer by layer.
    fn of(sites: &Sites, model: &Config) -> Self {
        let (mut modules, mut parameters) = (Vec::new(), Vec::new());
        for kind in SiteKind::ALL {
            let layers: BTreeSet<_> =
                sites.keys().filter(|site| site.kind == kind).map(|site| site.layer).collect();
            let list = if is_parameter(kind) { &mut parameters } else { &mut modules };
            if layers.len() == model.num_hidden_layers {
                list.push(ending(kind));
            } else {
                list.extend(layers.into_iter().map(|layer| target(Site { layer, kind })));
            }
        }
        Self { modules, parameters }
    }
}

/// Whether PEFT reaches a kind only as a parameter.
fn is_parameter(kind: SiteKind) -> bool {
    kind.is_expert() || kind == SiteKind::Router
}

/// The name that PEFT matches for a site.
fn target(site: Site) -> String {
    if is_parameter(site.kind) {
        names::parameter_target(site)
    } else {
        names::module_target(site).expect("attention projections are modules")
    }
}

/// What the names of a kind have in common in all layers.
fn ending(kind: SiteKind) -> String {
    if is_parameter(kind) { parameter_in_layer(kind) } else { kind.name().to_owned() }
}

/// Values of the sites that differ from the general one, by the site's full name.
fn pattern(sites: &Sites, own: impl Fn(&Factors) -> Option<Value>) -> Map<String, Value> {
    sites.iter().filter_map(|(&site, factors)| Some((target(site), own(factors)?))).collect()
}

/// The bytes of `adapter_model.safetensors`.
fn tensors(model: &Config, sites: &Sites, experts: Option<&str>) -> Result<Vec<u8>> {
    let nested = nested_layers(sites.keys().copied());
    let mut tensors = Vec::new();
    for (&site, factors) in sites {
        let dims = model.site_dims(site.kind);
        let mut push = |part, tensor: fn(&Factors, SiteDims) -> Cow<'_, [f32]>| {
            let name = names::tensor(site, part, nested.contains(&site.layer));
            let shape = names::shape(dims, factors.rank, dims.n_matrices, part);
            tensors.push((name, Written::new(shape, move || tensor(factors, dims))));
        };
        push(Part::A, |factors, _| Cow::Borrowed(&factors.a));
        push(Part::B, |factors, dims| Cow::Owned(layout::b_as_stored(&factors.b, dims, factors.rank)));
    }
    file_of(tensors, "pt", experts.map(|experts| (EXPERTS, experts)))
        .map_err(|source| Error::Header { path: TENSORS_FILE.into(), source })
}
