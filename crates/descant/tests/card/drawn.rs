//! Drawing tokens on the card is the definition on the host, to the bit: which token, and its probability.

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels::{Draw, DrawnRow, draw_tokens};

use crate::card;

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}

/// Rows of logits as models have them, and as they do not: spread, flat, few values, one far off, all the same.
fn logits(vocabulary: usize) -> Vec<Vec<f32>> {
    let mut random = Random(vocabulary as u64);
    let mut row = |value: &mut dyn FnMut(&mut Random) -> f32| -> Vec<f32> {
        (0..vocabulary).map(|_| half(value(&mut random))).collect()
    };
    let mut rows = vec![
        row(&mut |random| 3.0 * random.normal()),
        row(&mut |random| 0.01 * random.normal()),
        row(&mut |random| (2.0 * random.normal()).round()),
        row(&mut |random| random.normal() - 20.0),
        row(&mut |_| 1.5),
    ];
    rows[3][vocabulary / 3] = -30_000.0;
    rows
}

/// Rounded to bf16, as a card has it.
fn half(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// Temperature, top-k, top-p, min-p, penalty.
const SETTINGS: [(f32, u32, f32, f32, f32); 12] = [
    (0.0, 0, 1.0, 0.0, 1.0),
    (0.0, 0, 1.0, 0.0, 1.7),
    (1.0, 0, 1.0, 0.0, 1.0),
    (0.6, 0, 0.95, 0.0, 1.0),
    (1.0, 40, 1.0, 0.0, 1.0),
    (1.5, 5000, 1.0, 0.0, 1.0),
    (1.0, 0, 1.0, 0.05, 1.0),
    (3.0, 0, 0.999, 0.0, 1.3),
    (0.2, 0, 0.5, 0.2, 0.8),
    (1.2, 3000, 0.9, 0.01, 1.1),
    (1e-20, 7, 0.3, 0.0, 1.0),
    (100.0, 0, 1.0, 0.0, 1.0),
];

#[test]
#[ignore = "needs a card"]
fn a_card_draws_what_the_definition_draws() {
    let (card, host) = (card(), Device::flex());
    let (mut compared, mut distinct) = (0, std::collections::BTreeSet::new());
    for vocabulary in [40, 1000, 201_088] {
        let seen: Vec<u32> = (0..vocabulary as u32).filter(|id| id % 7 == 2).collect();
        for values in logits(vocabulary) {
            let mut rows = Vec::new();
            for (n, (temperature, top_k, top_p, min_p, penalty)) in SETTINGS.into_iter().enumerate() {
                let draw = Draw::new(temperature, top_k, top_p, min_p, penalty).with_stream(3, n as u64);
                for step in 0..4 {
                    rows.push(DrawnRow { draw, step, seen: &seen, wants_probability: step % 2 == 0 });
                }
            }
            let all: Vec<f32> = rows.iter().flat_map(|_| values.iter().copied()).collect();
            let data = TensorData::new(all, [rows.len(), vocabulary]);
            let on_card = Tensor::<2>::from_data(data.clone(), (&*card, DType::BF16));
            let on_host = Tensor::<2>::from_data(data, (&host, DType::F32));
            let found = draw_tokens(on_card, &rows).expect("the card draws");
            let right = draw_tokens(on_host, &rows).expect("the host draws");
            for (row, (found, right)) in rows.iter().zip(found.iter().zip(&right)) {
                assert_eq!(found.id, right.id, "{vocabulary}: {row:?}");
                assert_eq!(found.log_probability(), right.log_probability(), "{vocabulary}");
                distinct.insert(right.id);
                compared += 1;
            }
        }
    }
    assert!(compared == 3 * 5 * 48 && distinct.len() > 100, "{compared} draws, {} tokens", distinct.len());
}

#[test]
#[ignore = "needs a card"]
fn a_logit_that_is_not_finite_is_told() {
    let card = card();
    let draw = Draw::new(1.0, 0, 1.0, 0.0, 1.0);
    let row = DrawnRow { draw, step: 0, seen: &[], wants_probability: false };
    for (bad, is_bad) in [(f32::NAN, true), (f32::INFINITY, true), (f32::NEG_INFINITY, true), (2.0, false)] {
        let mut values = vec![0.5; 64];
        values[37] = bad;
        let logits = Tensor::<2>::from_data(TensorData::new(values, [1, 64]), (&*card, DType::BF16));
        let drawn = draw_tokens(logits, &[row]).expect("the card draws");
        assert_eq!(drawn[0].id.is_none(), is_bad, "{bad}");
    }
}
