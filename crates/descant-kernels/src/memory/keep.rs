//! What a layer keeps of its forward pass for its backward pass: the levels, and the policies that choose among them.
//!
//! Everything that is not kept is computed again from the layer's input. It knows no sizes.

use std::fmt;
use std::str::FromStr;

/// What a layer keeps, from nothing but its input to everything that a product made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// The input alone.
    Input,
    /// Also attention's result and the residual stream after it: attention and its output product are not run again.
    Attention,
    /// Also queries, keys and values.
    Projections,
    /// Also the experts' first product and the routing: no product is run again.
    Experts,
}

impl Kept {
    /// In order of what is kept.
    pub const ALL: [Self; 4] = [Self::Input, Self::Attention, Self::Projections, Self::Experts];

    /// One level up.
    pub(crate) fn next(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }
}

/// How much all layers together may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// As much as the device's free memory holds.
    #[default]
    Auto,
    /// Inputs alone.
    Minimal,
    /// Attention in every layer.
    Balanced,
    /// Everything.
    All,
    /// This many bytes beyond the inputs.
    Bytes(u64),
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "minimal" => Ok(Self::Minimal),
            "balanced" => Ok(Self::Balanced),
            "all" => Ok(Self::All),
            bytes => bytes.parse().map(Self::Bytes).map_err(|_| {
                format!("`{bytes}` is not one of auto, minimal, balanced, all, or a number of bytes")
            }),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Minimal => f.write_str("minimal"),
            Self::Balanced => f.write_str("balanced"),
            Self::All => f.write_str("all"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["auto", "minimal", "balanced", "all", "1073741824"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert!("most".parse::<Keep>().unwrap_err().contains("`most`"));
    }
}
