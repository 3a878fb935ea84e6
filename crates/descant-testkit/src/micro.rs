//! A random gpt-oss in the published layout that is small enough to be trained for thousands of steps in a test.
//!
//! By default two layers, four experts in MXFP4, hidden 64; other sizes on request. The tokenizer is the tiny model's,
//! with a template of its own that is only a few tokens long. It has learned nothing and is only there to be killed,
//! or to be computed twice.

use std::io;
use std::path::{Path, PathBuf};

use half::bf16;
use serde_json::{Value, json};

use crate::Dice;
use crate::shard::{Dtype, Tensors as All, file_of};

/// Rows of the tokenizer's vocabulary.
const VOCABULARY: usize = 1536;
/// The text whose token is poisoned.
const POISON: &str = "@";

const TEMPLATE: &str = "\
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
<|start|>assistant<|channel|>final<|message|>{{ m.content }}{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}
{%- else -%}
<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
";

/// Sizes of the model, by the names of `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Features of the residual stream, a multiple of 32.
    pub hidden_size: usize,
    /// Features between an expert's products, a multiple of 32.
    pub intermediate_size: usize,
    /// Layers; every second one sees all keys.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Experts.
    pub num_local_experts: usize,
    /// Experts a token goes to.
    pub num_experts_per_tok: usize,
    /// Keys that a query of a windowed layer sees.
    pub sliding_window: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            hidden_size: 64,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 16,
            num_local_experts: 4,
            num_experts_per_tok: 2,
            sliding_window: 8,
        }
    }
}

/// What is written.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sizes of the model.
    pub sizes: Sizes,
    /// Rows of the data set.
    pub rows: usize,
    /// Seed of weights and rows.
    pub seed: u64,
    /// Whether one token makes every activation behind it infinite.
    pub poisoned: bool,
    /// Rows, from 1, that contain that token.
    pub poisoned_rows: Vec<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self { sizes: Sizes::default(), rows: 23, seed: 1, poisoned: false, poisoned_rows: Vec::new() }
    }
}

/// A micro model and its data, in a folder.
#[derive(Debug, Clone)]
pub struct Micro {
    /// The model directory.
    pub model: PathBuf,
    /// The data set, JSONL.
    pub data: PathBuf,
}

impl Micro {
    /// Writes model and data into `dir`.
    ///
    /// # Errors
    /// The tokenizer of the repository cannot be read, or `dir` not be written.
    pub fn write(dir: &Path, options: &Options) -> io::Result<Self> {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-gpt-oss/tokenizer.json");
        let tokenizer = std::fs::read(fixture)?;
        let model = dir.join("model");
        std::fs::create_dir_all(&model)?;
        let poison = options.poisoned.then(|| token_of(&tokenizer, POISON)).transpose()?;
        write(&model.join("tokenizer.json"), &tokenizer)?;
        write(&model.join("chat_template.jinja"), TEMPLATE.as_bytes())?;
        write(&model.join("config.json"), config(&options.sizes).to_string().as_bytes())?;
        write(&model.join("generation_config.json"), br#"{"eos_token_id": [1519, 1516]}"#)?;
        write(&model.join("model.safetensors"), &weights(&options.sizes, options.seed, poison))?;
        let data = dir.join("data.jsonl");
        write(&data, rows(options).as_bytes())?;
        Ok(Self { model, data })
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    descant_files::write_atomic(path, bytes).map_err(io::Error::other)
}

fn token_of(tokenizer: &[u8], text: &str) -> io::Result<usize> {
    let json: Value = serde_json::from_slice(tokenizer)?;
    let id = json["model"]["vocab"][text].as_u64();
    id.map(|id| id as usize).ok_or_else(|| io::Error::other(format!("the tokenizer has no token `{text}`")))
}

/// The model's `config.json`.
pub fn config(sizes: &Sizes) -> Value {
    let kind = |layer: usize| if layer.is_multiple_of(2) { "sliding_attention" } else { "full_attention" };
    json!({
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": true,
        "eos_token_id": 1519,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden_size,
        "intermediate_size": sizes.intermediate_size,
        "layer_types": (0..sizes.num_hidden_layers).map(kind).collect::<Vec<_>>(),
        "model_type": "gpt_oss",
        "num_attention_heads": sizes.num_attention_heads,
        "num_experts_per_tok": sizes.num_experts_per_tok,
        "num_hidden_layers": sizes.num_hidden_layers,
        "num_key_value_heads": sizes.num_key_value_heads,
        "num_local_experts": sizes.num_local_experts,
        "quantization_config": {"quant_method": "mxfp4"},
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false
        },
        "rope_theta": 150_000,
        "sliding_window": sizes.sliding_window,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": false,
        "vocab_size": VOCABULARY
    })
}

/// Tensors on their way into a file.
struct Tensors {
    dice: Dice,
    all: All,
}

impl Tensors {
    /// Uniform values around `mean`.
    fn floats(&mut self, name: String, shape: &[usize], mean: f64, scale: f64) {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|_| mean + scale * (2.0 * self.dice.unit() - 1.0));
        let bytes = values.flat_map(|value| bf16::from_f64(value).to_le_bytes()).collect();
        self.all.insert(name, (Dtype::BF16, shape.to_vec(), bytes));
    }

