//! Loads a model and shows which tokens may come next:
//!
//! ```sh
//! cargo run --release -p descant-model --example next_token -- MODEL_DIR 1523,30,1525
//! ```
//!
//! Without arguments the tiny model of the repository is asked. Ids in, ids out: text is descant-harmony's.
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::path::Path;

use burn::tensor::{Device, activation::softmax};
use descant_model::{Bare, Batch, GptOss};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss");
const IDS: [u32; 3] = [1523, 30, 1525];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.to_owned());
    let ids = match arguments.next() {
        Some(text) => text.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?,
        None => IDS.to_vec(),
    };
    for (id, probability) in likeliest(Path::new(&model), &ids, 5)? {
        println!("{id:>7}  {probability:.4}");
    }
    Ok(())
}

/// The likeliest next tokens with their probabilities.
fn likeliest(dir: &Path, ids: &[u32], n: usize) -> Result<Vec<(usize, f32)>, Box<dyn Error>> {
    let model = GptOss::load(dir, &Device::flex())?;
    let batch = Batch::new([ids], model.config.vocab_size)?;
    let hidden = model.hidden(&batch, &Bare);
    let [tokens, width] = hidden.dims();
    let last = hidden.slice([tokens - 1..tokens, 0..width]);
    let probabilities = softmax(model.logits(last), 1).into_data().try_to_vec::<f32>()?;
    let mut ranked: Vec<(usize, f32)> = probabilities.into_iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(n);
    Ok(ranked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_gives_probabilities_in_order() {
        main().unwrap();
        let ranked = likeliest(Path::new(MODEL), &IDS, 5).unwrap();
        assert_eq!(ranked.len(), 5);
        assert!(ranked.is_sorted_by(|a, b| a.1 >= b.1) && ranked[0].1 > 0.0 && ranked[0].1 <= 1.0);
    }
}
