//! What a person is shown of a row.

use crate::support::{gpt_oss, tiny};
use descant_harmony::preview::{LanguageJudge, runs};
use descant_harmony::{
    Conversation, LossWeights, MaskPolicy, Masker, Message, RenderOptions, Role, TokenClass,
};

#[test]
fn runs_join_to_the_text_and_say_what_is_trained() {
    let answer = Message::assistant(Some("Deux.".into()), "4 é <|end|>");
    let conversation = Conversation::new(vec![Message::text(Role::User, "2 + 2?"), answer]);
    for renderer in [gpt_oss(), tiny()] {
        let rendered = renderer.render(&conversation, &RenderOptions::default()).unwrap();
        let masker =
            Masker::new(renderer.tokenizer(), MaskPolicy::Assistant, LossWeights::default()).unwrap();
        let mask = masker.mask(&rendered, 0).unwrap();
        let runs = runs(renderer.tokenizer(), &rendered.ids, &mask).unwrap();
        let kinds: Vec<_> = runs.iter().map(|run| (run.class, run.trained)).collect();
        let expected = [
            (TokenClass::System, false),
            (TokenClass::User, false),
            (TokenClass::Analysis, false),
            (TokenClass::Analysis, true),
            (TokenClass::Final, true),
        ];
        assert_eq!(kinds, expected);
        assert_eq!(runs[2].text, "<|start|>assistant");
        assert_eq!(runs[4].text, "<|start|>assistant<|channel|>final<|message|>4 é <|end|><|return|>");
        assert_eq!(runs.iter().map(|run| run.text.as_str()).collect::<String>(), rendered.text);
        assert_eq!((runs[0].from, runs[4].to), (0, rendered.ids.len()));
    }
}

#[test]
fn reasoning_languages_are_counted_by_row() {
    let spanish = "Primero tenemos que calcular cuántas manzanas quedan en la cesta después de que María le diera la \
                   mitad a su hermano, y luego sumar las que compró.";
    let row = |thinking: Option<&str>| {
        let answer = Message::assistant(thinking.map(str::to_owned), "4");
        let conversation = Conversation::new(vec![Message::text(Role::User, "2 + 2?"), answer]);
        tiny().render(&conversation, &RenderOptions::default()).unwrap()
    };
    let rows = [row(Some(spanish)), row(Some(spanish)), row(Some("Sí.")), row(None)];
    let shares = LanguageJudge::new(["Spanish", "French"]).shares(tiny().tokenizer(), &rows).unwrap();
    assert_eq!(shares.into_iter().collect::<Vec<_>>(), [(None, 1), (Some("Spanish"), 2)]);
}
