//! Tensors of an adapter's file, whose bytes are made when they are written: one at a time.
//!
//! An adapter on all experts of the 120b has gigabytes, so that the file is the only copy beside the factors.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, SafeTensorError, View, serialize};
use serde_json::json;

/// A tensor of F32.
pub(crate) struct Written<'a> {
    shape: Vec<usize>,
    values: Box<dyn Fn() -> Cow<'a, [f32]> + 'a>,
}

impl<'a> Written<'a> {
    /// `values` gives as many numbers as `shape` says.
    pub(crate) fn new(shape: impl Into<Vec<usize>>, values: impl Fn() -> Cow<'a, [f32]> + 'a) -> Self {
        Self { shape: shape.into(), values: Box::new(values) }
    }
}

impl View for Written<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.data_len());
        for value in (self.values)().iter() {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        assert_eq!(bytes.len(), self.data_len(), "the header has been written with this length");
        Cow::Owned(bytes)
    }
    fn data_len(&self) -> usize {
        size_of::<f32>() * self.shape.iter().product::<usize>()
    }
}

/// The bytes of a safetensors file; `format` names who is to read it, and `note` is something else to say of it.
pub(crate) fn file_of(
    tensors: Vec<(String, Written<'_>)>,
    format: &str,
    note: Option<(&str, &str)>,
) -> Result<Vec<u8>, SafeTensorError> {
    let mut bytes = serialize(tensors, Some([("format".to_owned(), format.to_owned())].into()))?;
    if let Some((name, value)) = note {
        add_note(&mut bytes, name, value);
    }
    Ok(bytes)
}

/// How the header's metadata begin.
const METADATA: &[u8] = b"{\"__metadata__\":{";
/// Bytes of the header's length, which comes first, and what that is a multiple of.
const LENGTH: usize = size_of::<u64>();

/// Says one thing more of a file that says its format. The library takes a map without an order, so that two entries would
/// give other bytes each time.
fn add_note(bytes: &mut Vec<u8>, name: &str, value: &str) {
    assert!(bytes[LENGTH..].starts_with(METADATA), "the header begins with what is said of the file");
    let mut note = format!("{}:{},", json!(name), json!(value));
    // Spaces between entries mean nothing.
    note.extend(std::iter::repeat_n(' ', note.len().next_multiple_of(LENGTH) - note.len()));
    let header: [u8; LENGTH] = bytes[..LENGTH].try_into().expect("so many");
    bytes[..LENGTH].copy_from_slice(&(u64::from_le_bytes(header) + note.len() as u64).to_le_bytes());
    let at = LENGTH + METADATA.len();
    bytes.splice(at..at, note.into_bytes());
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn a_note_is_read_beside_the_format_and_changes_no_tensor() {
        let tensors = || vec![("a".to_owned(), Written::new([2], || Cow::Borrowed(&[1.0, -2.0][..])))];
        let plain = file_of(tensors(), "pt", None).unwrap();
        let noted = file_of(tensors(), "pt", Some(("descant.experts", "fp8"))).unwrap();
        let read = |bytes: &[u8]| {
            let said = SafeTensors::read_metadata(bytes).unwrap().1.metadata().clone().unwrap();
            let tensor = SafeTensors::deserialize(bytes).unwrap().tensor("a").unwrap().data().to_vec();
            (said.into_iter().collect::<std::collections::BTreeMap<_, _>>(), tensor)
        };
        let ((plain, values), (noted, same)) = (read(&plain), read(&noted));
        assert_eq!((plain.len(), values), (1, same));
        assert_eq!(noted["descant.experts"], "fp8");
        assert_eq!(noted["format"], plain["format"]);
    }
}
