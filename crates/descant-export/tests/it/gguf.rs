//! GGUF against gguf-py's files, tensor by tensor, and back again.

use std::collections::BTreeSet;

use descant_export::{Experts, Form, Gguf, read_gguf_lora, unpack_gguf};
use descant_model::Config;

use crate::support::{ADAPTERS, exported, golden, json, read};

#[test]
fn a_merged_file_is_the_references_tensor_by_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    exported("attn", Form::Gguf, Experts::Feedback, &out).unwrap();
    let (got, wanted) = (Gguf::open(&out).unwrap(), Gguf::open(&golden("expected/attn.gguf")).unwrap());
    assert_eq!(
        got.tensors().keys().collect::<BTreeSet<_>>(),
        wanted.tensors().keys().collect::<BTreeSet<_>>()
    );
    for (name, tensor) in got.tensors() {
        let theirs = &wanted.tensors()[name];
        assert_eq!(
            (&tensor.ne, tensor.kind, tensor.length),
            (&theirs.ne, theirs.kind, theirs.length),
            "{name}"
        );
        let bytes = |file: &Gguf| file.bytes(name, 0, tensor.length).unwrap();
        let (ours, theirs) = (bytes(&got), bytes(&wanted));
        let off = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        let merged = name.contains("attn_") && name.ends_with(".weight");
        assert!(off == 0 || merged && off * 500 <= ours.len(), "{name}: {off} bytes differ");
    }
    for key in [
        "general.architecture",
        "general.type",
        "gpt-oss.rope.scaling.type",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.chat_template",
    ] {
        assert!(got.text(key).is_some() && got.text(key) == wanted.text(key), "{key}");
    }
    for key in [
        "general.file_type",
        "general.quantization_version",
        "gpt-oss.block_count",
        "gpt-oss.context_length",
        "gpt-oss.embedding_length",
        "gpt-oss.feed_forward_length",
        "gpt-oss.expert_feed_forward_length",
        "gpt-oss.attention.head_count",
        "gpt-oss.attention.head_count_kv",
        "gpt-oss.attention.key_length",
        "gpt-oss.attention.value_length",
        "gpt-oss.attention.layer_norm_rms_epsilon",
        "gpt-oss.attention.sliding_window",
        "gpt-oss.expert_count",
        "gpt-oss.expert_used_count",
        "gpt-oss.rope.freq_base",
        "gpt-oss.rope.scaling.factor",
        "gpt-oss.rope.scaling.original_context_length",
        "gpt-oss.rope.scaling.yarn_beta_fast",
        "gpt-oss.rope.scaling.yarn_beta_slow",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.padding_token_id",
    ] {
        assert!(got.number(key).is_some() && got.number(key) == wanted.number(key), "{key}");
    }
    assert!(dir.path().join("x.Modelfile").is_file() && dir.path().join("x.export.json").is_file());
}

#[test]
fn untouched_tensors_have_the_hashes_of_the_references() {
    for (experts, file) in [(Experts::Feedback, "base.gguf.json"), (Experts::Bf16, "all-bf16.gguf.json")] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("x.gguf");
        exported("attn", Form::Gguf, experts, &out).unwrap();
        let (got, wanted) = (Gguf::open(&out).unwrap(), json(&golden("expected").join(file)));
        let mut n = 0;
        for (name, tensor) in got.tensors() {
            let touched = name.contains("attn_q.w") || name.contains("attn_k.w") || name.contains("attn_v.w")
                || name.contains("attn_output.w")
                // Merged in the second reference.
                || file.starts_with("all") && (name.contains("_exps.weight") || name.contains("gate_inp.weight"));
            if !touched {
                let bytes = got.bytes(name, 0, tensor.length).unwrap();
                assert_eq!(wanted[name]["sha256"], descant_files::sha256(&bytes), "{file}: {name}");
                n += 1;
            }
        }
        assert!(n > 20, "{n}");
    }
}

#[test]
fn a_file_that_was_unpacked_is_the_merged_model_again() {
    let config = Config::from_dir(&golden("base")).unwrap();
    let text = json(&golden("base/config.json"));
    for (experts, form) in [(Experts::Feedback, Form::Mxfp4), (Experts::Bf16, Form::Bf16)] {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("x.gguf"), dir.path().join("folder"));
        exported("all", Form::Gguf, experts, &file).unwrap();
        exported("all", form, if form == Form::Bf16 { Experts::Feedback } else { experts }, &folder).unwrap();
        let unpacked = unpack_gguf(&file, &config, &text).unwrap();
        let back = read(&unpacked.temporary().join("model.safetensors"));
        let merged = read(&folder.join("model.safetensors"));
        assert_eq!(back.keys().collect::<Vec<_>>(), merged.keys().collect::<Vec<_>>());
        for (name, tensor) in &back {
            if tensor.dtype == merged[name].dtype {
                assert_eq!(tensor, &merged[name], "{name}");
            } else {
                // F32 there; the router is not rounded.
                let (ours, theirs) = (tensor.floats(), merged[name].floats());
                let gap = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs());
                assert!(gap.fold(0.0, f32::max) < 2e-3, "{name}");
            }
        }
        drop(unpacked);
        assert!(descant_files::list(dir.path()).unwrap().iter().all(|name| !name.contains("proof")));
    }
}

#[test]
fn an_adapter_file_holds_the_updates_and_is_read_back() {
    let model = Config::from_dir(&golden("base")).unwrap();
    for adapter in ADAPTERS {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("x.gguf");
        exported(adapter, Form::GgufLora, Experts::Feedback, &out).unwrap();
        let wanted = read_gguf_lora(&golden(&format!("expected/{adapter}.lora.gguf")), &model).unwrap();
        let got = read_gguf_lora(&out, &model).unwrap();
        assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (site, factors) in &got {
            let theirs = &wanted[site];
            assert_eq!((factors.rank, &factors.a), (theirs.rank, &theirs.a), "{site}");
            let gap = factors.b.iter().zip(&theirs.b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 1e-6, "{site}: {gap}");
        }
        let file = Gguf::open(&out).unwrap();
        assert_eq!(file.text("general.type"), Some("adapter"));
        assert_eq!(file.text("adapter.type"), Some("lora"));
        assert_eq!(file.number("adapter.lora.alpha"), Some(got.values().next().unwrap().rank as f64));
    }
}
