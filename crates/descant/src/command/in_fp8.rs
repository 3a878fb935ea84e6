//! What is said of a run whose steps multiply with experts in fp8: that they do, which products do not, and how far such a
//! step is from one in bf16.

use anyhow::{Result, anyhow};
use descant_lora::LoraAdapters;
use descant_model::{GptOss, Site};
use descant_train::fp8::{Deviation, Gates, measure_first};
use descant_train::{Course, Experts, OnDeviation, experts_in_bf16};

use crate::failure::Hinted;
use crate::words::{counted, listed};

/// Products of a layer's experts, each of which has frozen weights of its own.
const OF_LAYER: usize = 2;

/// Steps with experts in fp8.
#[derive(Debug)]
pub(crate) struct InFp8 {
    products: usize,
    in_bf16: Vec<Site>,
    deviation: Option<Deviation>,
}

impl InFp8 {
    /// Prepares a model for such steps, where a run is to have them.
    pub(crate) fn prepare(model: &GptOss, experts: Experts) -> Result<Option<Self>> {
        if experts == Experts::Bf16 {
            return Ok(None);
        }
        let products = OF_LAYER * model.config.num_hidden_layers;
        Ok(Some(Self { products, in_bf16: experts_in_bf16(model, experts)?, deviation: None }))
    }

    /// Measures the first step of a run, and refuses one that is beyond a gate where its settings want that.
    pub(crate) fn measure(&mut self, course: Course<'_>, adapters: LoraAdapters) -> Result<()> {
        // A run computes the same whether or not it was measured.
        #[cfg(feature = "cuda")]
        let _choices = super::kept::choose_apart();
        self.deviation = measure_first(course, adapters)?;
        self.check(course.guard.on_deviation)
    }

    fn check(&self, on: OnDeviation) -> Result<()> {
        let Some(deviation) = self.deviation.as_ref().filter(|_| on == OnDeviation::Refuse) else {
            return Ok(());
        };
        let beyond = deviation.beyond(&Gates::WHOLE_MODEL);
        if beyond.is_empty() {
            return Ok(());
        }
        let error = anyhow!(
            "steps with experts in fp8 are too far from bf16 on this model and data: {}\n  {}",
            beyond.join("; "),
            deviation.words()
        );
        let hint = "set train.experts = \"bf16\"; --set guard.on_deviation=warn trains in fp8 all the same";
        Err(Hinted::new(error, hint).into())
    }

    /// What was measured.
    pub(crate) fn deviation(&self) -> Option<&Deviation> {
        self.deviation.as_ref()
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
    use crate::failure::hints;

    #[test]
    fn products_that_stay_in_bf16_are_counted_and_named() {
        let of = |in_bf16| InFp8 { products: 48, in_bf16, deviation: None };
        assert!(!of(Vec::new()).words().contains("stay"));
        let words =
            of(vec![Site { layer: 3, kind: SiteKind::GateUp }, Site { layer: 7, kind: SiteKind::Down }]);
        let words = words.words();
        assert!(words.contains("2 of 48 products stay in bf16"), "{words}");
        assert!(words.contains("layers.3.gate_up_proj") && words.contains("layers.7.down_proj"), "{words}");
    }

    #[test]
    fn what_is_beyond_a_gate_is_refused_with_its_figures_unless_a_warning_is_wanted() {
        let of = |divergence| {
            let deviation = Deviation {
                conversations: 4,
                tokens: 4096,
                trained_tokens: 3000,
                compared_tokens: 2048,
                loss: 2.0,
                loss_fp8: 2.0,
                divergence,
                gradients: 0,
                zero_gradients: 0,
                cosine: None,
                norm: None,
            };
            InFp8 { products: 48, in_bf16: Vec::new(), deviation: Some(deviation) }
        };
        for on in [OnDeviation::Refuse, OnDeviation::Warn] {
            of(1.9e-3).check(on).unwrap();
        }
        for bad in [2.1e-3, f64::NAN] {
            of(bad).check(OnDeviation::Warn).unwrap();
            let error = of(bad).check(OnDeviation::Refuse).unwrap_err();
            assert!(
                error.to_string().contains("(at most 2.0e-3)\n  fp8 beside bf16 on 4096 tokens"),
                "{error}"
            );
            let hint = hints(&error).concat();
            assert!(hint.contains("guard.on_deviation=warn") && hint.contains("\"bf16\""), "{hint}");
        }
        InFp8 { deviation: None, ..of(0.0) }.check(OnDeviation::Refuse).unwrap();
    }
}
