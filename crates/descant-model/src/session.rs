//! A conversation: turn after turn of the same model, where what a prompt begins with need not be computed again.
//!
//! Each prompt is given whole. Where it begins with that of the turn before, as a template has it that leaves out what an
//! earlier reply thought, keys and values of that part are still there: those of all positions in pages, and for layers
//! with a window a copy of the last ones. Base and overlay are two sides, each with keys and values of its own; both may
//! be asked at once.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::model::GptOss;
use crate::overlay::Overlay;
use crate::request::{GenerateOptions, Generated, Request, Watch};
use crate::run::Run;

/// Tokens that there is room for at least, where memory has it, so that room is not made anew at every turn.
const ROOM: usize = 16_384;

/// See the head of the file.
pub struct Session<'a> {
    model: &'a GptOss,
    overlay: &'a dyn Overlay,
    engine: Option<Engine<'a>>,
    reused: Vec<usize>,
}

impl<'a> Session<'a> {
    /// Nothing is made before the first turn.
    pub fn new(model: &'a GptOss, overlay: &'a dyn Overlay) -> Self {
        Self { model, overlay, engine: None, reused: Vec::new() }
    }

    /// Of each prompt of the last turn, the tokens that were there from the turn before.
    pub fn reused(&self) -> &[usize] {
        &self.reused
    }

    /// The replies to the prompts of a turn, at most one with the overlay and one without, as [`GptOss::generate`] gives
    /// them, up to rounding.
    ///
    /// # Errors
    /// As there. What was kept is lost then.
    ///
    /// # Panics
    /// If two prompts are of one side.
    pub fn reply(
        &mut self,
        requests: &[Request],
        options: &GenerateOptions,
        watch: &mut dyn Watch,
    ) -> Result<Vec<Generated>> {
        let asked = |side: bool| requests.iter().filter(|request| request.adapter == side).count();
        assert!([false, true].into_iter().all(|side| asked(side) <= 1), "a side has one prompt a turn");
        self.model.check(requests)?;
        self.model.workspace().make_way(self.model.device())?;
        let mut run = Run::new(self.model.config.max_context, requests, options, watch);
        let wanted: Vec<usize> = (0..requests.len()).filter(|&i| requests[i].max_new_tokens > 0).collect();
        self.reused = vec![0; requests.len()];
        if !wanted.is_empty() {
            let needed = wanted.iter().map(|&sequence| run.most_tokens(sequence)).max().unwrap_or(1);
            let sides: Vec<bool> = wanted.iter().map(|&sequence| requests[sequence].adapter).collect();
            let mut engine = self.engine_for(needed, &sides, &run)?;
            let reused = engine.turn(&wanted, &mut run)?;
            for (sequence, count) in wanted.into_iter().zip(reused) {
                self.reused[sequence] = count;
            }
            self.engine = Some(engine);
        }
        self.model.workspace().check_limit(self.model.device())?;
        Ok(run.finish())
    }

    /// The one of the turn before where it has these sides and so much room. Else a new one: with room for turns to come
    /// and the sides of before, or as little as this turn takes where memory has no more.
    fn engine_for(&mut self, needed: usize, sides: &[bool], run: &Run<'_>) -> Result<Engine<'a>> {
        let mut known = [false, true].map(|side| sides.contains(&side));
        if let Some(engine) = self.engine.take() {
            if needed <= engine.reserved() && sides.iter().all(|side| engine.sides().contains(side)) {
                return Ok(engine);
            }
            for side in engine.sides() {
                known[usize::from(*side)] = true;
            }
            // It goes before there is another: both may not fit.
        }
        let all: Vec<bool> = [false, true].into_iter().filter(|side| known[usize::from(*side)]).collect();
        let ample = needed.saturating_mul(2).max(ROOM).min(self.model.config.max_context);
        let make =
            |sides: &[bool], tokens| Engine::for_conversation(self.model, self.overlay, sides, tokens, run);
        let mut made = make(&all, ample);
        for (sides, tokens) in [(&all[..], needed), (sides, needed)] {
            if matches!(made, Err(Error::NoRoom { .. })) {
                made = make(sides, tokens);
            }
        }
        made
    }
}
