//! Losses come from sizes alone, whatever a process computed before.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::process::Command;

use burn::tensor::DType;
use descant_kernels as k;
use descant_kernels::{LogitsRoom, Workspace, read_floats};

use super::case::{Case, DIM, EXPERTS, HEADS, HIDDEN, INNER, N_KV};
use crate::card::{card, ints_on, on, rounded};
use crate::support::{Random, ints};

/// Bits of losses and of their gradient, and with `longer` what they are behind a longer batch.
fn losses(longer: bool) -> [Vec<u32>; 2] {
    let card = card();
    let (rows, words) = (3000, 201_088);
    let mut random = Random(81);
    let head = on(&rounded(random.floats([words, HIDDEN]) * 0.1), &card, DType::BF16);
    let hidden = rounded(random.floats([rows, HIDDEN]));
    let targets: Vec<i32> = (0..rows).map(|_| (random.bits() % words as u64) as i32).collect();
    let targets = ints_on(&ints(&targets, [rows]), &card);
    let case = Case::new(true, &[], None, &[rows], 82);
    let sizes = k::LayerSizes {
        hidden: HIDDEN,
        query: HEADS * DIM,
        key_value: N_KV * DIM,
        n_heads: HEADS,
        n_experts: EXPERTS,
        top_k: EXPERTS,
        inner: INNER,
        packed_attention: false,
    };
    let workspace = Workspace::default();
    for case in longer.then(|| Case::new(true, &[], None, &[40_000], 83)).iter().chain([&case]) {
        drop(case.own(&card, &case.prepared(&card, &workspace)));
    }
    let room = LogitsRoom::within(&workspace, &sizes, rows, k::wants_rows_in_order(&card));
    let leaf = on(&hidden, &card.clone().autodiff(), DType::BF16).detach().require_grad();
    let losses = k::token_losses(leaf.clone(), &head, &targets, &room);
    let grads = losses.clone().sum().backward();
    let gradient = leaf.grad(&grads).expect("a gradient");
    let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect();
    [bits(read_floats(losses).expect("values")), bits(read_floats(gradient).expect("values"))]
}

/// Set in a process that the test below starts: whether there is a longer batch first.
const LONGER: &str = "DESCANT_TEST_LONGER_BATCH";
const SAID: &str = "bits of losses: ";

/// The same in a process of its own.
fn losses_elsewhere(longer: bool) -> String {
    let test = "layer::losses::sizes_alone_decide_the_bits_of_losses";
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", test, "--nocapture"])
        .env(LONGER, longer.to_string())
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    let bits = said.lines().find_map(|line| line.split_once(SAID)).map(|(_, bits)| bits.to_owned());
    bits.unwrap_or_else(|| panic!("{}: {said}{}", child.status, String::from_utf8_lossy(&child.stderr)))
}

fn digest(of: &[Vec<u32>; 2]) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Whatever was computed before, here and in processes of their own, with a vocabulary of several pieces.
#[test]
#[ignore = "needs a card"]
fn sizes_alone_decide_the_bits_of_losses() {
    if let Some(longer) = std::env::var_os(LONGER) {
        println!("{SAID}{}", digest(&losses(longer == "true")));
        return;
    }
    let alone = losses(false);
    assert!(alone == losses(true), "other bits behind a longer batch");
    let alone = digest(&alone);
    for longer in [false, true] {
        assert_eq!(losses_elsewhere(longer), alone, "in another process, a longer batch first: {longer}");
    }
}
