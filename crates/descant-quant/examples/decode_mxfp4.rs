//! Decodes an MXFP4 tensor of a checkpoint:
//!
//! ```sh
//! cargo run -p descant-quant --example decode_mxfp4
//! cargo run -p descant-quant --example decode_mxfp4 -- SHARD.safetensors model.layers.0.mlp.experts.gate_up_proj
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it found")]

use std::error::Error;

use descant_quant::mxfp4;
use safetensors::SafeTensors;

const SHARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss/model.safetensors");
const TENSOR: &str = "model.layers.0.mlp.experts.down_proj";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let shard = arguments.next().unwrap_or_else(|| SHARD.to_owned());
    let tensor = arguments.next().unwrap_or_else(|| TENSOR.to_owned());
    let values = decode(&std::fs::read(shard)?, &tensor)?;
    let largest = values.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    println!("{tensor}: {} numbers in {} blocks", values.len(), values.len() / mxfp4::BLOCK);
    println!("first block: {:?}", &values[..mxfp4::BLOCK]);
    println!("largest magnitude: {largest}");
    Ok(())
}

/// The numbers of a tensor that a checkpoint holds as `NAME_blocks` and `NAME_scales`.
fn decode(shard: &[u8], name: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let shard = SafeTensors::deserialize(shard)?;
    let blocks = shard.tensor(&format!("{name}_blocks"))?;
    let scales = shard.tensor(&format!("{name}_scales"))?;
    if blocks.data().len() != mxfp4::BLOCK_BYTES * scales.data().len() {
        return Err("blocks and scales do not belong together".into());
    }
    mxfp4::validate_scales(scales.data())?;
    let mut values = vec![0.0; mxfp4::BLOCK * scales.data().len()];
    mxfp4::decode(blocks.data(), scales.data(), &mut values);
    Ok(values)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_runs() {
        super::main().unwrap();
        let values = super::decode(&std::fs::read(super::SHARD).unwrap(), super::TENSOR).unwrap();
        assert_eq!(values.len(), 8 * 128 * 128, "eight experts of 128 by 128");
    }
}
