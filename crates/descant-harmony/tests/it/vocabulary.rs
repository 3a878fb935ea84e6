//! The rebuilt files are the published ones, to the byte.

use crate::support::gpt_oss_of_its_file;
use descant_harmony::vocabulary::{TOKENIZER_SHA256, gpt_oss_files};
use descant_harmony::{Renderer, TemplateSource, TextEncoder as _, Tokenizer};
use sha2::{Digest, Sha256};

#[test]
fn the_files_of_gpt_oss_are_the_published_ones_and_make_a_model_directory() {
    let published = [
        ("tokenizer.json", 27_868_174, "0614fe83cadab421296e664e1f48f4261fa8fef6e03e63bb75c20f38e37d07d3"),
        ("tokenizer_config.json", 4200, "9279e942392b742d633c7adbb89ebe002c98399db8926a7af5125c726f404070"),
        ("special_tokens_map.json", 98, "dd5e191d20c12d2fee1da5bae14ca1db0f5f4215300af691f23cdee97120a293"),
        ("chat_template.jinja", 16_738, "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146"),
    ];
    assert_eq!(TOKENIZER_SHA256, published[0].2);
    let dir = tempfile::tempdir().unwrap();
    let files = gpt_oss_files().unwrap();
    assert_eq!(files.len(), published.len());
    for (file, (name, length, sha256)) in files.iter().zip(published) {
        assert_eq!((file.name, file.bytes.len()), (name, length));
        let hex =
            Sha256::digest(&file.bytes).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(hex, sha256, "{name}");
        let mut out = std::fs::File::create(dir.path().join(name)).unwrap();
        std::io::Write::write_all(&mut out, &file.bytes).unwrap();
    }
    let renderer = Renderer::load(dir.path(), None).unwrap();
    assert_eq!(renderer.tokenizer().sha256(), TOKENIZER_SHA256);
    assert!(matches!(renderer.template().source(), TemplateSource::File(_)));
}

/// The tokens of the built-in list, as tiktoken has them.
#[test]
fn the_built_in_tokens_are_those_of_o200k_in_their_order() {
    let list = include_bytes!("../../assets/o200k.ranks");
    let reference = tiktoken_rs::o200k_base_singleton();
    let mut expected = Vec::new();
    for rank in 0..199_998 {
        let token = reference.decode_bytes(&[rank]).unwrap();
        expected.push(u8::try_from(token.len()).unwrap());
        expected.extend(token);
    }
    assert!(expected == list, "{} and {} bytes", expected.len(), list.len());
}

/// Built in, without merges, and made by the library of the published file: every id, and texts that need merges.
#[test]
fn the_built_in_tokenizer_is_the_one_of_the_published_file() {
    let (read, made) = (gpt_oss_of_its_file(), Tokenizer::gpt_oss().unwrap());
    assert_ne!(read.sha256(), TOKENIZER_SHA256, "not recognized, but read");
    assert_eq!((made.sha256(), made.vocab_size()), (TOKENIZER_SHA256, read.vocab_size()));
    for id in 0..read.vocab_size() as u32 {
        let text = read.decode(&[id]).unwrap();
        assert_eq!(made.decode(&[id]).unwrap(), text, "{id}");
        // Backwards it is not a token of its own, so that it is merged from others.
        let turned: String = text.chars().rev().collect();
        assert_eq!(made.encode_text(&turned).unwrap(), read.encode_text(&turned).unwrap(), "{turned}");
        // One piece with its neighbour in the list, whatever borders the two have.
        let joined = format!("{text}{}", read.decode(&[(id * 7 + 1) % 199_998]).unwrap());
        assert_eq!(made.encode_text(&joined).unwrap(), read.encode_text(&joined).unwrap(), "{joined}");
    }
}
