//! What was read means what PEFT computes: base + delta = merged, for every site, by a plain loop over experts.

use descant_lora::peft::{self, Adapter, Factors};
use descant_model::{Config, Site, SiteKind};

use crate::support::{fixture, floats, max_difference, model, product, read_stored, transposed, widened};

/// The tensor of the checkpoint that a site's delta is added to.
fn weight_name(site: Site) -> String {
    let Site { layer, kind } = site;
    match kind {
        SiteKind::GateUp | SiteKind::Down => format!("model.layers.{layer}.mlp.experts.{}", kind.name()),
        SiteKind::Router => format!("model.layers.{layer}.mlp.router.weight"),
        _ => format!("model.layers.{layer}.self_attn.{}.weight", kind.name()),
    }
}

/// The delta in the order of the checkpoint: experts are `[E, in, out]` there, dense weights `[out, in]`.
fn delta(site: Site, factors: &Factors, model: &Config) -> Vec<f64> {
    let dims = model.site_dims(site.kind);
    let delta = product(factors, dims);
    if site.kind.is_expert() { transposed(&delta, dims.d_out, dims.d_in) } else { delta }
}

fn peft_tiny() -> (Config, Adapter) {
    let model = model("golden/peft_tiny/base");
    let adapter = peft::load(&fixture("golden/peft_tiny/adapter"), &model).unwrap();
    (model, adapter)
}

/// Largest difference between base + delta and what PEFT merged, over all sites.
fn merge_error(model: &Config, adapter: &Adapter) -> f64 {
    let base = read_stored(&fixture("golden/peft_tiny/base/model.safetensors"));
    let merged = read_stored(&fixture("golden/peft_tiny/merged/model.safetensors"));
    let mut worst = 0.0_f64;
    for (&site, factors) in &adapter.sites {
        let name = weight_name(site);
        let sum: Vec<_> = floats(&base[&name])
            .into_iter()
            .zip(delta(site, factors, model))
            .map(|(weight, delta)| f64::from(weight) + delta)
            .collect();
        worst = worst.max(max_difference(&sum, &widened(&floats(&merged[&name]))));
    }
    worst
}

#[test]
fn base_plus_delta_is_what_peft_merged() {
    let (model, adapter) = peft_tiny();
    assert_eq!(adapter.sites.len(), 2 * 6, "q, k, v, o and both expert parameters in two layers");
    let error = merge_error(&model, &adapter);
    assert!(error <= 1e-6, "{error}");
}

#[test]
fn a_transposed_b_of_the_experts_does_not_merge() {
    let (model, mut adapter) = peft_tiny();
    let site = Site { layer: 1, kind: SiteKind::Down };
    let dims = model.site_dims(site.kind);
    let factors = adapter.sites.get_mut(&site).unwrap();
    let b = widened(&factors.b);
    factors.b = transposed(&b, dims.d_out, factors.rank).into_iter().map(|value| value as f32).collect();
    assert!(merge_error(&model, &adapter) > 1e-3);
}

#[test]
fn experts_in_the_order_of_a_do_not_merge() {
    let (model, mut adapter) = peft_tiny();
    let site = Site { layer: 0, kind: SiteKind::GateUp };
    let (dims, r) = (model.site_dims(site.kind), 4);
    // Columns e*r + j instead of j*E + e, as if B were ordered like A. Rank and experts are both 4 here.
    let file = read_stored(&fixture("golden/peft_tiny/adapter/adapter_model.safetensors"));
    let stored = floats(&file["base_model.model.model.layers.0.mlp.experts.base_layer.lora_B.weight"]);
    let factors = adapter.sites.get_mut(&site).unwrap();
    for e in 0..dims.n_matrices {
        for o in 0..dims.d_out {
            for j in 0..r {
                factors.b[(e * dims.d_out + o) * r + j] = stored[o * r * dims.n_matrices + e * r + j];
            }
        }
    }
    assert!(merge_error(&model, &adapter) > 1e-3);
}

#[test]
fn deltas_are_pefts_where_rank_and_experts_differ() {
    let model = model("golden/parity-b");
    let adapter = peft::load(&fixture("golden/parity-b/adapter"), &model).unwrap();
    let case = read_stored(&fixture("golden/parity-b/case.safetensors"));
    assert_eq!(adapter.sites.len(), 3 * 7);
    let mut seen = 0;
    for kind in [SiteKind::Router, SiteKind::GateUp, SiteKind::Down] {
        let site = Site { layer: 1, kind };
        let factors = &adapter.sites[&site];
        assert_eq!((factors.rank, factors.scaling), (3, (7.0_f64 / 3.0) as f32));
        let theirs = widened(&floats(&case[&format!("delta.1.{}", kind.name())]));
        let ours = delta(site, factors, &model);
        assert!(theirs.iter().any(|value| value.abs() > 0.1), "{site}: a delta to speak of");
        let error = max_difference(&ours, &theirs);
        assert!(error <= 1e-6, "{site}: {error}");
        seen += 1;
    }
    assert_eq!(seen, 3);
}
