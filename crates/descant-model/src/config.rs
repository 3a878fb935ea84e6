//! `config.json` of a gpt-oss checkpoint, read strictly.
//!
//! Every number the model needs comes from here, none is assumed. Ranges are checked before anything is
//! allocated; a key that would change the arithmetic and that we do not implement is refused by name. Keys that
//! only serve other programs (`transformers_version`, `use_cache`, ...) are let through.
//! Reference: `GptOssConfig` of transformers 5, and the published config of openai/gpt-oss-20b.

use std::path::Path;

use descant_kernels::{LayerSizes, SWIGLU_ALPHA};
use descant_quant::Packing;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::plain::Plain;
use crate::rope::Rope;

/// Longest `config.json` we read.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Most layers, heads, experts: ten times the largest published model, so that a hostile file is rejected early.
const MAX_COUNT: usize = 4096;
/// Most experts of all layers together; gpt-oss-120b has 4,608. Names are made for each of them.
const MAX_EXPERTS: usize = 1 << 16;
/// Largest width of any axis except the vocabulary.
const MAX_WIDTH: usize = 1 << 17;
/// Largest vocabulary.
const MAX_VOCABULARY: usize = 1 << 22;

/// Tokens of the context where the file does not say, as in the published models and in transformers.
const CONTEXT: usize = 131_072;
/// Longest context that is read.
const MAX_CONTEXT: usize = 1 << 24;
/// The clamp of the experts where the file names none, as in the published model.
const SWIGLU_LIMIT: f32 = 7.0;
/// Keys of other configurations that change what is computed, and that are not computed here.
const NOT_COMPUTED: [&str; 9] = [
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logit_scale",
    "n_shared_experts",
    "num_shared_experts",
    "qk_norm",
    "query_pre_attn_scalar",
    "scoring_func",
    "use_qk_norm",
];

/// What a layer's attention sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// The last `sliding_window` keys, the query's own included.
    SlidingAttention,
    /// All earlier keys.
    FullAttention,
}

/// The architecture, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of an expert.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Experts in a layer.
    pub num_local_experts: usize,
    /// Experts a token goes to.
    pub num_experts_per_tok: usize,
    /// Rows of the embedding and of lm_head.
    pub vocab_size: usize,
    /// Keys a sliding layer sees, the query's own included; without a window no layer slides.
    pub sliding_window: usize,
    /// One entry a layer.
    pub layer_types: Vec<LayerType>,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f64,
    /// Clamp of the experts' gate and up.
    pub swiglu_limit: f32,
    /// Tokens that prompt and reply may have together.
    pub max_context: usize,
    /// Rotary embedding.
    pub rope: Rope,
    /// How the file says that matrices are packed.
    pub packing: Packing,
    /// Weights that are not, although others of their kind are.
    pub plain: Plain,
}

impl Config {
    /// Reads and checks `DIR/config.json`.
    ///
    /// # Errors
    /// The file is missing, too long, not JSON, or describes a model that this crate does not compute.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let bytes = descant_files::read_bounded(&path, MAX_CONFIG_BYTES)?;
        Self::from_slice(&bytes).map_err(|reason| Error::Config { path, reason })
    }

    /// Reads and checks the text of a `config.json`.
    ///
    /// # Errors
    /// As [`from_dir`](Self::from_dir); the text names the key.
    pub fn from_slice(bytes: &[u8]) -> std::result::Result<Self, String> {
        let raw: RawConfig = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        raw.check()
    }

    /// Width of the concatenated query heads.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of the concatenated key (or value) heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// The sizes of a layer that decide bytes and operations.
    pub fn layer_sizes(&self) -> LayerSizes {
        LayerSizes {
            hidden: self.hidden_size,
            query: self.query_width(),
            key_value: self.key_value_width(),
            n_heads: self.num_attention_heads,
            n_experts: self.num_local_experts,
            top_k: self.num_experts_per_tok,
            inner: self.intermediate_size,
            packed_attention: self.has_packed_attention(),
        }
    }

    /// Keys that layer `layer` sees, `None` for all.
    pub fn window(&self, layer: usize) -> Option<usize> {
        match self.layer_types[layer] {
            LayerType::SlidingAttention => Some(self.sliding_window),
            LayerType::FullAttention => None,
        }
    }
}

/// The file's keys as they are there.
#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    num_local_experts: usize,
    num_experts_per_tok: Option<usize>,
    experts_per_token: Option<usize>,
    vocab_size: usize,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: f64,
    swiglu_limit: Option<f32>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<serde_json::Value>,
    quantization_config: Option<QuantizationConfig>,
    swiglu_alpha: Option<f64>,
    #[serde(flatten)]
    others: std::collections::BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct QuantizationConfig {
    quant_method: String,
    load_in_4bit: Option<bool>,
    bnb_4bit_quant_type: Option<String>,
    bnb_4bit_use_double_quant: Option<bool>,
    llm_int8_skip_modules: Option<Vec<String>>,
}

impl RawConfig {
    /// That nothing asks for another computation.
    fn computes_gpt_oss(&self) -> std::result::Result<(), String> {
        expect_value("model_type", self.model_type.as_deref(), "gpt_oss")?;
        expect_value("hidden_act", self.hidden_act.as_deref(), "silu")?;
        if self.attention_bias == Some(false) {
            return Err("`attention_bias` is false; gpt-oss has biases on q, k, v and o".into());
        }
        if let Some(alpha) = self.swiglu_alpha.filter(|alpha| alpha.to_bits() != SWIGLU_ALPHA.to_bits()) {
            return Err(format!(
                "`swiglu_alpha` is {alpha}; the experts are computed with {SWIGLU_ALPHA} alone"
            ));
        }
        let says_nothing = |value: &serde_json::Value| {
            value.is_null() || *value == serde_json::Value::Bool(false) || value.as_f64() == Some(0.0)
        };
        let asked = |key: &&&str| self.others.get(**key).is_some_and(|value| !says_nothing(value));
        if let Some(key) = NOT_COMPUTED.iter().find(asked) {
            return Err(format!(
                "`{key}` is {}; it changes what is computed and is not supported",
                self.others[*key]
            ));
        }
        if self.tie_word_embeddings == Some(true) {
            return Err("`tie_word_embeddings` is true; gpt-oss has a separate lm_head".into());
        }
        Ok(())
    }

