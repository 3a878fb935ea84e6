//! What is said of a run whose steps multiply with experts in fp8: that they do, and which products do not.

use anyhow::Result;
use descant_model::{GptOss, Site};
use descant_train::{Experts, experts_in_bf16};

use crate::words::{counted, listed};

/// Products of a layer's experts, each of which has frozen weights of its own.
const OF_LAYER: usize = 2;

/// Steps with experts in fp8.
#[derive(Debug)]
pub(crate) struct InFp8 {
    products: usize,
    in_bf16: Vec<Site>,
}

impl InFp8 {
    /// Prepares a model for such steps, where a run is to have them.
    pub(crate) fn prepare(model: &GptOss, experts: Experts) -> Result<Option<Self>> {
        if experts == Experts::Bf16 {
            return Ok(None);
        }
        let products = OF_LAYER * model.config.num_hidden_layers;
        Ok(Some(Self { products, in_bf16: experts_in_bf16(model, experts)? }))
    }

    /// The products that stay in bf16.
    pub(crate) fn names(&self) -> Vec<String> {
        self.in_bf16.iter().map(ToString::to_string).collect()
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let what = "fp8 in training steps, bf16 in everything else";
        if self.in_bf16.is_empty() {
            return what.to_owned();
        }
        format!(
            "{what}; {} of {} stay in bf16, because fp8 does not hold their weights exactly: {}",
            self.in_bf16.len(),
            counted(self.products as u64, "product"),
            listed(&self.names())
        )
    }
}

#[cfg(test)]
mod tests {
    use descant_model::SiteKind;

    use super::*;

    #[test]
    fn products_that_stay_in_bf16_are_counted_and_named() {
        let of = |in_bf16| InFp8 { products: 48, in_bf16 };
        assert!(!of(Vec::new()).words().contains("stay"));
        let words =
            of(vec![Site { layer: 3, kind: SiteKind::GateUp }, Site { layer: 7, kind: SiteKind::Down }]);
        let words = words.words();
        assert!(words.contains("2 of 48 products stay in bf16"), "{words}");
        assert!(words.contains("layers.3.gate_up_proj") && words.contains("layers.7.down_proj"), "{words}");
    }
}
