//! Loads a model and scores a text, token by token:
//!
//! ```sh
//! cargo run --release -p descant-train --example score_text -- MODEL_DIR 'A text.'
//! ```
//!
//! Without arguments the tiny model of the repository scores a sentence of its own kind.
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use descant_harmony::{TextEncoder as _, Tokenizer};
use descant_model::{Bare, GptOss};
use descant_train::score;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.to_owned());
    let text = arguments.next().unwrap_or_else(|| "What is 20 + 30? The answer is 50.".to_owned());
    let (tokens, perplexity) = scored(Path::new(&model), &text)?;
    for (token, logprob) in tokens {
        println!("{logprob:>9.4}  {token:?}");
    }
    println!("perplexity {perplexity:.2}");
    Ok(())
}

/// A token's text and its log-probability.
type Scored = (String, f32);

/// Every token but the first with its log-probability, and the perplexity of all.
fn scored(dir: &Path, text: &str) -> Result<(Vec<Scored>, f64), Box<dyn Error>> {
    let tokenizer = Tokenizer::load(dir)?;
    let model = GptOss::load(dir, &Device::flex())?;
    let ids = tokenizer.encode_text(text)?;
    let score = score(&model, &Bare, &ids, None)?;
    let tokens = ids.iter().skip(1).map(|id| tokenizer.decode(&[*id])).collect::<Result<Vec<_>, _>>()?;
    let loss = score.loss.ok_or("a text of one token has no score")?;
    Ok((tokens.into_iter().zip(score.logprobs).collect(), loss.exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_prefers_what_is_true() {
        main().unwrap();
        let perplexity = |text: &str| scored(Path::new(MODEL), text).unwrap().1;
        let english = perplexity("We need to add the two numbers.");
        assert!(english > 1.0 && english < perplexity("numbers the two add to need We."), "{english}");
    }
}
