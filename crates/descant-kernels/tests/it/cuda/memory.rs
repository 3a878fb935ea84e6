//! What is held, brought and given types on a card.

use burn::tensor::{DType, Int, Tensor, TensorData};
use descant_kernels as k;
use descant_kernels::cuda::{Gpu, Uploader};
use descant_kernels::{Loader, Mxfp4Layout, Mxfp4Piece};

use crate::card::{card, floats, on};
use crate::support::Random;

/// What is written in place is copied first where somebody else holds it, whatever the length of its rows.
#[test]
#[ignore = "needs a card"]
fn what_somebody_holds_is_copied_and_not_changed() {
    let card = card();
    let mut random = Random(39);
    for shape in [[2, 5, 3], [1, 8, 96], [3, 64, 1000], [1, 1, 257]] {
        let (old, new) = (random.floats(shape), random.floats(shape));
        let on_card = on(&old, &card, DType::F32);
        let held = on_card.clone();
        let sums = k::accumulate(vec![on_card], &[on(&new, &card, DType::F32)]);
        let expected = floats(old.clone() + new);
        assert_eq!(floats(sums[0].clone()), expected, "{shape:?}");
        assert_eq!(floats(held), floats(old), "{shape:?}: what is held was changed");
    }
}

#[test]
#[ignore = "needs a card"]
fn uploaded_bytes_arrive() {
    let _ = card();
    let gpu = Gpu::of(0).expect("the card");
    let mut uploader = Uploader::new(&gpu).expect("pinned memory");
    // More than both buffers, and no multiple of one.
    let bytes: Vec<u8> =
        (0..(100u64 << 20) + 12).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let n = bytes.len() / 4;
    let start = std::time::Instant::now();
    let tensor = uploader.tensor(&bytes.as_slice().into(), [n], DType::F32).expect("a copy");
    uploader.finish().expect("the copies");
    println!("upload: {:.1} GB/s", bytes.len() as f64 / start.elapsed().as_secs_f64() / 1e9);
    let back: Tensor<1> = k::cuda::tensor(tensor);
    let back = back.into_data();
    assert!(back.as_bytes() == bytes, "other bytes");
}

/// A card puts published MXFP4 in the order in which it reads it: the bytes are those that the host makes. The first
/// matrices take more than one buffer; the last have a band longer than what shared memory has without asking.
#[test]
#[ignore = "needs a card"]
fn published_mxfp4_is_put_in_tiles_by_the_card() {
    let card = card();
    let mut loader = Loader::new(&card).expect("pinned memory");
    for shape @ [count, rows, columns] in [[5, 5760, 2880], [3, 416, 320], [1, 16, 32], [2, 48, 7168]] {
        let layout = Mxfp4Layout::new(shape, &card).expect("whole tiles");
        let numbers = count * rows * columns;
        let made = |n: usize, most: u64| -> Vec<u8> {
            (0..n as u64).map(|i| ((i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % most) as u8).collect()
        };
        for (piece, published) in
            [(Mxfp4Piece::Blocks, made(numbers / 2, 256)), (Mxfp4Piece::Scales, made(numbers / 32, 129))]
        {
            let mut expected = vec![0; published.len()];
            layout.write(piece, &published, 0, &mut expected);
            let arrived = loader.mxfp4(&layout, piece, &published).expect("a copy").into_data();
            assert!(arrived.as_bytes() == expected, "{shape:?} {piece:?}");
            assert!(expected != published, "another order");
        }
    }
    loader.finish().expect("the copies");
}

#[test]
#[ignore = "needs a card"]
fn a_part_of_a_tensor_is_filled_and_the_rest_stays() {
    let card = card();
    let mut loader = Loader::new(&card).expect("pinned memory");
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let room = loader.room(6, DType::F32).expect("memory");
    loader.fill(&room, 3, &bytes(&[4.0, 5.0, 6.0])).expect("a copy");
    loader.fill(&room, 0, &bytes(&[1.0, 2.0, 3.0])).expect("a copy");
    loader.fill(&room, 1, &bytes(&[7.0])).expect("a copy");
    assert!(loader.fill(&room, 5, &bytes(&[1.0, 2.0])).is_err(), "beyond the end");
    assert_eq!(floats(room), [1.0, 7.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
#[ignore = "needs a card"]
fn integers_keep_their_type_on_the_way() {
    let card = card();
    let bytes = Tensor::<1, Int>::from_data(TensorData::new(vec![0u8, 255, 7], [3]), (&card, DType::U8));
    assert_eq!(bytes.into_data().as_bytes(), [0, 255, 7]);
}
