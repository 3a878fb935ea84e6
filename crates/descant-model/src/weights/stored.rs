//! Which weights of an NF4 checkpoint its files have packed as kernels read them; no weight is read for it.

use std::collections::BTreeMap;
use std::path::Path;

use descant_quant::Packing;
use safetensors::Dtype;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layouts::LinearLayer;
use crate::plain::Plain;
use crate::shards::{TensorPlace, tensor_places};
use crate::site::Site;

impl Config {
    /// The same with what the files of `dir` say of the packing of each weight, where some are there.
    ///
    /// # Errors
    /// They are broken.
    pub fn as_stored(mut self, dir: &Path) -> Result<Self> {
        if self.packing != Packing::Nf4 {
            return Ok(self);
        }
        let places = match tensor_places(dir) {
            Err(Error::NoWeights { .. }) => return Ok(self),
            places => places?,
        };
        let plain = LinearLayer::all(&self).filter(|linear| !is_packed(linear, &places));
        let paths = plain.filter_map(|linear| linear.weight.site()).map(Site::path).collect();
        self.plain = Plain::found(paths);
        Ok(self)
    }
}

/// Whether a linear layer's weight is packed, and its scales too.
fn is_packed(linear: &LinearLayer, places: &BTreeMap<String, TensorPlace>) -> bool {
    linear.names().iter().any(|name| {
        let weight = places.get(&format!("{name}.weight"));
        let is_packed = weight.is_some_and(|place| place.dtype == Dtype::U8);
        is_packed && places.contains_key(&format!("{name}.weight.nested_absmax"))
    })
}

#[cfg(test)]
mod tests {
    use descant_kernels::SiteKind;

    use super::*;
    use crate::weights::weight_bytes;

    fn published(quantization: &serde_json::Value) -> Config {
        let path = format!("{}/../../fixtures/configs/gpt-oss-20b.json", env!("CARGO_MANIFEST_DIR"));
        let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        json["quantization_config"] = quantization.clone();
        Config::from_slice(json.to_string().as_bytes()).unwrap()
    }

    fn nf4(left_alone: &[&str]) -> serde_json::Value {
        serde_json::json!({
            "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": true, "llm_int8_skip_modules": left_alone,
        })
    }

    #[test]
    fn modules_that_are_left_alone_are_not_packed_and_take_their_room() {
        let whole = published(&nf4(&["lm_head", "router"]));
        // 4.127 bits a number of experts and attention, two bytes of everything else.
        let packed = 24.0 * f64::from(32 * 3 * 2880 * 2880 + 2 * 2880 * 4096 + 2 * 2880 * 512);
        let others = 2.0 * f64::from(201_088 * 2880 * 2) + f64::from(24 * 32 * 2880 * 2);
        let expected = packed * 4.127 / 8.0 + others;
        let bytes = weight_bytes(&whole, true) as f64;
        assert!((bytes / expected - 1.0).abs() < 2e-3, "{bytes} {expected}");
        let site = |layer, kind| Site { layer, kind };
        for (left_alone, is_left) in [
            ("model.layers.3.self_attn", [true, true, true, false]),
            ("model.layers.3.self_attn.q_proj", [true, true, false, false]),
            ("o_proj", [false, false, true, false]),
            ("model.layers.3.mlp.experts.down_proj", [false, false, false, true]),
            ("model.layers.3.mlp", [false, false, false, true]),
            ("model.layers.33", [false; 4]),
        ] {
            let config = published(&nf4(&["lm_head", left_alone]));
            let kinds = [SiteKind::Query, SiteKind::Value, SiteKind::Output, SiteKind::Down];
            assert_eq!(kinds.map(|kind| !config.keeps_packed(site(3, kind))), is_left, "{left_alone}");
            let more = weight_bytes(&config, true) > weight_bytes(&whole, true);
            assert_eq!(more, is_left.contains(&true), "{left_alone}");
        }
        // Scales that are not quantized twice are not what kernels read.
        let mut once = nf4(&[]);
        once["bnb_4bit_use_double_quant"] = false.into();
        let once = published(&once);
        assert!(!once.has_packed_experts() && !once.layer_sizes().packed_attention);
        let unpacked = Config { packing: Packing::Plain, ..whole };
        assert_eq!(weight_bytes(&once, true), weight_bytes(&unpacked, true));
    }

    #[test]
    fn what_the_files_say_is_what_a_true_configuration_says() {
        use descant_testkit::{nf4::Model, shard::file_of};
        let mut model = Model::tiny();
        model.config["quantization_config"]["llm_int8_skip_modules"] =
            serde_json::json!(["model.layers.1.self_attn.v_proj", "router", "lm_head"]);
        let dir = tempfile::tempdir().unwrap();
        let said = Config::from_slice(model.config.to_string().as_bytes()).unwrap();
        assert_eq!(said.clone().as_stored(dir.path()).unwrap(), said, "no weights are there");
        descant_files::write_atomic(&dir.path().join("model.safetensors"), &file_of(&model.packed)).unwrap();
        let stored = said.clone().as_stored(dir.path()).unwrap();
        let sites = |config: &Config| -> Vec<Site> {
            let all = LinearLayer::all(config).filter_map(|linear| linear.weight.site());
            all.filter(|site| config.keeps_packed(*site)).collect()
        };
        assert!(!sites(&stored).is_empty());
        assert_eq!(sites(&stored), sites(&said));
        assert_eq!(weight_bytes(&stored, true), weight_bytes(&said, true));
        // The control: a configuration that does not say it.
        model.config["quantization_config"]["llm_int8_skip_modules"] = serde_json::json!([]);
        let silent = Config::from_slice(model.config.to_string().as_bytes()).unwrap();
        assert!(weight_bytes(&silent, true) < weight_bytes(&stored, true));
        assert_eq!(silent.as_stored(dir.path()).unwrap(), stored);
    }
}
