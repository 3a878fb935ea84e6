//! Experts of a BF16 merge packed by rules that other programs use, for comparison.

use std::borrow::Cow;
use std::path::Path;

use descant_quant::mxfp4::{BLOCK, BLOCK_BYTES, Basis, Rounding, round_rows};
use half::bf16;
use safetensors::tensor::{SafeTensors, View};
use safetensors::{Dtype, serialize_to_file};

use crate::Result;

/// How the scale of a block is chosen; codes are the nearest in both.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// `floor(log2(largest)) - 2`: the OCP specification, gguf-py, llama.cpp.
    Ocp,
    /// The least power of two under which nothing is beyond 6: triton_kernels' default, which transformers uses.
    Up,
}

impl Rule {
    fn scale(self, block: &[f32; BLOCK]) -> u8 {
        /// The mantissa of an f32.
        const MANTISSA: u32 = 0x007F_FFFF;
        let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        match self {
            Self::Ocp => ((largest.to_bits() >> 23) as u8).saturating_sub(2),
            Self::Up => (((largest / 6.0).to_bits() + MANTISSA) >> 23) as u8,
        }
    }
}

/// A tensor that was made here.
struct Made {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Either of the two.
enum Tensor<'a> {
    Kept(safetensors::tensor::TensorView<'a>),
    Made(&'a Made),
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Kept(view) => view.dtype(),
            Self::Made(_) => Dtype::U8,
        }
    }
    fn shape(&self) -> &[usize] {
        match self {
            Self::Kept(view) => view.shape(),
            Self::Made(made) => &made.shape,
        }
    }
    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Kept(view) => Cow::Borrowed(view.data()),
            Self::Made(made) => Cow::Borrowed(&made.bytes),
        }
    }
    fn data_len(&self) -> usize {
        self.data().len()
    }
}

/// Writes the folder `packed` again as `out`, its experts made of those of `merged` by `rule`.
pub(crate) fn repack(packed: &Path, merged: &Path, rule: Rule, out: &Path) -> Result<()> {
    const FILE: &str = "model.safetensors";
    std::fs::create_dir(out)?;
    for entry in std::fs::read_dir(packed)? {
        let entry = entry?;
        if entry.file_name() != FILE {
            std::fs::copy(entry.path(), out.join(entry.file_name()))?;
        }
    }
    let (packed, merged) = (std::fs::read(packed.join(FILE))?, std::fs::read(merged.join(FILE))?);
    let (packed, merged) = (SafeTensors::deserialize(&packed)?, SafeTensors::deserialize(&merged)?);
    let mut made = Vec::new();
    for name in packed.names().into_iter().filter_map(|name| name.strip_suffix("_blocks")) {
        let weight = merged.tensor(name)?;
        let [experts, d_in, d_out] = weight.shape() else { return Err(format!("{name}: three axes").into()) };
        let (blocks, scales) = pack(&rows(weight.data(), *experts, *d_in, *d_out), *d_in, rule)?;
        let shape = vec![*experts, *d_out, d_in / BLOCK];
        made.push((format!("{name}_scales"), Made { shape: shape.clone(), bytes: scales }));
        let shape = [shape, vec![BLOCK_BYTES]].concat();
        made.push((format!("{name}_blocks"), Made { shape, bytes: blocks }));
    }
    let find = |name: &str| made.iter().find(|(other, _)| other == name).map(|(_, made)| Tensor::Made(made));
    let tensors =
        packed.tensors().into_iter().map(|(name, view)| (find(&name).unwrap_or(Tensor::Kept(view)), name));
    let tensors: Vec<_> = tensors.map(|(tensor, name)| (name, tensor)).collect();
    Ok(serialize_to_file(tensors, None, &out.join(FILE))?)
}

/// `[experts, d_in, d_out]` in BF16 as rows `[experts * d_out, d_in]`.
fn rows(bytes: &[u8], experts: usize, d_in: usize, d_out: usize) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<2>();
    let at = |e: usize, i: usize, o: usize| bf16::from_le_bytes(numbers[(e * d_in + i) * d_out + o]).to_f32();
    let mut rows = Vec::with_capacity(numbers.len());
    for e in 0..experts {
        for o in 0..d_out {
            rows.extend((0..d_in).map(|i| at(e, i, o)));
        }
    }
    rows
}

/// Blocks and scales.
fn pack(rows: &[f32], d_in: usize, rule: Rule) -> Result<(Vec<u8>, Vec<u8>)> {
    let (blocks_of, _) = rows.as_chunks::<BLOCK>();
    let scales: Vec<u8> = blocks_of.iter().map(|block| rule.scale(block)).collect();
    let mut blocks = vec![0; scales.len() * BLOCK_BYTES];
    let nothing = Basis::of_rows(&[], d_in);
    round_rows(rows, &nothing, Rounding::Nearest, &scales, &mut blocks, &mut [])?;
    Ok((blocks, scales))
}

/// Sees that the scales are those of the other programs: 4 to 6 fits as it is, a little more doubles the one, a little
/// less halves the other.
pub(crate) fn check() {
    let with = |largest: f32| {
        let mut block = [0.25; BLOCK];
        block[3] = -largest;
        [Rule::Ocp.scale(&block), Rule::Up.scale(&block)].map(|byte| i32::from(byte) - 127)
    };
    assert_eq!([4.0, 6.0, 6.01, 3.99].map(with), [[0, 0], [0, 0], [0, 1], [-1, 0]]);
}
