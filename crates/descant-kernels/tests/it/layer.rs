//! The whole layer as one operator against the layer put together from the definitions, forward and every gradient,
//! in every form: kept or run again, Hopper's kernels or those of other cards, packed experts or not. And what
//! workspaces promise: threads do not disturb each other, and nothing depends on what ran before.

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels as k;
use k::reference as definition;
use k::{
    Angles, AttentionSpec, Chunks, Claim, DecoderLayer, DenseWeight, FrozenWeight, Groups, Keep, LayerPairs,
    LayerPlace, LayerSpec, LayerTensors, LogitsRoom, LowRankPair, Segments, SiteKind, Workspace, read_floats,
};

use crate::card::{card, error, on, rounded};
use crate::support::{Random, ints};

const HIDDEN: usize = 160;
const INNER: usize = 96;
const HEADS: usize = 8;
const N_KV: usize = 2;
const DIM: usize = 64;
/// Every token goes to every expert: a choice near an edge would be another in bf16, and not a rounded one.
const EXPERTS: usize = 4;
const LENGTHS: [usize; 3] = [77, 1, 140];

/// Norm of the difference by norm of the definition's, of the output and of a gradient.
const OUTPUT: f64 = 2e-2;
const GRADIENT: f64 = 6e-2;

const SPEC: LayerSpec = LayerSpec {
    n_heads: HEADS,
    n_kv: N_KV,
    head_dim: DIM,
    top_k: EXPERTS,
    window: Some(64),
    epsilon: 1e-5,
    limit: 7.0,
};

fn plain(weight: &DenseWeight) -> &Tensor<2> {
    match weight {
        DenseWeight::Plain(weight) => weight,
        DenseWeight::Packed(_) => unreachable!("no attention is packed here"),
    }
}

/// A layer, its pairs and its input in f32 on the CPU, with values that bf16 holds where the card has bf16.
struct Case {
    tensors: LayerTensors,
    spec: LayerSpec,
    x: Tensor<2>,
    seed: Tensor<2>,
    pairs: LayerPairs,
    angles: Angles,
    segments: Segments,
}

