//! What is trained, counted from the published configurations.

use descant_lora::LoraConfig;
use descant_lora::peft::Manifest;
use descant_model::{Config, SiteKind};

use crate::support::published;

fn manifest(model: &Config, r: usize, targets: &[&str]) -> Manifest {
    let targets = targets.iter().map(|&name| name.to_owned()).collect();
    let sites = LoraConfig { r, alpha: 16.0, targets }.sites(model).unwrap();
    Manifest::new(model, sites.into_iter().map(|site| (site, r)))
}

#[test]
fn parameters_of_the_published_models_are_counted_exactly() {
    let small = published("gpt-oss-20b.json");
    let attention = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let all: Vec<_> = attention.into_iter().chain(["gate_up_proj", "down_proj"]).collect();
    assert_eq!(manifest(&small, 8, &attention).total, 3_981_312);
    assert_eq!(manifest(&small, 8, &all).total, 3_981_312 + 88_473_600);
    assert_eq!(manifest(&small, 8, &["router"]).total, 24 * 8 * (2880 + 32));
    // 36 layers instead of 24 and 128 experts instead of 32.
    let large = published("gpt-oss-120b.json");
    assert_eq!(manifest(&large, 8, &attention).total, 3_981_312 / 24 * 36);
    assert_eq!(manifest(&large, 8, &all).total, (3_981_312 + 88_473_600 * 4) / 24 * 36);
}

#[test]
fn the_manifest_names_tensors_as_the_file_will() {
    let model = published("gpt-oss-20b.json");
    let rows = |targets: &[&str]| {
        let manifest = manifest(&model, 8, targets);
        assert_eq!(
            manifest.total,
            manifest.tensors.iter().map(|row| row.shape[0] * row.shape[1]).sum::<usize>()
        );
        assert_eq!(manifest.tensors.len(), 24 * 2 * targets.len());
        manifest.tensors.into_iter().map(|row| (row.tensor, row.shape, row.count)).take(4).collect::<Vec<_>>()
    };
    let name = |name: &str| format!("base_model.model.model.layers.0.{name}.weight");
    assert_eq!(
        rows(&["gate_up_proj", "down_proj"]),
        [
            (name("mlp.experts.base_layer.lora_A"), [256, 2880], 737_280),
            (name("mlp.experts.base_layer.lora_B"), [5760, 256], 1_474_560),
            (name("mlp.experts.lora_A"), [256, 2880], 737_280),
            (name("mlp.experts.lora_B"), [2880, 256], 737_280),
        ]
    );
    // Alone, either is the outermost wrapper.
    assert_eq!(rows(&["gate_up_proj"])[1], (name("mlp.experts.lora_B"), [5760, 256], 1_474_560));
    assert_eq!(rows(&["o_proj"])[0], (name("self_attn.o_proj.lora_A"), [8, 4096], 32_768));
    let json = serde_json::to_value(manifest(&model, 8, &["router"])).unwrap();
    assert_eq!(json["tensors"][1]["tensor"], name("mlp.router.lora_B"));
    assert_eq!(json["tensors"][1]["shape"], serde_json::json!([32, 8]));
    assert_eq!(SiteKind::ALL.len(), 7, "a new kind needs names here");
}
