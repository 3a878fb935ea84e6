//! The keys of a model file and of an adapter file.
//!
//! Without some of them llama.cpp refuses a file, without others it loads and computes something else, so everything
//! that is there is written. What llama.cpp has built in, and a configuration could say otherwise, is refused.

use std::path::Path;

use descant_lora::peft::short_name;
use descant_model::{Config, LayerType, MAX_CONFIG_BYTES};
use serde_json::Value as Json;

use super::Value;
use super::tokens::Vocabulary;
use crate::error::{Error, Result};

/// The architecture's name, and what its keys begin with.
const ARCHITECTURE: &str = "gpt-oss";
/// The clamp of gate and up that llama.cpp has built in.
const LIMIT: f32 = 7.0;
/// Version of GGML's quantized formats.
const QUANTIZATION_VERSION: u32 = 2;
/// Longest small file beside the weights.
const MAX_BESIDE: u64 = 4 << 20;

/// llama.cpp's numbers for what a file mostly consists of.
pub(crate) mod file_type {
    pub(crate) const F32: u32 = 0;
    pub(crate) const BF16: u32 = 32;
    pub(crate) const MXFP4: u32 = 38;
}

/// The keys of a merged model.
pub(crate) fn model_keys(
    dir: &Path,
    config: &Config,
    name: &str,
    packed: bool,
) -> Result<Vec<(String, Value)>> {
    check(config)?;
    let path = dir.join("config.json");
    let raw: Json = json(&path, MAX_CONFIG_BYTES)?;
    let context = raw["max_position_embeddings"].as_u64().and_then(|n| u32::try_from(n).ok());
    let context = context.ok_or_else(|| Error::Beside {
        path: path.clone(),
        reason: "`max_position_embeddings` is missing, and GGUF wants to know the longest context".to_owned(),
    })?;
    let u32 = |n: usize| Value::U32(n as u32);
    let text = |text: &str| Value::Text(text.to_owned());
    let mut keys = vec![
        ("general.architecture".to_owned(), text(ARCHITECTURE)),
        ("general.type".to_owned(), text("model")),
        ("general.name".to_owned(), text(short_name(name))),
        ("general.file_type".to_owned(), Value::U32(if packed { file_type::MXFP4 } else { file_type::BF16 })),
        ("general.quantization_version".to_owned(), Value::U32(QUANTIZATION_VERSION)),
    ];
    let of_model = [
        ("block_count", u32(config.num_hidden_layers)),
        ("context_length", Value::U32(context)),
        ("embedding_length", u32(config.hidden_size)),
        ("feed_forward_length", u32(config.intermediate_size)),
        ("expert_feed_forward_length", u32(config.intermediate_size)),
        ("attention.head_count", u32(config.num_attention_heads)),
        ("attention.head_count_kv", u32(config.num_key_value_heads)),
        ("attention.key_length", u32(config.head_dim)),
        ("attention.value_length", u32(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::F32(config.rms_norm_eps as f32)),
        ("attention.sliding_window", u32(config.sliding_window)),
        ("expert_count", u32(config.num_local_experts)),
        ("expert_used_count", u32(config.num_experts_per_tok)),
        ("rope.freq_base", Value::F32(config.rope.theta as f32)),
    ];
    keys.extend(of_model.map(|(key, value)| (format!("{ARCHITECTURE}.{key}"), value)));
    if let Some(yarn) = &config.rope.yarn {
        let scaling = [
            ("type", text("yarn")),
            ("factor", Value::F32(yarn.factor as f32)),
            ("original_context_length", Value::U32(yarn.original_max_position_embeddings as u32)),
            ("yarn_beta_fast", Value::F32(yarn.beta_fast as f32)),
            ("yarn_beta_slow", Value::F32(yarn.beta_slow as f32)),
        ];
        keys.extend(scaling.map(|(key, value)| (format!("{ARCHITECTURE}.rope.scaling.{key}"), value)));
    }
    let vocabulary = Vocabulary::read(dir, config.vocab_size)?;
    let mut of_tokens = special_tokens(dir, &vocabulary)?;
    keys.extend(vocabulary.keys().map(|(key, value)| (key.to_owned(), value)));
    keys.append(&mut of_tokens);
    Ok(keys)
}

/// The keys of an adapter of one rank, whose alpha is that rank.
pub(crate) fn lora_keys(name: &str, rank: usize) -> Vec<(String, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    [
        ("general.architecture", text(ARCHITECTURE)),
        ("general.type", text("adapter")),
        ("general.name", text(short_name(name))),
        ("general.file_type", Value::U32(file_type::F32)),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(rank as f32)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Refuses what llama.cpp computes otherwise.
fn check(config: &Config) -> Result<()> {
    let unsupported = |reason: String| Err(Error::Unsupported { reason });
    if (config.swiglu_limit - LIMIT).abs() > 0.0 {
        let limit = config.swiglu_limit;
        return unsupported(format!(
            "`swiglu_limit` is {limit}, but llama.cpp has {LIMIT} built in; use another form"
        ));
    }
    if let Some(yarn) = &config.rope.yarn {
        // What llama.cpp derives from the factor.
        let derived = 0.1 * yarn.factor.ln() + 1.0;
        if (yarn.attention_factor - derived).abs() > 1e-6 {
            let factor = yarn.attention_factor;
            return unsupported(format!(
                "YaRN's attention factor is {factor}, but llama.cpp takes {derived}; use another form"
            ));
        }
    }
    let alternates =
        |(n, kind): (usize, &LayerType)| (*kind == LayerType::SlidingAttention) == n.is_multiple_of(2);
    if !config.layer_types.iter().enumerate().all(alternates) {
        return unsupported(
            "`layer_types` does not alternate, beginning with a window, as llama.cpp has it built in; use another form"
                .to_owned(),
        );
    }
    Ok(())
}

/// Begin, end and padding, further stops, and the chat template: what the base's small files say.
fn special_tokens(dir: &Path, vocabulary: &Vocabulary) -> Result<Vec<(String, Value)>> {
    let mut keys = Vec::new();
    let path = dir.join("tokenizer_config.json");
    let about = if path.exists() { json(&path, MAX_BESIDE)? } else { Json::Null };
    for (key, entry) in [("bos", "bos_token"), ("eos", "eos_token"), ("padding", "pad_token")] {
        let token = about[entry].as_str().or_else(|| about[entry]["content"].as_str());
        let Some(token) = token.filter(|token| !token.is_empty()) else { continue };
        let id = vocabulary.id(token).ok_or_else(|| Error::Beside {
            path: path.clone(),
            reason: format!("`{entry}` is {token:?}, which is not a token in tokenizer.json"),
        })?;
        keys.push((format!("tokenizer.ggml.{key}_token_id"), Value::U32(id)));
    }
    let generation = dir.join("generation_config.json");
    if generation.exists() {
        let stops = &json(&generation, MAX_BESIDE)?["eos_token_id"];
        let id = |id: &Json| id.as_i64().and_then(|id| i32::try_from(id).ok());
        let stops: Vec<i32> = match stops {
            Json::Array(list) => list.iter().filter_map(id).collect(),
            one => id(one).into_iter().collect(),
        };
        // llama.cpp does not read it, Ollama does.
        if !stops.is_empty() {
            keys.push(("tokenizer.ggml.eos_token_ids".to_owned(), Value::I32s(stops)));
        }
    }
    keys.push(("tokenizer.ggml.add_bos_token".to_owned(), Value::Bool(false)));
    let template = match about["chat_template"].as_str() {
        Some(template) => Some(template.to_owned()),
        None => beside(dir, "chat_template.jinja")?,
    };
    keys.extend(template.map(|template| ("tokenizer.chat_template".to_owned(), Value::Text(template))));
    Ok(keys)
}

/// A text beside the weights, if it is there.
fn beside(dir: &Path, name: &str) -> Result<Option<String>> {
    let path = dir.join(name);
    if !path.exists() {
        return Ok(None);
    }
    let bytes = descant_files::read_bounded(&path, MAX_BESIDE)?;
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| Error::Beside { path, reason: "is not UTF-8".to_owned() })
}

fn json(path: &Path, limit: u64) -> Result<Json> {
    let bytes = descant_files::read_bounded(path, limit)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::Beside { path: path.to_owned(), reason: error.to_string() })
}