impl Case {
    fn new(packed: bool, sites: &[SiteKind], window: Option<usize>, lengths: &[usize], seed: u64) -> Self {
        let mut random = Random(seed);
        let (query, key_value) = (HEADS * DIM, N_KV * DIM);
        let qkv = query + 2 * key_value;
        let small = |x: Tensor<2>, n: usize| rounded(x * (n as f64).sqrt().recip());
        let mut bank = |outputs: usize, inputs: usize| {
            if packed {
                FrozenWeight::Mxfp4 {
                    blocks: random.bytes([EXPERTS, outputs, inputs / 32, 16], 0, 255),
                    scales: random.bytes([EXPERTS, outputs, inputs / 32], 121, 123),
                }
            } else {
                let scale = (inputs as f64).sqrt().recip();
                FrozenWeight::Transposed(rounded(random.floats([EXPERTS, inputs, outputs]) * scale))
            }
        };
        let (gate_up, down) = (bank(2 * INNER, HIDDEN), bank(HIDDEN, INNER));
        let tensors = LayerTensors {
            input_norm: random.floats([HIDDEN]),
            attention_input: small(random.floats([qkv, HIDDEN]), HIDDEN).into(),
            attention_input_bias: rounded(random.floats([qkv])),
            sinks: random.floats([HEADS]),
            output: small(random.floats([HIDDEN, query]), query).into(),
            output_bias: rounded(random.floats([HIDDEN])),
            post_norm: random.floats([HIDDEN]),
            router: small(random.floats([EXPERTS, HIDDEN]), HIDDEN),
            router_bias: random.floats([EXPERTS]),
            gate_up,
            gate_up_bias: rounded(random.floats([EXPERTS, 2 * INNER])),
            down,
            down_bias: rounded(random.floats([EXPERTS, HIDDEN])),
        };
        let dims = |kind: SiteKind| match kind {
            SiteKind::Query => (1, HIDDEN, query),
            SiteKind::Key | SiteKind::Value => (1, HIDDEN, key_value),
            SiteKind::Output => (1, query, HIDDEN),
            SiteKind::Router => (1, HIDDEN, EXPERTS),
            SiteKind::GateUp => (EXPERTS, HIDDEN, 2 * INNER),
            SiteKind::Down => (EXPERTS, INNER, HIDDEN),
        };
        let pairs = LayerPairs::from_fn(|kind| {
            let (n, inputs, outputs) = dims(kind);
            // Ranks that differ, so that one site's cannot be taken for another's.
            let rank = 3 + kind as usize;
            sites.contains(&kind).then(|| LowRankPair {
                a: rounded(random.floats([n, rank, inputs]) * (inputs as f64).sqrt().recip()),
                b: rounded(random.floats([n, outputs, rank]) * 0.3),
                scaling: 0.5 + kind as usize as f32 / 8.0,
            })
        });
        let tokens = lengths.iter().sum();
        let positions: Vec<usize> = lengths.iter().flat_map(|n| 0..*n).collect();
        let turn = |f: fn(f64) -> f64| {
            let angle =
                |position: usize, i: usize| position as f64 / 150f64.powf(i as f64 / (DIM / 2) as f64);
            let values: Vec<f32> = positions
                .iter()
                .flat_map(|p| (0..DIM / 2).map(|i| f(angle(*p, i)) as f32).collect::<Vec<_>>())
                .collect();
            Tensor::from_data(TensorData::new(values, [tokens, DIM / 2]), &Device::flex())
        };
        Self {
            tensors,
            spec: LayerSpec { window, ..SPEC },
            x: rounded(random.floats([tokens, HIDDEN])),
            seed: rounded(random.floats([tokens, HIDDEN])),
            pairs,
            angles: Angles { cos: turn(f64::cos), sin: turn(f64::sin) },
            segments: Segments::from_lengths(lengths),
        }
    }

    /// The layer from the definitions, in f32.
    fn defined(&self, x: Tensor<2>, pairs: &LayerPairs) -> Tensor<2> {
        let (of, n) = (&self.tensors, x.dims()[0]);
        let (query, key_value) = (HEADS * DIM, N_KV * DIM);
        let site = |kind: SiteKind, x: &Tensor<2>, y: Tensor<2>, groups: &Groups| match &pairs[kind] {
            Some(pair) => {
                y + definition::low_rank(x.clone(), pair.a.clone(), pair.b.clone(), pair.scaling, groups)
            }
            None => y,
        };
        let dense = |x: &Tensor<2>, weight: &Tensor<2>, bias: &Tensor<1>| {
            x.clone().matmul(weight.clone().transpose()) + bias.clone().unsqueeze()
        };
        let one = &Groups::One;
        let normed = definition::rms_norm(x.clone(), &of.input_norm, self.spec.epsilon);
        let qkv = dense(&normed, plain(&of.attention_input), &of.attention_input_bias);
        let part =
            |kind, start: usize, rows: usize| site(kind, &normed, qkv.clone().narrow(1, start, rows), one);
        let q = part(SiteKind::Query, 0, query).reshape([n, HEADS, DIM]);
        let k = part(SiteKind::Key, query, key_value).reshape([n, N_KV, DIM]);
        let v = part(SiteKind::Value, query + key_value, key_value).reshape([n, N_KV, DIM]);
        let Angles { cos, sin } = &self.angles;
        let (q, k) = (definition::rotary(q, cos, sin), definition::rotary(k, cos, sin));
        let spec = AttentionSpec { window: self.spec.window, scale: (DIM as f32).sqrt().recip() };
        let attended = definition::attention(q, k, v, &of.sinks, spec, &self.segments).reshape([n, query]);
        let output = dense(&attended, plain(&of.output), &of.output_bias);
        let middle = x + site(SiteKind::Output, &attended, output, one);
        let normed = definition::rms_norm(middle.clone(), &of.post_norm, self.spec.epsilon);
        let logits = site(SiteKind::Router, &normed, dense(&normed, &of.router, &of.router_bias), one);
        let routing = definition::route(&logits, self.spec.top_k);
        let weights = definition::expert_weights(logits, &routing);
        let groups = routing.groups();
        let taken = definition::take_tokens(normed, &routing);
        let gate_up = definition::linear(taken.clone(), &of.gate_up, Some(&of.gate_up_bias), &groups);
        let inner = definition::swiglu(site(SiteKind::GateUp, &taken, gate_up, &groups), self.spec.limit);
        let down = definition::linear(inner.clone(), &of.down, Some(&of.down_bias), &groups);
        let down = site(SiteKind::Down, &inner, down, &groups);
        middle + definition::combine_experts(down, weights, &routing)
    }

