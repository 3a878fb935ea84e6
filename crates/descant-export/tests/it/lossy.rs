//! Experts packed again: the reference's bytes, the account's figures, and what is left alone.

use descant_export::{Error, Experts, Form};

use crate::support::{exported, golden, json, read};

const RULES: [(Experts, &str); 2] = [(Experts::Nearest, "best"), (Experts::Feedback, "feedback")];

#[test]
fn bytes_and_survival_are_the_references() {
    for adapter in ["all", "mixed"] {
        let wanted = read(&golden(&format!("expected/{adapter}.mxfp4.safetensors")));
        let figures = json(&golden("expected/expected.json"));
        for (rule, name) in RULES {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("x");
            let report = exported(adapter, Form::Mxfp4, rule, &out).unwrap();
            let got = read(&out.join("model.safetensors"));
            let (mut off, mut n) = (0, 0);
            for (full, wanted) in &wanted {
                let Some(tensor) = full.strip_prefix(&format!("{name}.")) else { continue };
                assert_eq!(got[tensor].shape, wanted.shape);
                n += wanted.bytes.len();
                off += got[tensor].bytes.iter().zip(&wanted.bytes).filter(|(a, b)| a != b).count();
            }
            assert!(n > 0 && off * 1000 <= n, "{adapter} {name}: {off} of {n} bytes differ");
            let card = std::fs::read_to_string(out.join("README.md")).unwrap();
            let worst = report.worst.as_deref().unwrap();
            assert!(card.contains(&format!("the weight that keeps least | `{worst}`")), "{card}");
            let survival = report.experts_survival.unwrap();
            let wanted = &figures[format!("{adapter}.survival")][name];
            for (key, got) in
                [("along", survival.along), ("cosine", survival.cosine), ("norm_ratio", survival.norm_ratio)]
            {
                let wanted = wanted[key].as_f64().unwrap();
                assert!((got - wanted).abs() < 1e-2, "{adapter} {name} {key}: {got}, expected {wanted}");
            }
        }
    }
}

#[test]
fn experts_that_no_update_reaches_keep_their_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x");
    let report = exported("attn", Form::Mxfp4, Experts::Feedback, &out).unwrap();
    let (got, base) = (read(&out.join("model.safetensors")), read(&golden("base/model.safetensors")));
    assert_eq!(got.keys().collect::<Vec<_>>(), base.keys().collect::<Vec<_>>());
    let changed: Vec<_> =
        got.iter().filter(|(name, tensor)| base[*name] != **tensor).map(|(n, _)| n).collect();
    assert_eq!(changed.len(), report.changed);
    assert!(changed.iter().all(|name| name.contains("self_attn")), "{changed:?}");
    assert_eq!(report.experts_survival, None);
    assert_eq!(json(&out.join("config.json")), json(&golden("base/config.json")));
}

#[test]
fn an_update_that_would_be_lost_is_refused_and_feedback_keeps_it() {
    // The golden adapter, five times smaller.
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("small");
    std::fs::create_dir(&adapter).unwrap();
    let mut config = json(&golden("adapter-all/adapter_config.json"));
    config["lora_alpha"] = serde_json::json!(1);
    descant_files::write_atomic(&adapter.join("adapter_config.json"), config.to_string().as_bytes()).unwrap();
    std::fs::copy(golden("adapter-all/adapter_model.safetensors"), adapter.join("adapter_model.safetensors"))
        .unwrap();
    let model = golden("base");
    let run = |experts, allow_loss, name: &str| {
        let out = dir.path().join(name);
        let job = descant_export::Job {
            experts,
            allow_loss,
            ..descant_export::Job::new(&adapter, &model, Form::Mxfp4, &out)
        };
        descant_export::export(&job, &mut |_| std::ops::ControlFlow::Continue(()))
    };
    let error = run(Experts::Nearest, false, "a").unwrap_err();
    assert!(matches!(error, Error::Lost { lost, .. } if lost > 90.0), "{error}");
    assert!(!dir.path().join("a").exists());
    let lost = run(Experts::Nearest, true, "b").unwrap().experts_survival.unwrap();
    assert!(lost.along < 0.05 && lost.a_error.unwrap() > 0.95, "{lost:?}");
    let kept = run(Experts::Feedback, false, "c").unwrap().experts_survival.unwrap();
    assert!(kept.along > 0.8 && kept.a_error.unwrap() < 0.3, "{kept:?}");
}
