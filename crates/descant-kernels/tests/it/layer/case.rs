//! A layer from the definitions, and the layer's own form on a card.

use burn::tensor::{DType, Device, Tensor, TensorData};
use descant_kernels as k;
use k::reference as definition;
use k::{
    Angles, AttentionSpec, DecoderLayer, DenseWeight, FrozenWeight, Groups, LayerPairs, LayerPlace,
    LayerSpec, LayerTensors, LowRankPair, Segments, SiteKind, Workspace, read_floats,
};

use crate::card::{error, on, rounded, weight_on};
use crate::support::{Random, mxfp4};

pub(crate) const HIDDEN: usize = 160;
pub(crate) const INNER: usize = 96;
pub(crate) const HEADS: usize = 8;
pub(crate) const N_KV: usize = 2;
pub(crate) const DIM: usize = 64;
/// Every token goes to every expert: a choice near an edge would be another in bf16, and not a rounded one.
pub(crate) const EXPERTS: usize = 4;
pub(crate) const LENGTHS: [usize; 3] = [77, 1, 140];

/// Norm of the difference by norm of the definition's, of the output and of a gradient.
pub(crate) const OUTPUT: f64 = 2e-2;
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
pub(crate) struct Case {
    pub(crate) tensors: LayerTensors,
    pub(crate) spec: LayerSpec,
    pub(crate) x: Tensor<2>,
    pub(crate) seed: Tensor<2>,
    pub(crate) pairs: LayerPairs,
    pub(crate) angles: Angles,
    pub(crate) segments: Segments,
}

impl Case {
    pub(crate) fn new(
        packed: bool,
        sites: &[SiteKind],
        window: Option<usize>,
        lengths: &[usize],
        seed: u64,
    ) -> Self {
        Self::sized([HIDDEN, INNER], packed, sites, window, lengths, seed)
    }

    /// With so many features of the residual stream and between the experts' products.
    pub(crate) fn sized(
        [hidden, inner]: [usize; 2],
        packed: bool,
        sites: &[SiteKind],
        window: Option<usize>,
        lengths: &[usize],
        seed: u64,
    ) -> Self {
        let mut random = Random(seed);
        let (query, key_value) = (HEADS * DIM, N_KV * DIM);
        let qkv = query + 2 * key_value;
        let small = |x: Tensor<2>, n: usize| rounded(x * (n as f64).sqrt().recip());
        let mut bank = |outputs: usize, inputs: usize| {
            if packed {
                mxfp4(&mut random, [EXPERTS, outputs, inputs], 121, 123)
            } else {
                let scale = (inputs as f64).sqrt().recip();
                FrozenWeight::Transposed(rounded(random.floats([EXPERTS, inputs, outputs]) * scale))
            }
        };
        let (gate_up, down) = (bank(2 * inner, hidden), bank(hidden, inner));
        let tensors = LayerTensors {
            input_norm: random.floats([hidden]),
            attention_input: small(random.floats([qkv, hidden]), hidden).into(),
            attention_input_bias: rounded(random.floats([qkv])),
            sinks: random.floats([HEADS]),
            output: small(random.floats([hidden, query]), query).into(),
            output_bias: rounded(random.floats([hidden])),
            post_norm: random.floats([hidden]),
            router: small(random.floats([EXPERTS, hidden]), hidden),
            router_bias: random.floats([EXPERTS]),
            gate_up,
            gate_up_bias: rounded(random.floats([EXPERTS, 2 * inner])),
            down,
            down_bias: rounded(random.floats([EXPERTS, hidden])),
        };
        let dims = |kind: SiteKind| match kind {
            SiteKind::Query => (1, hidden, query),
            SiteKind::Key | SiteKind::Value => (1, hidden, key_value),
            SiteKind::Output => (1, query, hidden),
            SiteKind::Router => (1, hidden, EXPERTS),
            SiteKind::GateUp => (EXPERTS, hidden, 2 * inner),
            SiteKind::Down => (EXPERTS, inner, hidden),
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
            x: rounded(random.floats([tokens, hidden])),
            seed: rounded(random.floats([tokens, hidden])),
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
    pub(crate) fn prepared(&self, card: &Device, workspace: &Workspace) -> DecoderLayer {
        let of = &self.tensors;
        let half = |x: &Tensor<2>| on(x, card, DType::BF16);
        let vector = |x: &Tensor<1>| on(x, card, DType::BF16);
        let fine = |x: &Tensor<1>| on(x, card, DType::F32);
        let bank = |weight: &FrozenWeight| weight_on(weight, card, DType::BF16);
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
    pub(crate) fn own(&self, card: &Device, layer: &DecoderLayer) -> Vec<(String, Vec<f32>)> {
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
    pub(crate) fn far(&self, what: &str, own: &[(String, Vec<f32>)]) -> Vec<String> {
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
pub(crate) type Found = (String, Vec<f32>);

pub(crate) fn bits(of: &[(String, Vec<f32>)]) -> Vec<(String, Vec<u32>)> {
    of.iter().map(|(name, v)| (name.clone(), v.iter().map(|x| x.to_bits()).collect())).collect()
}
