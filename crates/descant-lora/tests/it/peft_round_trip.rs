//! What we write: PEFT's own bytes where PEFT wrote the adapter, and ourselves again in every other case.

use std::path::Path;

use descant_files::read_bounded;
use descant_lora::peft::{self, Adapter, Error, Factors, Sites};
use descant_model::{Config, Site, SiteDims, SiteKind};
use tempfile::TempDir;

use crate::support::{
    Stored, fixture, floats, max_difference, model, numbers, product, read_stored, stored, write_stored,
};

/// What makes factors unfit.
type Damage<'a> = &'a dyn Fn(&mut Factors);

const TENSORS: &str = "adapter_model.safetensors";

fn sites(model: &Config, chosen: impl Fn(Site) -> Option<(usize, f32)>) -> Sites {
    let all = (0..model.num_hidden_layers)
        .flat_map(|layer| SiteKind::ALL.into_iter().map(move |kind| Site { layer, kind }));
    all.filter_map(|site| {
        let (rank, scaling) = chosen(site)?;
        let dims = model.site_dims(site.kind);
        let seed = (site.layer * 16 + site.kind as usize) as u64 + 1;
        let a = numbers(dims.n_matrices * rank * dims.d_in, seed);
        let b = numbers(dims.n_matrices * dims.d_out * rank, seed + 1000);
        Some((site, Factors { rank, scaling, a, b }))
    })
    .collect()
}

fn save_and_load(model: &Config, sites: &Sites) -> Adapter {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("adapter");
    peft::save(&path, model, "openai/gpt-oss-20b", sites).unwrap();
    peft::load(&path, model).unwrap()
}

#[test]
fn an_adapter_of_pefts_is_written_with_pefts_tensors() {
    for (model_dir, adapter_dir) in [
        ("golden/peft_tiny/base", "golden/peft_tiny/adapter"),
        ("golden/parity-b", "golden/parity-b/adapter"),
    ] {
        let model = model(model_dir);
        let theirs = peft::load(&fixture(adapter_dir), &model).unwrap();
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("adapter");
        peft::save(&path, &model, "a/model", &theirs.sites).unwrap();
        let expected = read_stored(&fixture(adapter_dir).join(TENSORS));
        assert!(read_stored(&path.join(TENSORS)) == expected, "{adapter_dir}: same names, shapes and bytes");
        assert_eq!(peft::load(&path, &model).unwrap().sites, theirs.sites);
    }
}

#[test]
fn the_numbers_that_experts_had_in_training_come_back_where_they_are_a_word() {
    let model = model("golden/parity-b");
    let sites = peft::load(&fixture("golden/parity-b/adapter"), &model).unwrap().sites;
    let saved = |experts| {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("adapter");
        let base = peft::Base { name: "a/model", revision: None, experts };
        peft::save(&path, &model, base, &sites).unwrap();
        peft::load(&path, &model).map(|adapter| adapter.experts)
    };
    assert_eq!(saved(None).unwrap(), None);
    assert_eq!(saved(Some("fp8")).unwrap().as_deref(), Some("fp8"));
    for word in ["", "fp8 | a row of the card", "a-word-of-more-than-16"] {
        let error = saved(Some(word)).unwrap_err().to_string();
        assert!(error.contains(TENSORS) && error.contains("`descant.experts` is"), "{error}");
    }
}

#[test]
fn every_choice_of_sites_comes_back() {
    use SiteKind::{Down, GateUp, Query, Router, Value};
    // Rank 3 on 4 experts, hidden 64, width 96: no two of them can be mistaken for each other.
    let model = model("golden/peft_tiny/base");
    let choices: [(&str, &dyn Fn(Site) -> bool); 8] = [
        ("all", &|_| true),
        ("attention", &|site| !site.kind.is_expert() && site.kind != Router),
        ("gate_up alone", &|site| site.kind == GateUp),
        ("down alone", &|site| site.kind == Down),
        ("router alone", &|site| site.kind == Router),
        ("one layer", &|site| site.layer == 1),
        ("gate_up in one layer, both in the other", &|site| {
            site.kind == GateUp || (site.kind == Down && site.layer == 1)
        }),
        ("q everywhere, v in one layer", &|site| {
            site.kind == Query || (site.kind == Value && site.layer == 0)
        }),
    ];
    for (name, chosen) in choices {
        let sites = sites(&model, |site| chosen(site).then_some((3, 2.0)));
        let adapter = save_and_load(&model, &sites);
        assert!(adapter.sites == sites, "{name}");
        assert!(adapter.passed_over.is_empty(), "{name}");
    }
}

