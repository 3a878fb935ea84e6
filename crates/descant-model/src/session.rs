//! A conversation: turn after turn of the same model, where what a prompt begins with need not be computed again.
//!
//! Each prompt is given whole. Where it begins with that of the turn before, as a template has it that leaves out what an
//! earlier reply thought, keys and values of that part are still there: those of all positions in pages, and for layers
//! with a window a copy of the last ones. Base and overlay have each their own. So it is on the CPU; a card computes each
//! prompt whole, at tens of thousands of tokens a second.

use descant_kernels::is_cpu;

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
    /// Of the base, and with the overlay.
    sides: [Option<Engine<'a>>; 2],
    reused: usize,
}

impl<'a> Session<'a> {
    /// Nothing is made before the first turn.
    pub fn new(model: &'a GptOss, overlay: &'a dyn Overlay) -> Self {
        Self { model, overlay, sides: [None, None], reused: 0 }
    }

    /// Tokens of the last prompt that were there from the turn before.
    pub fn reused(&self) -> usize {
        self.reused
    }

    /// The reply to a prompt, as [`GptOss::generate`] gives it, up to rounding.
    ///
    /// # Errors
    /// As there. What was kept is lost then.
    pub fn reply(
        &mut self,
        request: &Request,
        options: &GenerateOptions,
        watch: &mut dyn Watch,
    ) -> Result<Generated> {
        let requests = std::slice::from_ref(request);
        if !is_cpu(self.model.device()) {
            return Ok(self.model.generate(requests, self.overlay, options, watch)?.remove(0));
        }
        self.model.check(requests)?;
        self.model.workspace().make_way(self.model.device())?;
        let mut run = Run::new(self.model.config.max_context, requests, options, watch);
        self.reused = 0;
        if request.max_new_tokens > 0 {
            let place = usize::from(request.adapter);
            let needed = run.most_tokens(0);
            let before = self.sides[place].take().filter(|engine| needed <= engine.reserved());
            let mut engine = before.map_or_else(|| self.engine(needed, &run), Ok)?;
            self.reused = engine.go_back(&request.prompt);
            engine.serve(&[0], &mut run)?;
            self.sides[place] = Some(engine);
        }
        self.model.workspace().check_limit(self.model.device())?;
        Ok(run.finish().remove(0))
    }

    /// One with room for turns to come, or for this one alone where memory has no more.
    fn engine(&self, needed: usize, run: &Run<'_>) -> Result<Engine<'a>> {
        let context = self.model.config.max_context;
        let ample = needed.saturating_mul(2).max(ROOM).min(context);
        match Engine::for_conversation(self.model, self.overlay, ample, run) {
            Err(Error::NoRoom { .. }) if ample > needed => {
                Engine::for_conversation(self.model, self.overlay, needed, run)
            }
            made => made,
        }
    }
}
