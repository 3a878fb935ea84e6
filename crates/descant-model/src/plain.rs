//! Which weights of an NF4 checkpoint are not packed as kernels read them: what its `config.json` says of that before
//! any weight is here, and what the headers of its files say once they are (`weights/stored.rs`).
//!
//! Dynamic checkpoints leave some modules alone. Sizes of a plan depend on it, and which buffers layers need.

use std::collections::BTreeSet;

/// See the head of the file. By default every weight is packed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plain {
    /// None is, since scales are not packed themselves.
    all: bool,
    /// Modules by name, as `llm_int8_skip_modules` has them: `model.layers.3.self_attn`, `lm_head`, `router`.
    modules: Vec<String>,
    /// Paths of weights, as the files have them.
    found: BTreeSet<String>,
}

impl Plain {
    /// What a `quantization_config` says: whether scales are quantized twice, and which modules are left alone.
    pub(crate) fn said(double_quantization: bool, left_alone: Option<&[String]>) -> Self {
        Self {
            all: !double_quantization,
            modules: left_alone.unwrap_or_default().to_vec(),
            ..Self::default()
        }
    }

    /// Those of which the files say it, by path.
    pub(crate) fn found(paths: BTreeSet<String>) -> Self {
        Self { found: paths, ..Self::default() }
    }

    /// Whether the weight of this path is one of them. A name selects a module, all modules in it, and all whose
    /// path ends with it, as in transformers.
    pub(crate) fn has(&self, path: &str) -> bool {
        let is_meant = |name: &String| {
            let within = |whole: &str| whole == name || whole.starts_with(&format!("{name}."));
            // Experts are named one by one, `down_projs.7`; left alone are all of them or none.
            within(path) || within(&format!("{path}s")) || path.ends_with(&format!(".{name}"))
        };
        self.all || self.found.contains(path) || self.modules.iter().any(is_meant)
    }
}
