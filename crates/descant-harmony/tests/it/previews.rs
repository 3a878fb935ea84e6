//! What a person is shown of a row.

use crate::support::{gpt_oss, tiny};
use descant_harmony::prepare::{PrepareOptions, prepare};
use descant_harmony::preview::runs;
use descant_harmony::read::{Body, DataSet, Row};
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
fn reasoning_languages_are_counted_by_what_rows_state() {
    let spanish = "Primero tenemos que calcular cuántas manzanas quedan en la cesta después de que María le diera la \
                   mitad a su hermano, y luego sumar las que compró.";
    let english = "First we have to work out how many apples are left in the basket after Mary gave half of them to \
                   her brother, and then add those that she bought.";
    let row = |number: u64, thinking: Option<&str>, language: Option<&str>| {
        let answer = Message::assistant(thinking.map(str::to_owned), format!("4 {number}"));
        let conversation = Conversation::new(vec![Message::text(Role::User, "2 + 2?"), answer]);
        let row = Row::new(number, Body::Conversation(conversation));
        Row { reasoning_language: language.map(str::to_owned), ..row }
    };
    let rows = vec![
        row(1, Some(spanish), Some("Spanish")),
        row(2, Some(english), Some("Spanish")),
        row(3, Some("Sí."), Some("Spanish")),
        row(4, Some(english), None),
        row(5, None, None),
    ];
    let set = DataSet::of("set".as_ref(), rows);
    let prepared = prepare(tiny(), &set, &PrepareOptions::default()).unwrap();
    let shares = &prepared.account.languages;
    let seen: Vec<String> = shares
        .iter()
        .map(|s| format!("{:?} {} {:?} {} {}", s.stated, s.examples, s.found, s.unsure, s.without))
        .collect();
    assert_eq!(
        seen,
        [r#"None 2 {"English": 1} 0 1"#, r#"Some("Spanish") 3 {"English": 1, "Spanish": 1} 1 0"#]
    );
    let total: u64 = shares.iter().map(|share| share.tokens.total().trained).sum();
    assert_eq!(total, prepared.account.tokens.total().trained);
}
