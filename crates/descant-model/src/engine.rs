//! The loop of generation: slots are filled, prompts go into the cache in chunks, and between them every step adds a token
//! to each sequence whose prompt is there.
//!
//! Steps are the card's own decoder's, where there is one (`decode.rs`), else the forward pass's. Prompts are always the
//! forward pass's. A sequence has all its memory from its beginning, so that nothing fails in the middle of a reply.

use burn::tensor::Tensor;
use descant_kernels::{
    DrawnRow, STEP_ROWS, StepChoice, StepDraw, StepRow, WIDE_ROWS, best_tokens, draw_tokens, is_cpu,
    read_floats, step_rows,
};

use crate::cache::{KeyValueCache, Rings};
use crate::capacity::{CacheSize, pages_for};
use crate::decode::CardSteps;
use crate::error::{Error, Result};
use crate::model::{GptOss, Pass};
use crate::overlay::{Bare, Overlay};
use crate::run::{Chosen, Run};
use crate::slots::{Active, Chunks, Slots};

/// Slots where nobody says how many.
const SLOTS_ON_CARD: usize = STEP_ROWS;
const SLOTS_ON_CPU: usize = 64;
/// Of the slots of a card, the share that is refilled together.
const REFILLED: usize = 16;

const LOGITS_ON_HOST: &str = "log-probabilities of the likeliest tokens are the host's work, which is slower";

/// Whatever continues prompts, made for some of them.
pub(crate) struct Engine<'a> {
    model: &'a GptOss,
    overlay: &'a dyn Overlay,
    cache: KeyValueCache,
    slots: usize,
    card: Option<CardSteps>,
    /// Where sequences stay from turn to turn.
    conversation: Option<Conversation>,
}

/// A conversation with one side or both, each in a slot of its own.
struct Conversation {
    /// Whether the overlay takes part, by slot.
    sides: Vec<bool>,
    /// Tokens that each side has room for.
    reserved: usize,
    /// Of each side, the prompt of its last turn but for the last token, and what the rings had behind it.
    kept: Vec<Option<(Vec<u32>, Rings)>>,
}

impl<'a> Engine<'a> {
    /// One for these sequences of a run.
    ///
    /// # Errors
    /// Memory does not hold the longest of them.
    pub(crate) fn new(
        model: &'a GptOss,
        overlay: &'a dyn Overlay,
        sequences: &[usize],
        run: &Run<'_>,
    ) -> Result<Self> {
        let needs = sequences.iter().map(|&sequence| run.most_tokens(sequence)).collect();
        let size = size(model, sequences, needs, run)?;
        let adapter = sequences.iter().any(|&sequence| run.requests[sequence].adapter);
        let longest = sequences.iter().map(|&sequence| run.most_tokens(sequence)).max().unwrap_or(1);
        Self::with(model, overlay, size, adapter, longest)
    }

    /// One for the turns of a conversation of so many tokens at most, with these sides: whether the overlay takes part.
    ///
    /// # Errors
    /// Memory does not hold it.
    pub(crate) fn for_conversation(
        model: &'a GptOss,
        overlay: &'a dyn Overlay,
        sides: &[bool],
        tokens: usize,
        run: &Run<'_>,
    ) -> Result<Self> {
        let size = size_of_conversation(model, sides.len(), tokens, run)?;
        let new = Self::with(model, overlay, size, sides.contains(&true), tokens)?;
        let kept = sides.iter().map(|_| None).collect();
        let conversation = Some(Conversation { sides: sides.to_vec(), reserved: tokens, kept });
        Ok(Self { conversation, ..new })
    }

    fn with(
        model: &'a GptOss,
        overlay: &'a dyn Overlay,
        size: CacheSize,
        adapter: bool,
        longest: usize,
    ) -> Result<Self> {
        let cache = KeyValueCache::new(&model.config, size, model.device());
        let of_steps: &dyn Overlay = if adapter { overlay } else { &Bare };
        let card = CardSteps::new(model, of_steps, &cache, size, longest)?;
        let slots = size.slots;
        Ok(Self { model, overlay, cache, slots, card, conversation: None })
    }

    /// The sides of a conversation.
    pub(crate) fn sides(&self) -> &[bool] {
        self.conversation.as_ref().map_or(&[], |conversation| &conversation.sides)
    }

    /// Tokens that each side of a conversation has room for.
    pub(crate) fn reserved(&self) -> usize {
        self.conversation.as_ref().map_or(0, |conversation| conversation.reserved)
    }