    fn check(self) -> std::result::Result<Config, String> {
        self.computes_gpt_oss()?;
        let packing = self.quantization_config.as_ref();
        let packing = packing.map_or(Ok(Packing::Plain), QuantizationConfig::check)?;
        let plain = self.quantization_config.as_ref().filter(|_| packing == Packing::Nf4);
        let plain = plain.map_or_else(Plain::default, |said| {
            Plain::said(
                said.bnb_4bit_use_double_quant.unwrap_or(false),
                said.llm_int8_skip_modules.as_deref(),
            )
        });
        let top_k = match (self.num_experts_per_tok, self.experts_per_token) {
            (Some(a), Some(b)) if a != b => {
                return Err(format!("`num_experts_per_tok` is {a} but `experts_per_token` is {b}"));
            }
            (Some(a), _) | (None, Some(a)) => a,
            (None, None) => return Err("missing field `num_experts_per_tok`".into()),
        };
        for (key, value, limit) in [
            ("num_hidden_layers", self.num_hidden_layers, MAX_COUNT),
            ("num_attention_heads", self.num_attention_heads, MAX_COUNT),
            ("num_key_value_heads", self.num_key_value_heads, MAX_COUNT),
            ("head_dim", self.head_dim, MAX_COUNT),
            ("num_local_experts", self.num_local_experts, MAX_COUNT),
            ("num_experts_per_tok", top_k, self.num_local_experts),
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("sliding_window", self.sliding_window.unwrap_or(1), usize::MAX),
            ("max_position_embeddings", self.max_position_embeddings.unwrap_or(1), MAX_CONTEXT),
            ("vocab_size", self.vocab_size, MAX_VOCABULARY),
        ] {
            if value == 0 || value > limit {
                return Err(format!("`{key}` is {value}; expected 1 to {limit}"));
            }
        }
        if self.num_hidden_layers * self.num_local_experts > MAX_EXPERTS {
            return Err(format!(
                "`num_local_experts` is {} in {} layers; expected at most {MAX_EXPERTS} in all",
                self.num_local_experts, self.num_hidden_layers
            ));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return Err(format!(
                "`num_key_value_heads` {} does not divide `num_attention_heads` {}",
                self.num_key_value_heads, self.num_attention_heads
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(format!("`head_dim` {} is odd; the rotary embedding pairs halves", self.head_dim));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return Err(format!("`rms_norm_eps` is {}; expected a number in (0, 1)", self.rms_norm_eps));
        }
        let swiglu_limit = self.swiglu_limit.unwrap_or(SWIGLU_LIMIT);
        if !(swiglu_limit > 0.0 && swiglu_limit.is_finite()) {
            return Err(format!("`swiglu_limit` is {swiglu_limit}; expected a positive number"));
        }
        let layer_types = match self.layer_types {
            Some(types) if types.len() != self.num_hidden_layers => {
                return Err(format!(
                    "`layer_types` has {} entries for {} layers",
                    types.len(),
                    self.num_hidden_layers
                ));
            }
            Some(types) if self.sliding_window.is_some() => types,
            // Without a window no layer slides.
            _ if self.sliding_window.is_none() => vec![LayerType::FullAttention; self.num_hidden_layers],
            // transformers' default: even layers slide.
            _ => (0..self.num_hidden_layers)
                .map(|i| if i % 2 == 0 { LayerType::SlidingAttention } else { LayerType::FullAttention })
                .collect(),
        };
        let rope = Rope::from_config(self.rope_theta, self.rope_scaling, self.rope_parameters)?;
        Ok(Config {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            num_local_experts: self.num_local_experts,
            num_experts_per_tok: top_k,
            vocab_size: self.vocab_size,
            sliding_window: self.sliding_window.unwrap_or(usize::MAX),
            layer_types,
            rms_norm_eps: self.rms_norm_eps,
            swiglu_limit,
            max_context: self.max_position_embeddings.unwrap_or(CONTEXT),
            rope,
            packing,
            plain,
        })
    }
}

impl QuantizationConfig {
    fn check(&self) -> std::result::Result<Packing, String> {
        match (self.quant_method.as_str(), self.load_in_4bit, self.bnb_4bit_quant_type.as_deref()) {
            ("mxfp4", ..) => Ok(Packing::Mxfp4),
            ("bitsandbytes", Some(true), Some("nf4")) => Ok(Packing::Nf4),
            ("bitsandbytes", four, kind) => Err(format!(
                "`quantization_config` is of bitsandbytes with load_in_4bit {} and bnb_4bit_quant_type `{}`; supported: \
                 true and `nf4`",
                four.unwrap_or(false),
                kind.unwrap_or("none")
            )),
            (other, ..) => Err(format!(
                "`quantization_config.quant_method` is `{other}`; supported: mxfp4, bitsandbytes, or no \
                 quantization_config"
            )),
        }
    }
}

fn expect_value(key: &str, value: Option<&str>, expected: &str) -> std::result::Result<(), String> {
    match value {
        Some(value) if value != expected => {
            Err(format!("`{key}` is `{value}`; this program computes `{expected}`"))
        }
        _ => Ok(()),
    }
}
