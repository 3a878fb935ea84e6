//! The decoder on a card: its memory, its recorded steps, and what is queued.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::bound::{Bound, Held, bind, serves};
use super::buffers::{Buffers, Sizes, splits};
use super::experts::columns as step_columns;
use super::step::{Program, Shape};
use super::types::{STEP_ROWS, STEPS_AHEAD, StepCache, StepModel, StepRow, StepTable, THIN_ROWS};
use crate::cuda::graph::Graph;
use crate::cuda::{
    CudaError, DeviceMemory, Event, Gpu, HostMemory, Result, Run, contiguous, empty, floats, index_of,
    primitive, tensor,
};
use crate::layer::DecoderLayer;
use crate::site::SiteKind;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Machine {
    shared: Arc<Shared>,
    /// The sequences of the next step that is queued.
    rows: Vec<StepRow>,
    /// Steps that were queued and not read: which place of `told` each writes.
    queued: VecDeque<usize>,
    next_place: usize,
}

/// What queued work needs for as long as it may run.
#[derive(Debug)]
struct Shared {
    gpu: Gpu,
    program: Program,
    /// Where the host reads ids, i32, `[STEPS_AHEAD, rows]`, and when each place was written.
    told: HostMemory,
    written: Vec<Event>,
    /// What is told, by shape and place: nothing at its first use, which loads what it needs, and a graph since.
    graphs: Mutex<BTreeMap<(Shape, usize), Option<Graph>>>,
    device: burn::backend::tensor::Device<burn_cubecl::CubeBackend>,
    _memory: Vec<DeviceMemory>,
    _held: Held,
    /// Whose experts may lie on the host.
    _layers: Vec<DecoderLayer>,
    _table: StepTable,
}

impl Machine {
    pub(super) fn new(model: &StepModel<'_>, cache: StepCache, rows: usize) -> Result<Option<Self>> {
        let Some(index) = index_of(&model.head.device()) else { return Ok(None) };
        let served = model.layers.iter().all(|(layer, pairs)| serves(layer.prepared(), pairs));
        let Some((first, _)) = model.layers.first().filter(|_| served && rows <= STEP_ROWS) else {
            return Ok(None);
        };
        let (first, gpu) = (first.prepared(), Gpu::of(index)?);
        let [vocabulary, hidden] = model.head.dims();
        let columns = |kind: SiteKind| {
            let ranks = model.layers.iter().filter_map(|(_, pairs)| pairs[kind].as_ref());
            ranks.map(|pair| pair.a.dims()[1]).max().unwrap_or(0)
        };
        let of_experts = columns(SiteKind::GateUp).max(columns(SiteKind::Down));
        let expert_columns = if of_experts > 0 { step_columns(of_experts).unwrap_or(0) } else { 0 };
        let (mut layers, mut memory, mut held) = (Vec::<Bound>::new(), Vec::new(), Held::new());
        for (layer, pairs) in &model.layers {
            let (bound, own, tensors) = bind(&gpu, layer.prepared(), pairs, expert_columns)?;
            layers.push(bound);
            memory.push(own);
            held.extend(tensors);
        }
        let widest = |f: fn(&Bound) -> usize| layers.iter().map(f).max().unwrap_or(0);
        let (of, spec) = (first.sizes, first.spec);
        let sizes = Sizes {
            rows,
            hidden,
            query: of.query,
            key_value: of.key_value,
            heads: spec.n_heads,
            key_heads: spec.n_kv,
            head_dim: spec.head_dim,
            inner: of.inner,
            experts: of.n_experts,
            top_k: of.top_k,
            vocabulary,
            capacity: cache.capacity,
            input_columns: widest(|layer| layer.paths.input),
            output_columns: widest(|layer| layer.paths.output),
            expert_columns,
        };
        let mut take = |tensor: CubeTensor| {
            held.push(tensor.clone());
            gpu.call(vec![tensor.handle], |_, at| Ok(at[0]))
        };
        let plain = |tensor: &Tensor<2>| primitive(tensor.clone()).map(contiguous);
        let embedding = match &model.embedding {
            StepTable::Card(table) => take(plain(table)?)?,
            StepTable::Host(table) => table.address(),
        };
        let head = take(plain(&model.head)?)?;
        let norm = take(floats(primitive(model.norm.clone())?))?;
        let [cos, sin] = &cache.angles;
        let angles = [take(floats(primitive(cos.clone())?))?, take(floats(primitive(sin.clone())?))?];
        let mut rows_of = Vec::new();
        for [keys, values] in &cache.layers {
            rows_of.push([take(plain(keys)?)?, take(plain(values)?)?]);
        }
        let (at, own) = Buffers::new(&gpu, &sizes)?;
        memory.push(own);
        let counters = sizes.rows * size_of::<u32>();
        gpu.call(Vec::new(), |run, _| {
            run.memset(at.counters, 0, sizes.key_heads * counters)?;
            run.memset(at.routed, 0, counters)
        })?;
        let told = HostMemory::new(&gpu, STEPS_AHEAD * rows * size_of::<i32>())?;
        let written = (0..STEPS_AHEAD).map(|_| Event::new(false)).collect::<Result<_>>()?;
        let device = first.device();
        let program = Program {
            layers,
            cache: rows_of,
            angles,
            embedding,
            norm,
            head,
            epsilon: model.epsilon,
            sizes,
            at,
        };
        let shared = Shared {
            gpu,
            program,
            told,
            written,
            graphs: Mutex::default(),
            device,
            _memory: memory,
            _held: held,
            _layers: model.layers.iter().map(|(layer, _)| DecoderLayer::clone(layer)).collect(),
            _table: model.embedding.clone(),
        };
        Ok(Some(Self { shared: Arc::new(shared), rows: Vec::new(), queued: VecDeque::new(), next_place: 0 }))
    }

