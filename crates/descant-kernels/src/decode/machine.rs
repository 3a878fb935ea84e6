//! The decoder on a card: its memory, its recorded steps, and what is queued.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Tensor};
use burn_cubecl::tensor::CubeTensor;

use super::bound::{Bound, bind, expert_columns, paths, serves};
use super::buffers::{Buffers, Sizes, entries, splits};
use super::step::{Program, Shape};
use super::types::{
    MANY_ROWS, STEP_ROWS, STEPS_AHEAD, StepCache, StepChoice, StepModel, StepRow, StepTable, THIN_ROWS,
    step_rows,
};
use crate::cuda::graph::Graph;
use crate::cuda::structures::DRAWN_BYTES;
use crate::cuda::{
    CudaError, DeviceMemory, Event, Gpu, HostMemory, InPlace, Result, Run, contiguous, empty, floats,
    index_of, primitive, tensor, watches_routing,
};
use crate::layer::{DecoderLayer, LayerPairs};
use crate::op::pick::Drawn;
use crate::site::{ExpertPath, Paths};

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Machine {
    shared: Arc<Shared>,
    /// The sequences of the next step that is queued.
    rows: Vec<StepRow>,
    /// Steps that were queued and not read: which place of `told` each writes, and what.
    queued: VecDeque<(usize, StepChoice)>,
    next_place: usize,
}

/// What queued work needs for as long as it may run.
#[derive(Debug)]
struct Shared {
    gpu: Gpu,
    program: Program,
    /// Where the host reads what was chosen, `[STEPS_AHEAD, rows]`, and when each place was written.
    told: HostMemory,
    written: Vec<Event>,
    /// What a step writes for the host, by shape and place: nothing at its first use, which loads what it needs, and a graph since.
    graphs: Mutex<BTreeMap<(Shape, usize), Option<Graph>>>,
    device: burn::backend::tensor::Device<burn_cubecl::CubeBackend>,
    _memory: Vec<DeviceMemory>,
    /// Keeps every tensor that a step reads or writes where its addresses say.
    _in_place: Vec<InPlace>,
    /// Whose experts may lie on the host.
    _layers: Vec<DecoderLayer>,
    _table: StepTable,
}

