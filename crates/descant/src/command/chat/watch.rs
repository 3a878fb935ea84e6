//! Shows replies while they come, and ends them on Ctrl-C or when nobody reads.
//!
//! Two may come at once. The first is shown as it comes; what the other has by then is shown below it, and the rest as it
//! comes.

use std::io;
use std::time::Instant;

use descant_harmony::{ReplyPart, ReplyStream, Tokenizer};
use descant_model::{Go, NewToken, StopReason, Watch};

use super::interrupt::Interrupt;
use crate::reply::Screen;

pub(super) struct Showing<'a, 'w> {
    tokenizer: &'a Tokenizer,
    /// The reply that is on the screen, and which it is.
    stream: ReplyStream<'a>,
    shown: usize,
    replies: Vec<Coming>,
    screen: &'a mut Screen<'w>,
    interrupt: &'a Interrupt,
    failed: Option<io::Error>,
}

/// A reply that comes.
#[derive(Default)]
struct Coming {
    title: Option<&'static str>,
    /// What waits to be shown.
    ids: Vec<u32>,
    has_ended: bool,
    /// When the first and the last token came, and how many came after the first.
    times: Option<(Instant, Instant, usize)>,
}

impl<'a, 'w> Showing<'a, 'w> {
    /// One reply a title, in this order.
    ///
    /// # Errors
    /// Nobody reads.
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        screen: &'a mut Screen<'w>,
        interrupt: &'a Interrupt,
        titles: &[Option<&'static str>],
    ) -> io::Result<Self> {
        let replies = titles.iter().map(|&title| Coming { title, ..Coming::default() }).collect();
        let stream = ReplyStream::new(tokenizer);
        let mut new = Self { tokenizer, stream, shown: 0, replies, screen, interrupt, failed: None };
        new.begin()?;
        Ok(new)
    }

    /// Shows the rest; of each reply tokens a second after the first, where there were more.
    pub(super) fn finish(mut self) -> io::Result<Vec<Option<f64>>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        self.close()?;
        let speed = |reply: &Coming| {
            reply.times.filter(|(.., more)| *more > 0).map(|(first, last, more)| {
                more as f64 / last.duration_since(first).as_secs_f64().max(f64::MIN_POSITIVE)
            })
        };
        Ok(self.replies.iter().map(speed).collect())
    }

    /// The title of the reply that is shown next, and what has come of it.
    fn begin(&mut self) -> io::Result<()> {
        let Some(reply) = self.replies.get_mut(self.shown) else { return Ok(()) };
        let ids = std::mem::take(&mut reply.ids);
        if let Some(title) = reply.title {
            self.screen.title(title)?;
        }
        ids.into_iter().try_for_each(|id| self.show(id))
    }

    fn show(&mut self, id: u32) -> io::Result<()> {
        self.stream.push(id).iter().try_for_each(|part| self.screen.part(part))
    }

    /// The end of the reply that is shown.
    fn close(&mut self) -> io::Result<()> {
        let mut stream = std::mem::replace(&mut self.stream, ReplyStream::new(self.tokenizer));
        if let Some(rest) = stream.finish() {
            self.screen.part(&ReplyPart::Text(rest))?;
        }
        self.screen.line_break()
    }

    /// Advances to the next reply as long as those before it are whole. The last is closed by `finish`.
    fn advance(&mut self) -> io::Result<()> {
        while self.shown + 1 < self.replies.len() && self.replies[self.shown].has_ended {
            self.close()?;
            self.shown += 1;
            self.begin()?;
        }
        Ok(())
    }
}

impl Watch for Showing<'_, '_> {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        let now = Instant::now();
        let reply = &mut self.replies[token.sequence];
        reply.times = Some(reply.times.map_or((now, now, 0), |(first, _, more)| (first, now, more + 1)));
        if token.sequence == self.shown {
            self.failed = self.show(token.id).err();
        } else {
            reply.ids.push(token.id);
        }
        if self.failed.is_some() || self.interrupt.came() { Go::EndAll } else { Go::On }
    }

    fn ended(&mut self, sequence: usize, _stop: StopReason) {
        self.replies[sequence].has_ended = true;
        if self.failed.is_none() {
            self.failed = self.advance().err();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use descant_harmony::TextEncoder as _;

    use super::*;
    use crate::reply::Look;

    const LOOK: Look = Look { styled: false, terminal: false, utf8: true };

    /// What is shown of two replies whose tokens come in this order, by reply.
    fn shown(replies: [&str; 2], order: &[usize]) -> String {
        let tiny = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt-oss"));
        let tokenizer = Tokenizer::load(tiny).unwrap();
        let ids = replies.map(|text| tokenizer.encode_rendered(text).unwrap());
        let mut out = String::new();
        let mut write = |text: &str| {
            out.push_str(text);
            Ok(())
        };
        let mut screen = Screen::new(LOOK, || None, &mut write);
        let interrupt = Interrupt::default();
        let titles = [Some("base"), Some("adapter")];
        let mut showing = Showing::new(&tokenizer, &mut screen, &interrupt, &titles).unwrap();
        let mut steps = [0, 0];
        for &sequence in order {
            let Some(&id) = ids[sequence].get(steps[sequence]) else { continue };
            let token = NewToken { sequence, step: steps[sequence], id, log_probability: None, top: &[] };
            assert_eq!(showing.token(&token), Go::On);
            steps[sequence] += 1;
            if steps[sequence] == ids[sequence].len() {
                showing.ended(sequence, StopReason::StopToken);
            }
        }
        assert_eq!(steps, [ids[0].len(), ids[1].len()]);
        assert!(showing.finish().unwrap().iter().all(Option::is_some));
        out
    }

    #[test]
    fn two_replies_stand_below_each_other_in_whatever_order_they_come() {
        let replies = [
            "<|channel|>final<|message|>The base says ü and 日本.<|return|>",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Seven.<|return|>",
        ];
        let expected = "base\nThe base says ü and 日本.\nadapter\n│ Hm.\nSeven.\n";
        let (first, second) = (vec![0; 60], vec![1; 60]);
        let turns: Vec<usize> = (0..120).map(|n| n % 2).collect();
        let late: Vec<usize> = (0..180).map(|n| usize::from(n % 3 != 0)).collect();
        for order in [[&first[..], &second].concat(), [second, first].concat(), turns, late] {
            assert_eq!(shown(replies, &order), expected, "{order:?}");
        }
    }
}
