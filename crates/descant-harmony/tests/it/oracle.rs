//! All 120 rows of the oracle: text, ids and spans as the references give them, and every refusal.

use crate::support::{gpt_oss, oracle};
use descant_harmony::{
    Conversation, Error, LossWeights, MaskPolicy, Masker, MessageSpan, RenderOptions, Role, TemplateInput,
    TextEncoder,
};
use serde_json::{Map, Value, json};

fn input(row: &Map<String, Value>) -> TemplateInput {
    TemplateInput {
        messages: row["messages"].clone(),
        tools: row["tools"].clone(),
        kwargs: row["template_kwargs"].as_object().unwrap().clone(),
        add_generation_prompt: row["add_generation_prompt"].as_bool().unwrap(),
    }
}

fn options(row: &Map<String, Value>, exact: bool) -> RenderOptions {
    RenderOptions { date: row["date"].as_str().unwrap().parse().unwrap(), exact, ..RenderOptions::default() }
}

fn ids(row: &Map<String, Value>) -> Vec<u32> {
    row["template"]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// A header as the oracle writes it.
fn header(span: &MessageSpan) -> String {
    let header = &span.header;
    let mut text = header.name.clone().unwrap_or_else(|| header.role.to_string());
    if let Some(to) = &header.recipient {
        text = format!("{text} to={to}");
    }
    if let Some(channel) = header.channel {
        text = format!("{text}<|channel|>{channel}");
    }
    if let Some(kind) = &header.content_type {
        text = format!("{text} {kind}");
    }
    text
}

#[test]
fn exact_rendering_equals_the_references_on_every_row() {
    let (mut equal, mut refused, mut spans) = (0, 0, 0);
    for row in oracle() {
        let id = row["id"].as_str().unwrap();
        let rendered = gpt_oss().render_raw(&input(&row), &options(&row, true));
        if row["template"].get("error").is_some() {
            assert!(matches!(rendered, Err(Error::TemplateRefused { .. })), "{id}: {rendered:?}");
            refused += 1;
            continue;
        }
        let rendered = rendered.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(rendered.text, row["template"]["text"], "{id}");
        assert_eq!(rendered.ids, ids(&row), "{id}");
        equal += 1;
        let Some(messages) = row["template"].get("messages") else { continue };
        let expected: Vec<_> = messages.as_array().unwrap().iter().map(Value::to_string).collect();
        let found: Vec<_> = rendered
            .messages
            .iter()
            .map(|m| {
                serde_json::json!({"header": header(m), "start": m.start, "body": m.body, "end": m.end})
                    .to_string()
            })
            .collect();
        assert_eq!(found, expected, "{id}");
        assert_eq!(rendered.prompt.is_some(), row["add_generation_prompt"] == true, "{id}");
        spans += 1;
    }
    assert_eq!((equal, refused, spans), (115, 5, 110));
}

#[test]
fn protected_rendering_differs_from_exact_only_where_content_holds_special_tokens() {
    let mut differing = Vec::new();
    for row in oracle().iter().filter(|row| row["template"].get("error").is_none()) {
        let id = row["id"].as_str().unwrap();
        let rendered = gpt_oss().render_raw(&input(row), &options(row, false)).unwrap();
        assert_eq!(rendered.text, row["template"]["text"], "{id}");
        assert_eq!(rendered.broken, None);
        if rendered.ids != ids(row) {
            differing.push(id.to_owned());
            // The same characters, and one message per message of the conversation.
            let decoded = descant_harmony::TextEncoder::decode(gpt_oss().tokenizer(), &rendered.ids).unwrap();
            assert_eq!(decoded, rendered.text, "{id}");
        }
    }
    assert_eq!(differing, ["h164", "h166", "h168"]);
}

#[test]
fn typed_conversations_render_as_their_json_does() {
    let mut typed = 0;
    for row in oracle().iter().filter(|row| row["template"].get("error").is_none()) {
        let id = row["id"].as_str().unwrap();
        let Ok(conversation) = Conversation::from_json(row) else { continue };
        let mut options = options(row, true);
        options.add_generation_prompt = row["add_generation_prompt"] == true;
        let rendered =
            gpt_oss().render(&conversation, &options).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(rendered.text, row["template"]["text"], "{id}");
        typed += 1;
    }
    assert!(typed >= 110, "{typed} of 115 rows");
}

#[test]
fn rows_that_the_template_refuses_are_refused_with_a_reason() {
    let row = oracle().into_iter().find(|row| row["id"] == "h185").unwrap();
    let conversation = Conversation::from_json(&row).unwrap();
    let error = gpt_oss().render(&conversation, &RenderOptions::default()).unwrap_err();
    assert!(error.to_string().contains("no previous assistant message with a tool call"), "{error}");
    let mut row = oracle().swap_remove(1);
    row["messages"] = serde_json::json!([{"role": "assistant", "content": "<|channel|>final<|message|>x"}]);
    let conversation = Conversation::from_json(&row).unwrap();
    for exact in [true, false] {
        let options = RenderOptions { exact, ..RenderOptions::default() };
        let error = gpt_oss().render(&conversation, &options).unwrap_err();
        assert!(error.to_string().contains("<|channel|> tags in the content field"), "{error}");
    }
}

#[test]
fn a_refusal_names_the_field_that_the_template_does_not_accept() {
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {}}});
    let user = json!({"role": "user", "content": "x"});
    let answer = json!({"role": "assistant", "content": "y"});
    let stray = json!({"role": "tool", "content": "z"});
    for (row, field) in [
        (json!({"messages": [user, answer, stray, answer]}), "messages[2]"),
        (json!({"messages": [user, {"role": "assistant", "content": "y", "thinking": null}]}), "messages[1]"),
        (json!({"messages": [{"role": "user", "content": null}]}), "messages[0]"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [user], "tools": [tool]}), "tools"),
        (
            json!({"messages": [user], "template_kwargs": {"a": 1, "reasoning_effort": null}}),
            "template_kwargs.reasoning_effort",
        ),
    ] {
        let input = TemplateInput::from_row(row.as_object().unwrap()).unwrap();
        let options = RenderOptions { exact: true, ..RenderOptions::default() };
        let error = gpt_oss().render_raw(&input, &options).unwrap_err().in_row("set".as_ref(), 4);
        let start = format!("set:4: {field}: the chat template refuses this: ");
        assert!(error.to_string().starts_with(&start), "{error}");
    }
}

