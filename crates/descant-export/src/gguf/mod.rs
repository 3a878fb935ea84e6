//! GGUF, architecture `gpt-oss`: names, container, keys; what llama.cpp, LM Studio and Ollama read.
//!
//! ```text
//! magic, version 3, counts, keys, tensor infos, padding, tensors aligned to 32
//! ```
//!
//! Gate and up, which alternate by row in our `gate_up_proj`, are two tensors here. Query and key need no permutation.

mod keys;
mod read;
mod tokens;
mod write;

use descant_model::{LayerPart, Part, SiteKind};

use crate::form::Select;

pub(crate) use keys::{lora_keys, model_keys};
pub use read::{Gguf, parse_gguf};
pub(crate) use write::{Info, Value, header};

/// Where tensors begin, in the file and behind each other.
pub(crate) const ALIGNMENT: u64 = 32;

/// What a part is called here; the weights and biases of gate_up are two tensors.
pub(crate) fn names(part: Part) -> Vec<(String, Select)> {
    let whole = |name: String| vec![(name, Select::All)];
    match part {
        Part::Embedding => whole("token_embd.weight".to_owned()),
        Part::Norm => whole("output_norm.weight".to_owned()),
        Part::Head => whole("output.weight".to_owned()),
        Part::Layer(n, part) => match part {
            LayerPart::InputNorm => whole(format!("blk.{n}.attn_norm.weight")),
            LayerPart::PostNorm => whole(format!("blk.{n}.post_attention_norm.weight")),
            LayerPart::Sinks => whole(format!("blk.{n}.attn_sinks.weight")),
            LayerPart::Weight(kind) => of_site(n, kind, "weight"),
            LayerPart::Bias(kind) => of_site(n, kind, "bias"),
        },
    }
}

/// `blk.n.NAME.weight` or `.bias`.
fn of_site(n: usize, kind: SiteKind, leaf: &str) -> Vec<(String, Select)> {
    let modules: &[(&str, Select)] = match kind {
        SiteKind::Query => &[("attn_q", Select::All)],
        SiteKind::Key => &[("attn_k", Select::All)],
        SiteKind::Value => &[("attn_v", Select::All)],
        SiteKind::Output => &[("attn_output", Select::All)],
        SiteKind::Router => &[("ffn_gate_inp", Select::All)],
        SiteKind::GateUp => &[("ffn_gate_exps", Select::Even), ("ffn_up_exps", Select::Odd)],
        SiteKind::Down => &[("ffn_down_exps", Select::All)],
    };
    modules.iter().map(|(module, select)| (format!("blk.{n}.{module}.{leaf}"), *select)).collect()
}