    /// The layer's own form, in a workspace.
    fn prepared(&self, card: &Device, workspace: &Workspace) -> DecoderLayer {
        let of = &self.tensors;
        let half = |x: &Tensor<2>| on(x, card, DType::BF16);
        let vector = |x: &Tensor<1>| on(x, card, DType::BF16);
        let fine = |x: &Tensor<1>| on(x, card, DType::F32);
        let bank = |weight: &FrozenWeight| match weight {
            FrozenWeight::Mxfp4 { .. } => crate::card::mxfp4_on(weight, card),
            FrozenWeight::Transposed(weight) => FrozenWeight::Transposed(on(weight, card, DType::BF16)),
            _ => unreachable!("no expert is stored so here"),
        };
        let tensors = LayerTensors {
            input_norm: fine(&of.input_norm),
            attention_input: half(plain(&of.attention_input)).into(),
            attention_input_bias: vector(&of.attention_input_bias),
            sinks: fine(&of.sinks),
            output: half(plain(&of.output)).into(),
            output_bias: vector(&of.output_bias),
            post_norm: fine(&of.post_norm),
            router: half(&of.router),
            router_bias: fine(&of.router_bias),
            gate_up: bank(&of.gate_up),
            gate_up_bias: half(&of.gate_up_bias),
            down: bank(&of.down),
            down_bias: half(&of.down_bias),
        };
        let place = LayerPlace { index: 0, windows: [self.spec.window].into() };
        DecoderLayer::new(&tensors, self.spec, place, workspace).expect("a card has the form")
    }

    /// Output and gradients of input and pairs, by name, of the layer's own form.
    fn own(&self, card: &Device, layer: &DecoderLayer) -> Vec<(String, Vec<f32>)> {
        let angles = Angles {
            cos: on(&self.angles.cos, card, DType::F32),
            sin: on(&self.angles.sin, card, DType::F32),
        };
        self.outcome(&card.clone().autodiff(), DType::BF16, |x, pairs| {
            layer.forward(x, pairs, &angles, &self.segments)
        })
    }

    fn outcome(
        &self,
        graph: &Device,
        dtype: DType,
        f: impl Fn(Tensor<2>, &LayerPairs) -> Tensor<2>,
    ) -> Vec<(String, Vec<f32>)> {
        let leaf = |x: &Tensor<3>| on(x, graph, DType::F32).detach().require_grad();
        let x = on(&self.x, graph, dtype).detach().require_grad();
        let pairs = self.pairs.map(|pair| {
            let pair = pair.as_ref()?;
            Some(LowRankPair { a: leaf(&pair.a), b: leaf(&pair.b), scaling: pair.scaling })
        });
        let y = f(x.clone(), &pairs);
        let seed = on(&self.seed, graph, dtype);
        let grads = (y.clone() * seed).sum().backward();
        let read = |x: Option<Vec<f32>>| x.expect("a gradient");
        let mut all = vec![
            ("output".to_owned(), read_floats(y).expect("values")),
            ("input".to_owned(), read(x.grad(&grads).map(|g| read_floats(g).expect("values")))),
        ];
        for (kind, pair) in pairs.iter() {
            let Some(pair) = pair else { continue };
            for (which, tensor) in [("A", &pair.a), ("B", &pair.b)] {
                let gradient = tensor.grad(&grads).map(|g| read_floats(g).expect("values"));
                all.push((format!("{} {which}", kind.name()), read(gradient)));
            }
        }
        all
    }

