//! Whole replies in the order of their requests, whatever order they end in: for files that grow in one order.

use crate::request::{Generated, Go, NewToken, StopReason, Watch};

/// What a [`Watch`] of whole replies receives.
#[derive(Debug)]
pub enum Ended<'a> {
    /// So many replies are done, in whatever order.
    Count(usize),
    /// The next reply in the order of the requests, and its index.
    Next(usize, &'a Generated),
}

/// Calls `tell` at every end; if it returns false, all sequences end.
#[derive(Debug)]
pub struct InOrder<F: FnMut(Ended<'_>) -> bool> {
    replies: Vec<Generated>,
    is_done: Vec<bool>,
    count: usize,
    next: usize,
    has_failed: bool,
    tell: F,
}

impl<F: FnMut(Ended<'_>) -> bool> InOrder<F> {
    /// For so many requests.
    pub fn new(requests: usize, tell: F) -> Self {
        let none = || Generated {
            ids: Vec::new(),
            stop: StopReason::Stopped,
            log_probabilities: Vec::new(),
            top: Vec::new(),
        };
        Self {
            replies: (0..requests).map(|_| none()).collect(),
            is_done: vec![false; requests],
            count: 0,
            next: 0,
            has_failed: false,
            tell,
        }
    }
}

impl<F: FnMut(Ended<'_>) -> bool> Watch for InOrder<F> {
    fn token(&mut self, token: &NewToken<'_>) -> Go {
        let reply = &mut self.replies[token.sequence];
        reply.ids.push(token.id);
        reply.log_probabilities.extend(token.log_probability);
        if !token.top.is_empty() {
            reply.top.push(token.top.to_vec());
        }
        if self.has_failed { Go::EndAll } else { Go::On }
    }

    fn ended(&mut self, sequence: usize, stop: StopReason) {
        (self.replies[sequence].stop, self.is_done[sequence]) = (stop, true);
        self.count += 1;
        if self.has_failed {
            return;
        }
        self.has_failed = !(self.tell)(Ended::Count(self.count));
        while !self.has_failed && self.is_done.get(self.next).copied().unwrap_or(false) {
            self.has_failed = !(self.tell)(Ended::Next(self.next, &self.replies[self.next]));
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(watch: &mut dyn Watch, sequence: usize, id: u32) -> Go {
        watch.token(&NewToken { sequence, step: 0, id, log_probability: Some(-0.5), top: &[(id, -0.5)] })
    }

    #[test]
    fn replies_come_in_order_with_all_that_was_told_and_a_failure_ends_all() {
        let (mut told, mut counts) = (Vec::new(), Vec::new());
        let mut watch = InOrder::new(3, |ended| match ended {
            Ended::Count(count) => {
                counts.push(count);
                true
            }
            Ended::Next(index, reply) => {
                told.push((index, reply.clone()));
                index < 1
            }
        });
        assert_eq!(token(&mut watch, 1, 7), Go::On);
        watch.ended(1, StopReason::Length);
        assert_eq!(token(&mut watch, 0, 8), Go::On);
        watch.ended(0, StopReason::StopToken);
        assert_eq!(token(&mut watch, 2, 9), Go::EndAll, "it was said to be enough");
        watch.ended(2, StopReason::Stopped);
        assert_eq!(counts, [1, 2], "after the end nothing is reported");
        let of: Vec<_> = told.iter().map(|(index, reply)| (*index, reply.ids[0], reply.stop)).collect();
        assert_eq!(of, [(0, 8, StopReason::StopToken), (1, 7, StopReason::Length)]);
        assert_eq!((told[0].1.log_probabilities.len(), told[0].1.top.len()), (1, 1));
    }
}
