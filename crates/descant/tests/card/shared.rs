//! Steps that several workers share on a card: the bits of one worker; and NCCL by itself, with as many cards as there
//! are.
//!
//! Here workers are threads on one card, whose gradients go by way of the host: what each adds, and in which order, is
//! what it is between cards. `descant bench step --cards` compares one card with several over NCCL.

use std::net::TcpListener;

use burn::tensor::{Device, Tensor};
use descant_kernels::cuda::nccl::{CardGroup, new_group, version};
use descant_kernels::read_floats;
use descant_train::memory::Arrangement;
use descant_train::{OptimizerKind, OverGroup, Workers};
use descant_workers::{Group, Member, Place, Started};

use crate::models::varied;
use crate::repeat::{train, train_among};
use crate::{card, card_alone, device};

fn group(rank: usize, world: usize, port: u16) -> Group {
    let (host, run, started) = ("127.0.0.1".to_owned(), "test".to_owned(), Started::Torchrun);
    let place = Place { rank, world, local_rank: rank, local_world: world, host, port, run, started };
    let member = Member { version: "1".to_owned(), host: "here".to_owned(), facts: Vec::new() };
    Group::join(&place, &member, |_| ()).expect("all of them come")
}

#[test]
#[ignore = "needs a card"]
fn steps_that_two_and_three_workers_share_have_the_bits_of_one() {
    let card = card();
    let case = varied();
    for (optimizer, how) in [
        (OptimizerKind::AdamW, Arrangement::default()),
        (OptimizerKind::AdamW8bit, Arrangement { together: 2, ..Arrangement::default() }),
    ] {
        let one = train(&case, &card, how, optimizer, None);
        for world in [2, 3] {
            let port =
                TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a port").port();
            std::thread::scope(|scope| {
                let case = &case;
                let worker = move |rank| {
                    let group = group(rank, world, port);
                    let link = OverGroup(&group);
                    let workers = Workers { group: &group, link: &link };
                    train_among(case, &device(), how, optimizer, Some(10), Some(workers))
                };
                let workers: Vec<_> = (0..world).map(|rank| scope.spawn(move || worker(rank))).collect();
                for worker in workers {
                    assert_eq!(worker.join().expect("a worker"), one, "{world} workers, {optimizer:?}");
                }
            });
        }
    }
}

#[test]
#[ignore = "needs a card"]
fn nccl_brings_tensors_to_every_card() {
    let _card = card_alone();
    let cards = descant_kernels::cuda::cards();
    println!("NCCL {} on {cards} cards", version().expect("NCCL is found"));
    let id = new_group().expect("a group");
    std::thread::scope(|scope| {
        let id = &id;
        let worker = move |rank: usize| {
            let device = Device::cuda(rank);
            let group = CardGroup::join(&device, id, rank, cards).expect("all join");
            let of = |scale: usize, n: usize| {
                let values: Vec<f32> = (0..n).map(|i| (scale * 1000 + i) as f32).collect();
                Tensor::<1>::from_floats(values.as_slice(), &device).reshape([1, 1, n])
            };
            // One at a time, and several in one call: from each in turn, twice from one.
            let calls =
                (0..cards).map(|root| vec![root]).chain([(0..cards).collect(), vec![cards - 1, 0, 0]]);
            for roots in calls {
                for n in [5, 4096, 1 << 20] {
                    let sent = roots.iter().enumerate();
                    let sent = sent.map(|(at, root)| (*root, (*root == rank).then(|| of(10 * at + rank, n))));
                    let came = group.exchange(sent.collect(), n).expect("queued");
                    group.finish().expect("it arrives");
                    for (at, (root, came)) in roots.iter().zip(came).enumerate() {
                        let right: Vec<f32> = (0..n).map(|i| ((10 * at + root) * 1000 + i) as f32).collect();
                        let values = read_floats(came).expect("values");
                        assert!(values == right, "rank {rank}, {roots:?}, the one at {at}, {n} numbers");
                    }
                }
            }
        };
        let workers: Vec<_> = (0..cards).map(|rank| scope.spawn(move || worker(rank))).collect();
        for worker in workers {
            worker.join().expect("a worker");
        }
    });
}
