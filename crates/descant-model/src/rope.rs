//! Rotary position embedding with YaRN scaling: the table of cosines and sines.
//!
//! The angles are computed once, in f64, for as many positions as a run needs, and rounded to f32. Applying them
//! to queries and keys is an operator (descant-kernels). Source: Peng et al. 2023, "YaRN: Efficient Context
//! Window Extension of Large Language Models"; `_compute_yarn_parameters` of transformers for the key names.

use serde::Deserialize;
use serde_json::Value;

/// Rotary settings of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// YaRN, or `None` for the plain embedding.
    pub yarn: Option<Yarn>,
}

/// YaRN's parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// How many times longer the extended context is.
    pub factor: f64,
    /// Positions the model was trained on before extension.
    pub original_max_position_embeddings: f64,
    /// Dimensions that turn more often than this within the original context are left alone.
    pub beta_fast: f64,
    /// Dimensions that turn less often than this are interpolated fully.
    pub beta_slow: f64,
    /// Whether the ramp's borders are rounded outwards to whole dimensions.
    pub truncate: bool,
    /// Multiplies cosine and sine.
    pub attention_factor: f64,
}

/// The keys of `rope_scaling` or `rope_parameters`; anything else there would change the angles and is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRope {
    rope_type: Option<String>,
    /// The older name of the same; transformers 4 writes both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    truncate: Option<bool>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl Rope {
    /// Reads either spelling: `rope_theta` + `rope_scaling` (published files) or `rope_parameters` (newer).
    ///
    /// # Errors
    /// Names the key that is missing, out of range or not supported.
    pub fn from_config(
        theta: Option<f64>,
        scaling: Option<Value>,
        parameters: Option<Value>,
    ) -> Result<Self, String> {
        let (key, value) = match (parameters, scaling) {
            (Some(p), _) if !p.is_null() => ("rope_parameters", p),
            (_, Some(s)) if !s.is_null() => ("rope_scaling", s),
            _ => {
                let theta = positive("rope_theta", theta)?;
                return Ok(Self { theta, yarn: None });
            }
        };
        let raw: RawRope = serde_json::from_value(value).map_err(|e| format!("`{key}`: {e}"))?;
        let theta = positive("rope_theta", raw.rope_theta.or(theta))?;
        if raw.partial_rotary_factor.is_some_and(|f| f.to_bits() != 1f64.to_bits()) {
            return Err(format!("`{key}.partial_rotary_factor` other than 1 is not supported"));
        }
        if let (Some(newer), Some(older)) = (&raw.rope_type, &raw.older_type)
            && newer != older
        {
            return Err(format!("`{key}.rope_type` is `{newer}` and `{key}.type` is `{older}`"));
        }
        match raw.rope_type.or(raw.older_type).as_deref() {
            Some("default") => Ok(Self { theta, yarn: None }),
            Some("yarn") => {
                let factor = positive(&format!("{key}.factor"), raw.factor)?;
                let attention_factor = match (raw.attention_factor, raw.mscale, raw.mscale_all_dim) {
                    (Some(given), _, _) => positive(&format!("{key}.attention_factor"), Some(given))?,
                    (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
                        magnitude(factor, m) / magnitude(factor, all)
                    }
                    _ => magnitude(factor, 1.0),
                };
                Ok(Self {
                    theta,
                    yarn: Some(Yarn {
                        factor,
                        original_max_position_embeddings: positive(
                            &format!("{key}.original_max_position_embeddings"),
                            raw.original_max_position_embeddings,
                        )?,
                        beta_fast: positive(&format!("{key}.beta_fast"), raw.beta_fast.or(Some(32.0)))?,
                        beta_slow: positive(&format!("{key}.beta_slow"), raw.beta_slow.or(Some(1.0)))?,
                        truncate: raw.truncate.unwrap_or(true),
                        attention_factor,
                    }),
                })
            }
            Some(other) => Err(format!("`{key}.rope_type` is `{other}`; supported: yarn, default")),
            None => Err(format!("missing field `{key}.rope_type`")),
        }
    }

    /// Angle per position of each pair of dimensions, `[head_dim / 2]`.
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f64> {
        let half = head_dim / 2;
        let plain = (0..half).map(|i| self.theta.powf(-(2.0 * i as f64) / head_dim as f64));
        let Some(yarn) = &self.yarn else { return plain.collect() };
        let (low, high) = yarn.ramp_borders(head_dim as f64, self.theta);
        plain
            .enumerate()
            .map(|(i, frequency)| {
                let interpolated = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / yarn.factor * interpolated + frequency * (1.0 - interpolated)
            })
            .collect()
    }

    /// Cosines and sines for positions `0..n_positions`, each `[n_positions, head_dim / 2]` row-major, already
    /// multiplied by YaRN's attention factor.
    pub fn table(&self, head_dim: usize, n_positions: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.inverse_frequencies(head_dim);
        let magnitude = self.yarn.as_ref().map_or(1.0, |y| y.attention_factor);
        (0..n_positions)
            .flat_map(|p| frequencies.iter().map(move |f| p as f64 * f))
            .map(|angle| ((angle.cos() * magnitude) as f32, (angle.sin() * magnitude) as f32))
            .unzip()
    }
}

impl Yarn {
    /// Dimensions between which the angles pass from untouched to interpolated.
    fn ramp_borders(&self, head_dim: f64, theta: f64) -> (f64, f64) {
        let dimension_of = |rotations: f64| {
            let wavelength = self.original_max_position_embeddings / (rotations * 2.0 * std::f64::consts::PI);
            head_dim * wavelength.ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (dimension_of(self.beta_fast), dimension_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
        // The reference keeps the ramp from dividing by zero in the same way.
        if low.to_bits() == high.to_bits() { (low, high + 0.001) } else { (low, high) }
    }
}

/// YaRN's temperature as a factor on cosine and sine.
fn magnitude(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

fn positive(key: &str, value: Option<f64>) -> Result<f64, String> {
    match value {
        Some(v) if v > 0.0 && v.is_finite() => Ok(v),
        Some(v) => Err(format!("`{key}` is {v}; expected a positive number")),
        None => Err(format!("missing field `{key}`")),
    }
}
