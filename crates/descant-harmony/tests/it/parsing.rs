//! The parser on replies and on streams that are not Harmony.

use crate::support::{gpt_oss, tiny};
use descant_harmony::parse::{parse_conversation, parse_reply};
use descant_harmony::{Channel, Closing, ParseErrorKind as Kind, StreamParser, TextEncoder};

fn ids(text: &str) -> Vec<u32> {
    gpt_oss().tokenizer().encode_rendered(text).unwrap()
}

fn reply_error(text: &str) -> (usize, Kind) {
    let error = parse_reply(gpt_oss().tokenizer(), &ids(text)).unwrap_err();
    (error.position, error.kind)
}

#[test]
fn a_reply_is_read_as_it_streams() {
    let text =
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>4<|return|>";
    for renderer in [gpt_oss(), tiny()] {
        let ids = renderer.tokenizer().encode_rendered(text).unwrap();
        let mut parser = StreamParser::reply(renderer.tokenizer());
        let mut seen = Vec::new();
        for id in &ids {
            parser.push(*id).unwrap();
            seen.push(parser.current().and_then(|header| header.channel));
        }
        seen.dedup();
        assert_eq!(seen, [None, Some(Channel::Analysis), None, Some(Channel::Final), None]);
        let parsed = parser.finish().unwrap();
        let texts: Vec<_> =
            parsed.messages.iter().map(|m| renderer.tokenizer().decode(&ids[m.content()]).unwrap()).collect();
        assert_eq!(texts, ["Hm.", "4"]);
        assert_eq!((parsed.messages[0].start, parsed.messages[1].end), (0, ids.len()));
        assert_eq!(parsed.messages[1].closed_by, Closing::Return);
    }
}

#[test]
fn a_reply_may_call_a_tool() {
    let text = " to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>";
    let parsed = parse_reply(gpt_oss().tokenizer(), &ids(text)).unwrap();
    let header = &parsed.messages[0].header;
    assert_eq!(header.recipient.as_deref(), Some("functions.f"));
    assert_eq!(header.content_type.as_deref(), Some("<|constrain|>json"));
    assert_eq!(parsed.messages[0].closed_by, Closing::Call);
}

#[test]
fn each_way_to_be_invalid_has_its_position_and_reason() {
    let good = "<|channel|>final<|message|>4";
    assert!(matches!(reply_error(good), (4, Kind::Unfinished { place: "body" })));
    assert!(matches!(reply_error(""), (0, Kind::Unfinished { place: "header" })));
    assert!(matches!(
        reply_error("<|channel|>final<|message|>4<|end|>"),
        (5, Kind::Unfinished { place: "reply" })
    ));
    assert!(matches!(reply_error("<|channel|>final<|message|>4<|return|>x"), (5, Kind::AfterEnd)));
    assert!(matches!(
        reply_error("<|channel|>final<|message|>4<|start|>"),
        (4, Kind::Misplaced { place: "body", .. })
    ));
    assert!(matches!(
        reply_error("<|channel|>final<|channel|>"),
        (2, Kind::Misplaced { place: "header", .. })
    ));
    assert!(matches!(reply_error("<|channel|>final<|end|>"), (2, Kind::Misplaced { place: "header", .. })));
    assert!(matches!(reply_error("<|channel|>Final<|message|>"), (2, Kind::UnknownChannel { .. })));
    assert!(matches!(reply_error("<|channel|>final<|message|>4<|end|>x"), (5, Kind::ExpectedStart { .. })));
    let (_, kind) = reply_error("<|channel|>analysis<|message|>a<|end|><|start|>wizard<|message|>");
    assert_eq!(kind, Kind::UnknownRole { name: "wizard".into() });
    let error = parse_reply(gpt_oss().tokenizer(), &[201_087]).unwrap_err();
    assert_eq!((error.position, error.kind), (0, Kind::OutOfVocabulary { id: 201_087 }));
    let long = ids("x ").repeat(400);
    assert!(matches!(
        parse_reply(gpt_oss().tokenizer(), &long).unwrap_err().kind,
        Kind::HeaderTooLong { .. }
    ));
}

#[test]
fn an_error_stays_and_complete_messages_stay_readable() {
    let mut parser = StreamParser::reply(gpt_oss().tokenizer());
    for id in ids("<|channel|>analysis<|message|>a<|end|>") {
        parser.push(id).unwrap();
    }
    let first = parser.push(5).unwrap_err();
    assert_eq!(parser.push(gpt_oss().tokenizer().control().start).unwrap_err(), first);
    assert_eq!(parser.messages().len(), 1);
    assert_eq!(parser.finish().unwrap_err(), first);
}

#[test]
fn a_row_may_end_in_a_prompt_but_not_in_a_message() {
    let parsed =
        parse_conversation(gpt_oss().tokenizer(), &ids("<|start|>user<|message|>x<|end|><|start|>assistant"))
            .unwrap();
    assert_eq!((parsed.messages.len(), parsed.prompt), (1, Some(5)));
    assert!(parse_conversation(gpt_oss().tokenizer(), &ids("<|start|>user<|message|>x")).is_err());
    assert!(parse_conversation(gpt_oss().tokenizer(), &ids("<|start|>")).is_err());
}
