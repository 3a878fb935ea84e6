//! Sequences on their way through the model, one after the other without padding.

use descant_kernels::Segments;

use crate::error::{Error, Result};

/// Token ids of one or more sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    ids: Vec<u32>,
    lengths: Vec<usize>,
}

impl Batch {
    /// Joins sequences.
    ///
    /// # Errors
    /// A sequence is empty, or an id is outside the vocabulary of `vocab_size`.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>, vocab_size: usize) -> Result<Self> {
        let mut batch = Self { ids: Vec::new(), lengths: Vec::new() };
        for (index, sequence) in sequences.into_iter().enumerate() {
            if sequence.is_empty() {
                return Err(Error::EmptySequence { index });
            }
            if let Some(position) = sequence.iter().position(|&id| id as usize >= vocab_size) {
                return Err(Error::TokenId { position, id: sequence[position], vocabulary: vocab_size });
            }
            batch.ids.extend_from_slice(sequence);
            batch.lengths.push(sequence.len());
        }
        if batch.lengths.is_empty() {
            return Err(Error::EmptySequence { index: 0 });
        }
        Ok(batch)
    }

    /// All tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Tokens of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Position of each token in its sequence.
    pub(crate) fn positions(&self) -> Vec<usize> {
        self.lengths.iter().flat_map(|&n| 0..n).collect()
    }

    /// The sequences as attention sees them.
    pub(crate) fn segments(&self) -> Segments {
        Segments::from_lengths(&self.lengths)
    }
}
