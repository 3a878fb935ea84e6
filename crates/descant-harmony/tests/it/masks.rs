//! Which tokens each policy trains, shown as text: trained tokens are in brackets.

use crate::support::{gpt_oss, tiny};
use descant_harmony::{
    Conversation, Error, LossWeights, MaskPolicy, Masker, Message, RenderOptions, Renderer, Role,
    TextEncoder, TokenClass,
};
use serde_json::json;

/// The row's text with every trained run in brackets, from the first user message on.
fn shown(renderer: &Renderer, conversation: &Conversation, policy: MaskPolicy, from: usize) -> String {
    let rendered = renderer.render(conversation, &RenderOptions::default()).unwrap();
    let masker = Masker::new(renderer.tokenizer(), policy, LossWeights::default()).unwrap();
    let mask = masker.mask(&rendered, from).unwrap();
    let bits: Vec<bool> = mask.bits().collect();
    let mut text = String::new();
    let runs = rendered.ids.iter().zip(&bits).collect::<Vec<_>>();
    for run in runs.chunk_by(|a, b| a.1 == b.1) {
        let ids: Vec<u32> = run.iter().map(|(id, _)| **id).collect();
        let part = renderer.tokenizer().decode(&ids).unwrap();
        if *run[0].1 {
            text.extend(["[[", &part, "]]"]);
        } else {
            text.push_str(&part);
        }
    }
    let at = text.find("<|start|>user").unwrap();
    text[at..].to_owned()
}

fn one_turn() -> Conversation {
    let answer = Message::assistant(Some("Deux et deux.".into()), "4.");
    Conversation::new(vec![Message::text(Role::User, "2 + 2?"), answer])
}

fn tool_turns() -> Conversation {
    Conversation::new(vec![
        Message::text(Role::User, "w?"),
        Message::call(None, "get", json!({"a": 1})),
        Message::tool(json!("sun")),
        Message::assistant(Some("Sunny.".into()), "Sun."),
        Message::text(Role::User, "sure?"),
        Message::assistant(None, "Yes."),
    ])
}

#[test]
fn assistant_trains_all_that_the_model_must_emit() {
    let expected = "<|start|>user<|message|>2 + 2?<|end|><|start|>assistant[[<|channel|>analysis<|message|>Deux et \
                    deux.<|end|><|start|>assistant<|channel|>final<|message|>4.<|return|>]]";
    for renderer in [gpt_oss(), tiny()] {
        assert_eq!(shown(renderer, &one_turn(), MaskPolicy::Assistant, 0), expected);
    }
}

#[test]
fn assistant_trains_calls_and_never_tool_results_or_prompts() {
    let expected = "<|start|>user<|message|>w?<|end|>\
        <|start|>assistant[[ to=functions.get<|channel|>commentary json<|message|>{\"a\": 1}<|call|>]]\
        <|start|>functions.get to=assistant<|channel|>commentary<|message|>\"sun\"<|end|>\
        <|start|>assistant[[<|channel|>final<|message|>Sun.<|end|>]]<|start|>user<|message|>sure?<|end|>\
        <|start|>assistant[[<|channel|>final<|message|>Yes.<|return|>]]";
    for renderer in [gpt_oss(), tiny()] {
        assert_eq!(shown(renderer, &tool_turns(), MaskPolicy::Assistant, 0), expected);
    }
}

#[test]
fn final_only_trains_from_the_response_marker_to_the_next_user() {
    let expected = "<|start|>user<|message|>2 + 2?<|end|><|start|>assistant<|channel|>analysis<|message|>Deux et \
                    deux.<|end|><|start|>assistant<|channel|>final<|message|>[[4.<|return|>]]";
    assert_eq!(shown(gpt_oss(), &one_turn(), MaskPolicy::FinalOnly, 0), expected);
    // Between a final and the next user message the tutorial's helper trains whatever is there.
    let mut odd = tool_turns();
    odd.messages.insert(4, Message::assistant(None, "More."));
    let text = shown(gpt_oss(), &odd, MaskPolicy::FinalOnly, 0);
    let expected =
        "[[Sun.<|end|><|start|>assistant<|channel|>final<|message|>More.<|end|>]]<|start|>user<|message|>";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn everything_is_everything_and_a_row_can_be_trained_from_a_position_on() {
    let rendered = tiny().render(&one_turn(), &RenderOptions::default()).unwrap();
    let masker = Masker::new(tiny().tokenizer(), MaskPolicy::Everything, LossWeights::default()).unwrap();
    assert_eq!(masker.mask(&rendered, 0).unwrap().trained(), rendered.ids.len());
    assert_eq!(masker.mask(&rendered, 10).unwrap().trained(), rendered.ids.len() - 10);
    let text = shown(gpt_oss(), &tool_turns(), MaskPolicy::Assistant, rendered.ids.len());
    assert!(text.ends_with("<|start|>assistant[[<|channel|>final<|message|>Yes.<|return|>]]"), "{text}");
}

#[test]
fn weights_apply_by_channel_and_zero_leaves_a_channel_out() {
    let rendered = gpt_oss().render(&one_turn(), &RenderOptions::default()).unwrap();
    let weights = LossWeights { analysis: 0.0, final_: 0.5, ..LossWeights::default() };
    let mask = Masker::new(gpt_oss().tokenizer(), MaskPolicy::Assistant, weights)
        .unwrap()
        .mask(&rendered, 0)
        .unwrap();
    let counts = mask.counts();
    assert_eq!(counts.of(TokenClass::Analysis).trained, 0);
    assert!(counts.of(TokenClass::Analysis).tokens > 8);
    let fin = counts.of(TokenClass::Final);
    assert_eq!(fin.tokens, fin.trained);
    assert!(mask.weights.iter().all(|weight| [0.0, 0.5].contains(weight)));
    assert_eq!(counts.total().tokens, rendered.ids.len() as u64);
    assert_eq!(counts.total().trained, mask.trained() as u64);
}

#[test]
fn a_mask_that_marks_nothing_and_a_weight_that_is_none_are_errors() {
    let user_only = Conversation::new(vec![Message::text(Role::User, "x")]);
    let options = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let rendered = tiny().render(&user_only, &options).unwrap();
    let masker = Masker::new(tiny().tokenizer(), MaskPolicy::Assistant, LossWeights::default()).unwrap();
    let error = masker.mask(&rendered, 0).unwrap_err().in_row("set.jsonl".as_ref(), 7);
    assert_eq!(error.to_string(), "set.jsonl:7: the mask `assistant` marks no token");
    for bad in [-1.0, f32::NAN, f32::INFINITY] {
        let weights = LossWeights { commentary: bad, ..LossWeights::default() };
        let masker = Masker::new(tiny().tokenizer(), MaskPolicy::Assistant, weights);
        assert!(matches!(masker, Err(Error::Weight { channel: "commentary", .. })));
    }
}
