//! How PEFT spells the places in gpt-oss: names that targets and patterns match, and names of tensors.

use descant_model::{Site, SiteDims, SiteKind};

/// What is before a tensor's name in the model.
const PREFIX: &str = "base_model.model.";

/// A or B.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    A,
    B,
}

/// The name that `target_modules` is matched with; the experts of one site are not a module.
pub(super) fn module_target(site: Site) -> Option<String> {
    (!site.kind.is_expert()).then(|| site.module())
}

/// The name that `target_parameters` is matched with.
pub(super) fn parameter_target(site: Site) -> String {
    site.parameter()
}

/// The name that `target_modules` is matched with where every expert is a module of its own (Unsloth, 4 bit).
pub(super) fn expert_target(site: Site, expert: usize) -> Option<String> {
    site.expert_module(expert)
}

/// The tensor of a wrapped parameter or a dense module.
///
/// `gate_up_inside`: whether the layer's gate_up and down are both wrapped, so that gate_up lies inside.
pub(super) fn tensor(site: Site, part: Part, gate_up_inside: bool) -> String {
    let nested = if site.kind == SiteKind::GateUp && gate_up_inside { ".base_layer" } else { "" };
    format!("{PREFIX}{}{nested}.{}", site.module(), ending(part))
}

/// The tensor of one expert that is a module of its own.
pub(super) fn expert_tensor(site: Site, expert: usize, part: Part) -> String {
    format!("{PREFIX}{}s.{expert}.{}", site.parameter(), ending(part))
}

/// The stored shape for `n` matrices in one tensor.
pub(super) fn shape(dims: SiteDims, rank: usize, n: usize, part: Part) -> [usize; 2] {
    match part {
        Part::A => [n * rank, dims.d_in],
        Part::B => [dims.d_out, rank * n],
    }
}

fn ending(part: Part) -> &'static str {
    match part {
        Part::A => "lora_A.weight",
        Part::B => "lora_B.weight",
    }
}
