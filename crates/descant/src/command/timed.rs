//! What is left of steps that were timed: the middle of their times, and a hash of what they trained.

use anyhow::Result;
use descant_lora::LoraAdapters;

/// Of the values as they lie in memory, tensor by tensor.
pub(super) fn digest(adapters: &LoraAdapters) -> Result<String> {
    let mut bytes = Vec::with_capacity(adapters.n_parameters() * size_of::<f32>());
    for tensor in adapters.tensors() {
        let values = descant_kernels::read_floats(tensor.clone())?;
        bytes.extend(values.into_iter().flat_map(f32::to_le_bytes));
    }
    Ok(descant_files::sha256(&bytes))
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_between_the_halves() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
