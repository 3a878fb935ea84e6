//! A random gpt-oss in the published layout that is small enough to be trained for thousands of steps in a test.
//!
//! Two layers, four experts in MXFP4, hidden 64; the tokenizer is the tiny model's, with a template of its own that is
//! only a few tokens long. It has learned nothing and is only there to be killed.

use std::io;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};

use crate::Dice;

const HIDDEN: usize = 64;
const INNER: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KEY_VALUE_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const EXPERTS: usize = 4;
const VOCABULARY: usize = 1536;
/// The channel that only the poisoned token uses.
const CHANNEL: usize = HIDDEN - 1;
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

/// What is written.
#[derive(Debug, Clone)]
pub struct Options {
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
        Self { rows: 23, seed: 1, poisoned: false, poisoned_rows: Vec::new() }
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
        write(&model.join("config.json"), config().to_string().as_bytes())?;
        write(&model.join("generation_config.json"), br#"{"eos_token_id": [1519, 1516]}"#)?;
        write(&model.join("model.safetensors"), &weights(options.seed, poison)?)?;
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
pub fn config() -> Value {
    json!({
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": true,
        "eos_token_id": 1519,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "layer_types": ["sliding_attention", "full_attention"],
        "model_type": "gpt_oss",
        "num_attention_heads": HEADS,
        "num_experts_per_tok": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "num_local_experts": EXPERTS,
        "quantization_config": {"quant_method": "mxfp4"},
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
            "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false
        },
        "rope_theta": 150_000,
        "sliding_window": 8,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": false,
        "vocab_size": VOCABULARY
    })
}

/// Tensors on their way into a file.
struct Tensors {
    dice: Dice,
    all: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl Tensors {
    /// Uniform values around `mean`.
    fn floats(&mut self, name: String, shape: &[usize], mean: f64, scale: f64) {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|_| mean + scale * (2.0 * self.dice.unit() - 1.0));
        let bytes = values.flat_map(|value| bf16::from_f64(value).to_le_bytes()).collect();
        self.all.push((name, Dtype::BF16, shape.to_vec(), bytes));
    }

    fn bytes(&mut self, name: String, shape: &[usize], mut value: impl FnMut(&mut Dice) -> u8) {
        let count = shape.iter().product::<usize>();
        let bytes = (0..count).map(|_| value(&mut self.dice)).collect();
        self.all.push((name, Dtype::U8, shape.to_vec(), bytes));
    }

    fn set(&mut self, name: &str, at: usize, value: f32) {
        let (.., bytes) = self.all.iter_mut().find(|(n, ..)| n == name).expect("it was just made");
        bytes[2 * at..2 * at + 2].copy_from_slice(&bf16::from_f32(value).to_le_bytes());
    }
}

/// The bytes of `model.safetensors`.
fn weights(seed: u64, poison: Option<usize>) -> io::Result<Vec<u8>> {
    let mut t = Tensors { dice: Dice::new(seed), all: Vec::new() };
    let (query, key_value) = (HEADS * HEAD_DIM, KEY_VALUE_HEADS * HEAD_DIM);
    t.floats("model.embed_tokens.weight".into(), &[VOCABULARY, HIDDEN], 0.0, 1.0);
    t.floats("lm_head.weight".into(), &[VOCABULARY, HIDDEN], 0.0, 0.2);
    t.floats("model.norm.weight".into(), &[HIDDEN], 1.0, 0.1);
    for n in 0..LAYERS {
        let p = format!("model.layers.{n}");
        t.floats(format!("{p}.input_layernorm.weight"), &[HIDDEN], 1.0, 0.1);
        t.floats(format!("{p}.post_attention_layernorm.weight"), &[HIDDEN], 1.0, 0.1);
        for (name, d_in, d_out) in
            [("q", HIDDEN, query), ("k", HIDDEN, key_value), ("v", HIDDEN, key_value), ("o", query, HIDDEN)]
        {
            t.floats(format!("{p}.self_attn.{name}_proj.weight"), &[d_out, d_in], 0.0, 0.2);
            t.floats(format!("{p}.self_attn.{name}_proj.bias"), &[d_out], 0.0, 0.1);
        }
        t.floats(format!("{p}.self_attn.sinks"), &[HEADS], 0.0, 1.0);
        t.floats(format!("{p}.mlp.router.weight"), &[EXPERTS, HIDDEN], 0.0, 0.3);
        t.floats(format!("{p}.mlp.router.bias"), &[EXPERTS], 0.0, 0.1);
        for (name, d_in, d_out) in [("gate_up", HIDDEN, 2 * INNER), ("down", INNER, HIDDEN)] {
            let p = format!("{p}.mlp.experts.{name}_proj");
            t.bytes(format!("{p}_blocks"), &[EXPERTS, d_out, d_in / 32, 16], |dice| dice.draw() as u8);
            // 2^-5 and 2^-4: values of the blocks are up to 6.
            t.bytes(format!("{p}_scales"), &[EXPERTS, d_out, d_in / 32], |dice| 122 + dice.below(2) as u8);
            t.floats(format!("{p}_bias"), &[EXPERTS, d_out], 0.0, 0.1);
        }
    }
    if let Some(token) = poison {
        for row in 0..VOCABULARY {
            t.set("model.embed_tokens.weight", row * HIDDEN + CHANNEL, 0.0);
        }
        t.set("model.embed_tokens.weight", token * HIDDEN + CHANNEL, 64.0);
        t.set("model.layers.0.self_attn.v_proj.weight", CHANNEL, 3e38);
    }
    let views = t.all.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name, view)).map_err(io::Error::other)
    });
    serialize(views.collect::<io::Result<Vec<_>>>()?, None).map_err(io::Error::other)
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