    /// Continues the sequences to their ends. However it ends, no slot is taken then.
    ///
    /// # Errors
    /// Logits are not finite; the device failed.
    pub(crate) fn serve(&mut self, sequences: &[usize], run: &mut Run<'_>) -> Result<()> {
        let refill = if self.card.is_some() { self.slots / REFILLED } else { 1 };
        let waiting = sequences.iter().map(|&sequence| waiting(sequence, run));
        let result = self.run(Slots::new(self.slots, refill, waiting), run);
        self.empty();
        result
    }

    /// The next turn of a conversation: the replies to these prompts, each of a side of its own. How many tokens of each
    /// prompt needed no pass, since the turn before of its side began with them.
    ///
    /// # Errors
    /// As [`serve`](Self::serve); what was kept is lost then.
    ///
    /// # Panics
    /// If this was not made for a conversation with these sides.
    pub(crate) fn turn(&mut self, sequences: &[usize], run: &mut Run<'_>) -> Result<Vec<usize>> {
        let mut reused = Vec::with_capacity(sequences.len());
        let mut seated = Vec::with_capacity(sequences.len());
        for &sequence in sequences {
            let request = &run.requests[sequence];
            let slot = self.sides().iter().position(|side| *side == request.adapter);
            let slot = slot.expect("it was made for this side");
            reused.push(self.go_back(slot, &request.prompt));
            seated.push((slot, waiting(sequence, run)));
        }
        let result = self.run(Slots::seated(self.slots, seated), run);
        if result.is_err() {
            self.empty();
        }
        result.map(|()| reused)
    }

    /// Goes back to where the prompt of the last turn ended, if this one begins with it: how many of its tokens need no
    /// pass. Else nothing of the last turn is left.
    fn go_back(&mut self, slot: usize, prompt: &[u32]) -> usize {
        let before = &prompt[..prompt.len() - 1];
        let conversation =
            self.conversation.as_mut().expect("there is a turn before in a conversation alone");
        let kept = &mut conversation.kept[slot];
        match kept.take() {
            Some((tokens, rings)) if before.starts_with(&tokens) => {
                self.cache.go_back(slot, tokens.len(), &rings);
                let count = tokens.len();
                *kept = (before.len() == count).then_some((tokens, rings));
                count
            }
            _ => {
                self.cache.end(slot);
                let has_begun = self.cache.begin(slot, conversation.reserved);
                assert!(has_begun, "the cache was made for all sides");
                0
            }
        }
    }

    /// Nothing is in the cache then.
    fn empty(&mut self) {
        for kept in self.conversation.iter_mut().flat_map(|conversation| &mut conversation.kept) {
            *kept = None;
        }
        for slot in 0..self.slots {
            self.cache.end(slot);
        }
        debug_assert!(self.cache.is_empty());
    }

