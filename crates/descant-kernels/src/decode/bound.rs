//! A layer as a step reads it: addresses of its frozen tensors, and its adapter in the form that a step's kernels read,
//! packed once.

use burn_cubecl::tensor::CubeTensor;

use super::experts::columns as step_columns;
use super::split::{MOST_GROUP, MOST_HEAD_DIM};
use crate::cuda::geometry::STEP_WIDTH;
use crate::cuda::{CudaError, DeviceMemory, Gpu, InPlace, Result, Run, contiguous, primitive};
use crate::layer::LayerPairs;
use crate::layer::call::Prepared;
use crate::layer::frame::Pair;
use crate::layer::frozen::{DenseData, FrozenTensors};
use crate::layer::lora::{self, Part, Whole};
use crate::memory::LayerSizes;
use crate::op::experts::cuda::ExpertData;
use crate::site::{Paths, PerSite, SiteKind};
use crate::stream::{Half, StreamedMatrix};

/// See the head of the file.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) frozen: FrozenTensors<u64>,
    /// Columns of the low-rank rows of attention, 0 for none, and their factors: A, and s B.
    pub(super) paths: Paths,
    pub(super) input: [u64; 2],
    pub(super) output: [u64; 2],
    /// The router's weight with its pair, f32.
    pub(super) router: Option<u64>,
    pub(super) experts_on_host: bool,
    pub(super) gate_up: Option<ExpertFactors>,
    pub(super) down: Option<ExpertFactors>,
    pub(super) window: Option<usize>,
    pub(super) epsilon: f64,
    pub(super) limit: f32,
}

/// An experts' pair: A `[experts, rank, in]`, and s B `[experts, out, columns]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpertFactors {
    pub(super) rank: usize,
    pub(super) a: u64,
    pub(super) b: u64,
}

/// Whether the kernels of a step read the layer as it lies; why not.
pub(super) fn serves(layer: &Prepared, pairs: &LayerPairs) -> std::result::Result<(), &'static str> {
    let is_plain = |of: &DenseData<CubeTensor>| matches!(of, DenseData::Plain(_));
    let is_packed = |of: &ExpertData<CubeTensor>| !matches!(of, ExpertData::Bf16(_));
    let frozen = &layer.frozen;
    let mut of_experts =
        pairs.iter().filter(|(kind, _)| kind.is_expert()).filter_map(|(_, pair)| pair.as_ref());
    if !is_plain(&frozen.qkv) || !is_plain(&frozen.output) {
        return Err("the card's decoder does not read attention that is packed (NF4)");
    }
    if !is_packed(&frozen.gate_up) || !is_packed(&frozen.down) {
        return Err("the card's decoder does not read experts that are not packed");
    }
    let of = &layer.spec;
    if of.n_heads > MOST_GROUP * of.n_kv || of.head_dim > MOST_HEAD_DIM || !of.head_dim.is_multiple_of(16) {
        return Err("the card's decoder does not serve heads of this shape");
    }
    if layer.sizes.hidden.max(layer.sizes.inner) > STEP_WIDTH {
        return Err("the card's decoder does not serve rows of this width");
    }
    if !of_experts.all(|pair| step_columns(pair.a.dims()[1]).is_some()) {
        return Err("the card's decoder does not take adapters of this rank at experts");
    }
    Ok(())
}

/// The layer with its pairs, the memory that these are packed in, and what keeps the frozen tensors in place. Low-rank
/// rows of experts have so many columns.
pub(super) fn bind(
    gpu: &Gpu,
    layer: &Prepared,
    pairs: &LayerPairs,
    columns: usize,
) -> Result<(Bound, DeviceMemory, InPlace)> {
    let mut handles = Vec::new();
    let mut hold = |tensor: CubeTensor| {
        handles.push(tensor.handle);
        handles.len() - 1
    };
    let frozen = layer.frozen.map(&mut |tensor| hold(tensor.clone()));
    let factors: PerSite<Option<[usize; 2]>> = pairs.map(|pair| {
        let pair = pair.as_ref()?;
        let plain = |tensor: &burn::tensor::Tensor<3>| primitive(tensor.clone()).ok().map(contiguous);
        Some([hold(plain(&pair.a)?), hold(plain(&pair.b)?)])
    });
    let in_place = gpu.in_place(handles)?;
    let addresses = in_place.addresses();
    let mut frozen = frozen.map(&mut |index| addresses[*index]);
    // Of experts on the host those that are chosen are read where they are.
    if let Some(StreamedMatrix { ring, layer, .. }) = &layer.streamed {
        let on_host = |half| {
            let data = ring.in_place(*layer, half)?;
            data.ok_or_else(|| {
                CudaError::backend("a decoder reads experts on the host from pinned memory alone")
            })
        };
        (frozen.gate_up, frozen.down) = (on_host(Half::GateUp)?, on_host(Half::Down)?);
    }
    let pairs = PerSite::from_fn(|kind| {
        let ([a, b], of) = (factors[kind]?, pairs[kind].as_ref()?);
        Some(Pair { a: addresses[a], b: addresses[b], rank: of.a.dims()[1], scaling: of.scaling })
    });
    let adapter = Adapter { sizes: layer.sizes, pairs, paths: ranks(&pairs), columns };
    let (_, bytes) = adapter.places(0);
    let memory = DeviceMemory::new(gpu, bytes)?;
    let (places, _) = adapter.places(memory.address());
    let router = frozen.router;
    gpu.call(Vec::new(), |run, _| adapter.pack(run, &places, router))?;
    let of_experts = |kind, [a, b]: [u64; 2]| pairs[kind].map(|pair| ExpertFactors { rank: pair.rank, a, b });
    let bound = Bound {
        frozen,
        paths: adapter.paths,
        input: places.input,
        output: places.output,
        router: pairs[SiteKind::Router].map(|_| places.router),
        experts_on_host: layer.streamed.is_some(),
        gate_up: of_experts(SiteKind::GateUp, places.gate_up),
        down: of_experts(SiteKind::Down, places.down),
        window: layer.spec.window,
        epsilon: layer.spec.epsilon,
        limit: layer.spec.limit,
    };
    Ok((bound, memory, in_place))
}