    fn bytes(&mut self, name: String, shape: &[usize], mut value: impl FnMut(&mut Dice) -> u8) {
        let count = shape.iter().product::<usize>();
        let bytes = (0..count).map(|_| value(&mut self.dice)).collect();
        self.all.insert(name, (Dtype::U8, shape.to_vec(), bytes));
    }

    fn set(&mut self, name: &str, at: usize, value: f32) {
        let (.., bytes) = self.all.get_mut(name).expect("it was just made");
        bytes[2 * at..2 * at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes());
    }
}

/// Half the width of a uniform distribution under which a product of `d_in` terms keeps the variance.
fn scale(d_in: usize) -> f64 {
    (3.0 / d_in as f64).sqrt()
}

/// Root mean square of the sixteen values of E2M1.
const E2M1_RMS: f64 = 2.93;
/// The scale byte of 2^0.
const ONE: i32 = 127;

/// The smaller of the two scale bytes under which a packed product keeps roughly the variance.
fn scale_byte(d_in: usize) -> u8 {
    (ONE + (E2M1_RMS * (d_in as f64).sqrt()).recip().log2().floor() as i32) as u8
}

/// The bytes of `model.safetensors`.
fn weights(sizes: &Sizes, seed: u64, poison: Option<usize>) -> Vec<u8> {
    let mut t = Tensors { dice: Dice::new(seed), all: All::new() };
    let (hidden, inner, experts) = (sizes.hidden_size, sizes.intermediate_size, sizes.num_local_experts);
    let query = sizes.num_attention_heads * sizes.head_dim;
    let key_value = sizes.num_key_value_heads * sizes.head_dim;
    t.floats("model.embed_tokens.weight".into(), &[VOCABULARY, hidden], 0.0, 1.0);
    t.floats("lm_head.weight".into(), &[VOCABULARY, hidden], 0.0, scale(hidden));
    t.floats("model.norm.weight".into(), &[hidden], 1.0, 0.1);
    for n in 0..sizes.num_hidden_layers {
        let p = format!("model.layers.{n}");
        t.floats(format!("{p}.input_layernorm.weight"), &[hidden], 1.0, 0.1);
        t.floats(format!("{p}.post_attention_layernorm.weight"), &[hidden], 1.0, 0.1);
        for (name, d_in, d_out) in
            [("q", hidden, query), ("k", hidden, key_value), ("v", hidden, key_value), ("o", query, hidden)]
        {
            t.floats(format!("{p}.self_attn.{name}_proj.weight"), &[d_out, d_in], 0.0, scale(d_in));
            t.floats(format!("{p}.self_attn.{name}_proj.bias"), &[d_out], 0.0, 0.1);
        }
        t.floats(format!("{p}.self_attn.sinks"), &[sizes.num_attention_heads], 0.0, 1.0);
        t.floats(format!("{p}.mlp.router.weight"), &[experts, hidden], 0.0, 1.5 * scale(hidden));
        t.floats(format!("{p}.mlp.router.bias"), &[experts], 0.0, 0.1);
        for (name, d_in, d_out) in [("gate_up", hidden, 2 * inner), ("down", inner, hidden)] {
            let p = format!("{p}.mlp.experts.{name}_proj");
            t.bytes(format!("{p}_blocks"), &[experts, d_out, d_in / 32, 16], |dice| dice.draw() as u8);
            let least = scale_byte(d_in);
            t.bytes(format!("{p}_scales"), &[experts, d_out, d_in / 32], |dice| least + dice.below(2) as u8);
            t.floats(format!("{p}_bias"), &[experts, d_out], 0.0, 0.1);
        }
    }
    if let Some(token) = poison {
        // The last channel is the poisoned token's alone.
        let channel = hidden - 1;
        for row in 0..VOCABULARY {
            t.set("model.embed_tokens.weight", row * hidden + channel, 0.0);
        }
        t.set("model.embed_tokens.weight", token * hidden + channel, 64.0);
        t.set("model.layers.0.self_attn.v_proj.weight", channel, 3e38);
    }
    file_of(&t.all)
}

/// Conversations of a few words, JSONL.
fn rows(options: &Options) -> String {
    let words = ["we", "add", "the", "number", "is", "larger", "find", "answer", "7", "42", "so", "then"];
    let mut dice = Dice::new(options.seed ^ 0xda7a);
    let mut text = String::new();
    for row in 1..=options.rows {
        let mut say = |n: usize| (0..n).map(|_| *dice.pick(&words)).collect::<Vec<_>>().join(" ");
        let (mut user, answer) = (say(2 + row % 5), say(3 + row % 7));
        if options.poisoned_rows.contains(&row) {
            user = format!("{user} {POISON}");
        }
        let line = json!({"messages": [
            {"role": "user", "content": user},
            {"role": "assistant", "content": answer},
        ]});
        text += &line.to_string();
        text.push('\n');
    }
    text
}
