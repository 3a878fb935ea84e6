//! Shows a reply while it comes, and ends it on Ctrl-C or when nobody reads.

use std::io;
use std::time::Instant;

use descant_harmony::{ReplyPart, ReplyStream, Tokenizer};
use descant_model::{Go, NewToken, Watch};

use super::interrupt::Interrupt;
use crate::reply::Screen;

pub(super) struct Showing<'a, 'w> {
    stream: ReplyStream<'a>,
    screen: &'a mut Screen<'w>,
    interrupt: &'a Interrupt,
    failed: Option<io::Error>,
    /// When the first and the last token came, and how many came after the first.
    times: Option<(Instant, Instant, usize)>,
}

impl<'a, 'w> Showing<'a, 'w> {
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        screen: &'a mut Screen<'w>,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self { stream: ReplyStream::new(tokenizer), screen, interrupt, failed: None, times: None }
    }

    /// Shows the rest; tokens a second after the first, where there were more.
    pub(super) fn finish(mut self) -> io::Result<Option<f64>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(rest) = self.stream.finish() {
            self.screen.part(&ReplyPart::Text(rest))?;
        }
        self.screen.line_break()?;
        Ok(self.times.filter(|(.., more)| *more > 0).map(|(first, last, more)| {
            more as f64 / last.duration_since(first).as_secs_f64().max(f64::MIN_POSITIVE)
        }))
    }
}

impl Watch for Showing<'_, '_> {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        let now = Instant::now();
        self.times = Some(self.times.map_or((now, now, 0), |(first, _, more)| (first, now, more + 1)));
        let shown = self.stream.push(token.id).iter().try_for_each(|part| self.screen.part(part));
        self.failed = shown.err();
        if self.failed.is_some() || self.interrupt.came() { Go::EndAll } else { Go::On }
    }
}