    pub(super) fn set(&mut self, rows: &[StepRow]) -> Result<()> {
        let of = &self.shared.program.sizes;
        if rows.is_empty() || rows.len() > of.rows || rows.iter().any(|row| row.position >= of.capacity) {
            let what =
                format!("{} sequences in a step made for {} of {} tokens", rows.len(), of.rows, of.capacity);
            return Err(CudaError::Workspace(what));
        }
        self.queued.clear();
        self.rows = rows.to_vec();
        let column = |f: fn(&StepRow) -> usize| -> Vec<u8> {
            rows.iter().flat_map(|row| (f(row) as i32).to_le_bytes()).collect()
        };
        let columns = [column(|row| row.id as usize), column(|row| row.position), column(|row| row.slot)];
        let shared = Arc::clone(&self.shared);
        self.shared.gpu.enqueue(Vec::new(), move |run, _| {
            let at = &shared.program.at;
            for (to, bytes) in [at.ids, at.positions, at.slots].into_iter().zip(&columns) {
                run.upload(to, bytes)?;
            }
            Ok(())
        });
        Ok(())
    }

    pub(super) fn step(&mut self) -> Result<Vec<u32>> {
        let has_room = |rows: &[StepRow], capacity| rows.iter().all(|row| row.position < capacity);
        while self.queued.len() < STEPS_AHEAD
            && (self.queued.is_empty() || has_room(&self.rows, self.shared.program.sizes.capacity))
        {
            let place = self.queue(true);
            self.queued.push_back(place);
        }
        let place = self.queued.pop_front().expect("a step was queued above");
        self.settle(place)?;
        let bytes = self.rows.len() * size_of::<i32>();
        let start = place * self.shared.program.sizes.rows * size_of::<i32>();
        let told = &self.shared.told.bytes()[start..start + bytes];
        Ok(told.chunks_exact(4).map(|id| u32::from_le_bytes([id[0], id[1], id[2], id[3]])).collect())
    }

    pub(super) fn logits(&mut self) -> Result<Tensor<2>> {
        let place = self.queue(false);
        let (of, rows) = (&self.shared.program.sizes, self.rows.len());
        let out = empty([rows, of.vocabulary], DType::BF16, &self.shared.device);
        let (shared, bytes) = (Arc::clone(&self.shared), rows * of.vocabulary * DType::BF16.size());
        self.shared.gpu.enqueue(vec![out.handle.clone()], move |run, to| {
            run.copy(to[0], shared.program.at.logits, bytes)
        });
        self.settle(place)?;
        Ok(tensor(out))
    }

    /// Queues a step, and says which place it writes.
    fn queue(&mut self, is_greedy: bool) -> usize {
        let place = self.next_place;
        self.next_place = (place + 1) % STEPS_AHEAD;
        let longest = self.rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
        let most = splits(self.shared.program.sizes.capacity);
        let splits = splits(longest).next_power_of_two().min(most);
        let shape = Shape { rows: self.rows.len(), splits, is_greedy };
        let shared = Arc::clone(&self.shared);
        self.shared.gpu.enqueue(Vec::new(), move |run, _| {
            shared.step(run, shape, place)?;
            shared.written[place].record(run.stream)
        });
        for row in &mut self.rows {
            row.position += 1;
        }
        place
    }

    /// Waits until a step is done.
    fn settle(&self, place: usize) -> Result<()> {
        if let Some(error) = self.shared.gpu.take_error() {
            return Err(error);
        }
        self.shared.gpu.enter()?;
        self.shared.written[place].wait()
    }
}

impl Shared {
    /// The first step of a shape is launched as it is, which loads kernels and chooses products; the next one is recorded.
    fn step(&self, run: &Run<'_>, shape: Shape, place: usize) -> Result<()> {
        let offset = (place * self.program.sizes.rows * size_of::<i32>()) as u64;
        let told = self.told.address() + offset;
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        // Products of many rows take so long that the host keeps up; and cuBLASLt's are not always ready to be recorded.
        let is_recorded = shape.rows <= THIN_ROWS && !run.gpu().recorder().is_on();
        if !is_recorded || !graphs.keys().any(|(known, _)| *known == shape) {
            graphs.insert((shape, place), None);
            return self.program.launch(run, shape, told);
        }
        let graph = graphs.entry((shape, place)).or_insert(None);
        if graph.is_none() {
            *graph = Some(Graph::record(run, |run| self.program.launch(run, shape, told))?);
        }
        graph.as_ref().expect("it was just made").launch(run.stream)
    }
}
