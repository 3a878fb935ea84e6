//! The variables that Hugging Face's tools know, and those of every tool that speaks HTTP.

use std::path::PathBuf;

#[cfg(feature = "hub")]
use descant_hub::{DEFAULT_ENDPOINT, HubConfig, Secret};

/// Longest token file.
#[cfg(feature = "hub")]
const MAX_TOKEN_BYTES: u64 = 4096;

/// What the variables say.
pub(crate) struct Environment {
    /// The cache, when there is a place for one.
    pub(crate) cache: Option<PathBuf>,
    /// Whether the network is forbidden.
    pub(crate) offline: bool,
    /// How to reach a hub.
    #[cfg(feature = "hub")]
    pub(crate) config: HubConfig,
}

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn read() -> Self {
        Self::of(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()), std::env::home_dir())
    }

    /// What these variables say.
    fn of(get: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let path = |name: &str| {
            let text = get(name)?;
            match (text.strip_prefix("~/"), &home) {
                (Some(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(PathBuf::from(text)),
            }
        };
        let general = path("XDG_CACHE_HOME").or_else(|| home.as_ref().map(|home| home.join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| general.map(|cache| cache.join("huggingface")));
        let hub = || hf_home.as_ref().map(|home| home.join("hub"));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")).or_else(hub);
        let offline = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].iter().any(|name| is_true(get(name)));
        Self {
            cache,
            offline,
            #[cfg(feature = "hub")]
            config: HubConfig {
                endpoint: get("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
                token: token(get, path("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")))),
                proxy: PROXIES.iter().find_map(|name| get(name)).and_then(|text| Secret::new(&text)),
                no_proxy: ["no_proxy", "NO_PROXY"]
                    .iter()
                    .find_map(|name| get(name))
                    .map(|list| list.split(',').map(|host| host.trim().to_owned()).collect())
                    .unwrap_or_default(),
                certificates: CERTIFICATES.iter().find_map(|name| path(name)),
                ..HubConfig::default()
            },
        }
    }
}

/// In the order in which they count; lower case first, as everywhere.
#[cfg(feature = "hub")]
const PROXIES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// Files of certificates in place of the built-in ones.
#[cfg(feature = "hub")]
const CERTIFICATES: [&str; 3] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"];

/// The token of the variables, then that of the file that `hf auth login` writes.
#[cfg(feature = "hub")]
fn token(get: &dyn Fn(&str) -> Option<String>, file: Option<PathBuf>) -> Option<Secret> {
    let given = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN"));
    if let Some(token) = given.and_then(|text| Secret::new(&text)) {
        return Some(token);
    }
    if is_true(get("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
        return None;
    }
    let bytes = descant_files::read_bounded(&file?, MAX_TOKEN_BYTES).ok()?;
    Secret::new(std::str::from_utf8(&bytes).ok()?)
}

fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Environment {
        let get =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Environment::of(&get, Some("/home/me".into()))
    }

    #[test]
    fn the_cache_is_the_one_that_python_uses() {
        for (variables, cache) in [
            (&[][..], "/home/me/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/c")], "/c/huggingface/hub"),
            (&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/c")], "/home/me/hf/hub"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/hf")], "/old"),
            (&[("HF_HUB_CACHE", "/new"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/new"),
        ] {
            assert_eq!(of(variables).cache.unwrap(), PathBuf::from(cache), "{variables:?}");
        }
        assert_eq!(Environment::of(&|_| None, None).cache, None);
    }

    #[test]
    fn offline_is_a_word_for_yes() {
        for (value, offline) in
            [("1", true), ("true", true), ("ON", true), ("yes", true), ("0", false), ("x", false)]
        {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[cfg(feature = "hub")]
    #[test]
    fn a_token_comes_from_a_variable_or_from_the_file_of_the_login() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        descant_files::write_atomic(&file, b"from-file\n").unwrap();
        let home = dir.path().to_str().unwrap();
        let token = |variables: &[(&str, &str)]| of(variables).config.token;
        assert_eq!(token(&[("HF_HOME", home)]), Secret::new("from-file"));
        assert_eq!(token(&[("HF_TOKEN_PATH", file.to_str().unwrap())]), Secret::new("from-file"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " given ")]), Secret::new("given"));
        assert_eq!(token(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(token(&[]), None);
    }

    #[cfg(feature = "hub")]
    #[test]
    fn proxies_and_certificates_are_those_of_other_tools() {
        let config =
            of(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", "a, .b"), ("SSL_CERT_FILE", "~/c.pem")]).config;
        assert_eq!(config.proxy, Secret::new("http://p:1"));
        assert_eq!(config.no_proxy, ["a", ".b"]);
        assert_eq!(config.certificates.unwrap(), PathBuf::from("/home/me/c.pem"));
        assert_eq!(of(&[]).config.endpoint, DEFAULT_ENDPOINT);
    }
}
