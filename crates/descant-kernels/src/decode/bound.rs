//! A layer as a step reads it: addresses of its frozen tensors, and its adapter in the form that a step's kernels read,
//! packed once.

use burn_cubecl::tensor::CubeTensor;

use super::split::{MOST_GROUP, MOST_HEAD_DIM};
use crate::cuda::geometry::STEP_WIDTH;
use crate::cuda::{CudaError, DeviceMemory, Element, Gpu, InPlace, Result, Run, contiguous, primitive};
use crate::layer::LayerPairs;
use crate::layer::factors::{self, Columns, Pair, Stored};
use crate::layer::frozen::{DenseData, FrozenTensors};
use crate::layer::lora;
use crate::layer::prepared::Prepared;
use crate::memory::LayerSizes;
use crate::op::experts::RANK_WIDTH;
use crate::op::experts::matrices::ExpertData;
use crate::site::{DensePath, ExpertPath, PathKind, Paths, PerPath, PerSite, SiteKind};
use crate::stream::{Half, StreamedMatrix};

/// See the head of the file.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) sizes: LayerSizes,
    pub(super) frozen: FrozenTensors<u64>,
    /// Attention's two matrices, bf16.
    pub(super) qkv: u64,
    pub(super) output: u64,
    pub(super) paths: PerPath<PathFactors>,
    /// Columns of the first path.
    pub(super) input: Columns,
    pub(super) experts_on_host: bool,
    pub(super) window: Option<usize>,
    pub(super) epsilon: f64,
    pub(super) limit: f32,
}

/// The factors of a path as a step reads them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PathFactors {
    /// As [`paths`] has it: 0 where the layer has no such path.
    pub(super) columns: usize,
    /// A, with a line for each column; the router's whole weight with its pair, f32.
    pub(super) a: u64,
    /// s B, with a line for each output; of queries, keys and values each with its own kind's columns alone.
    pub(super) b: u64,
}

/// Which low-rank paths a step has for these ranks: columns of a dense one as [`Columns::apart`] has them.
pub(super) fn paths(ranks: &PerSite<usize>) -> Paths {
    let whole = Paths::new(ranks);
    Paths::from_fn(|path| match path {
        PathKind::Dense(path) => Columns::apart(path, ranks).all,
        path => whole[path],
    })
}

/// Columns that the experts' low-rank rows may have.
pub(super) const EXPERT_COLUMNS: [usize; 4] = [0, 8, 16, RANK_WIDTH];

/// How many they have for adapters of this rank, where a kernel takes it; training's grouped products take one width.
pub(super) fn expert_columns(rank: usize, grouped: bool) -> Option<usize> {
    let widths = EXPERT_COLUMNS.into_iter().filter(|columns| !grouped || [0, RANK_WIDTH].contains(columns));
    widths.into_iter().find(|columns| rank <= *columns)
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
    if !of_experts.all(|pair| expert_columns(pair.a.dims()[1], false).is_some()) {
        return Err("the card's decoder does not take adapters of this rank at experts");
    }
    Ok(())
}

/// The layer with its pairs, the memory that these are packed in, and what keeps the frozen tensors in place. Low-rank
/// rows of experts have `expert_columns`.
pub(super) fn bind(
    gpu: &Gpu,
    layer: &Prepared,
    pairs: &LayerPairs,
    expert_columns: usize,
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
    let adapter = Adapter { sizes: layer.sizes, pairs, expert_columns };
    let (_, bytes) = adapter.places(0);
    let memory = DeviceMemory::new(gpu, bytes)?;
    let (paths, _) = adapter.places(memory.address());
    let router = frozen.router;
    let (&DenseData::Plain(qkv), &DenseData::Plain(output)) = (&frozen.qkv, &frozen.output) else {
        return Err(CudaError::backend("a decoder reads attention that is not packed alone"));
    };
    gpu.call(Vec::new(), |run, _| adapter.pack(run, &paths, router))?;
    let bound = Bound {
        sizes: layer.sizes,
        frozen,
        qkv,
        output,
        paths,
        input: Columns::apart(DensePath::Input, &factors::ranks(&pairs)),
        experts_on_host: layer.streamed.is_some(),
        window: layer.spec.window,
        epsilon: layer.spec.epsilon,
        limit: layer.spec.limit,
    };
    Ok((bound, memory, in_place))
}

/// A layer's pairs, and how they are packed.
struct Adapter {
    sizes: LayerSizes,
    pairs: PerSite<Option<Pair>>,
    /// Columns of the experts' low-rank rows.
    expert_columns: usize,
}

const ALIGNMENT: usize = 256;

impl Adapter {
    /// Where packed factors begin, and what they take in all.
    fn places(&self, start: u64) -> (PerPath<PathFactors>, usize) {
        let (s, mut end) = (&self.sizes, 0);
        let ranks = factors::ranks(&self.pairs);
        let columns = paths(&ranks);
        let mut take = |numbers: usize, of: Element| {
            let at = start + end as u64;
            end = (end + numbers * of.bytes()).next_multiple_of(ALIGNMENT);
            at
        };
        let places = PerPath::from_fn(|path| {
            let columns = columns[path];
            if columns == 0 {
                return PathFactors::default();
            }
            let (a, b) = match path {
                PathKind::Dense(path) => {
                    let [outputs, inputs] = s.product(path);
                    let of_b = Columns::apart(path, &ranks).of_b;
                    (take(columns * inputs, Element::Bf16), take(outputs * of_b, Element::Bf16))
                }
                PathKind::Router => (take(s.n_experts * s.hidden, Element::F32), 0),
                PathKind::Expert(path) => {
                    let ([outputs, inputs], n) = (s.matrix(path.site()), s.n_experts);
                    let of_b = n * outputs * self.expert_columns;
                    (take(n * columns * inputs, Element::Bf16), take(of_b, Element::Bf16))
                }
            };
            PathFactors { columns, a, b }
        });
        (places, end)
    }

    fn pack(&self, run: &Run<'_>, to: &PerPath<PathFactors>, router: u64) -> Result<()> {
        let (s, ranks) = (&self.sizes, factors::ranks(&self.pairs));
        let mut wholes = Vec::new();
        for path in DensePath::ALL {
            let PathFactors { columns, a, b } = to[path];
            if columns > 0 {
                let columns = Columns::apart(path, &ranks);
                wholes.extend(factors::dense(path, s, &self.pairs, &columns, [a, b], Stored::Plain));
            }
        }
        lora::pack(run, &wholes)?;
        if let Some(pair) = self.pairs[SiteKind::Router] {
            lora::merge_router(run, router, pair, to.router.a, s.n_experts, s.hidden)?;
        }
        for path in ExpertPath::ALL {
            let Some(pair) = self.pairs[path.site()] else { continue };
            let (shape, PathFactors { a, b, .. }) = (s.matrix(path.site()), to[path]);
            lora::pack_experts(run, pair.expert_a(shape, Stored::Plain), a, s.n_experts, shape[1])?;
            lora::pack_experts(run, pair.expert_b(shape), b, s.n_experts, self.expert_columns)?;
        }
        Ok(())
    }
}
