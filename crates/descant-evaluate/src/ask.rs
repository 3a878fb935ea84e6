//! Which prompts a set of suites becomes, and which of them still wait for a reply.
//!
//! Decoding is the caller's: a prompt is ids and a seed, a reply is ids. The seed of a reply depends on the question and
//! nothing else, so neither batches nor an interruption change what is drawn.

use std::collections::BTreeSet;

use descant_harmony::{Date, RenderOptions, Renderer, TextEncoder as _};

use crate::error::Result;
use crate::samples::{AskedHow, Key, Reply, Samples};
use crate::suites::Suite;

/// A prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// Which reply it waits for.
    pub key: Key,
    /// Its ids, up to `<|start|>assistant`.
    pub ids: Vec<u32>,
    /// Seed of its reply.
    pub seed: u64,
}

/// Every prompt of these suites, in the order they are asked. Plain prompts with the same ids are asked once, for the
/// first of their questions. Without `plain` only prompts that ask for a language are asked, and questions that ask
/// for none.
///
/// # Errors
/// A conversation cannot be rendered.
pub fn prompts(
    suites: &[Suite],
    how: &AskedHow,
    plain: bool,
    renderer: &Renderer,
    date: Date,
) -> Result<Vec<Prompt>> {
    let options = RenderOptions { date, add_generation_prompt: true, ..RenderOptions::default() };
    let mut prompts = Vec::new();
    for effort in &how.efforts {
        let mut seen = BTreeSet::new();
        for asked in [false, true] {
            for question in suites.iter().flat_map(|suite| &suite.questions) {
                let conversation = if asked {
                    question.asked()
                } else {
                    (plain || question.reasoning_language.is_none()).then(|| question.plain.clone())
                };
                let Some(conversation) = conversation else { continue };
                let ids = renderer.render(&conversation.with_effort(effort), &options)?.ids;
                if !asked && !seen.insert(ids.clone()) {
                    continue;
                }
                for sample in 0..how.replies {
                    let key = Key { question: question.id.clone(), effort: effort.clone(), asked, sample };
                    let seed = seed(how.seed, &key);
                    prompts.push(Prompt { key, ids: ids.clone(), seed });
                }
            }
        }
    }
    Ok(prompts)
}

/// First eight bytes, little endian, of SHA-256 of what names the reply.
fn seed(seed: u64, key: &Key) -> u64 {
    let asked = if key.asked { "asked" } else { "plain" };
    let text = format!("{seed}\n{}\n{}\n{asked}\n{}", key.question, key.effort, key.sample);
    let hex = descant_files::sha256(text.as_bytes());
    let first = u64::from_str_radix(hex.get(..16).unwrap_or("0"), 16).unwrap_or(0);
    first.swap_bytes()
}

/// The prompts that have no reply yet.
pub fn missing<'p>(prompts: &'p [Prompt], samples: &Samples) -> Vec<&'p Prompt> {
    prompts.iter().filter(|prompt| !samples.replies.contains_key(&prompt.key)).collect()
}

/// A reply as it is kept.
///
/// # Errors
/// The ids cannot be decoded.
pub fn reply(key: &Key, ids: Vec<u32>, renderer: &Renderer) -> Result<Reply> {
    let tokenizer = renderer.tokenizer();
    let control = tokenizer.control();
    let stop = match ids.last() {
        Some(last) if *last == control.return_ => "return",
        Some(last) if *last == control.call => "call",
        Some(last) if *last == control.endoftext => "endoftext",
        _ => "limit",
    };
    let text = tokenizer.decode(&ids)?;
    Ok(Reply { key: key.clone(), ids, stop: stop.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_of_its_reply_alone() {
        let key = Key { question: "q".into(), effort: "low".into(), asked: true, sample: 0 };
        // python3: int.from_bytes(hashlib.sha256(b"3407\nq\nlow\nasked\n0").digest()[:8], "little")
        assert_eq!(seed(3407, &key), SEED);
        assert_ne!(seed(3407, &Key { sample: 1, ..key.clone() }), SEED);
        assert_ne!(seed(3407, &Key { asked: false, ..key }), SEED);
    }

    const SEED: u64 = 2_994_466_950_604_832_455;
}
