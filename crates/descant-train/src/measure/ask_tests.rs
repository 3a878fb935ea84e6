//! Asked with replies that are known, the evaluation is what they deserve; prompts are those of the reference.

use descant_harmony::{Conversation, Message, PINNED_DATE, Renderer, Role};
use serde_json::Value;

use super::{Asked, HeldOut, Language, Questions, ask};
use crate::event::Silent;

const HELD_OUT: &str = include_str!("../../../../fixtures/tiny-gpt-oss/data/held-out.jsonl");
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");

fn rows() -> Vec<Value> {
    HELD_OUT.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn held_out(row: &Value) -> HeldOut {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let messages = row["messages"].as_array().unwrap().iter().map(|message| {
        let content = text(&message["content"]);
        match message["role"].as_str().unwrap() {
            "system" => Message::text(Role::System, content),
            "user" => Message::text(Role::User, content),
            _ => Message::assistant(Some(text(&message["thinking"])), content),
        }
    });
    HeldOut::new(&Conversation::new(messages.collect()), row["reasoning_language"].as_str()).unwrap()
}

/// `harmony_prompt` of generate.py.
fn prompt(developer: &str, user: &str, effort: &str) -> String {
    format!(
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: \
         2024-06\nCurrent date: 2025-08-05\n\nReasoning: {effort}\n\n# Valid channels: analysis, commentary, final. \
         Channel must be included for every message.<|end|><|start|>developer<|message|># Instructions\n\n\
         {developer}\n\n<|end|><|start|>user<|message|>{user}<|end|><|start|>assistant"
    )
}

fn reply(analysis: &str, answer: &str) -> String {
    format!(
        "<|channel|>analysis<|message|>{analysis}<|end|><|start|>assistant<|channel|>final<|message|>{answer}<|return|><|endoftext|>"
    )
}

#[test]
fn prompts_are_the_references_and_replies_are_counted_where_they_belong() {
    use descant_harmony::TextEncoder as _;
    let renderer = Renderer::load(MODEL.as_ref(), None).unwrap();
    let rows = rows();
    let prompts: Vec<HeldOut> = rows.iter().map(held_out).collect();
    let efforts = ["high".to_owned(), "low".to_owned()];
    let questions = Questions { prompts: &prompts, efforts: &efforts, date: PINNED_DATE, batch: 30 };
    let mut seen = Vec::new();
    // Reasons in the row's own language at high effort, and in English whatever is asked at low effort.
    let mut decode =
        |batch: &[Vec<u32>], _: &mut dyn FnMut(usize)| -> Result<Vec<Vec<u32>>, descant_harmony::Error> {
            assert!(batch.len() == 30 || batch.len() == 10);
            let mut replies = Vec::new();
            for ids in batch {
                let row = &rows[seen.len() % rows.len()];
                seen.push(renderer.tokenizer().decode(ids)?);
                let asked = seen.len() > rows.len() && seen.len() <= 2 * rows.len();
                let analysis = if asked { row["analysis"].as_str().unwrap() } else { "we add" };
                replies.push(
                    renderer.tokenizer().encode_rendered(&reply(analysis, row["final"].as_str().unwrap()))?,
                );
            }
            Ok(replies)
        };
    let (evaluation, replies) = ask(&questions, &renderer, &mut decode, &mut Silent).unwrap();

    assert_eq!((replies.len(), questions.len()), (400, 400));
    for (n, text) in seen.iter().enumerate() {
        let row = &rows[n % 100];
        let developer = if n / 100 % 2 == 0 { &row["developer"] } else { &row["messages"][0]["content"] };
        let effort = &efforts[n / 200];
        assert_eq!(*text, prompt(developer.as_str().unwrap(), row["user"].as_str().unwrap(), effort));
        assert_eq!(
            (replies[n].prompt, replies[n].asked, &replies[n].effort),
            (n % 100, n / 100 % 2 == 1, effort)
        );
    }
    let percent = |effort, asked| {
        let cell = evaluation.cell(effort, asked).unwrap();
        (cell.n, cell.percent(cell.hit), cell.percent(cell.right), cell.percent(cell.valid), cell.found.en)
    };
    assert_eq!(percent("high", Asked::Nothing), (100, 100.0, 100.0, 100.0, 100));
    assert_eq!(percent("high", Asked::Any), (100, 100.0, 100.0, 100.0, 0));
    assert_eq!(percent("low", Asked::Any), (100, 0.0, 100.0, 100.0, 100));
    assert_eq!(percent("high", Asked::Language(Language::German)), (25, 100.0, 100.0, 100.0, 0));
    let order: Vec<_> = evaluation.cells.iter().map(|cell| (cell.effort.as_str(), cell.asked)).collect();
    assert_eq!(order[..2], [("high", Asked::Nothing), ("high", Asked::Any)]);
    assert_eq!(order[6], ("low", Asked::Nothing));
    assert_eq!(order.len(), 12);
}

#[test]
fn rows_that_cannot_be_asked_say_what_they_lack() {
    let user = || Message::text(Role::User, "u");
    let system = |text: &str| Message::text(Role::System, text);
    let answer = || Message::assistant(None, "a");
    let lacks = |messages: Vec<Message>, language| {
        HeldOut::new(&Conversation::new(messages), language).map(|_| ()).unwrap_err()
    };
    let asked = || system("reasoning language: German\n\nBe kind.");
    let german = Some("German");
    for (error, expected) in [
        (lacks(vec![asked(), user(), answer()], None), "no `reasoning_language`"),
        (lacks(vec![asked(), user(), answer()], Some("Latin")), "`reasoning_language` is `Latin`"),
        (lacks(vec![asked(), user()], german), "no assistant message"),
        (lacks(vec![asked(), answer()], german), "no user message"),
        (lacks(vec![system("Be kind."), user(), answer()], german), "the first message does not begin with"),
    ] {
        assert!(error.starts_with(expected), "{error}");
    }
    // A request alone leaves no empty message behind.
    let alone = Conversation::new(vec![system("reasoning language: German"), user(), answer()]);
    let plain = HeldOut::new(&alone, german).unwrap().plain;
    assert_eq!(plain.messages, [user()]);
}
