//! What a message counts for in the loss: `weight` (OpenAI), `train` and `loss` (others).

use crate::error::{Error, Result};
use crate::row::fields::Fields;
use serde_json::Value as Json;

/// The names of a weight.
pub(crate) const WEIGHT_KEYS: [&str; 3] = ["weight", "train", "loss"];

/// The weight that a message, or a row, states by any of these names.
///
/// # Errors
/// A value that is neither true, false nor a finite number from 0 on, and names that contradict each other.
pub(crate) fn weight(fields: &mut Fields<'_>, keys: &[&'static str]) -> Result<Option<f32>> {
    let mut found: Option<(&str, f32)> = None;
    for key in keys {
        let Some(value) = fields.get(key) else { continue };
        let number = match value {
            Json::Bool(trained) => Some(f32::from(u8::from(*trained))),
            Json::Number(number) => number.as_f64().map(|number| number as f32),
            _ => None,
        };
        let number = number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| {
            Error::field(fields.path(key), format!("{value} is not true, false or a finite number from 0 on"))
        })?;
        match found {
            Some((first, other)) if other.to_bits() != number.to_bits() => {
                return Err(fields.differs(first, key));
            }
            _ => found = Some((key, number)),
        }
    }
    Ok(found.map(|(_, number)| number))
}
