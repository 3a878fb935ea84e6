//! BF16 merges against PEFT's own, rounded once.

use descant_export::{Experts, Form};
use safetensors::Dtype;

use crate::support::{ADAPTERS, exported, golden, json, read};

/// A number's place among all of its type, so that neighbours differ by one.
fn place(bits: u16) -> i32 {
    let bits = i32::from(bits);
    if bits & 0x8000 == 0 { bits } else { 0x8000 - bits }
}

#[test]
fn sums_are_pefts_rounded_once_and_what_no_update_reaches_is_the_same() {
    for adapter in ADAPTERS {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("x");
        exported(adapter, Form::Bf16, Experts::Feedback, &out).unwrap();
        let got = read(&out.join("model.safetensors"));
        let wanted = read(&golden(&format!("expected/{adapter}.merged-bf16.safetensors")));
        let base = read(&golden("base/model.safetensors"));
        for (name, tensor) in &got {
            assert_eq!(tensor.dtype, Dtype::BF16, "{name}");
            let Some(wanted) = wanted.get(name) else {
                // Experts change their layout; the others are the base's, byte for byte.
                if let Some(base) = base.get(name) {
                    assert_eq!(tensor, base, "{name}");
                }
                continue;
            };
            assert_eq!(tensor.shape, wanted.shape, "{name}");
            let gaps: Vec<i32> =
                tensor.bf16().iter().zip(wanted.bf16()).map(|(a, b)| (place(*a) - place(b)).abs()).collect();
            let off = gaps.iter().filter(|gap| **gap > 0).count();
            assert!(off * 500 <= gaps.len(), "{adapter} {name}: {off} of {} are not the nearest", gaps.len());
            assert!(gaps.iter().all(|gap| *gap <= 1), "{adapter} {name}");
        }
        assert!(wanted.keys().all(|name| got.contains_key(name)));
        let (before, after) = (json(&golden("base/config.json")), json(&out.join("config.json")));
        assert_eq!(after["torch_dtype"], "bfloat16");
        assert!(after.get("quantization_config").is_none() && before.get("quantization_config").is_some());
        assert_eq!(after["rope_scaling"], before["rope_scaling"]);
    }
}

#[test]
fn the_same_export_has_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for form in [Form::Bf16, Form::Mxfp4, Form::PeftFolded, Form::MlxAdapter] {
        let [a, b] = ["a", "b"].map(|name| dir.path().join(form.name().to_owned() + name));
        let report = exported("all", form, Experts::Feedback, &a).unwrap();
        assert_eq!(exported("all", form, Experts::Feedback, &b).unwrap(), report);
        for name in descant_files::list(&a).unwrap() {
            let read =
                |dir: &std::path::Path| descant_files::read_bounded(&dir.join(&name), 1 << 28).unwrap();
            assert_eq!(read(&a), read(&b), "{name}");
        }
    }
}
