//! Who is at work: sequences that wait, slots that have one, and which of their prompts are not in the cache yet.
//!
//! A slot that is done takes the sequence that waits longest, so that a long one does not keep the others' places empty.
//! A prompt goes into the cache but for its last token, with which the first step begins: steps alone choose tokens, and
//! a prompt that is in the cache already costs no pass. No device is asked here.

use std::collections::VecDeque;

use crate::capacity::PREFILL_TOKENS;

/// A sequence in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) slot: usize,
    /// Index of its request.
    pub(crate) sequence: usize,
    /// Whether the overlay takes part.
    pub(crate) adapter: bool,
    /// Tokens of its prompt before the last.
    pub(crate) prompt: usize,
}

/// What goes through the model at once to fill the cache: so many tokens of each.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    pub(crate) adapter: bool,
    pub(crate) parts: Vec<(Active, usize)>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Slots {
    /// Sequences with [`Active::adapter`] and [`Active::prompt`], the next first.
    waiting: VecDeque<(usize, bool, usize)>,
    active: Vec<Option<Active>>,
    /// Slots whose prompts are not in the cache yet, the first begun first.
    filling: VecDeque<usize>,
    /// Slots that must be free before one is filled again: a pass over prompts costs several steps, however few they are.
    refill: usize,
}

impl Slots {
    pub(crate) fn new(
        count: usize,
        refill: usize,
        sequences: impl Iterator<Item = (usize, bool, usize)>,
    ) -> Self {
        Self {
            waiting: sequences.collect(),
            active: vec![None; count],
            filling: VecDeque::new(),
            refill: refill.clamp(1, count.max(1)),
        }
    }

    /// Where each sequence has a slot of its own from the beginning, and nobody waits.
    pub(crate) fn seated(count: usize, sequences: Vec<(usize, (usize, bool, usize))>) -> Self {
        let mut slots = Self::new(count, 1, std::iter::empty());
        for (slot, (sequence, adapter, prompt)) in sequences {
            let before = slots.active[slot].replace(Active { slot, sequence, adapter, prompt });
            assert!(before.is_none(), "a slot has one sequence");
            slots.filling.push_back(slot);
        }
        slots
    }

    /// Gives free slots to those that wait, in order, as long as `begin` finds room for a sequence in a slot. Whether one
    /// waits for room while a slot is free.
    pub(crate) fn admit(&mut self, mut begin: impl FnMut(usize, usize) -> bool) -> bool {
        let free: Vec<usize> = (0..self.active.len()).filter(|slot| self.active[*slot].is_none()).collect();
        let is_idle = free.len() == self.active.len();
        if free.len() < self.refill.min(self.waiting.len()) && !is_idle {
            return false;
        }
        for slot in free {
            let Some(&(sequence, adapter, prompt)) = self.waiting.front() else { return false };
            if !begin(slot, sequence) {
                return true;
            }
            self.waiting.pop_front();
            self.active[slot] = Some(Active { slot, sequence, adapter, prompt });
            self.filling.push_back(slot);
        }
        false
    }

    /// The next chunks of prompts, each cut where its own positions say, of which `in_cache` tokens are there. Slots whose
    /// prompts are there become ready.
    pub(crate) fn chunks(&mut self, in_cache: impl Fn(usize) -> usize) -> Option<Chunks> {
        let active = &self.active;
        let of = |slot: usize| active[slot].expect("a slot that is filled has a sequence");
        self.filling.retain(|slot| in_cache(*slot) < of(*slot).prompt);
        let adapter = of(*self.filling.front()?).adapter;
        let (mut parts, mut tokens) = (Vec::new(), 0);
        for part in self.filling.iter().map(|slot| of(*slot)).filter(|part| part.adapter == adapter) {
            let start = in_cache(part.slot);
            let end = part.prompt.min((start / PREFILL_TOKENS + 1) * PREFILL_TOKENS);
            if tokens + end - start > PREFILL_TOKENS && !parts.is_empty() {
                break;
            }
            tokens += end - start;
            parts.push((part, end - start));
        }
        Some(Chunks { adapter, parts })
    }