    /// Continues those who wait and those who have slots.
    fn run(&mut self, mut slots: Slots, run: &mut Run<'_>) -> Result<()> {
        if let Some(card) = &mut self.card {
            card.forget();
        }
        while !slots.is_done() && !run.ended_all {
            slots.admit(|slot, sequence| self.cache.begin(slot, run.most_tokens(sequence)));
            if let Some(chunks) = slots.chunks(|slot| self.cache.length(slot)) {
                self.fill(&chunks, run);
            }
            let ready = slots.ready(|slot| self.cache.length(slot));
            if ready.is_empty() {
                continue;
            }
            self.keep(&ready, run);
            for (active, chosen) in self.step(&ready, slots.fills(), run)? {
                if !run.take(active.sequence, chosen) {
                    slots.end(active.slot);
                    if self.conversation.is_none() {
                        self.cache.end(active.slot);
                    }
                }
                if run.ended_all {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Of a conversation, keeps what the next turn may begin with: the reply overwrites rings.
    fn keep(&mut self, ready: &[Active], run: &Run<'_>) {
        let Some(conversation) = &mut self.conversation else { return };
        for active in ready {
            conversation.kept[active.slot].get_or_insert_with(|| {
                let tokens = run.requests[active.sequence].prompt[..active.prompt].to_vec();
                (tokens, self.cache.rings(active.slot))
            });
        }
    }

    /// Brings chunks of prompts into the cache.
    fn fill(&mut self, chunks: &Chunks, run: &Run<'_>) {
        let mut ids = Vec::new();
        for (active, count) in &chunks.parts {
            let start = self.cache.length(active.slot);
            ids.extend_from_slice(&run.requests[active.sequence].prompt[start..start + count]);
        }
        let slots: Vec<usize> = chunks.parts.iter().map(|(active, _)| active.slot).collect();
        let counts: Vec<usize> = chunks.parts.iter().map(|(_, count)| *count).collect();
        // A card's steps give a sequence the bits that it has alone; what they begin with must have them too.
        let is_apart = self.card.is_some();
        self.forward(&slots, &ids, &counts, chunks.adapter, is_apart);
    }

    /// Takes these sequences a token further.
    fn step(&mut self, ready: &[Active], fills: bool, run: &Run<'_>) -> Result<Vec<(Active, Chosen)>> {
        let Some(card) = &mut self.card else { return self.plain_step(ready, run) };
        let cache = &self.cache;
        let row = |active: &Active| step_row(active, cache, run);
        let chosen = if run.wants_logits() {
            if self.model.said.is_new(LOGITS_ON_HOST) {
                tracing::info!("{LOGITS_ON_HOST}");
            }
            let logits = card.logits(ready, row)?;
            ready.iter().copied().zip(self.choose(logits, ready, run)?).collect()
        } else {
            let takes_best = ready.iter().all(|active| run.takes_the_likeliest(active.sequence));
            let choice = if takes_best { StepChoice::Likeliest } else { StepChoice::Drawn };
            let drawn = card.step(ready, row, choice, !fills)?;
            let chosen =
                drawn.iter().map(|(active, drawn)| Ok((*active, run.drawn(active.sequence, drawn)?)));
            chosen.collect::<Result<Vec<_>>>()?
        };
        for (active, _) in &chosen {
            self.cache.advance(active.slot, 1);
        }
        Ok(chosen)
    }

    /// The same by the forward pass, base and overlay one after the other.
    fn plain_step(&mut self, ready: &[Active], run: &Run<'_>) -> Result<Vec<(Active, Chosen)>> {
        let mut all = Vec::with_capacity(ready.len());
        for adapter in [false, true] {
            let side: Vec<Active> = ready.iter().copied().filter(|one| one.adapter == adapter).collect();
            if side.is_empty() {
                continue;
            }
            let slots: Vec<usize> = side.iter().map(|active| active.slot).collect();
            let ids: Vec<u32> = side.iter().map(|active| run.last(active.sequence)).collect();
            let hidden = self.forward(&slots, &ids, &vec![1; ids.len()], adapter, false);
            let logits = self.model.logits(hidden);
            let chosen = self.choose(logits, &side, run)?;
            all.extend(side.into_iter().zip(chosen));
        }
        all.sort_by_key(|(active, _)| active.slot);
        Ok(all)
    }

    /// Adds `counts` tokens to the sequences in `slots`; hidden states behind the last norm.
    fn forward(
        &mut self,
        slots: &[usize],
        ids: &[u32],
        counts: &[usize],
        adapter: bool,
        is_apart: bool,
    ) -> Tensor<2> {
        let rows = self.cache.extend(slots, counts);
        let segments = rows.lane(None).segments.clone();
        let cache = Some((&mut self.cache, &rows));
        let overlay: &dyn Overlay = if adapter { self.overlay } else { &Bare };
        let mut pass = Pass { ids, positions: &rows.positions, segments, cache, is_apart, chosen: None };
        self.model.forward(&mut pass, overlay)
    }

    /// The next token of each of these. On a card it is chosen where the logits are, unless more of them is wanted.
    fn choose(&self, logits: Tensor<2>, active: &[Active], run: &Run<'_>) -> Result<Vec<Chosen>> {
        if !is_cpu(self.model.device()) && !run.wants_logits() {
            if active.iter().all(|active| run.takes_the_likeliest(active.sequence)) {
                return Ok(best_tokens(logits)?.into_iter().map(Chosen::plain).collect());
            }
            let rows: Vec<_> = active.iter().map(|active| run.draw(active.sequence)).collect();
            let drawn = draw_tokens(logits, &rows)?;
            return active
                .iter()
                .zip(&drawn)
                .map(|(active, drawn)| run.drawn(active.sequence, drawn))
                .collect();
        }
        let width = logits.dims()[1];
        let values = read_floats(logits)?;
        let rows = values.chunks_exact(width);
        active.iter().zip(rows).map(|(active, row)| run.choose(active.sequence, row)).collect()
    }
}

/// A sequence as a card's step takes it.
fn step_row(active: &Active, cache: &KeyValueCache, run: &Run<'_>) -> StepRow {
    let DrawnRow { draw, step, seen, wants_probability } = run.draw(active.sequence);
    StepRow {
        slot: active.slot,
        pages: cache.pages(active.slot).to_vec(),
        id: run.last(active.sequence),
        position: cache.length(active.slot),
        adapted: active.adapter,
        draw: StepDraw { draw, step, seen: seen.to_vec(), wants_probability },
    }
}

/// A sequence as slots know it.
fn waiting(sequence: usize, run: &Run<'_>) -> (usize, bool, usize) {
    let request = &run.requests[sequence];
    (sequence, request.adapter, request.prompt.len() - 1)
}

/// How large a cache a conversation of so many tokens gets, for each of its sides.
fn size_of_conversation(model: &GptOss, sides: usize, tokens: usize, run: &Run<'_>) -> Result<CacheSize> {
    let on_card = !is_cpu(model.device());
    let bytes = |size: CacheSize| size.with_work(&model.config, on_card);
    let size = CacheSize::of(sides, tokens);
    let allowed =
        run.options.cache_tokens.map(|tokens| bytes(CacheSize { pages: pages_for(tokens), ..size }));
    let free = model.workspace().room(model.device())?.into_iter().chain(allowed).min();
    match (bytes(size), free) {
        (needed, Some(free)) if needed > free => Err(Error::NoRoom { index: 0, tokens, needed, free }),
        _ => Ok(size),
    }
}

/// How large a cache these sequences get: as asked for, or what memory holds.
/// They need so many tokens each.
fn size(model: &GptOss, sequences: &[usize], tokens: Vec<usize>, run: &Run<'_>) -> Result<CacheSize> {
    let on_card = !is_cpu(model.device());
    let most = if on_card { SLOTS_ON_CARD } else { SLOTS_ON_CPU };
    let asked = run.options.at_once.unwrap_or(most).clamp(1, if on_card { STEP_ROWS } else { usize::MAX });
    let mut needs: Vec<usize> = tokens.iter().map(|&tokens| pages_for(tokens)).collect();
    needs.sort_unstable_by(|a, b| b.cmp(a));
    let largest = needs.first().copied().unwrap_or(1);
    let room = model.workspace().room(model.device())?;
    let cap = run.options.cache_tokens.map(pages_for);
    let mut slots = asked.min(sequences.len());
    // By what was asked for and not by what memory holds: the order of sums depends on it.
    let room_asked = step_rows(run.options.at_once.unwrap_or(sequences.len()).min(STEP_ROWS));
    let is_many = on_card && room_asked > WIDE_ROWS;
    loop {
        let wanted: usize = needs.iter().take(slots).sum();
        let allowed = wanted.min(cap.unwrap_or(wanted));
        let size = CacheSize { slots, pages: allowed, rows: if is_many { room_asked } else { slots } };
        let found = match room {
            Some(bytes) => size.within(bytes, &model.config, on_card),
            None => Some(size),
        };
        // Slots that have hardly ever pages would only have rings.
        match found {
            Some(size) if size.pages >= largest && (slots == 1 || 2 * size.pages >= wanted) => {
                if size.pages < wanted || slots < asked.min(sequences.len()) {
                    tracing::warn!(
                        "memory holds the keys and values of {} tokens at once, and {} prompts with their replies may \
                         have {}: fewer than that are answered at a time; allow fewer new tokens, or more memory",
                        size.pages * descant_kernels::PAGE_TOKENS,
                        asked.min(sequences.len()),
                        needs.iter().take(asked).sum::<usize>() * descant_kernels::PAGE_TOKENS
                    );
                }
                return Ok(size);
            }
            _ if slots > 1 => slots /= 2,
            _ => {
                let longest = sequences.iter().copied().zip(tokens).max_by_key(|(_, tokens)| *tokens);
                let (index, tokens) = longest.unwrap_or((0, 1));
                let needed = CacheSize::of(1, tokens).with_work(&model.config, on_card);
                let free = room.unwrap_or_else(|| {
                    let pages = cap.unwrap_or(0);
                    CacheSize { slots: 1, pages, rows: 1 }.with_work(&model.config, on_card)
                });
                return Err(Error::NoRoom { index, tokens, needed, free });
            }
        }
    }
}