#[test]
fn ranks_and_scalings_may_differ_by_site() {
    let model = model("golden/peft_tiny/base");
    let sites = sites(&model, |site| {
        let rank = 1 + (site.layer * 7 + site.kind as usize) % 5;
        Some((rank, [2.0, 16.0 / 3.0, 0.1, 1.0e-3][site.kind as usize % 4]))
    });
    let adapter = save_and_load(&model, &sites);
    assert!(adapter.sites == sites, "scalings to the bit");
    assert!(!adapter.config.rank_pattern.is_empty() && !adapter.config.alpha_pattern.is_empty());
}

#[test]
fn the_same_numbers_give_the_same_bytes() {
    let model = model("golden/peft_tiny/base");
    let sites = sites(&model, |_| Some((3, 2.0)));
    let dir = TempDir::new().unwrap();
    let folders = ["one", "two"].map(|name| dir.path().join(name));
    let manifests = folders.each_ref().map(|path| peft::save(path, &model, "a/b", &sites).unwrap());
    assert_eq!(manifests[0], manifests[1]);
    let mut names: Vec<_> = folders[0].read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["README.md", "adapter_config.json", TENSORS]);
    for name in names {
        let [one, two] = folders.each_ref().map(|path| read_bounded(&path.join(&name), 1 << 24).unwrap());
        assert!(one == two, "{}", name.display());
    }
}

#[test]
fn the_configuration_has_what_peft_needs_and_no_more() {
    let model = model("golden/peft_tiny/base");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("adapter");
    let sites = sites(&model, |site| (site.kind != SiteKind::Router).then_some((8, 2.0)));
    peft::save(&path, &model, "openai/gpt-oss-20b", &sites).unwrap();
    let text = read_bounded(&path.join("adapter_config.json"), 1 << 20).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let expected = serde_json::json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "openai/gpt-oss-20b",
        "revision": null, "inference_mode": true, "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
        "fan_in_fan_out": false, "init_lora_weights": true, "use_rslora": false, "use_dora": false,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        "modules_to_save": null, "rank_pattern": {}, "alpha_pattern": {},
        "layers_to_transform": null, "layers_pattern": null,
    });
    assert_eq!(written, expected);
    let file = descant_files::MappedFile::open(&path.join(TENSORS)).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(file.bytes()).unwrap();
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!(metadata.get("format").map(String::as_str), Some("pt"), "transformers asks for this");
}