impl Machine {
    pub(super) fn new(
        model: &StepModel<'_>,
        cache: StepCache,
        rows: usize,
    ) -> Result<std::result::Result<Self, &'static str>> {
        let Some(index) = index_of(&model.head.device()) else { return Ok(Err("the model lies on no card")) };
        let refused = model.layers.iter().find_map(|(layer, pairs)| serves(layer.prepared(), pairs).err());
        if let Some(reason) = refused {
            return Ok(Err(reason));
        }
        let Some((first, _)) = model.layers.first() else { return Ok(Err("the model has no layers")) };
        if rows > STEP_ROWS {
            let what = format!("a step of {rows} sequences, of {STEP_ROWS} at most");
            return Err(CudaError::Workspace(what));
        }
        let (first, gpu) = (first.prepared(), Gpu::of(index)?);
        let [vocabulary, hidden] = model.head.dims();
        let ranks = |pairs: &LayerPairs| pairs.map(|pair| pair.as_ref().map_or(0, |pair| pair.a.dims()[1]));
        let widest = model
            .layers
            .iter()
            .map(|(_, pairs)| paths(&ranks(pairs)))
            .fold(Paths::default(), |widest, paths| widest.union(&paths));
        let of_experts = ExpertPath::ALL.into_iter().map(|path| widest[path]).max().unwrap_or(0);
        let Some(expert_columns) = expert_columns(of_experts, gpu.is_hopper() && rows > MANY_ROWS) else {
            return Err(CudaError::Workspace(format!("rank {of_experts} at experts in a step")));
        };
        let (mut layers, mut memory, mut in_place) = (Vec::<Bound>::new(), Vec::new(), Vec::new());
        for (layer, pairs) in &model.layers {
            let (bound, own, frozen) = bind(&gpu, layer.prepared(), pairs, expert_columns)?;
            layers.push(bound);
            memory.push(own);
            in_place.push(frozen);
        }
        let (of, spec) = (first.sizes, first.spec);
        let sizes = Sizes {
            rows: step_rows(rows),
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
            // A table may have an entry without a page.
            pages: entries(cache.pages) + entries(1) * step_rows(rows),
            paths: widest,
            expert_columns,
            expert_rank: of_experts,
        };
        let mut take = |tensor: CubeTensor| -> Result<u64> {
            let held = gpu.in_place(vec![tensor.handle])?;
            let address = held.addresses()[0];
            in_place.push(held);
            Ok(address)
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
        let told = HostMemory::new(&gpu, STEPS_AHEAD * sizes.rows * DRAWN_BYTES)?;
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
            _in_place: in_place,
            _layers: model.layers.iter().map(|(layer, _)| DecoderLayer::clone(layer)).collect(),
            _table: model.embedding.clone(),
        };
        Ok(Ok(Self { shared: Arc::new(shared), rows: Vec::new(), queued: VecDeque::new(), next_place: 0 }))
    }

    pub(super) fn set(&mut self, rows: &[StepRow]) -> Result<()> {
        let of = &self.shared.program.sizes;
        let tables: Vec<usize> = rows.iter().map(|row| entries(row.pages.len())).collect();
        let pages: usize = tables.iter().sum();
        if rows.is_empty() || rows.len() > of.rows || pages > of.pages || !rows.iter().all(StepRow::has_room)
        {
            let what = format!(
                "{} sequences with {pages} pages in a step made for {} with {}",
                rows.len(),
                of.rows,
                of.pages
            );
            return Err(CudaError::Workspace(what));
        }
        self.queued.clear();
        self.rows = rows.to_vec();
        let bytes = |values: &mut dyn Iterator<Item = usize>| -> Vec<u8> {
            values.flat_map(|value| (value as i32).to_le_bytes()).collect()
        };
        let table = |(row, entries): (&StepRow, &usize)| {
            let pages = row.pages.iter().map(|page| *page as usize).chain(std::iter::repeat(0));
            pages.take(*entries).collect::<Vec<_>>()
        };
        let first = tables.iter().scan(0, |next, entries| Some(std::mem::replace(next, *next + entries)));
        let at = &self.shared.program.at;
        let uploads = [
            (at.ids, bytes(&mut rows.iter().map(|row| row.id as usize))),
            (at.positions, bytes(&mut rows.iter().map(|row| row.position))),
            (at.slots, bytes(&mut rows.iter().map(|row| row.slot))),
            (at.pages, bytes(&mut rows.iter().zip(&tables).flat_map(table))),
            (at.first_page, bytes(&mut first.into_iter())),
            (at.adapted, bytes(&mut rows.iter().map(|row| usize::from(row.adapted)))),
            (at.draws, rows.iter().flat_map(|row| row.draw.row().bytes()).collect()),
        ];
        let masks: Vec<(u64, Vec<u8>)> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.draw.draw.penalizes())
            .map(|(b, row)| {
                let mask = row.draw.row().mask(of.vocabulary);
                (at.seen + (b * mask.len()) as u64, mask)
            })
            .collect();
        self.shared.gpu.enqueue(Vec::new(), move |run, _| {
            uploads.iter().chain(&masks).try_for_each(|(to, bytes)| run.upload(*to, bytes))
        });
        Ok(())
    }

    pub(super) fn step(&mut self, choice: StepChoice, ahead: bool) -> Result<Vec<Drawn>> {
        let most = if ahead { STEPS_AHEAD } else { 1 };
        while self.queued.len() < most && (self.queued.is_empty() || self.rows.iter().all(StepRow::has_room))
        {
            let place = self.queue(choice);
            self.queued.push_back((place, choice));
        }
        let told = self.queued()?;
        Ok(told.expect("a step was queued above"))
    }

    pub(super) fn queued(&mut self) -> Result<Option<Vec<Drawn>>> {
        let Some((place, choice)) = self.queued.pop_front() else { return Ok(None) };
        self.settle(place)?;
        let bytes = self.rows.len() * DRAWN_BYTES;
        let start = self.shared.told_at(place);
        let told = &self.shared.told.bytes()[start..start + bytes];
        let read = |bytes| match choice {
            // The id alone was written.
            StepChoice::Likeliest | StepChoice::Logits => Drawn::likeliest(bytes),
            StepChoice::Drawn => Drawn::read(bytes),
        };
        Ok(Some(told.chunks_exact(DRAWN_BYTES).map(read).collect()))
    }

    pub(super) fn logits(&mut self) -> Result<Tensor<2>> {
        let place = self.queue(StepChoice::Logits);
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
    fn queue(&mut self, choice: StepChoice) -> usize {
        let place = self.next_place;
        self.next_place = (place + 1) % STEPS_AHEAD;
        let longest = self.rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
        let splits = splits(longest).next_power_of_two();
        let shape = Shape { rows: self.rows.len(), splits, choice };
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
    /// Where a place of `told` begins.
    fn told_at(&self, place: usize) -> usize {
        place * self.program.sizes.rows * DRAWN_BYTES
    }

    /// The first step of a shape is launched as it is, which loads kernels; the next one is recorded.
    fn step(&self, run: &Run<'_>, shape: Shape, place: usize) -> Result<()> {
        let told = self.told.address() + self.told_at(place) as u64;
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        // Products of many rows take so long that the host keeps up, and a batch that shrinks would have a recording for
        // each of its sizes; cuBLASLt's are not always ready to be recorded.
        let is_thin = shape.rows <= THIN_ROWS && self.program.at.many.is_none();
        let is_recorded = is_thin && !run.gpu().recorder().is_on() && !watches_routing();
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
