//! Every way in which an adapter's tensors can be wrong has its error, which names file and tensor.

use std::collections::BTreeMap;
use std::io::Write;

use descant_lora::peft::{self, Error};
use safetensors::Dtype;
use tempfile::TempDir;

use crate::support::{Stored, fixture, model, numbers, read_stored, write_stored};

const Q_A: &str = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";
const GATE_UP_B: &str = "base_model.model.model.layers.0.mlp.experts.base_layer.lora_B.weight";

/// Loads golden/peft_tiny's adapter with its tensors changed.
fn load_damaged(damage: impl FnOnce(&mut BTreeMap<String, Stored>)) -> Result<peft::Adapter, Error> {
    let dir = TempDir::new().unwrap();
    let source = fixture("golden/peft_tiny/adapter");
    std::fs::copy(source.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    let mut tensors = read_stored(&source.join("adapter_model.safetensors"));
    damage(&mut tensors);
    write_stored(&dir.path().join("adapter_model.safetensors"), &tensors);
    peft::load(dir.path(), &model("golden/peft_tiny/base"))
}

fn check(text: &str, damage: impl FnOnce(&mut BTreeMap<String, Stored>)) {
    let error = load_damaged(damage).unwrap_err().to_string();
    assert!(error.contains("adapter_model.safetensors: tensor `"), "{error}");
    assert!(error.ends_with(text), "{error}");
}

#[test]
fn the_undamaged_adapter_loads() {
    load_damaged(|_| ()).unwrap();
}

#[test]
fn each_defect_of_a_tensor_is_named() {
    check(&format!("`{Q_A}` is missing"), |t| {
        t.remove(Q_A);
    });
    check(
        "`base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight` belongs to no target of the configuration",
        |t| {
            t.insert(Q_A.replace("layers.1", "layers.2"), t[Q_A].clone());
        },
    );
    check("`base_model.model.lm_head.weight` belongs to no target of the configuration", |t| {
        t.insert("base_model.model.lm_head.weight".into(), t[Q_A].clone());
    });
    check(&format!("`{Q_A}`: expected shape [4, 64], found [64, 4]"), |t| {
        t.get_mut(Q_A).unwrap().1.reverse();
    });
    check(&format!("`{Q_A}`: expected shape [4, 64], found [2, 2, 64]"), |t| {
        t.get_mut(Q_A).unwrap().1 = vec![2, 2, 64];
    });
    check(&format!("`{GATE_UP_B}`: expected shape [192, 16], found [16, 192]"), |t| {
        t.get_mut(GATE_UP_B).unwrap().1.reverse();
    });
    check(&format!("`{Q_A}`: type I32 is not supported, expected F32, BF16 or F16"), |t| {
        t.get_mut(Q_A).unwrap().0 = Dtype::I32;
    });
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        check(&format!("`{GATE_UP_B}`: element 7 is not finite"), |t| {
            t.get_mut(GATE_UP_B).unwrap().2[28..32].copy_from_slice(&bad.to_le_bytes());
        });
    }
}

#[test]
fn a_rank_that_the_configuration_does_not_say_is_misshapen() {
    let damage = |t: &mut BTreeMap<String, Stored>| {
        let tensor = t.get_mut(Q_A).unwrap();
        tensor.1 = vec![3, 64];
        tensor.2.truncate(3 * 64 * 4);
    };
    assert!(matches!(load_damaged(damage), Err(Error::Shape { expected: [4, 64], .. })));
}

#[test]
fn missing_and_broken_files_are_named() {
    let model = model("golden/peft_tiny/base");
    let dir = TempDir::new().unwrap();
    let file = |name: &str| dir.path().join(name);
    let error = || peft::load(dir.path(), &model).unwrap_err();

    assert!(matches!(error(), Error::File(_)));
    assert!(error().to_string().contains("adapter_config.json"), "{}", error());
    let source = fixture("golden/peft_tiny/adapter");
    std::fs::copy(source.join("adapter_config.json"), file("adapter_config.json")).unwrap();
    assert!(error().to_string().contains("adapter_model.safetensors"), "{}", error());
    for bytes in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"\x02\0\0\0\0\0\0\0{]"] {
        descant_files::write_atomic(&file("adapter_model.safetensors"), bytes).unwrap();
        assert!(matches!(error(), Error::Header { .. }), "{}", error());
    }
    let whole = descant_files::read_bounded(&source.join("adapter_model.safetensors"), 1 << 20).unwrap();
    descant_files::write_atomic(&file("adapter_model.safetensors"), &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(error(), Error::Header { .. }), "{}", error());
}

#[cfg(unix)]
#[test]
fn tensors_outside_the_folder_are_not_read() {
    let dir = TempDir::new().unwrap();
    let source = fixture("golden/peft_tiny/adapter");
    std::fs::copy(source.join("adapter_config.json"), dir.path().join("adapter_config.json")).unwrap();
    let link = dir.path().join("adapter_model.safetensors");
    std::os::unix::fs::symlink(source.join("adapter_model.safetensors"), link).unwrap();
    let error = peft::load(dir.path(), &model("golden/peft_tiny/base")).unwrap_err();
    assert!(matches!(error, Error::File(descant_files::Error::Escapes { .. })), "{error}");
}

/// Bits flipped anywhere in the configuration or in the tensors' header: refused, or read as what is written there.
#[test]
fn flipped_bits_are_refused_or_harmless_but_never_a_panic() {
    let model = model("golden/peft_tiny/base");
    let dir = TempDir::new().unwrap();
    let names = ["adapter_config.json", "adapter_model.safetensors"];
    let good = names.map(|name| {
        descant_files::read_bounded(&fixture("golden/peft_tiny/adapter").join(name), 1 << 20).unwrap()
    });
    let header = 8 + u64::from_le_bytes(good[1][..8].try_into().unwrap()) as usize;
    let lengths = [good[0].len(), header];
    let whole = load_damaged(|_| ()).unwrap();
    let (mut refused, mut read) = (0, 0);
    for (round, random) in numbers(1000, 7).into_iter().enumerate() {
        let at = (f64::from(random) + 0.5) * lengths[round % 2] as f64 * 8.0;
        for (which, name) in names.iter().enumerate() {
            let mut bytes = good[which].clone();
            if which == round % 2 {
                bytes[at as usize / 8] ^= 1 << (at as usize % 8);
            }
            // Not written durably: a thousand syncs take half a minute.
            std::fs::File::create(dir.path().join(name)).unwrap().write_all(&bytes).unwrap();
        }
        match peft::load(dir.path(), &model) {
            Err(error) => {
                assert!(error.to_string().contains("adapter_"), "{error}");
                refused += 1;
            }
            // A rank is in every shape, so only names, alphas and values that change nothing are left to differ.
            Ok(adapter) => {
                for (site, factors) in &adapter.sites {
                    assert_eq!(factors.rank, whole.sites[site].rank);
                }
                read += 1;
            }
        }
    }
    assert!(refused > 500 && read > 50, "{refused} refused, {read} read");
}
