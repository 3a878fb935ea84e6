//! Adapters for vLLM and mlx-lm, and that our own reader takes both.

use descant_export::{Experts, Form, Job, export};
use descant_lora::peft::{self, Factors, Sites};
use descant_lora::read as read_adapter;
use descant_model::{Config, SiteDims};

use crate::support::{ADAPTERS, exported, golden, json, read};

/// `scaling * B A` of every matrix of a site.
fn product(factors: &Factors, dims: SiteDims) -> Vec<f64> {
    let SiteDims { d_in, d_out, n_matrices } = dims;
    let mut out = Vec::with_capacity(n_matrices * d_out * d_in);
    for e in 0..n_matrices {
        for o in 0..d_out {
            for i in 0..d_in {
                let term = |j: usize| {
                    f64::from(factors.b[(e * d_out + o) * factors.rank + j])
                        * f64::from(factors.a[(e * factors.rank + j) * d_in + i])
                };
                out.push(f64::from(factors.scaling) * (0..factors.rank).map(term).sum::<f64>());
            }
        }
    }
    out
}

/// The sites of `got` that change anything are those of `wanted`, with the same updates.
fn assert_same_updates(got: &Sites, wanted: &Sites, model: &Config) {
    for (site, factors) in got {
        let dims = model.site_dims(site.kind);
        let ours = product(factors, dims);
        let theirs = wanted.get(site).map_or_else(|| vec![0.0; ours.len()], |factors| product(factors, dims));
        let size = theirs.iter().fold(1e-30_f64, |most, x| most.max(x.abs()));
        let gap = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(gap <= 2e-6 * size, "{site}: {:e} of the largest", gap / size);
    }
    assert!(wanted.keys().all(|site| got.contains_key(site)));
}

#[test]
fn a_folded_adapter_has_one_rank_and_the_same_updates() {
    let model = Config::from_dir(&golden("base")).unwrap();
    for adapter in ADAPTERS {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("x");
        exported(adapter, Form::PeftFolded, Experts::Feedback, &out).unwrap();
        let trained = read_adapter(&golden(&format!("adapter-{adapter}")), &model).unwrap().sites;
        assert_same_updates(&read_adapter(&out, &model).unwrap().sites, &trained, &model);
        let config = json(&out.join("adapter_config.json"));
        assert_eq!(config["r"], config["lora_alpha"]);
        for key in ["rank_pattern", "alpha_pattern"] {
            assert!(config[key].as_object().unwrap().is_empty(), "{key}");
        }
        let (got, wanted) = (
            read(&out.join("adapter_model.safetensors")),
            read(&golden(&format!("expected/{adapter}.vllm.safetensors"))),
        );
        let shapes = |tensors: &crate::support::Tensors| -> Vec<_> {
            tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
        };
        assert_eq!(shapes(&got), shapes(&wanted));
    }
}

#[test]
fn an_adapter_for_mlx_comes_back_to_peft() {
    let model = Config::from_dir(&golden("base")).unwrap();
    for adapter in ADAPTERS {
        let dir = tempfile::tempdir().unwrap();
        let (mlx, peft) = (dir.path().join("mlx"), dir.path().join("peft"));
        exported(adapter, Form::MlxAdapter, Experts::Feedback, &mlx).unwrap();
        let trained = read_adapter(&golden(&format!("adapter-{adapter}")), &model).unwrap().sites;
        assert_same_updates(&read_adapter(&mlx, &model).unwrap().sites, &trained, &model);
        let base = golden("base");
        let job = descant_export::Job::new(&mlx, &base, Form::Peft, &peft);
        descant_export::export(&job, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert_same_updates(&read_adapter(&peft, &model).unwrap().sites, &trained, &model);
    }
}

#[test]
fn as_trained_is_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x");
    exported("mixed", Form::Peft, Experts::Feedback, &out).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |path: &std::path::Path| descant_files::read_bounded(&path.join(name), 1 << 28).unwrap();
        assert_eq!(read(&out), read(&golden("adapter-mixed")));
    }
}

