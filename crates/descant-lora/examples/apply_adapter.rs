//! Puts a PEFT adapter on a model and shows what it changes:
//!
//! ```sh
//! cargo run -p descant-lora --example apply_adapter
//! cargo run --release -p descant-lora --example apply_adapter -- MODEL_DIR ADAPTER_DIR 1523,30,1525
//! ```
//!
//! Without arguments an adapter that PEFT wrote is put on a model of two layers.
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use descant_lora::LoraAdapters;
use descant_model::{Bare, Batch, GptOss, Overlay};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/peft_tiny/base");
const ADAPTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/peft_tiny/adapter");
const IDS: [u32; 4] = [1, 2, 3, 5];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| MODEL.to_owned());
    let adapter = arguments.next().unwrap_or_else(|| ADAPTER.to_owned());
    let ids = match arguments.next() {
        Some(text) => text.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?,
        None => IDS.to_vec(),
    };
    let (parameters, difference) = compare(Path::new(&model), Path::new(&adapter), &ids)?;
    println!("{parameters} parameters in the adapter; largest change of a logit: {difference:.4}");
    Ok(())
}

/// Size of the adapter, and the largest difference of a logit with and without it.
fn compare(model: &Path, adapter: &Path, ids: &[u32]) -> Result<(usize, f32), Box<dyn Error>> {
    let device = Device::flex();
    let model = GptOss::load(model, &device)?;
    let adapters = LoraAdapters::load_peft(adapter, &model.config, &device)?;
    let batch = Batch::new([ids], model.config.vocab_size)?;
    let logits =
        |overlay: &dyn Overlay| model.logits(model.hidden(&batch, overlay)).into_data().try_to_vec::<f32>();
    let (base, adapted) = (logits(&Bare)?, logits(&adapters)?);
    let difference = base.iter().zip(&adapted).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    Ok((adapters.n_parameters(), difference))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_sees_a_change() {
        main().unwrap();
        let (parameters, difference) = compare(Path::new(MODEL), Path::new(ADAPTER), &IDS).unwrap();
        assert!(parameters > 1000 && difference > 1e-3, "{parameters} {difference}");
    }
}
