//! A model of random numbers in the published layout, in a temporary folder: layers as those of the 20b, few of them.
//! Every token goes to every expert, so that no rounding can send one elsewhere.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::command::random_ids::MersenneTwister;

/// Sizes of the model, and tokens of the steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    pub(super) head_dim: usize,
    pub(super) experts: usize,
    pub(super) window: usize,
    pub(super) vocabulary: usize,
    /// Of a sequence that the CPU computes too.
    pub(super) compared: usize,
    /// Of a sequence whose operators are timed.
    pub(super) timed: usize,
}

/// One layer with a window and one without: 260 MB.
pub(super) const LIKE_20B: Made = Made {
    hidden: 2880,
    inner: 2880,
    layers: 2,
    heads: 64,
    key_heads: 8,
    head_dim: 64,
    experts: 4,
    window: 128,
    vocabulary: 4096,
    compared: 160,
    timed: 2048,
};

/// The folder; gone when it is dropped.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is cleared with the system's temporary folder.
        drop(descant_files::remove(&self.0));
    }
}

impl Made {
    /// Writes the model.
    pub(super) fn write(&self) -> Result<Folder> {
        let folder = Folder(std::env::temp_dir().join(format!("descant-self-test-{}", std::process::id())));
        let why = || format!("a temporary model in {}", folder.path().display());
        descant_files::make(folder.path()).with_context(why)?;
        let files =
            [("config.json", self.config().to_string().into_bytes()), ("model.safetensors", self.weights())];
        for (name, bytes) in files {
            descant_files::write_atomic(&folder.path().join(name), &bytes).with_context(why)?;
        }
        Ok(folder)
    }

    fn config(&self) -> Value {
        let kind = |layer: usize| {
            if layer.is_multiple_of(2) { "sliding_attention" } else { "full_attention" }
        };
        json!({
            "architectures": ["GptOssForCausalLM"], "attention_bias": true, "eos_token_id": 0,
            "head_dim": self.head_dim, "hidden_act": "silu", "hidden_size": self.hidden,
            "intermediate_size": self.inner,
            "layer_types": (0..self.layers).map(kind).collect::<Vec<_>>(),
            "model_type": "gpt_oss", "num_attention_heads": self.heads,
            "num_experts_per_tok": self.experts, "num_hidden_layers": self.layers,
            "num_key_value_heads": self.key_heads, "num_local_experts": self.experts,
            "quantization_config": {"quant_method": "mxfp4"}, "rms_norm_eps": 1e-5,
            "rope_scaling": {
                "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0,
                "original_max_position_embeddings": 4096, "rope_type": "yarn", "truncate": false
            },
            "rope_theta": 150_000, "sliding_window": self.window, "swiglu_limit": 7.0,
            "tie_word_embeddings": false, "vocab_size": self.vocabulary
        })
    }

    /// The bytes of the file: the length of the header, the header, the numbers.
    fn weights(&self) -> Vec<u8> {
        let mut file = File { random: MersenneTwister::new(5), header: Map::new(), data: Vec::new() };
        let (hidden, inner, experts) = (self.hidden, self.inner, self.experts);
        let [query, key] = [self.heads, self.key_heads].map(|heads| heads * self.head_dim);
        // Half the width of a uniform distribution under which a product keeps the variance.
        let keep = |d_in: usize| (3.0 / d_in as f32).sqrt();
        file.floats("model.embed_tokens.weight", &[self.vocabulary, hidden], 0.0, 1.0);
        file.floats("lm_head.weight", &[self.vocabulary, hidden], 0.0, keep(hidden));
        file.floats("model.norm.weight", &[hidden], 1.0, 0.1);
        for n in 0..self.layers {
            let mut of = String::new();
            write!(of, "model.layers.{n}").expect("writes to memory");
            let dense = [("q", hidden, query), ("k", hidden, key), ("v", hidden, key), ("o", query, hidden)];
            for (name, d_in, d_out) in dense {
                file.floats(&format!("{of}.self_attn.{name}_proj.weight"), &[d_out, d_in], 0.0, keep(d_in));
                file.floats(&format!("{of}.self_attn.{name}_proj.bias"), &[d_out], 0.0, 0.1);
            }
            file.floats(&format!("{of}.self_attn.sinks"), &[self.heads], 0.0, 1.0);
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                file.floats(&format!("{of}.{norm}.weight"), &[hidden], 1.0, 0.1);
            }
            file.floats(&format!("{of}.mlp.router.weight"), &[experts, hidden], 0.0, keep(hidden));
            file.floats(&format!("{of}.mlp.router.bias"), &[experts], 0.0, 0.1);
            for (name, d_in, d_out) in [("gate_up", hidden, 2 * inner), ("down", inner, hidden)] {
                let of = format!("{of}.mlp.experts.{name}_proj");
                file.bytes(&format!("{of}_blocks"), &[experts, d_out, d_in / 32, 16], None);
                // The values of E2M1 are of about 3, and 127 is the scale of one.
                let scale = 127 + (3.0 * (d_in as f32).sqrt()).recip().log2().floor() as i32;
                file.bytes(&format!("{of}_scales"), &[experts, d_out, d_in / 32], Some(scale as u8));
                file.floats(&format!("{of}_bias"), &[experts, d_out], 0.0, 0.1);
            }
        }
        let header = Value::Object(file.header).to_string().into_bytes();
        [&(header.len() as u64).to_le_bytes()[..], &header, &file.data].concat()
    }
}

/// A safetensors file on its way.
struct File {
    random: MersenneTwister,
    header: Map<String, Value>,
    data: Vec<u8>,
}

impl File {
    fn entry(&mut self, name: &str, dtype: &str, shape: &[usize], begin: usize) {
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, self.data.len()]});
        self.header.insert(name.to_owned(), entry);
    }

    /// Uniform values around `mean`, bf16.
    fn floats(&mut self, name: &str, shape: &[usize], mean: f32, scale: f32) {
        let begin = self.data.len();
        for _ in 0..shape.iter().product::<usize>() {
            let unit = self.random.next() as f32 / (1_u64 << 31) as f32 - 1.0;
            // The upper half of an f32 is a bf16.
            self.data.extend((((mean + scale * unit).to_bits() >> 16) as u16).to_le_bytes());
        }
        self.entry(name, "BF16", shape, begin);
    }

    /// Any bytes, or all the same.
    fn bytes(&mut self, name: &str, shape: &[usize], same: Option<u8>) {
        let (begin, count) = (self.data.len(), shape.iter().product::<usize>());
        if let Some(byte) = same {
            self.data.extend(std::iter::repeat_n(byte, count));
        } else {
            let words = (0..count.div_ceil(4)).flat_map(|_| self.random.next().to_le_bytes());
            self.data.extend(words.take(count));
        }
        self.entry(name, "U8", shape, begin);
    }
}
