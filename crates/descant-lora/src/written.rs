//! Tensors of an adapter's file, whose bytes are made when they are written: one at a time.
//!
//! An adapter on all experts of the 120b has gigabytes, so that the file is the only copy beside the factors.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, SafeTensorError, View, serialize};

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

/// The bytes of a safetensors file; `format` names who is to read it.
pub(crate) fn file_of(tensors: Vec<(String, Written<'_>)>, format: &str) -> Result<Vec<u8>, SafeTensorError> {
    serialize(tensors, Some([("format".to_owned(), format.to_owned())].into()))
}
