//! Views: what is trained of a conversation with several turns, and behind which prompt.

use crate::support::{fixtures, gpt_oss, oracle, tiny};
use descant_harmony::read::{Body, ReadOptions, read};
use descant_harmony::{
    Conversation, Error, Message, RenderOptions, Renderer, Role, TextEncoder, View, ViewPolicy,
};
use serde_json::json;

fn views(renderer: &Renderer, conversation: &Conversation, policy: ViewPolicy) -> Vec<View> {
    renderer.views(&Body::Conversation(conversation.clone()), &RenderOptions::default(), policy).unwrap()
}

/// Each view's text from the first user message on, with a bar where training begins.
fn shown(renderer: &Renderer, conversation: &Conversation, policy: ViewPolicy) -> Vec<String> {
    let show = |view: &View| {
        let (prompt, reply) = view.rendered.ids.split_at(view.trained_from);
        let decode = |ids: &[u32]| renderer.tokenizer().decode(ids).unwrap();
        assert_eq!(view.rendered.text, decode(prompt) + &decode(reply));
        let prompt = decode(prompt);
        let from = prompt.find("<|start|>user").unwrap_or(0);
        format!("{}¦{}", &prompt[from..], decode(reply))
    };
    views(renderer, conversation, policy).iter().map(show).collect()
}

fn user(text: &str) -> Message {
    Message::text(Role::User, text)
}

#[test]
fn each_turn_is_trained_behind_the_prompt_that_would_be_served() {
    let conversation = Conversation::new(vec![
        user("a"),
        Message::assistant(Some("T1".into()), "A1"),
        user("b"),
        Message::assistant(Some("T2".into()), "A2"),
        user("no answer yet"),
    ]);
    let first = "<|start|>user<|message|>a<|end|><|start|>assistant¦<|channel|>analysis<|message|>T1<|end|>\
                 <|start|>assistant<|channel|>final<|message|>A1<|return|>";
    let second = "<|start|>user<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>A1<|end|>\
                  <|start|>user<|message|>b<|end|><|start|>assistant¦<|channel|>analysis<|message|>T2<|end|>\
                  <|start|>assistant<|channel|>final<|message|>A2<|return|>";
    for renderer in [gpt_oss(), tiny()] {
        assert_eq!(shown(renderer, &conversation, ViewPolicy::AllTurns), [first, second]);
        assert_eq!(shown(renderer, &conversation, ViewPolicy::LastTurn), [second]);
    }
    let whole = views(gpt_oss(), &conversation, ViewPolicy::WholeRow);
    assert_eq!((whole.len(), whole[0].trained_from, whole[0].message), (1, 0, None));
}

#[test]
fn reasoning_before_a_tool_call_is_trained_and_stays_in_the_prompt_of_the_answer() {
    let conversation = Conversation::new(vec![
        user("w?"),
        Message::call(Some("Look.".into()), "get", json!({"a": 1})),
        Message::tool(json!("sun")),
        Message::assistant(Some("Sunny.".into()), "Sun."),
    ]);
    let call = "<|start|>assistant¦<|channel|>analysis<|message|>Look.<|end|><|start|>assistant to=functions.get\
                <|channel|>commentary json<|message|>{\"a\": 1}<|call|>";
    let all = shown(gpt_oss(), &conversation, ViewPolicy::AllTurns);
    assert_eq!(all[0], format!("<|start|>user<|message|>w?<|end|>{call}"));
    // The template drops the call's reasoning once the answer follows; the server would still have sent it.
    let prompt = call.replace('¦', "");
    assert_eq!(
        all[1],
        format!(
            "<|start|>user<|message|>w?<|end|>{prompt}<|start|>functions.get to=assistant<|channel|>commentary\
             <|message|>\"sun\"<|end|><|start|>assistant¦<|channel|>analysis<|message|>Sunny.<|end|>\
             <|start|>assistant<|channel|>final<|message|>Sun.<|return|>"
        )
    );
}

#[test]
fn a_call_without_reasoning_begins_inside_the_header() {
    let conversation = Conversation::new(vec![user("w?"), Message::call(None, "get", json!({}))]);
    for renderer in [gpt_oss(), tiny()] {
        let all = shown(renderer, &conversation, ViewPolicy::AllTurns);
        let reply = "<|start|>assistant¦ to=functions.get<|channel|>commentary json<|message|>{}<|call|>";
        assert_eq!(all, [format!("<|start|>user<|message|>w?<|end|>{reply}")]);
    }
}

#[test]
fn every_view_of_the_oracle_begins_with_the_prompt_that_would_be_served() {
    let (mut count, mut several) = (0, 0);
    for row in oracle() {
        let Ok(conversation) = Conversation::from_json(&row) else { continue };
        if row["template"].get("error").is_some() {
            continue;
        }
        let body = Body::Conversation(conversation.clone());
        match gpt_oss().views(&body, &RenderOptions::default(), ViewPolicy::AllTurns) {
            Err(Error::NoAssistant) => {}
            Err(error) => panic!("{}: {error}", row["id"]),
            Ok(views) => {
                several += usize::from(views.len() > 1);
                for view in views {
                    let prompt = conversation.prefix(view.message.unwrap());
                    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
                    let prompt = gpt_oss().render(&prompt, &options);
                    // A conversation that begins with the assistant has no prompt that the template accepts.
                    let Ok(prompt) = prompt else { continue };
                    assert_eq!(view.rendered.ids[..view.trained_from], prompt.ids, "{}", row["id"]);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 120 && several > 10, "{count} {several}");
}

#[test]
fn a_single_turn_is_one_view_of_the_whole_row() {
    let set = read(&fixtures().join("data/multilingual-thinking-24.jsonl"), &ReadOptions::default()).unwrap();
    for row in &set.rows {
        let view = tiny().views(&row.body, &RenderOptions::default(), ViewPolicy::AllTurns).unwrap();
        let whole = tiny().render(row.conversation().unwrap(), &RenderOptions::default()).unwrap();
        assert_eq!(view.len(), 1);
        assert_eq!(view[0].rendered, whole);
    }
}

#[test]
fn rendered_text_is_one_view_and_a_conversation_without_an_assistant_is_none() {
    let text = "<|start|>user<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>y<|return|>";
    let view =
        gpt_oss().views(&Body::Text(text.into()), &RenderOptions::default(), ViewPolicy::AllTurns).unwrap();
    assert_eq!((view[0].rendered.messages.len(), view[0].rendered.text.as_str()), (2, text));
    for bad in ["plain text", "<|start|>user<|message|>x", "<|start|>nobody<|message|>x<|end|>"] {
        let error = gpt_oss().views(&Body::Text(bad.into()), &RenderOptions::default(), ViewPolicy::AllTurns);
        assert!(matches!(error, Err(Error::Harmony(_))), "{bad}");
    }
    let body = Body::Conversation(Conversation::new(vec![user("x")]));
    let error = gpt_oss().views(&body, &RenderOptions::default(), ViewPolicy::AllTurns).unwrap_err();
    assert!(matches!(error, Error::NoAssistant));
}
