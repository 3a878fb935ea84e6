//! The tokenizer: the published vocabulary, special tokens, and files that are not what they should be.

use crate::support::{fixtures, gpt_oss, tiny};
use descant_harmony::{Error, TextEncoder, Tokenizer};
use serde_json::Value;

#[test]
fn the_published_vocabulary_has_the_published_ids() {
    let tokenizer = gpt_oss().tokenizer();
    let control = tokenizer.control();
    let ids = [
        control.endoftext,
        control.return_,
        control.constrain,
        control.channel,
        control.start,
        control.end,
        control.message,
        control.call,
    ];
    assert_eq!(ids, [199_999, 200_002, 200_003, 200_005, 200_006, 200_007, 200_008, 200_012]);
    assert_eq!(tokenizer.vocab_size(), 200_019);
    assert_eq!(tiny().tokenizer().control().start, 1523);
    assert_eq!(tiny().tokenizer().vocab_size(), 1536);
}

#[test]
fn special_tokens_are_special_only_in_rendered_text() {
    for renderer in [gpt_oss(), tiny()] {
        let tokenizer = renderer.tokenizer();
        let text = "<|start|>user<|message|> <|reserved_200500|><|end|>";
        let plain = tokenizer.encode_text(text).unwrap();
        assert!(plain.iter().all(|id| !tokenizer.control().is_special(*id)));
        let rendered = tokenizer.encode_rendered(text).unwrap();
        assert_eq!(rendered.iter().filter(|id| tokenizer.control().is_special(**id)).count(), 3);
        for ids in [plain, rendered] {
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}

/// The tiny tokenizer's file, changed.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, Error> {
    let text = std::fs::read_to_string(fixtures().join("tiny/tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    change(&mut json);
    Tokenizer::from_bytes(json.to_string().as_bytes(), "bad.json")
}

#[test]
fn a_tokenizer_without_a_control_token_says_which() {
    for token in
        ["<|start|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|channel|>", "<|constrain|>"]
    {
        let error =
            changed(|json| json["added_tokens"].as_array_mut().unwrap().retain(|t| t["content"] != token));
        assert_eq!(error.unwrap_err().to_string(), format!("bad.json: special token `{token}` is missing"));
        let error = changed(|json| {
            let tokens = json["added_tokens"].as_array_mut().unwrap();
            tokens.iter_mut().find(|t| t["content"] == token).unwrap()["special"] = false.into();
        });
        assert!(matches!(error, Err(Error::SpecialMissing { .. })), "{error:?}");
    }
    let error = changed(|json| json["added_tokens"][9]["rstrip"] = true.into());
    assert!(matches!(error, Err(Error::SpecialFlag { flag: "rstrip", .. })), "{error:?}");
}

#[test]
fn ids_that_the_engine_would_renumber_are_refused() {
    // The engine numbers added tokens in their order and only logs that the file says otherwise.
    let error =
        changed(|json| json["added_tokens"].as_array_mut().unwrap().retain(|t| t["id"] != 1517)).unwrap_err();
    assert!(
        error.to_string().contains("`<|reserved_200001|>` has id 1518 in the file and 1517 in use"),
        "{error}"
    );
}

#[test]
fn another_split_pattern_is_not_cut_at_spaces() {
    // With this pattern a token may hold a space in its middle, and cutting there would change it.
    let changed = |pattern: &str| {
        changed(|json| {
            json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern.into();
            // One more token with a space inside, in place of the last one.
            let vocab = json["model"]["vocab"].as_object_mut().unwrap();
            let last = vocab.iter().find(|(_, id)| **id == 1514).unwrap().0.clone();
            vocab.shift_remove(&last);
            vocab.insert("aĠb".into(), 1514.into());
            json["model"]["merges"].as_array_mut().unwrap().pop();
            json["model"]["ignore_merges"] = true.into();
        })
        .unwrap()
    };
    assert_eq!(changed("a b|.").encode_text("a b").unwrap(), [1514]);
    let own = std::fs::read_to_string(fixtures().join("tiny/tokenizer.json")).unwrap();
    let own: Value = serde_json::from_str(&own).unwrap();
    let own = own["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"].as_str().unwrap().to_owned();
    assert_ne!(changed(&own).encode_text("a b").unwrap(), [1514]);
}

#[test]
fn a_dropout_is_refused() {
    let error = changed(|json| json["model"]["dropout"] = 0.1.into()).unwrap_err();
    assert!(error.to_string().contains("model.dropout is 0.1"), "{error}");
}

#[test]
fn truncation_and_padding_of_the_file_are_ignored() {
    let tokenizer = changed(|json| {
        json["truncation"] =
            serde_json::json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = serde_json::json!({"strategy": {"Fixed": 50}, "direction": "Right",
            "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    })
    .unwrap();
    let text = "one two three four five six";
    assert_eq!(tokenizer.encode_text(text).unwrap(), tiny().tokenizer().encode_text(text).unwrap());
}

#[test]
fn a_vocabulary_that_repeats_a_special_token_cannot_smuggle_it_into_content() {
    // `ignore_merges` looks a whole word up; here one ordinary word is given the id of `<|end|>`.
    let end = tiny().tokenizer().control().end;
    let tokenizer = changed(|json| {
        // The last token and its merge make room, so that the number of tokens stays what it was.
        let last = json["model"]["vocab"]
            .as_object()
            .unwrap()
            .iter()
            .find(|(_, id)| **id == 1514)
            .unwrap()
            .0
            .clone();
        json["model"]["vocab"].as_object_mut().unwrap().remove(&last);
        json["model"]["merges"].as_array_mut().unwrap().pop();
        json["model"]["vocab"]["zebra"] = end.into();
        json["model"]["ignore_merges"] = true.into();
    })
    .unwrap();
    let error = tokenizer.encode_text("zebra").unwrap_err();
    assert!(matches!(error, Error::ContentBecameControl { id } if id == end), "{error}");
}

#[test]
fn files_that_are_no_tokenizer_are_errors_that_name_the_file() {
    for bytes in [&b""[..], b"{}", b"[1]", b"\xff\xfe", b"{\"version\":\"1.0\"}"] {
        let error = Tokenizer::from_bytes(bytes, "some/tokenizer.json").unwrap_err();
        assert!(error.to_string().starts_with("some/tokenizer.json: not a usable tokenizer"), "{error}");
    }
    let error = Tokenizer::load("no/such/dir".as_ref()).unwrap_err();
    assert!(error.to_string().contains("no/such/dir/tokenizer.json"), "{error}");
}
