//! Figures beside plain definitions, and gates on both of their sides.

use super::*;

/// Numbers without a pattern.
fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn gradients(all: &[(&str, Vec<f32>)]) -> Gradients {
    Gradients(all.iter().map(|(name, values)| ((*name).to_owned(), values.clone())).collect())
}

/// One that is within the gates of a whole model.
fn good() -> Deviation {
    let worst = |value| Some(Worst { tensor: "layers.3.q_proj B".to_owned(), value });
    Deviation {
        conversations: 4,
        tokens: 4096,
        trained_tokens: 3000,
        compared_tokens: 2048,
        loss: 2.0,
        loss_fp8: 1.9998,
        divergence: 4.1e-4,
        gradients: 96,
        zero_gradients: 96,
        cosine: worst(0.9971),
        norm: worst(-0.012),
    }
}

#[test]
fn a_gradient_is_compared_by_its_angle_and_its_length() {
    let (a, b) = (numbers(1, 1000), numbers(2, 1000));
    let (mut dot, mut aa, mut bb) = (0.0_f64, 0.0_f64, 0.0_f64);
    for at in 0..1000 {
        let (x, y) = (f64::from(a[at]), f64::from(b[at]));
        (dot, aa, bb) = (dot + x * y, aa + x * x, bb + y * y);
    }
    let (cosine, norm) = compared(&a, &b).unwrap();
    assert!((cosine - dot / (aa * bb).sqrt()).abs() < 1e-12 && cosine.abs() < 0.2);
    assert!((norm - ((bb / aa).sqrt() - 1.0)).abs() < 1e-12);
    let twice: Vec<f32> = a.iter().map(|x| 2.0 * x).collect();
    let (cosine, norm) = compared(&a, &twice).unwrap();
    assert!((cosine - 1.0).abs() < 1e-12 && (norm - 1.0).abs() < 1e-12);
    let back: Vec<f32> = a.iter().map(|x| -x).collect();
    let (cosine, norm) = compared(&a, &back).unwrap();
    assert!((cosine + 1.0).abs() < 1e-12 && norm.abs() < 1e-12);
}

#[test]
fn what_is_zero_in_both_is_counted_and_what_is_zero_in_one_is_as_far_off_as_can_be() {
    let a = numbers(1, 50);
    assert_eq!(compared(&[0.0; 9], &[-0.0; 9]), None);
    assert_eq!(compared(&[0.0; 50], &a), Some((0.0, 1.0)));
    assert_eq!(compared(&a, &[0.0; 50]), Some((0.0, -1.0)));
    let one = gradients(&[("x A", vec![0.0; 9]), ("x B", a.clone())]);
    let all = one.compared(&one);
    assert_eq!((all.count, all.zero), (1, 1));
    assert_eq!(all.cosine.unwrap().tensor, "x B");
    let none = gradients(&[("x A", vec![0.0; 9])]);
    assert!(none.compared(&none).cosine.is_none());
}

#[test]
fn the_worst_is_named_and_what_is_no_number_is_worse_than_any() {
    let of = |seeds: [u32; 3]| {
        gradients(&[("x", numbers(seeds[0], 99)), ("y", numbers(seeds[1], 99)), ("z", numbers(seeds[2], 99))])
    };
    let worst = |one: &Gradients, other: &Gradients| {
        let all = one.compared(other);
        (all.cosine.unwrap().tensor, all.norm.unwrap().tensor)
    };
    assert_eq!(worst(&of([1, 2, 3]), &of([1, 9, 3])), ("y".to_owned(), "y".to_owned()));
    let mut broken = of([1, 9, 3]);
    broken.0[0].1[5] = f32::NAN;
    assert_eq!(worst(&of([1, 2, 3]), &broken), ("x".to_owned(), "x".to_owned()));
    let mut broken = of([1, 9, 3]);
    broken.0[2].1[5] = f32::NAN;
    assert_eq!(worst(&of([1, 2, 3]), &broken), ("z".to_owned(), "z".to_owned()));
}

#[test]
fn a_gate_is_named_with_its_figure_where_it_is_passed_and_no_other() {
    let gates = Gates::WHOLE_MODEL;
    assert!(good().beyond(&gates).is_empty() && good().warning().is_none());
    let worst = |value| Some(Worst { tensor: "layers.3.q_proj B".to_owned(), value });
    for (bad, said) in [
        (Deviation { loss_fp8: 2.0041, ..good() }, "the loss differs by 0.21 % (at most 0.20 %)"),
        (Deviation { loss_fp8: f64::NAN, ..good() }, "the loss differs by NaN % (at most 0.20 %)"),
        (Deviation { divergence: 5.5e-3, ..good() }, "the mean divergence is 5.5e-3 nats (at most 2.0e-3)"),
        (
            Deviation { cosine: worst(0.981), ..good() },
            "the gradient of layers.3.q_proj B has a cosine of 0.9810 (at least 0.995)",
        ),
        (Deviation { cosine: worst(f64::NAN), ..good() }, "a cosine of NaN"),
        (
            Deviation { norm: worst(-0.031), ..good() },
            "the norm of the gradient of layers.3.q_proj B differs by 3.1 % (at most 2.0 %)",
        ),
    ] {
        let beyond = bad.beyond(&gates);
        assert!(beyond.len() == 1 && beyond[0].contains(said), "{beyond:?}");
        let warning = bad.warning().unwrap();
        assert!(warning.contains(said) && warning.contains("train.experts = \"bf16\""), "{warning}");
    }
}

#[test]
fn figures_are_read_as_they_were_written_and_what_was_no_number_is_none() {
    let text = serde_json::to_string(&good()).unwrap();
    assert_eq!(serde_json::from_str::<Deviation>(&text).unwrap(), good());
    let text = serde_json::to_string(&Deviation { divergence: f64::NAN, ..good() }).unwrap();
    assert!(text.contains("\"divergence\":null"), "{text}");
    assert!(serde_json::from_str::<Deviation>(&text).unwrap().divergence.is_nan());
}

#[test]
fn the_words_have_every_figure() {
    assert_eq!(
        good().words(),
        "fp8 beside bf16 on 4096 tokens: loss 0.010 % lower, mean divergence 4.1e-4 nats, gradients' least cosine 0.9971 \
         (layers.3.q_proj B), norms within 1.20 % (layers.3.q_proj B); 96 of 192 gradients are zero in both"
    );
}
