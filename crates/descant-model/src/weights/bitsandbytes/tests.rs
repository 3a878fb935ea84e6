//! What stays packed for a card, and what does not, and why; no card is needed to see it.

use std::path::Path;

use descant_testkit::nf4::{Model, STATE};
use descant_testkit::shard::{Stored, Tensors};

use half::bf16;

use super::*;

/// What becomes of these tensors: names that stay packed with their shapes, names that are unpacked, and the notes.
fn taken(tensors: &Tensors, keep: bool) -> Result<(Vec<Kept>, Vec<String>, Vec<String>)> {
    let config = Config::from_slice(Model::tiny().config.to_string().as_bytes()).expect("valid");
    let mut unpacker = Unpacker::new(&config, keep);
    let (mut kept, mut unpacked) = (Vec::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("consistent");
        let Taken::Made(made) = unpacker.take(Path::new("file"), name, &view, Bytes::Read(bytes.clone()))?
        else {
            continue;
        };
        for made in made {
            match made {
                Made::Kept(one) => kept.push(one),
                Made::Unpacked(one) if one.name.ends_with("bias") => {}
                Made::Unpacked(one) => unpacked.push(one.name),
            }
        }
    }
    let notes = unpacker.finish(Path::new("dir"))?;
    let notes = notes.into_iter().map(|(part, reason)| format!("{}: {reason}", part.name())).collect();
    Ok((kept, unpacked, notes))
}

const LAYER: &str = "model.layers.1";

#[test]
fn a_card_gets_packed_what_its_kernels_read_packed() {
    let model = Model::tiny();
    let (mut kept, unpacked, mut notes) = taken(&model.packed, true).expect("consistent");
    kept.sort_by_key(|kept| kept.part.name());
    let names: Vec<String> = kept.iter().map(|kept| kept.part.name()).collect();
    assert_eq!(
        names,
        [
            "model.layers.0.mlp.experts.gate_up_proj",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.layers.1.mlp.experts.gate_up_proj",
            "model.layers.1.self_attn.o_proj.weight",
        ]
    );
    for name in [format!("{LAYER}.self_attn.q_proj.weight"), format!("{LAYER}.mlp.experts.down_proj")] {
        assert!(unpacked.contains(&name), "{name}: {unpacked:?}");
    }
    notes.sort();
    let apart = "others that are read with it are not packed";
    let rows = "its rows of 96 end within a block of 64";
    assert_eq!(
        notes,
        [
            format!("model.layers.0.mlp.experts.down_proj: {rows}"),
            format!("{LAYER}.mlp.experts.down_proj: {rows}"),
            format!("{LAYER}.self_attn.k_proj.weight: {apart}"),
            format!("{LAYER}.self_attn.q_proj.weight: {apart}"),
        ]
    );
    // The numbers are those that the unpacked layout has.
    let experts = &kept[0];
    let [n, d_out, d_in] = experts.shape;
    let (.., bytes) = &model.unpacked[&experts.part.name()];
    let expected: Vec<f32> =
        bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
    let stacked = experts.stacked();
    let (mut blocks, mut scales) = (vec![0; stacked.blocks_len()], vec![0; stacked.scales_len()]);
    stacked.copy_blocks(0, &mut blocks);
    stacked.copy_scales(0, &mut scales);
    let stack = nf4::View { blocks: &blocks, scales: &scales, tables: stacked.tables() };
    for expert in 0..n {
        let mut values = vec![0.0; d_out * d_in];
        stack.decode(n, expert, 0, &mut values);
        let turned = transposed(&values, d_out, d_in);
        assert_eq!(turned, expected[expert * d_in * d_out..][..d_in * d_out], "expert {expert}");
    }
}

#[test]
fn without_a_card_nothing_is_kept_and_nothing_is_noted() {
    let (kept, unpacked, notes) = taken(&Model::tiny().packed, false).expect("consistent");
    assert!(kept.is_empty() && notes.is_empty());
    assert!(unpacked.iter().any(|name| name.ends_with("q_proj.weight")));
}

#[test]
fn matrices_that_cannot_stay_packed_say_why() {
    let name = format!("{LAYER}.self_attn.o_proj.weight");
    let state = |tensors: &mut Tensors, key: &str, value: serde_json::Value| {
        let entry: &mut Stored = tensors.get_mut(&format!("{name}{STATE}")).expect("is there");
        let mut state: serde_json::Value = serde_json::from_slice(&entry.2).expect("JSON");
        state[key] = value;
        entry.2 = state.to_string().into_bytes();
        entry.1 = vec![entry.2.len()];
    };
    let mut float16 = Model::tiny().packed;
    state(&mut float16, "dtype", "float16".into());
    // A scale that is a number, of a product that is none in bfloat16.
    let mut huge = Model::tiny().packed;
    state(&mut huge, "nested_offset", f64::from(f32::MAX).into());
    for (tensors, reason) in
        [(float16, "its numbers were not bfloat16"), (huge, "some of its numbers are not finite")]
    {
        let (kept, unpacked, notes) = taken(&tensors, true).expect("consistent");
        assert!(kept.iter().all(|kept| kept.part.name() != name) && unpacked.contains(&name), "{reason}");
        assert!(notes.contains(&format!("{name}: {reason}")), "{notes:?}");
    }
}

#[test]
fn a_matrix_that_never_comes_is_named() {
    for (missing, beside) in [
        (format!("{LAYER}.self_attn.k_proj.weight"), "k_proj.weight"),
        (format!("{LAYER}.mlp.experts.gate_up_projs.2.weight"), "projs.2.weight"),
    ] {
        let mut tensors = Model::tiny().packed;
        tensors.retain(|name, _| !name.contains(beside) || !name.contains(LAYER));
        let error = taken(&tensors, true).err().expect("something is missing");
        assert!(
            matches!(&error, Error::TensorMissing { name, .. } if *name == missing),
            "{missing}: {error}"
        );
    }
}