fn ranks(pairs: &PerSite<Option<Pair>>) -> Paths {
    Paths::new(&pairs.map(|pair| pair.map_or(0, |pair| pair.rank)))
}

/// A layer's pairs, and how they are packed.
struct Adapter {
    sizes: LayerSizes,
    pairs: PerSite<Option<Pair>>,
    paths: Paths,
    columns: usize,
}

/// Where packed factors begin, A and B of each.
#[derive(Debug, Clone, Copy)]
struct Places {
    input: [u64; 2],
    output: [u64; 2],
    router: u64,
    gate_up: [u64; 2],
    down: [u64; 2],
}

const ALIGNMENT: usize = 256;
const BF16: usize = 2;
const F32: usize = 4;

impl Adapter {
    fn places(&self, start: u64) -> (Places, usize) {
        let (s, paths, mut end) = (&self.sizes, &self.paths, 0);
        let mut take = |numbers: usize, bytes: usize| {
            let at = start + end as u64;
            end = (end + numbers * bytes).next_multiple_of(ALIGNMENT);
            at
        };
        let router = if paths.router > 0 { s.n_experts * s.hidden } else { 0 };
        let of_b =
            |rank: usize, outputs: usize| if rank > 0 { s.n_experts * outputs * self.columns } else { 0 };
        let places = Places {
            input: [take(paths.input * s.hidden, BF16), take(s.qkv() * paths.input, BF16)],
            output: [take(paths.output * s.query, BF16), take(s.hidden * paths.output, BF16)],
            router: take(router, F32),
            gate_up: [
                take(s.n_experts * paths.gate_up * s.hidden, BF16),
                take(of_b(paths.gate_up, 2 * s.inner), BF16),
            ],
            down: [take(s.n_experts * paths.down * s.inner, BF16), take(of_b(paths.down, s.hidden), BF16)],
        };
        (places, end)
    }

    fn pack(&self, run: &Run<'_>, to: &Places, router: u64) -> Result<()> {
        let (s, wholes) = (&self.sizes, self.wholes(to));
        if !wholes.is_empty() {
            lora::pack(run, &wholes)?;
        }
        if let Some(pair) = self.pairs[SiteKind::Router] {
            lora::merge_router(run, router, pair, to.router, s.n_experts, s.hidden)?;
        }
        let of_experts = [
            (SiteKind::GateUp, s.hidden, 2 * s.inner, to.gate_up),
            (SiteKind::Down, s.inner, s.hidden, to.down),
        ];
        for (kind, inputs, outputs, [a, b]) in of_experts {
            let Some(pair) = self.pairs[kind] else { continue };
            let (n, columns) = (s.n_experts, self.columns);
            lora::pack_experts(run, pair.a, a, n, [pair.rank, inputs], false, 1.0, inputs)?;
            lora::pack_experts(run, pair.b, b, n, [outputs, pair.rank], false, pair.scaling, columns)?;
        }
        Ok(())
    }

    /// The factors of attention's two products: A below each other, and s B at the columns of its rank.
    fn wholes(&self, to: &Places) -> Vec<Whole> {
        let (s, paths) = (&self.sizes, &self.paths);
        let a = |pair: &Pair, column, inputs| Part {
            address: pair.a,
            at: [column, 0],
            shape: [pair.rank, inputs],
            factor: 1.0,
        };
        let b = |pair: &Pair, at, outputs| Part {
            address: pair.b,
            at,
            shape: [outputs, pair.rank],
            factor: pair.scaling,
        };
        let mut wholes = Vec::new();
        let (mut column, mut of_a, mut of_b) = (0, Vec::new(), Vec::new());
        for (kind, row, outputs) in s.input_rows() {
            let Some(pair) = &self.pairs[kind] else { continue };
            of_a.push(a(pair, column, s.hidden));
            of_b.push(b(pair, [row, column], outputs));
            column += pair.rank;
        }
        if column > 0 {
            let [at_a, at_b] = to.input;
            wholes.push(Whole { address: at_a, shape: [paths.input, s.hidden], parts: of_a });
            wholes.push(Whole { address: at_b, shape: [s.qkv(), paths.input], parts: of_b });
        }
        if let Some(pair) = &self.pairs[SiteKind::Output] {
            let ([at_a, at_b], of_a) = (to.output, vec![a(pair, 0, s.query)]);
            wholes.push(Whole { address: at_a, shape: [paths.output, s.query], parts: of_a });
            let of_b = vec![b(pair, [0, 0], s.hidden)];
            wholes.push(Whole { address: at_b, shape: [s.hidden, paths.output], parts: of_b });
        }
        wholes
    }
}
