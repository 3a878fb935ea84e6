//! What is held, brought and given types on a card.

use burn::tensor::{DType, Int, Tensor, TensorData};
use descant_kernels as k;
use descant_kernels::cuda::{Gpu, Uploader};

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
    let back = k::cuda::tensor::<1>(tensor).into_data();
    assert!(back.as_bytes() == bytes, "other bytes");
}

#[test]
#[ignore = "needs a card"]
fn integers_keep_their_type_on_the_way() {
    let card = card();
    let bytes = Tensor::<1, Int>::from_data(TensorData::new(vec![0u8, 255, 7], [3]), (&card, DType::U8));
    assert_eq!(bytes.into_data().as_bytes(), [0, 255, 7]);
}
