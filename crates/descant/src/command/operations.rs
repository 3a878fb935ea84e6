//! Operations of a training step, by sizes alone.

use descant_model::{Config, SiteKind};

/// Operations that a token needs: forward and backward to the activations through every weight that it meets, and
/// causal attention forward and (twice) backward. No recomputation, no gradients of frozen weights.
pub(crate) fn flops_per_token(config: &Config, sequence: usize) -> f64 {
    let matrix = |kind: SiteKind| {
        let dims = config.site_dims(kind);
        let times = if kind.is_expert() { config.num_experts_per_tok } else { 1 };
        (times * dims.d_in * dims.d_out) as f64
    };
    let layer: f64 = SiteKind::ALL.into_iter().map(matrix).sum();
    let head = (config.hidden_size * config.vocab_size) as f64;
    let active = config.num_hidden_layers as f64 * layer + head;
    let query = (config.num_attention_heads * config.head_dim) as f64;
    let attention: f64 = (0..config.num_hidden_layers)
        .map(|layer| {
            let half = sequence as f64 / 2.0;
            4.0 * query * config.window(layer).map_or(half, |window| half.min(window as f64))
        })
        .sum();
    4.0 * active + 3.0 * attention
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_of_the_20b_are_those_that_the_peers_were_measured_with() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/configs/gpt-oss-20b.json");
        let config = Config::from_slice(&std::fs::read(path).unwrap()).unwrap();
        for (sequence, billions) in [(1024, 14.8), (2048, 15.1), (4096, 15.7)] {
            let measured = flops_per_token(&config, sequence) / 1e9;
            assert!((measured - billions).abs() < 0.06, "{sequence}: {measured}");
        }
    }
}
