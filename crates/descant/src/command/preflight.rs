//! The base's loss on a few short conversations before training: whether its weights were read correctly.
//!
//! A trained gpt-oss finds such texts easy. A wrong layout, type, scale, template or tokenizer makes them as unlikely
//! as noise, and training would run anyway. The check takes a second. It does not say how good a model is, and it
//! looks at none with a small vocabulary, which may know no English.

use anyhow::{Result, anyhow};
use descant_harmony::{
    ChatTemplate, Conversation, LossWeights, MaskPolicy, Masker, Message, RenderOptions, Renderer, Role,
    TextEncoder as _, Tokenizer,
};
use descant_model::{Bare, GptOss};
use descant_train::{IGNORED, score};

use crate::failure::Hinted;

/// A question, the reasoning, the answer. Written for this purpose; CC0.
const CONVERSATIONS: [[&str; 3]; 4] = [
    [
        "What is the capital of France?",
        "The user asks for the capital of France. The capital of France is Paris.",
        "The capital of France is Paris.",
    ],
    [
        "How many days are there in a week?",
        "This is a simple question. A week has seven days.",
        "There are seven days in a week: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ],
    [
        "Why does ice float on water?",
        "The user wants to know why ice floats. Ice is less dense than liquid water, because the molecules form a \
         lattice with more space between them.",
        "Ice floats because it is less dense than liquid water. When water freezes, its molecules form a crystal \
         lattice that takes up more space, so the same mass has a larger volume.",
    ],
    ["What is 12 plus 30?", "We need to add 12 and 30. 12 + 30 = 42.", "12 plus 30 is 42."],
];
/// More tokens than any of them has.
pub(super) const LONGEST: u64 = 256;
/// Nats a token from which on the base is taken for misread.
pub(super) const LIMIT: f64 = 4.0;
/// From here on texts are about as unlikely as with random weights: ln 201,088 is 12.2.
const NOISE: f64 = 10.0;
/// Smallest vocabulary that is looked at; the published one has 201,088 words.
const PUBLISHED: usize = 200_000;

/// What the base finds of the conversations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Preflight {
    /// Nats a token of the assistant's messages, given what came before.
    pub(crate) conversations: f64,
    /// Nats a token of the answers as plain text, without a template.
    pub(crate) plain: f64,
    /// Whether the tokenizer is the published one.
    tokenizer: bool,
    /// Whether the template is the published one.
    template: bool,
}

/// Measures a base; `None` where its vocabulary is too small for an opinion.
pub(crate) fn measure(model: &GptOss, renderer: &Renderer) -> Result<Option<Preflight>> {
    if model.config.vocab_size < PUBLISHED {
        return Ok(None);
    }
    // A run computes the same whether or not its base was looked at.
    #[cfg(feature = "cuda")]
    let _choices = super::kept::choose_apart();
    let masker = Masker::new(renderer.tokenizer(), MaskPolicy::Assistant, LossWeights::default())?;
    let (mut conversations, mut plain) = (Mean::default(), Mean::default());
    for [question, reasoning, answer] in CONVERSATIONS {
        let conversation = Conversation::new(vec![
            Message::text(Role::User, question),
            Message::assistant(Some(reasoning.to_owned()), answer),
        ]);
        let rendered = renderer.render(&conversation, &RenderOptions::default())?;
        let mask = masker.mask(&rendered, 0)?;
        let label = |(id, trained): (&u32, bool)| if trained { i64::from(*id) } else { IGNORED };
        let labels: Vec<i64> = rendered.ids.iter().zip(mask.bits()).map(label).collect();
        conversations.add(model, &rendered.ids, Some(&labels))?;
        plain.add(model, &renderer.tokenizer().encode_text(answer)?, None)?;
    }
    let tokenizer = Tokenizer::gpt_oss()?.sha256() == renderer.tokenizer().sha256();
    let template = ChatTemplate::official()?.sha256() == renderer.template().sha256();
    let (conversations, plain) = (conversations.value(), plain.value());
    Ok(Some(Preflight { conversations, plain, tokenizer, template }))
}

/// A mean over the tokens of several texts.
#[derive(Default)]
struct Mean {
    sum: f64,
    tokens: f64,
}

impl Mean {
    fn add(&mut self, model: &GptOss, ids: &[u32], labels: Option<&[i64]>) -> Result<()> {
        let counted = |at: &usize| labels.is_none_or(|labels| labels[*at] != IGNORED);
        let tokens = (1..ids.len()).filter(counted).count() as f64;
        if let Some(loss) = score(model, &Bare, ids, labels)?.loss {
            self.sum += loss * tokens;
            self.tokens += tokens;
        }
        Ok(())
    }

    fn value(&self) -> f64 {
        self.sum / self.tokens
    }
}

impl Preflight {
    /// Whether the base reads like a trained one. A loss that is not finite does not.
    pub(crate) fn is_good(&self) -> bool {
        self.conversations < LIMIT
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        format!(
            "{:.2} nats a token on {} short English conversations, {:.2} on their answers as plain text",
            self.conversations,
            CONVERSATIONS.len(),
            self.plain
        )
    }

    /// What is likely wrong with a base that does not read like a trained one.
    pub(crate) fn diagnosis(&self) -> String {
        let published = |is: bool| if is { "the published one" } else { "not the published one" };
        let facts = format!(
            "its tokenizer is {}, its chat template is {}",
            published(self.tokenizer),
            published(self.template)
        );
        let likely = if !self.conversations.is_finite() {
            "a type or a scale is wrong: activations overflow"
        } else if self.plain < LIMIT {
            "the chat template: plain text is read well"
        } else if !self.tokenizer {
            "the tokenizer: it belongs to other weights"
        } else if self.conversations >= NOISE {
            "the weights: random or synthetic ones, or another layout (transposed, experts in another order)"
        } else {
            "some weights: a type, a scale, or a layer that was not converted like the others"
        };
        format!("most likely {likely}; {facts}")
    }

    /// Refuses such a base.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_good() {
            return Ok(());
        }
        let error = anyhow!(
            "the base does not read like a trained model: {}; a gpt-oss has 1 to 3, and {LIMIT} is the limit\n  {}",
            self.words(),
            self.diagnosis()
        );
        let hint =
            "descant download MODEL --verify checks the files; --set model.preflight=false trains anyway";
        Err(Hinted::new(error, hint).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(conversations: f64, plain: f64, tokenizer: bool, template: bool) -> Preflight {
        Preflight { conversations, plain, tokenizer, template }
    }

    #[test]
    fn a_trained_base_passes_and_each_kind_of_damage_is_named() {
        for good in [0.4, 1.6, 3.99] {
            of(good, 3.0, true, true).check().unwrap();
        }
        for (bad, cause) in [
            (of(4.0, 3.0, true, false), "the chat template"),
            (of(9.0, 9.0, false, true), "the tokenizer"),
            (of(12.3, 12.1, true, true), "random or synthetic"),
            (of(6.0, 6.5, true, true), "some weights"),
            (of(f64::NAN, f64::NAN, true, true), "overflow"),
            (of(f64::INFINITY, 1.0, true, true), "overflow"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.to_string().contains(cause), "{cause}: {error}");
            assert!(!bad.is_good());
        }
    }
}
