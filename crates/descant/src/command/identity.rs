//! What run this is: everything that its bytes depend on, by name and value.
//!
//! Settings as resolved, but those of `[run]`, `[guard]` and `[memory]`: where a run is, how often it is saved, what
//! becomes of a step that cannot be made and how much memory there is are its user's to change. The samples by a hash
//! of what the loop sees, which covers data, tokenizer and template; the base by the fingerprints of its files.

use std::path::Path;

use anyhow::{Context as _, Result};
use descant_train::checkpoint::Identity;

use crate::settings::Resolved;

/// Sections that may differ.
const FREE: [&str; 3] = ["run", "guard", "memory"];

/// The identity of a run.
pub(crate) fn identity(
    resolved: &Resolved,
    model: &Path,
    samples_sha256: &str,
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
    identity.push(("samples".to_owned(), samples_sha256.to_owned()));
    identity.push(("device".to_owned(), device.to_owned()));
    Ok(identity)
}

/// Keys whose values may differ between the hosts of a run: what they lead to is compared by hash.
const OF_A_HOST: [&str; 5] =
    ["model.path", "model.device", "data.path", "data.held_out", "model.chat_template"];

/// The settings that all processes of a run must have in common, whatever each host has where.
pub(super) fn settings_of_all(resolved: &Resolved) -> Result<Identity> {
    let table: toml::Table = toml::from_str(&resolved.text).context("reading the settings back")?;
    let mut settings = Identity::new();
    for (section, values) in table.iter().filter(|(section, _)| *section != "memory") {
        flatten(section, values, &mut settings);
    }
    Ok(of_all(&settings))
}

/// What of an identity must be the same on all hosts.
pub(super) fn of_all(identity: &Identity) -> Identity {
    identity.iter().filter(|(name, _)| !OF_A_HOST.contains(&name.as_str())).cloned().collect()
}

/// Every value under a name, with the names of the tables that it is in.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::resolve;

    #[test]
    fn what_bytes_depend_on_is_in_it_and_the_rest_is_not() {
        let model = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let of = |set: &str, samples: &str, device: &str| {
            let resolved = resolve(None, &[set.to_owned()]).unwrap();
            identity(&resolved, model, samples, device).unwrap()
        };
        let (sample, other) = ("one hash", "another");
        let base = of("train.seed=3407", sample, "cpu");
        assert!(base.iter().any(|(name, _)| name == "file model.safetensors"));
        assert_eq!(of("run.save_every=7", sample, "cpu"), base);
        assert_eq!(of("memory.keep=minimal", sample, "cpu"), base);
        assert_eq!(of("guard.skip_non_finite=7", sample, "cpu"), base);
        assert!(base.iter().any(|(name, value)| name == "data.loss.final" && value == "1.0"), "{base:?}");
        for differing in [
            of("data.loss.final=0.5", sample, "cpu"),
            of("train.seed=1", sample, "cpu"),
            of("train.seed=3407", other, "cpu"),
            of("train.seed=3407", sample, "x"),
        ] {
            assert_ne!(differing, base);
        }
    }
}
