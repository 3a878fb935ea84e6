//! Replies as they come: every piece ends where a character ends, and together they are the whole text.

use descant_harmony::{Channel, ReplyPart, ReplyStream, TextEncoder as _, TextStream, Tokenizer};
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::support::{gpt_oss, tiny};

/// The pieces of a text that comes id by id.
fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = TextStream::new(tokenizer);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
    pieces.push(stream.finish());
    pieces
}

/// That pieces are whole characters and make the text.
fn check(tokenizer: &Tokenizer, ids: &[u32]) -> Result<(), TestCaseError> {
    let whole = tokenizer.decode(ids).unwrap();
    let pieces = pieces(tokenizer, ids);
    prop_assert_eq!(&pieces.concat(), &whole);
    let ends: Vec<usize> = whole.grapheme_indices(true).map(|(at, _)| at).chain([whole.len()]).collect();
    let mut at = 0;
    for piece in &pieces {
        at += piece.len();
        prop_assert!(
            ends.binary_search(&at).is_ok(),
            "a piece ends inside a character at {}: {:?}",
            at,
            piece
        );
    }
    Ok(())
}

/// Characters that take several code points or tokens, between ordinary ones.
fn texts() -> impl Strategy<Value = String> {
    let hard = [
        "👨\u{200d}👩\u{200d}👧\u{200d}👦",
        "🏳\u{fe0f}\u{200d}🌈",
        "🇩🇪",
        "🇫🇷🇯🇵",
        "👍🏽",
        "e\u{301}",
        "o\u{308}\u{304}\u{323}",
        "日本語",
        "漢字かな交じり文",
        "한국어",
        "각",
        "ที่นี่",
        "नमस्ते",
        "क्षि",
        "\u{1f468}",
        "\r\n",
        "\n",
        "𝔘𝔫𝔦",
        "e",
        " ",
        "a b",
        "<|end|>",
        "\u{0}",
        "\u{feff}",
        "\u{300}",
    ];
    let piece = prop_oneof![
        4 => proptest::sample::select(hard.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-z ]{0,12}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn text_that_comes_is_never_cut_inside_a_character(text in texts()) {
        for tokenizer in [tiny().tokenizer(), gpt_oss().tokenizer()] {
            let ids = tokenizer.encode_text(&text).unwrap();
            check(tokenizer, &ids)?;
            let replaced = pieces(tokenizer, &ids).concat().matches('\u{fffd}').count();
            prop_assert_eq!(replaced, text.matches('\u{fffd}').count(), "nothing stands for what comes later");
        }
    }

    #[test]
    fn ids_of_any_kind_give_what_decoding_all_of_them_gives(
        small in proptest::collection::vec(0u32..1600, 0..60),
        large in proptest::collection::vec(0u32..202_000, 0..60),
    ) {
        check(tiny().tokenizer(), &small)?;
        check(gpt_oss().tokenizer(), &large)?;
    }
}

#[test]
fn the_check_finds_pieces_that_are_decoded_one_by_one() {
    let tokenizer = tiny().tokenizer();
    let ids = tokenizer.encode_text("日本 👨\u{200d}👩").unwrap();
    let alone: String = ids.iter().map(|id| tokenizer.decode(&[*id]).unwrap()).collect();
    assert!(alone.contains('\u{fffd}'), "the tiny vocabulary cuts these: {alone}");
    assert_eq!(pieces(tokenizer, &ids).concat(), "日本 👨\u{200d}👩");
}

#[test]
fn accents_without_end_are_not_waited_for_without_end() {
    let tokenizer = tiny().tokenizer();
    let text = format!("a{}", "\u{301}".repeat(1000));
    let ids = tokenizer.encode_text(&text).unwrap();
    let pieces = pieces(tokenizer, &ids);
    assert_eq!(pieces.concat(), text);
    assert!(pieces.iter().all(|piece| piece.len() < 400), "given out on the way");
}

#[test]
fn a_reply_comes_as_messages_with_their_text() {
    let tokenizer = tiny().tokenizer();
    let text = "<|channel|>analysis<|message|>Hm, 7é.<|end|><|start|>assistant<|channel|>final<|message|>日本<|return|>";
    let mut stream = ReplyStream::new(tokenizer);
    let mut shown = Vec::new();
    for id in tokenizer.encode_rendered(text).unwrap() {
        shown.extend(stream.push(id));
    }
    assert_eq!(stream.finish(), None);
    let mut told = Vec::new();
    for part in shown {
        match part {
            ReplyPart::Open(header) => {
                told.push(format!("<{}>", header.channel.map_or("none", Channel::as_str)));
            }
            ReplyPart::Text(text) => told.push(text),
            ReplyPart::Close(closing) => told.push(format!("</{closing:?}>")),
            ReplyPart::Broken(error) => panic!("{error}"),
        }
    }
    assert_eq!(told.concat(), "<analysis>Hm, 7é.</End><final>日本</Return>");
}

#[test]
fn what_is_no_harmony_is_shown_as_it_is() {
    let tokenizer = tiny().tokenizer();
    let mut stream = ReplyStream::new(tokenizer);
    let mut parts = Vec::new();
    for id in tokenizer.encode_rendered("<|channel|>final<|message|>A<|start|>b<|end|>").unwrap() {
        parts.extend(stream.push(id));
    }
    parts.extend(stream.finish().map(ReplyPart::Text));
    assert!(matches!(&parts[0], ReplyPart::Open(header) if header.channel == Some(Channel::Final)));
    assert_eq!(parts[1], ReplyPart::Text("A".to_owned()));
    assert!(matches!(parts[2], ReplyPart::Broken(_)));
    let rest: String = parts[3..]
        .iter()
        .map(|part| match part {
            ReplyPart::Text(text) => text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rest, "<|start|>b<|end|>");
}
