//! In which formats a checkpoint's weights came, and which of them did not stay as they came: what is printed when a model
//! is loaded.

use std::collections::BTreeMap;
use std::fmt;

use descant_kernels::SiteKind;
use safetensors::Dtype;

use crate::layouts::{Piece, Stored};
use crate::names::{LayerPart, Part};

/// Formats of the weights of products, by what they are for; their layers, where they have some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Formats {
    came: BTreeMap<What, BTreeMap<String, Vec<usize>>>,
    /// What came packed and was unpacked, and why.
    notes: Vec<String>,
}

/// A weight, whichever layer it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Site(SiteKind),
    Embedding,
    Head,
}

impl What {
    /// With its layer.
    fn of(part: Part) -> Option<(Self, usize)> {
        match part {
            Part::Layer(layer, LayerPart::Weight(kind)) => Some((Self::Site(kind), layer)),
            Part::Embedding => Some((Self::Embedding, 0)),
            Part::Head => Some((Self::Head, 0)),
            Part::Norm | Part::Layer(..) => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Site(kind) => kind.name(),
            Self::Embedding => "embedding",
            Self::Head => "lm_head",
        }
    }
}

impl Formats {
    /// A tensor that is loaded from numbers of this type, which were NF4 before or not.
    pub(super) fn add(&mut self, Stored { part, piece }: Stored, dtype: Dtype, was_packed: bool) {
        match piece {
            Piece::Whole if was_packed => self.put(part, "NF4, unpacked".to_owned()),
            Piece::Whole => self.put(part, format!("{dtype:?}")),
            Piece::Blocks => self.put(part, "MXFP4".to_owned()),
            Piece::Scales => {}
        }
    }

    /// A weight that stays packed in NF4.
    pub(super) fn add_kept(&mut self, part: Part) {
        self.put(part, "NF4".to_owned());
    }

    fn put(&mut self, part: Part, format: String) {
        let Some((what, layer)) = What::of(part) else { return };
        self.came.entry(what).or_default().entry(format).or_default().push(layer);
    }

    /// What was unpacked, and why.
    pub(super) fn unpacked(&mut self, parts: Vec<(Part, String)>) {
        let mut by_reason: BTreeMap<(What, String), Vec<usize>> = BTreeMap::new();
        for (part, reason) in parts {
            let Some((what, layer)) = What::of(part) else { continue };
            by_reason.entry((what, reason)).or_default().push(layer);
        }
        for ((what, reason), mut layers) in by_reason {
            layers.sort_unstable();
            layers.dedup();
            let place = match what {
                What::Site(_) => format!(" of {}", in_layers(&layers)),
                _ => String::new(),
            };
            self.notes.push(format!("{}{place}: unpacked from NF4, {reason}", what.name()));
        }
    }

    /// What came packed and is not any more, a line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// `layer 3`, `layers 3, 5`, `layers 0 to 23`.
fn in_layers(layers: &[usize]) -> String {
    match layers {
        [one] => format!("layer {one}"),
        [first, .., last] if last - first + 1 == layers.len() && layers.len() > 2 => {
            format!("layers {first} to {last}")
        }
        _ => {
            let all: Vec<String> = layers.iter().map(usize::to_string).collect();
            format!("layers {}", all.join(", "))
        }
    }
}

impl fmt::Display for Formats {
    /// `q_proj, k_proj NF4; v_proj NF4 but BF16 in layer 1; embedding, lm_head BF16`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
        for (what, formats) in &self.came {
            let mut formats: Vec<(&String, Vec<usize>)> =
                formats.iter().map(|(format, layers)| (format, layers.clone())).collect();
            for (_, layers) in &mut formats {
                layers.sort_unstable();
            }
            // What most layers have first; of equally many, what the first of all has.
            formats.sort_by_key(|(_, layers)| (std::cmp::Reverse(layers.len()), layers.first().copied()));
            let words: Vec<String> = (0..formats.len())
                .map(|i| match (i, &formats[i]) {
                    (0, (format, _)) => (*format).clone(),
                    (_, (format, layers)) => format!("{format} in {}", in_layers(layers)),
                })
                .collect();
            let words = words.join(", but ");
            match groups.iter_mut().find(|(known, _)| *known == words) {
                Some((_, names)) => names.push(what.name()),
                None => groups.push((words, vec![what.name()])),
            }
        }
        let groups: Vec<String> =
            groups.into_iter().map(|(words, names)| format!("{} {words}", names.join(", "))).collect();
        f.write_str(&groups.join("; "))
    }
}
