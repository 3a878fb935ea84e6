//! Safetensors files of a merged model: which tensor goes where, headers, index.
//!
//! ```text
//! model.safetensors                          where one will do
//! model-0000i-of-0000n.safetensors           5 GB of tensors each at most; a tensor is never split
//! model.safetensors.index.json               beside them
//! ```

use serde_json::{Map, Value, json};

use crate::plan::{OutTensor, Type};

/// Most bytes of tensors in a file that has more than one.
const SHARD_BYTES: u64 = 5_000_000_000;
/// Headers are padded to a multiple of this.
const HEADER_ALIGNMENT: usize = 8;

/// A file and its tensors, in order.
pub(crate) struct Shard<'a> {
    pub(crate) name: String,
    pub(crate) tensors: &'a [OutTensor],
}

/// Cuts the tensors into files.
pub(crate) fn shards(tensors: &[OutTensor]) -> Vec<Shard<'_>> {
    let mut ends = Vec::new();
    let mut bytes = 0;
    for (i, tensor) in tensors.iter().enumerate() {
        if bytes > 0 && bytes + tensor.bytes() > SHARD_BYTES {
            ends.push(i);
            bytes = 0;
        }
        bytes += tensor.bytes();
    }
    ends.push(tensors.len());
    let n = ends.len();
    let mut start = 0;
    let cut = |(i, end): (usize, usize)| {
        let name = match n {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let shard = Shard { name, tensors: &tensors[start..end] };
        start = end;
        shard
    };
    ends.into_iter().enumerate().map(cut).collect()
}

/// What is before the tensors in a file.
pub(crate) fn header(tensors: &[OutTensor]) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for tensor in tensors {
        let Type::Plain(dtype) = tensor.kind else { unreachable!("GGML's blocks go to GGUF files") };
        let end = start + tensor.bytes();
        let about = json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]});
        map.insert(tensor.name.clone(), about);
        start = end;
    }
    let mut text = Value::Object(map).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    [&(text.len() as u64).to_le_bytes()[..], &text].concat()
}

/// The index of several files; `None` where there is one.
pub(crate) fn index(shards: &[Shard<'_>]) -> Option<String> {
    if shards.len() < 2 {
        return None;
    }
    let all = || shards.iter().flat_map(|shard| shard.tensors.iter().map(|tensor| (tensor, &shard.name)));
    let parameters: u64 =
        all().map(|(tensor, _)| tensor.shape.iter().map(|&n| n as u64).product::<u64>()).sum();
    let bytes: u64 = all().map(|(tensor, _)| tensor.bytes()).sum();
    let map: Map<String, Value> = all().map(|(tensor, file)| (tensor.name.clone(), json!(file))).collect();
    let index = json!({
        "metadata": {"total_parameters": parameters, "total_size": bytes},
        "weight_map": map,
    });
    Some(format!("{index:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Select;
    use crate::plan::Source;
    use descant_model::Part;
    use safetensors::Dtype;

    fn tensor(name: &str, gigabytes: usize) -> OutTensor {
        OutTensor {
            name: name.to_owned(),
            kind: Type::Plain(Dtype::U8),
            shape: vec![gigabytes, 1_000_000_000],
            source: Source::Float { part: Part::Norm, select: Select::All },
        }
    }

    #[test]
    fn shards_hold_five_gigabytes_and_a_larger_tensor_has_one_of_its_own() {
        let all = [tensor("a", 2), tensor("b", 3), tensor("c", 1), tensor("d", 6), tensor("e", 1)];
        let cut: Vec<_> = shards(&all).iter().map(|s| (s.name.clone(), s.tensors.len())).collect();
        let name = |i| format!("model-0000{i}-of-00004.safetensors");
        assert_eq!(cut, [(name(1), 2), (name(2), 1), (name(3), 1), (name(4), 1)]);
        let index: Value = serde_json::from_str(&index(&shards(&all)).unwrap()).unwrap();
        assert_eq!(index["metadata"]["total_size"], 13_000_000_000_u64);
        assert_eq!(index["weight_map"]["d"], name(3));
        assert_eq!(shards(&all[..2])[0].name, "model.safetensors");
    }

    #[test]
    fn a_header_is_read_back_by_the_library() {
        let small = OutTensor { shape: vec![2, 3], ..tensor("x", 1) };
        let mut file = header(std::slice::from_ref(&small));
        file.extend([1; 6]);
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("x").unwrap().shape(), [2, 3]);
    }
}