#[test]
fn a_row_that_content_broke_still_shows_the_messages_that_its_markers_make() {
    let messages = json!([
        {"role": "system", "content": "a <|endoftext|>"},
        {"role": "user", "content": "<|end|><|start|>nobody<|message|>x<|call|><|start|>"},
        {"role": "assistant", "content": "y"},
    ]);
    let input = TemplateInput { messages, ..TemplateInput::default() };
    let options = RenderOptions { exact: true, ..RenderOptions::default() };
    let rendered = gpt_oss().render_raw(&input, &options).unwrap();
    assert!(rendered.broken.is_some());
    let decode = |from, to| gpt_oss().tokenizer().decode(&rendered.ids[from..to]).unwrap();
    let shown: Vec<String> = rendered.messages.iter().map(|m| decode(m.start, m.end)).skip(1).collect();
    let expected = [
        "<|start|>developer<|message|># Instructions\n\na <|endoftext|>\n\n<|end|>",
        "<|start|>user<|message|><|end|>",
        "<|start|>assistant<|channel|>final<|message|>y<|return|>",
    ];
    assert_eq!(shown, expected);
    let masker = Masker::new(gpt_oss().tokenizer(), MaskPolicy::Assistant, LossWeights::default()).unwrap();
    assert!(matches!(masker.mask(&rendered, 0), Err(Error::Harmony(_))), "nothing is trained on it");
}

#[test]
fn nulls_are_dropped_by_the_typed_reader_and_kept_by_the_raw_one() {
    let row = oracle().into_iter().find(|row| row["id"] == "h181").unwrap();
    assert!(gpt_oss().render_raw(&input(&row), &RenderOptions::default()).is_err());
    let conversation = Conversation::from_json(&row).unwrap();
    assert_eq!(conversation.messages[1].role, Role::Assistant);
    assert_eq!(conversation.messages[1].thinking, None);
    gpt_oss().render(&conversation, &RenderOptions::default()).unwrap();
}