    /// Those that take part in a step, by slot.
    pub(crate) fn ready(&self, in_cache: impl Fn(usize) -> usize) -> Vec<Active> {
        let is_ready = |active: &&Active| in_cache(active.slot) >= active.prompt;
        self.active.iter().flatten().filter(is_ready).copied().collect()
    }

    /// Whether some prompt is not in the cache yet.
    pub(crate) fn fills(&self) -> bool {
        !self.filling.is_empty()
    }

    /// Frees a slot.
    pub(crate) fn end(&mut self, slot: usize) {
        self.active[slot] = None;
        self.filling.retain(|filling| *filling != slot);
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.active.iter().all(Option::is_none)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_longest_come_first_and_only_where_there_is_room() {
        let mut slots = Slots::new(2, 1, (0..4).map(|n| (n, n == 1, 3)));
        assert!(!slots.admit(|_, _| true));
        let chunks = slots.chunks(|_| 0).unwrap();
        assert_eq!((chunks.adapter, chunks.parts.len(), chunks.parts[0].0.sequence), (false, 1, 0));
        let cached = |slot: usize| [3, 0][slot];
        assert_eq!(slots.chunks(cached).unwrap().parts[0].0.sequence, 1, "the other side's pass");
        assert_eq!(slots.ready(cached).iter().map(|one| one.sequence).collect::<Vec<_>>(), [0]);
        slots.end(0);
        assert!(slots.admit(|_, _| false), "there is no room");
        assert!(!slots.admit(|slot, sequence| (slot, sequence) == (0, 2)));
        assert!(!slots.is_done());
        slots.end(0);
        slots.end(1);
        assert!(!slots.admit(|_, _| true));
        assert_eq!(slots.chunks(|_| 0).unwrap().parts[0].0.sequence, 3);
        slots.end(0);
        assert!(slots.is_done() && slots.chunks(|_| 0).is_none());
    }

    #[test]
    fn prompts_are_cut_at_their_own_borders_whatever_else_is_filled() {
        let long = 2 * PREFILL_TOKENS + 5;
        let mut slots = Slots::new(3, 1, [(0, true, 10), (1, true, long), (2, true, 20)].into_iter());
        slots.admit(|_, _| true);
        let mut cached = [0; 3];
        let mut seen = Vec::new();
        while let Some(chunks) = slots.chunks(|slot| cached[slot]) {
            let counts: Vec<_> = chunks.parts.iter().map(|(one, count)| (one.sequence, *count)).collect();
            for (one, count) in &chunks.parts {
                cached[one.slot] += count;
            }
            seen.push(counts);
        }
        let full = PREFILL_TOKENS;
        assert_eq!(seen, [vec![(0, 10)], vec![(1, full)], vec![(1, full)], vec![(1, 5), (2, 20)]]);
    }

    #[test]
    fn those_who_are_seated_keep_their_slots_and_are_filled_side_by_side() {
        let mut slots = Slots::seated(3, vec![(2, (0, false, 5)), (0, (1, true, 7))]);
        slots.admit(|_, _| panic!("nobody waits"));
        let mut cached = [4, 0, 5];
        assert_eq!(slots.ready(|slot| cached[slot]).iter().map(|one| one.slot).collect::<Vec<_>>(), [2]);
        let chunks = slots.chunks(|slot| cached[slot]).unwrap();
        assert_eq!((chunks.adapter, chunks.parts[0].0.slot, chunks.parts[0].1), (true, 0, 3));
        cached[0] += 3;
        assert!(slots.chunks(|slot| cached[slot]).is_none() && slots.ready(|slot| cached[slot]).len() == 2);
        slots.end(2);
        slots.end(0);
        assert!(slots.is_done());
    }

    #[test]
    fn slots_are_refilled_together_where_a_pass_is_dear() {
        let mut slots = Slots::new(4, 2, (0..6).map(|n| (n, false, 0)));
        slots.admit(|_, _| true);
        slots.end(2);
        slots.admit(|_, _| panic!("one slot alone is not filled"));
        slots.end(0);
        let mut begun = Vec::new();
        slots.admit(|slot, sequence| {
            begun.push((slot, sequence));
            true
        });
        assert_eq!(begun, [(0, 4), (2, 5)]);
        slots.end(1);
        slots.admit(|_, _| panic!("nobody waits"));
    }
}
