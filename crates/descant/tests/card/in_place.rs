//! Addresses that outlive a closure, those of recorded steps above all: the pool moves buffers when it gives memory back.

use burn::tensor::{DType, Tensor, TensorData};
use descant_kernels::Workspace;
use descant_kernels::cuda::{Gpu, empty, primitive};

use crate::card;

/// Bytes of a tensor that finds room in a page made for a large one, and of a large one.
const SMALL: usize = 100 << 10;
const LARGE: usize = 1 << 30;

#[test]
#[ignore = "needs a card"]
fn what_is_in_place_stays_there_when_the_pool_moves_others() {
    let card = card();
    let gpu = Gpu::of(0).expect("the card");
    let small = || {
        let data = TensorData::new(vec![1.5f32; SMALL / 4], [SMALL / 4]);
        primitive(Tensor::<1>::from_data(data, &*card)).expect("on the card")
    };
    let address = |handle| gpu.call(vec![handle], |_, at| Ok(at[0])).expect("an address");
    // Each large tensor outgrows the pages that there were: what lies in those is moved into its page.
    let loose = small();
    let first = empty([LARGE], DType::U8, &loose.device);
    let fixed = small();
    let held = gpu.in_place(vec![fixed.handle.clone()]).expect("in place");
    let second = empty([2 * LARGE], DType::U8, &loose.device);
    let before = [address(loose.handle.clone()), address(fixed.handle.clone())];
    assert_eq!(held.addresses(), [before[1]]);
    drop(first);
    let give_back = || assert!(Workspace::default().room(&card).expect("the driver says").is_some());
    give_back();
    assert_eq!(address(fixed.handle.clone()), before[1]);
    // The controls: one that nobody holds in place, and the same once it is no longer held.
    assert_ne!(address(loose.handle.clone()), before[0], "the pool moved nothing");
    drop(held);
    give_back();
    assert_ne!(address(fixed.handle.clone()), before[1], "the pool moved nothing more");
    drop(second);
}
