//! From a configuration to sites: what each target matches in a model, with which rank and scaling.
//!
//! Matching is PEFT's. A module or parameter is targeted when a name in the list is its name or an ending of it
//! after a dot, or when the one regular expression matches all of it. Ranks and alphas come from the first pattern
//! that, as a regular expression, matches its name or an ending of it after a dot. A target that matches nothing is
//! passed over and reported, as long as another one matches: lists are shared between models.

use std::collections::BTreeMap;
use std::path::Path;

use descant_model::{Config, Site, SiteKind};
use regex::Regex;

use super::config::{PeftConfig, TargetModules};
use super::error::{Error, Result};
use super::names;

/// Modules of the model that no adapter is computed for.
const NOT_ADAPTED: [&str; 2] = ["lm_head", "embed_tokens"];

/// How a site's tensors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One pair of tensors; experts in one tensor.
    Whole,
    /// One pair of tensors for each expert.
    PerExpert,
}

/// What the configuration says about a site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Resolved {
    pub(super) form: Form,
    pub(super) rank: usize,
    pub(super) scaling: f32,
}

/// The sites that a configuration targets, and the targets that were passed over.
pub(super) fn resolve(
    config: &PeftConfig,
    model: &Config,
    path: &Path,
) -> Result<(BTreeMap<Site, Resolved>, Vec<String>)> {
    let mut modules = Targets::modules(&config.target_modules, "target_modules", path)?;
    let mut excluded = Targets::modules(&config.exclude_modules, "exclude_modules", path)?;
    if let Some(name) = NOT_ADAPTED.iter().find(|name| modules.names_it(name) && !excluded.matches(name)) {
        let reason = format!("names {name}; adapters on {name} are not supported");
        return Err(Error::Key { path: path.to_owned(), key: "target_modules".to_owned(), reason });
    }
    if let Some(layer) = config.layers.iter().flatten().find(|layer| **layer >= model.num_hidden_layers) {
        let reason = format!("names layer {layer}; the model has {} layers", model.num_hidden_layers);
        return Err(Error::Key { path: path.to_owned(), key: "layers_to_transform".to_owned(), reason });
    }
    let mut parameters = Targets::names(&config.target_parameters);
    let scales = Scales::new(config, path)?;
    let mut sites = BTreeMap::new();
    for layer in 0..model.num_hidden_layers {
        for kind in SiteKind::ALL {
            let site = Site { layer, kind };
            let conflict = |reason| Error::Conflict { path: path.to_owned(), site, reason };
            let mut found = Vec::new();
            let among = config.layers.as_ref().is_none_or(|layers| layers.contains(&layer));
            let mut targeted = |name: &String| among && modules.matches(name) && !excluded.matches(name);
            if let Some(name) = names::module_target(site).filter(&mut targeted) {
                found.push(scales.of(&name, Form::Whole));
            }
            let name = names::parameter_target(site);
            if parameters.matches(&name) {
                found.push(scales.of(&name, Form::Whole));
            }
            let experts: Vec<_> = (0..model.num_local_experts)
                .filter_map(|expert| names::expert_target(site, expert))
                .filter(&mut targeted)
                .map(|name| scales.of(&name, Form::PerExpert))
                .collect();
            if let Some(&first) = experts.first() {
                if experts.len() != model.num_local_experts {
                    return Err(conflict("some experts are targeted and others are not"));
                }
                if experts.iter().any(|other| *other != first) {
                    return Err(conflict("experts differ in rank or alpha"));
                }
                found.push(first);
            }
            match found[..] {
                [] => {}
                [one] => {
                    sites.insert(site, one);
                }
                _ => return Err(conflict("is targeted twice, as a module and as a parameter")),
            }
        }
    }
    let mut passed_over = modules.unmatched();
    passed_over.extend(parameters.unmatched());
    if let Some(target) = passed_over.first().filter(|_| sites.is_empty()) {
        return Err(Error::NoMatch { path: path.to_owned(), target: target.clone() });
    }
    if sites.is_empty() {
        let reason = "and `target_parameters` name nothing".to_owned();
        return Err(Error::Key { path: path.to_owned(), key: "target_modules".to_owned(), reason });
    }
    Ok((sites, passed_over))
}

/// Targets, and which of them have matched.
struct Targets<'a> {
    names: Vec<(&'a str, bool)>,
    pattern: Option<Regex>,
}

impl<'a> Targets<'a> {
    fn names(names: &'a [String]) -> Self {
        Self { names: names.iter().map(|name| (name.as_str(), false)).collect(), pattern: None }
    }

    fn modules(targets: &'a TargetModules, key: &str, path: &Path) -> Result<Self> {
        match targets {
            TargetModules::Names(names) => Ok(Self::names(names)),
            TargetModules::Pattern(text) => {
                let pattern = compile(&format!("^(?:{text})$"), key, path)?;
                Ok(Self { names: vec![(text, false)], pattern: Some(pattern) })
            }
        }
    }

    fn matches(&mut self, name: &str) -> bool {
        let mut any = false;
        for (target, matched) in &mut self.names {
            let hit = match &self.pattern {
                Some(pattern) => pattern.is_match(name),
                None => name.strip_suffix(*target).is_some_and(|head| head.is_empty() || head.ends_with('.')),
            };
            *matched |= hit;
            any |= hit;
        }
        any
    }

    /// Whether a name is in the list, as it is.
    fn names_it(&self, name: &str) -> bool {
        self.pattern.is_none() && self.names.iter().any(|(target, _)| *target == name)
    }

    fn unmatched(&self) -> Vec<String> {
        self.names.iter().filter(|(_, matched)| !matched).map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// Ranks and alphas by name.
struct Scales<'a> {
    config: &'a PeftConfig,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl<'a> Scales<'a> {
    fn new(config: &'a PeftConfig, path: &Path) -> Result<Self> {
        Ok(Self {
            config,
            ranks: patterns(&config.rank_pattern, "rank_pattern", path)?,
            alphas: patterns(&config.alpha_pattern, "alpha_pattern", path)?,
        })
    }

    fn of(&self, name: &str, form: Form) -> Resolved {
        let rank = first_match(&self.ranks, name).unwrap_or(self.config.rank);
        let alpha = first_match(&self.alphas, name).unwrap_or(self.config.alpha);
        Resolved { form, rank, scaling: self.config.scaling(rank, alpha) }
    }
}

fn patterns<T: Copy>(patterns: &[(String, T)], key: &str, path: &Path) -> Result<Vec<(Regex, T)>> {
    patterns
        .iter()
        .map(|(text, value)| Ok((compile(&format!(r"^(?:.*\.)?(?:{text})$"), key, path)?, *value)))
        .collect()
}

fn first_match<T: Copy>(patterns: &[(Regex, T)], name: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(name)).map(|(_, value)| *value)
}

fn compile(pattern: &str, key: &str, path: &Path) -> Result<Regex> {
    Regex::new(pattern).map_err(|e| {
        // The library draws the pattern over several lines; its last one says what is wrong.
        let text = e.to_string();
        let reason = text.lines().last().unwrap_or_default().trim();
        Error::Key {
            path: path.to_owned(),
            key: key.to_owned(),
            reason: format!("has a pattern that cannot be used: {reason}"),
        }
    })
}