#[test]
fn an_export_says_in_which_numbers_training_multiplied_with_experts() {
    let (dir, model) = (tempfile::tempdir().unwrap(), golden("base"));
    let config = Config::from_dir(&model).unwrap();
    let sites = read_adapter(&golden("adapter-all"), &config).unwrap().sites;
    let trained = dir.path().join("trained");
    let base = peft::Base { name: "openai/gpt-oss-20b", revision: None, experts: Some("fp8") };
    peft::save(&trained, &config, base, &sites).unwrap();
    for form in [Form::Peft, Form::PeftFolded, Form::Bf16, Form::GgufLora] {
        let out = dir.path().join(form.name());
        let job = Job { experts: Experts::Feedback, ..Job::new(&trained, &model, form, &out) };
        let report = export(&job, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
        assert_eq!(report.trained_experts.as_deref(), Some("fp8"), "{form:?}");
        assert_eq!(json(&out.join("export.json"))["trained_experts"], "fp8");
        if form != Form::GgufLora {
            let card = std::fs::read_to_string(out.join("README.md")).unwrap();
            assert!(card.contains("fp8 in training steps"), "{form:?}: {card}");
        }
        if matches!(form, Form::Peft | Form::PeftFolded) {
            assert_eq!(read_adapter(&out, &config).unwrap().experts.as_deref(), Some("fp8"));
        }
    }
    let report = exported("all", Form::Bf16, Experts::Feedback, &dir.path().join("plain")).unwrap();
    assert_eq!(report.trained_experts, None);
    assert!(!std::fs::read_to_string(dir.path().join("plain/README.md")).unwrap().contains("training steps"));
}

/// Files below `dir` whose bytes hold `text`, or whose JSON does where a path is escaped.
fn holding(dir: &std::path::Path, text: &str) -> Vec<String> {
    let escaped = text.replace('\\', "\\\\");
    let mut found = Vec::new();
    for name in descant_files::list(dir).unwrap() {
        let bytes = std::fs::read(dir.join(&name)).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        if has(text) || has(&escaped) {
            found.push(name);
        }
    }
    found
}

#[test]
fn no_export_names_a_path_of_the_machine_that_trained() {
    for (said, name, revision) in [
        ("/home/somebody/models/my-base", "my-base", None),
        ("C:\\Users\\somebody\\my-base", "my-base", None),
        (
            "/home/somebody/.cache/huggingface/hub/models--openai--gpt-oss-20b/snapshots/c0ffee",
            "openai/gpt-oss-20b",
            Some("c0ffee"),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (adapter, base) = (dir.path().join("adapter"), dir.path().join("base"));
        for (from, to) in [("adapter-attn", &adapter), ("base", &base)] {
            std::fs::create_dir(to).unwrap();
            for name in descant_files::list(&golden(from)).unwrap() {
                std::fs::copy(golden(from).join(&name), to.join(&name)).unwrap();
            }
        }
        let rewrite = |path: &std::path::Path, key: &str| {
            let mut config = json(path);
            config[key] = said.into();
            descant_files::write_atomic(path, config.to_string().as_bytes()).unwrap();
        };
        rewrite(&adapter.join("adapter_config.json"), "base_model_name_or_path");
        rewrite(&base.join("config.json"), "_name_or_path");
        let card = format!("---\nbase_model: {said}\n---\n");
        descant_files::write_atomic(&adapter.join("README.md"), card.as_bytes()).unwrap();
        // The search finds what is there.
        assert_eq!(holding(&adapter, said), ["README.md", "adapter_config.json"]);
        for (i, form) in [
            Form::Peft,
            Form::PeftFolded,
            Form::MlxAdapter,
            Form::GgufLora,
            Form::Bf16,
            Form::Mxfp4,
            Form::Gguf,
        ]
        .into_iter()
        .enumerate()
        {
            let out = dir.path().join(format!("out{i}"));
            let job = descant_export::Job::new(&adapter, &base, form, &out);
            let report = descant_export::export(&job, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
            assert_eq!((report.base_model.as_str(), report.base_revision.as_deref()), (name, revision));
            assert_eq!(holding(&out, said), Vec::<String>::new(), "{form:?}");
            assert_eq!(holding(&out, dir.path().to_str().unwrap()), Vec::<String>::new(), "{form:?}");
            if form == Form::Peft {
                let config = json(&out.join("adapter_config.json"));
                assert_eq!(config["base_model_name_or_path"], name);
                assert_eq!(config["revision"], revision.map_or(serde_json::Value::Null, Into::into));
                let mut trained = json(&adapter.join("adapter_config.json"));
                for key in ["base_model_name_or_path", "revision"] {
                    trained[key] = config[key].clone();
                }
                assert_eq!(config, trained, "nothing else changed");
            }
        }
    }
}