    /// Where the layer's own form is far from the definition.
    fn far(&self, what: &str, own: &[(String, Vec<f32>)]) -> Vec<String> {
        let defined = self.outcome(&Device::flex().autodiff(), DType::F32, |x, pairs| self.defined(x, pairs));
        let pairs = own.iter().zip(&defined).map(|((name, a), (same, b))| {
            assert_eq!(name, same);
            (name, error(a, b), if name == "output" { OUTPUT } else { GRADIENT })
        });
        pairs
            .filter(|(_, off, tolerance)| off.is_nan() || off > tolerance)
            .map(|(name, off, _)| format!("{what}: {name} {off:.2e}"))
            .collect()
    }
}

/// A result and its name.
type Found = (String, Vec<f32>);

fn bits(of: &[(String, Vec<f32>)]) -> Vec<(String, Vec<u32>)> {
    of.iter().map(|(name, v)| (name.clone(), v.iter().map(|x| x.to_bits()).collect())).collect()
}

#[test]
#[ignore = "needs a card"]
fn a_layer_equals_its_definition_whatever_is_kept() {
    let card = card();
    let mut found = Vec::new();
    for (packed, sites, window) in [
        (true, &SiteKind::ALL[..], Some(64)),
        (true, &SiteKind::ALL[..], None),
        (false, &SiteKind::ALL[..], Some(64)),
        (true, &SiteKind::ALL[..4], Some(64)),
        (true, &[SiteKind::Router][..], None),
        (true, &[SiteKind::GateUp][..], None),
        (true, &[SiteKind::Down][..], None),
        (true, &[SiteKind::Key, SiteKind::Output][..], None),
        (true, &[][..], None),
    ] {
        let case = Case::new(packed, sites, window, &LENGTHS, 41);
        let what = format!("packed {packed}, {} sites, window {window:?}", sites.len());
        for kernels in ["own", "portable"] {
            k::cuda::portable_kernels(kernels == "portable");
            let mut all: Option<Vec<(String, Vec<u32>)>> = None;
            for keep in [Keep::All, Keep::Balanced, Keep::Minimal] {
                let workspace = Workspace::default();
                workspace.set(None, keep);
                let own = case.own(&card, &case.prepared(&card, &workspace));
                found.extend(case.far(&format!("{what}, {keep}, {kernels}"), &own));
                let own = bits(&own);
                assert!(
                    all.get_or_insert_with(|| own.clone()) == &own,
                    "{what}, {keep}, {kernels}: other bits"
                );
            }
            k::cuda::portable_kernels(false);
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    // The control: the layer of another seed is far.
    let (one, other) = (
        Case::new(true, &SiteKind::ALL, None, &LENGTHS, 1),
        Case::new(true, &SiteKind::ALL, None, &LENGTHS, 2),
    );
    let own = other.own(&card, &other.prepared(&card, &Workspace::default()));
    assert_eq!(one.far("another", &own).len(), own.len());
}

/// So many tokens that other blocks serve them.
#[test]
#[ignore = "needs a card"]
fn a_batch_of_many_tokens_equals_its_definition() {
    let card = card();
    for sites in [&SiteKind::ALL[..], &[SiteKind::Value][..]] {
        let case = Case::new(true, sites, Some(64), &[140; 31], 43);
        let own = case.own(&card, &case.prepared(&card, &Workspace::default()));
        let found = case.far("many tokens", &own);
        assert!(found.is_empty(), "{found:#?}");
    }
}

/// A long batch goes through the experts in chunks: it equals its halves, each of which is one chunk.
#[test]
#[ignore = "needs a card"]
fn a_long_batch_equals_its_halves_whatever_is_kept() {
    let card = card();
    let (sequences, length) = (34, 512);
    let whole = Case::new(true, &SiteKind::ALL, Some(64), &vec![length; sequences], 91);
    let half = |first: usize| {
        let rows = first..first + sequences / 2 * length;
        let of = |x: &Tensor<2>| x.clone().slice([rows.clone()]);
        let angles = Angles { cos: of(&whole.angles.cos), sin: of(&whole.angles.sin) };
        Case {
            tensors: whole.tensors.clone(),
            spec: whole.spec,
            x: of(&whole.x),
            seed: of(&whole.seed),
            pairs: whole.pairs.clone(),
            angles,
            segments: Segments::from_lengths(&vec![length; sequences / 2]),
        }
    };
    for portable in [false, true] {
        k::cuda::portable_kernels(portable);
        let halves = [0, sequences / 2 * length]
            .map(half)
            .map(|case| case.own(&card, &case.prepared(&card, &Workspace::default())));
        // Rows lie one behind the other; gradients of pairs are sums.
        let joined = |[one, other]: [&Vec<Found>; 2]| -> Vec<Found> {
            let join = |((name, a), (_, b)): (&Found, &Found)| {
                let rows = name == "output" || name == "input";
                let sum = || a.iter().zip(b).map(|(a, b)| a + b).collect();
                (name.clone(), if rows { [&a[..], b].concat() } else { sum() })
            };
            one.iter().zip(other).map(join).collect()
        };
        let expected = joined([&halves[0], &halves[1]]);
        let far = |own: &[Found], expected: &[Found]| -> Vec<String> {
            let of = own.iter().zip(expected).map(|((name, a), (_, b))| (name, error(a, b)));
            of.filter(|(_, off)| off.is_nan() || *off > OUTPUT)
                .map(|(name, off)| format!("{name} {off:.2e}"))
                .collect()
        };
        let mut all: Option<Vec<(String, Vec<u32>)>> = None;
        for keep in [Keep::All, Keep::Balanced, Keep::Minimal] {
            let workspace = Workspace::default();
            workspace.set(None, keep);
            let own = whole.own(&card, &whole.prepared(&card, &workspace));
            assert_eq!(far(&own, &expected), [""; 0], "{keep}, portable {portable}");
            let own = bits(&own);
            assert!(all.get_or_insert_with(|| own.clone()) == &own, "{keep}: other bits");
        }
        // The controls: one half twice, and one half in place of the sum.
        let wrong = joined([&halves[0], &halves[0]]);
        assert_eq!(far(&wrong, &expected).len(), expected.len());
        assert!(far(&halves[0][2..], &expected[2..]).len() == expected.len() - 2);
        k::cuda::portable_kernels(false);
    }
}

/// Which chunks a memory limit asks for changes no bit, since no pair is summed chunk by chunk.
#[test]
#[ignore = "needs a card"]
fn short_chunks_have_the_bits_of_long_ones() {
    let card = card();
    let attention = [SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output];
    let case = Case::new(true, &attention, Some(64), &[512; 34], 92);
    for portable in [false, true] {
        k::cuda::portable_kernels(portable);
        for keep in [Keep::All, Keep::Minimal] {
            let of = |chunks| {
                let workspace = Workspace::default();
                workspace.set(None, keep);
                let _claim = workspace.reserve(Claim { chunks, ..Claim::default() });
                bits(&case.own(&card, &case.prepared(&card, &workspace)))
            };
            let (long, short) = (of(Chunks::Long), of(Chunks::Short));
            assert!(long == short, "{keep}, portable {portable}: other bits");
        }
        k::cuda::portable_kernels(false);
    }
}

/// Threads have streams of their own, and a workspace's layers work in one piece of memory: D2 of the review.
#[test]
#[ignore = "needs a card"]
fn threads_that_share_a_layer_and_a_card_get_the_bits_they_get_alone() {
    let card = card();
    let cases: Vec<Case> = (0..4)
        .map(|seed| Case::new(true, &SiteKind::ALL, None, &[200 + 31 * seed as usize, 17], 60 + seed))
        .collect();
    // One layer for all, as of one model: only input and pairs differ.
    let shared = cases[0].prepared(&card, &Workspace::default());
    let alone: Vec<_> = cases.iter().map(|case| bits(&case.own(&card, &shared))).collect();
    std::thread::scope(|scope| {
        for (case, alone) in cases.iter().zip(&alone) {
            let (card, shared) = (&card, &shared);
            scope.spawn(move || {
                for round in 0..8 {
                    assert!(&bits(&case.own(card, shared)) == alone, "round {round}: other bits");
                }
            });
        }
    });
}

#[test]
#[ignore = "needs a card"]
fn a_thread_gets_its_own_error_and_no_other_thread_does() {
    let card = card();
    let good = Case::new(true, &SiteKind::ALL, None, &[90], 71);
    let layer = good.prepared(&card, &Workspace::default());
    let expected = bits(&good.own(&card, &layer));
    // A limit that nothing fits into fails in the first layer.
    let tight = Workspace::default();
    tight.set(Some(1), Keep::Minimal);
    let bad = good.prepared(&card, &tight);
    std::thread::scope(|scope| {
        let failing = scope.spawn(|| {
            let x = on(&good.x, &card, DType::BF16);
            let angles = Angles {
                cos: on(&good.angles.cos, &card, DType::F32),
                sin: on(&good.angles.sin, &card, DType::F32),
            };
            let y = bad.forward(x, &LayerPairs::default(), &angles, &good.segments);
            read_floats(y).expect_err("more than the limit would be in use")
        });
        let working = scope.spawn(|| (0..6).all(|_| bits(&good.own(&card, &layer)) == expected));
        assert!(failing.join().expect("no panic").out_of_memory);
        assert!(working.join().expect("no panic"));
    });
    assert!(bits(&good.own(&card, &layer)) == expected, "the error is gone with its thread");
}

/// Losses come from sizes alone, whatever was computed before: D1 of the review.
#[test]
#[ignore = "needs a card"]
fn losses_do_not_depend_on_a_longer_batch_before() {
    let card = card();
    let (rows, words) = (3000, 201_088);
    let mut random = Random(81);
    let head = on(&rounded(random.floats([words, HIDDEN]) * 0.1), &card, DType::BF16);
    let hidden = rounded(random.floats([rows, HIDDEN]));
    let targets: Vec<i32> = (0..rows).map(|_| (random.bits() % words as u64) as i32).collect();
    let targets = crate::card::ints_on(&ints(&targets, [rows]), &card);
    let case = Case::new(true, &[], None, &[rows], 82);
    let longer = Case::new(true, &[], None, &[40_000], 83);
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
    let losses = |before: Option<&Case>| {
        let workspace = Workspace::default();
        for case in before.into_iter().chain([&case]) {
            drop(case.own(&card, &case.prepared(&card, &workspace)));
        }
        let room = LogitsRoom::within(&workspace, &sizes, rows, k::wants_rows_in_order(&card));
        let leaf = on(&hidden, &card.clone().autodiff(), DType::BF16).detach().require_grad();
        let losses = k::token_losses(leaf.clone(), &head, &targets, &room);
        let grads = losses.clone().sum().backward();
        let gradient = leaf.grad(&grads).expect("a gradient");
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        (bits(read_floats(losses).expect("values")), bits(read_floats(gradient).expect("values")))
    };
    assert!(losses(None) == losses(Some(&longer)), "other bits behind a longer batch");
}
