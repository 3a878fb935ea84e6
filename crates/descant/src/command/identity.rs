//! What run this is: everything that its bytes depend on, by name and value.
//!
//! Settings as resolved, but those of `[run]`, `[guard]` and `[memory]`: where a run lies, how often it is saved, what
//! becomes of a step that cannot be made and how much memory there is are its user's to change. The samples by a hash of what the loop sees, which covers data,
//! tokenizer and template; the base by the fingerprints of its files.

use std::path::Path;

use anyhow::{Context as _, Result};
use descant_train::Sample;
use descant_train::checkpoint::Identity;

use crate::settings::Resolved;

/// Sections that may differ.
const FREE: [&str; 3] = ["run", "guard", "memory"];

/// The identity of a run.
pub(crate) fn identity(
    resolved: &Resolved,
    model: &Path,
    samples: &[Sample],
    device: &str,
) -> Result<Identity> {
    let table: toml::Table = toml::from_str(&resolved.text).context("reading the settings back")?;
    let mut identity = Identity::new();
    for (section, values) in table.iter().filter(|(section, _)| !FREE.contains(&section.as_str())) {
        flatten(section, values, &mut identity);
    }
    for path in descant_model::identity_files(model)? {
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
        identity.push((format!("file {name}"), descant_files::fingerprint(&path)?));
    }
    identity.push(("samples".to_owned(), samples_hash(samples)));
    identity.push(("device".to_owned(), device.to_owned()));
    Ok(identity)
}

/// Every value under a name, with the names of the tables that it stands in.
fn flatten(name: &str, value: &toml::Value, identity: &mut Identity) {
    match value.as_table() {
        Some(table) => {
            for (key, value) in table {
                flatten(&format!("{name}.{key}"), value, identity);
            }
        }
        None => identity.push((name.to_owned(), value.to_string())),
    }
}

/// SHA-256 over the hashes of all samples.
fn samples_hash(samples: &[Sample]) -> String {
    let one = |sample: &Sample| {
        let ids = sample.ids.iter().flat_map(|id| id.to_le_bytes());
        let weights = sample.weights.iter().flat_map(|weight| weight.to_bits().to_le_bytes());
        let first = sample.first_analysis.map_or(u64::MAX, |at| at as u64).to_le_bytes();
        descant_files::sha256(&ids.chain(weights).chain(first).collect::<Vec<u8>>())
    };
    descant_files::sha256(samples.iter().map(one).collect::<String>().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    #[test]
    fn what_bytes_depend_on_is_in_it_and_the_rest_is_not() {
        let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let sample = Sample { row: 1, ids: vec![1, 2], weights: vec![0.0, 1.0], first_analysis: None };
        let of = |set: &str, sample: &Sample, device: &str| {
            let resolved = resolve(None, &[set.to_owned()]).unwrap();
            identity(&resolved, model, std::slice::from_ref(sample), device).unwrap()
        };
        let base = of("train.seed=3407", &sample, "cpu");
        assert!(base.iter().any(|(name, _)| name == "file model.safetensors"));
        assert_eq!(of("run.save_every=7", &sample, "cpu"), base);
        assert_eq!(of("memory.keep=minimal", &sample, "cpu"), base);
        assert_eq!(of("guard.skip_non_finite=7", &sample, "cpu"), base);
        let renumbered = Sample { row: 2, ..sample.clone() };
        assert_eq!(of("train.seed=3407", &renumbered, "cpu"), base, "numbers of rows are for messages only");
        let other = Sample { weights: vec![0.0, 0.5], ..sample.clone() };
        assert!(base.iter().any(|(name, value)| name == "data.loss.final" && value == "1.0"), "{base:?}");
        for differing in [
            of("data.loss.final=0.5", &sample, "cpu"),
            of("train.seed=1", &sample, "cpu"),
            of("train.seed=3407", &other, "cpu"),
            of("train.seed=3407", &sample, "x"),
        ] {
            assert_ne!(differing, base);
        }
    }
}