#[test]
fn no_name_of_a_base_model_breaks_out_of_the_cards_front_matter() {
    let model = model("golden/peft_tiny/base");
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("adapter");
    let sites = sites(&model, |site| (site.kind == SiteKind::Query).then_some((1, 1.0)));
    for (name, base, title) in [
        ("evil\"\n---\n# title\nlicense: mit", "", "a local gpt-oss"),
        ("/home/user/model", "", "a local gpt-oss"),
        ("openai/gpt-oss-20b", "base_model: openai/gpt-oss-20b\n", "openai/gpt-oss-20b"),
    ] {
        let _ = std::fs::remove_dir_all(&path);
        peft::save(&path, &model, name, &sites).unwrap();
        let card = String::from_utf8(read_bounded(&path.join("README.md"), 1 << 20).unwrap()).unwrap();
        assert!(card.starts_with(&format!("---\n{base}library_name: peft\n")), "{card}");
        assert!(card.contains(&format!("\n# LoRA adapter for {title}\n")), "{card}");
        assert_eq!(card.lines().filter(|line| *line == "---").count(), 2);
        assert!(!card.contains("\n# title") && !card.contains("/home"));
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let model = model("golden/peft_tiny/base");
    let good = sites(&model, |site| (site.kind == SiteKind::Query).then_some((2, 1.0)));
    let site = Site { layer: 1, kind: SiteKind::Query };
    let cases: [(&str, Damage); 8] = [
        ("A has 127 numbers; expected 128", &|f| {
            f.a.pop();
        }),
        ("B has 129 numbers; expected 128", &|f| f.b.push(0.0)),
        ("rank is 0", &|f| f.rank = 0),
        ("rank is 4097", &|f| f.rank = 4097),
        ("scaling is NaN", &|f| f.scaling = f32::NAN),
        ("scaling is 0", &|f| f.scaling = 0.0),
        ("A: element 5 is not finite", &|f| f.a[5] = f32::INFINITY),
        ("B: element 6 is not finite", &|f| f.b[6] = f32::NAN),
    ];
    let dir = TempDir::new().unwrap();
    for (reason, damage) in cases {
        let mut sites = good.clone();
        damage(sites.get_mut(&site).unwrap());
        let error = peft::save(&dir.path().join("adapter"), &model, "a", &sites).unwrap_err();
        assert!(error.to_string().starts_with(&format!("layers.1.q_proj: {reason}")), "{error}");
    }
    let mut sites = good.clone();
    let factors = sites[&site].clone();
    sites.insert(Site { layer: 2, kind: SiteKind::Query }, factors);
    let error = peft::save(&dir.path().join("adapter"), &model, "a", &sites).unwrap_err();
    assert!(error.to_string().contains("layers.2.q_proj: the model has 2 layers"), "{error}");
    assert!(matches!(peft::save(&dir.path().join("adapter"), &model, "a", &Sites::new()), Err(Error::Empty)));
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is left");

    peft::save(&dir.path().join("adapter"), &model, "a", &good).unwrap();
    assert!(peft::save(&dir.path().join("adapter"), &model, "a", &good).is_err(), "never over another");
}

/// The wrapped experts of an adapter as Unsloth keeps them: a module for each expert.
fn per_expert(path: &Path, model: &Config, sites: &Sites) {
    let mut tensors = std::collections::BTreeMap::<String, Stored>::new();
    for (site, factors) in sites {
        let dims = model.site_dims(site.kind);
        let r = factors.rank;
        for e in 0..dims.n_matrices {
            let head =
                format!("base_model.model.model.layers.{}.mlp.experts.{}s.{e}", site.layer, site.kind.name());
            let a = &factors.a[e * r * dims.d_in..][..r * dims.d_in];
            let b = &factors.b[e * r * dims.d_out..][..r * dims.d_out];
            tensors.insert(format!("{head}.lora_A.weight"), stored(&[r, dims.d_in], a));
            tensors.insert(format!("{head}.lora_B.weight"), stored(&[dims.d_out, r], b));
        }
    }
    std::fs::create_dir_all(path).unwrap();
    write_stored(&path.join(TENSORS), &tensors);
}

#[test]
fn an_adapter_with_a_module_for_each_expert_is_read() {
    let model = model("golden/peft_tiny/base");
    let sites = sites(&model, |site| site.kind.is_expert().then_some((3, 2.0)));
    let dir = TempDir::new().unwrap();
    per_expert(dir.path(), &model, &sites);
    let load = |targets: &str| {
        let config =
            format!(r#"{{"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": {targets}}}"#);
        descant_files::write_atomic(&dir.path().join("adapter_config.json"), config.as_bytes()).unwrap();
        peft::load(dir.path(), &model)
    };
    let all: Vec<_> =
        (0..4).flat_map(|e| [format!("gate_up_projs.{e}"), format!("down_projs.{e}")]).collect();
    assert!(load(&serde_json::json!(all).to_string()).unwrap().sites == sites);
    assert!(load(r#"".*\\.experts\\.(gate_up|down)_projs\\.\\d+""#).unwrap().sites == sites);
    let error = load(&serde_json::json!(all[..7]).to_string()).unwrap_err();
    assert!(matches!(&error, Error::Conflict { reason, .. } if reason.contains("others are not")), "{error}");
}

#[test]
fn half_precision_is_read_as_it_is() {
    use safetensors::Dtype;
    let model = model("golden/peft_tiny/base");
    // Eighths are exact in both formats.
    let mut sites = sites(&model, |site| (site.kind == SiteKind::Output).then_some((2, 2.0)));
    for factors in sites.values_mut() {
        for value in factors.a.iter_mut().chain(&mut factors.b) {
            *value = (*value * 8.0).round() / 8.0;
        }
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("adapter");
    peft::save(&path, &model, "a", &sites).unwrap();
    let full = read_stored(&path.join(TENSORS));
    for (dtype, halve) in [
        (Dtype::BF16, (|v| half::bf16::from_f32(v).to_le_bytes()) as fn(f32) -> [u8; 2]),
        (Dtype::F16, |v| half::f16::from_f32(v).to_le_bytes()),
    ] {
        let halved = full
            .iter()
            .map(|(name, tensor)| {
                let bytes = floats(tensor).into_iter().flat_map(halve).collect();
                (name.clone(), (dtype, tensor.1.clone(), bytes))
            })
            .collect();
        write_stored(&path.join(TENSORS), &halved);
        assert!(peft::load(&path, &model).unwrap().sites == sites, "{dtype:?}");
    }
}

/// The experts of an adapter as PEFT above 0.18 wrote them over transformers below 5: A over what comes out, B over
/// what goes in. The update that they mean is the same.
fn the_other_way_round(path: &Path, model: &Config, sites: &Sites) {
    let mut tensors = std::collections::BTreeMap::<String, Stored>::new();
    for (site, Factors { rank, a, b, .. }) in sites {
        let SiteDims { d_in, d_out, n_matrices: n } = model.site_dims(site.kind);
        let inside = if site.kind == SiteKind::GateUp { "experts.base_layer" } else { "experts" };
        let head = format!("base_model.model.model.layers.{}.mlp.{inside}", site.layer);
        let (mut stored_a, mut stored_b) = (vec![0.0; n * rank * d_out], vec![0.0; d_in * rank * n]);
        for e in 0..n {
            for j in 0..*rank {
                for o in 0..d_out {
                    stored_a[(e * rank + j) * d_out + o] = b[(e * d_out + o) * rank + j];
                }
                for i in 0..d_in {
                    stored_b[i * rank * n + j * n + e] = a[(e * rank + j) * d_in + i];
                }
            }
        }
        tensors.insert(format!("{head}.lora_A.weight"), stored(&[n * rank, d_out], &stored_a));
        tensors.insert(format!("{head}.lora_B.weight"), stored(&[d_in, rank * n], &stored_b));
    }
    std::fs::create_dir_all(path).unwrap();
    write_stored(&path.join(TENSORS), &tensors);
    let config = serde_json::json!({
        "peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": [],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    });
    descant_files::write_atomic(&path.join("adapter_config.json"), config.to_string().as_bytes()).unwrap();
}

#[test]
fn expert_factors_that_lie_the_other_way_round_are_the_same_update() {
    let model = model("golden/peft_tiny/base");
    let sites = sites(&model, |site| site.kind.is_expert().then_some((3, 2.0)));
    let dir = TempDir::new().unwrap();
    the_other_way_round(dir.path(), &model, &sites);
    let read = peft::load(dir.path(), &model).unwrap().sites;
    for (site, factors) in &sites {
        let dims = model.site_dims(site.kind);
        let difference = max_difference(&product(&read[site], dims), &product(factors, dims));
        assert!(difference < 1e-12, "{site}: {difference}");
    }
    // The control: the usual layout under the same names is another update, and is read as itself.
    let usual = TempDir::new().unwrap();
    peft::save(&usual.path().join("x"), &model, "a", &sites).unwrap();
    assert!(peft::load(&usual.path().join("x"), &model).unwrap().sites == sites);
}
