//! The container: everything before the tensors.

use super::ALIGNMENT;

const MAGIC: &[u8; 4] = b"GGUF";
const VERSION: u32 = 3;

/// A key's value, of the types that are written here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
}

/// A tensor, as the header names it.
pub(crate) struct Info<'a> {
    pub(crate) name: &'a str,
    /// Innermost axis first.
    pub(crate) ne: Vec<u64>,
    /// GGML's number of the type.
    pub(crate) kind: u32,
    pub(crate) bytes: u64,
}

/// What is before the tensors, padded; each tensor that follows is padded to [`ALIGNMENT`] too.
pub(crate) fn header<'a>(
    keys: &[(String, Value)],
    tensors: impl ExactSizeIterator<Item = Info<'a>>,
) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(VERSION.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    for (key, value) in keys {
        text(&mut out, key);
        put(&mut out, value);
    }
    let mut offset = 0_u64;
    for tensor in tensors {
        text(&mut out, tensor.name);
        out.extend((tensor.ne.len() as u32).to_le_bytes());
        out.extend(tensor.ne.iter().flat_map(|n| n.to_le_bytes()));
        out.extend(tensor.kind.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += tensor.bytes.next_multiple_of(ALIGNMENT);
    }
    out.resize((out.len() as u64).next_multiple_of(ALIGNMENT) as usize, 0);
    out
}

/// Types of values, by GGUF's numbers.
mod code {
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const TEXT: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U32(x) => {
            out.extend(code::U32.to_le_bytes());
            out.extend(x.to_le_bytes());
        }
        Value::F32(x) => {
            out.extend(code::F32.to_le_bytes());
            out.extend(x.to_le_bytes());
        }
        Value::Bool(x) => {
            out.extend(code::BOOL.to_le_bytes());
            out.push(u8::from(*x));
        }
        Value::Text(x) => {
            out.extend(code::TEXT.to_le_bytes());
            text(out, x);
        }
        Value::Texts(list) => {
            array(out, code::TEXT, list.len());
            for x in list {
                text(out, x);
            }
        }
        Value::I32s(list) => {
            array(out, code::I32, list.len());
            out.extend(list.iter().flat_map(|x| x.to_le_bytes()));
        }
    }
}

fn array(out: &mut Vec<u8>, of: u32, n: usize) {
    out.extend(code::ARRAY.to_le_bytes());
    out.extend(of.to_le_bytes());
    out.extend((n as u64).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
