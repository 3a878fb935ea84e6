//! Which layer each slot of a ring has, and which comes next. Knows no card.

/// Where the next layer lies from the one in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// A forward pass whose backward follows.
    Forward,
    /// A backward pass.
    Backward,
    /// Forward passes, one after the other.
    Round,
}

/// What is in the slots.
#[derive(Debug)]
pub(super) struct Slots {
    /// Which layer each slot has, or will have once its copy is done.
    holds: Vec<Option<usize>>,
    /// When each was used last.
    used: Vec<u64>,
    clock: u64,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        Self { holds: vec![None; count], used: vec![0; count], clock: 0 }
    }

    /// The slot that has a layer.
    pub(super) fn slot_of(&self, layer: usize) -> Option<usize> {
        self.holds.iter().position(|holds| *holds == Some(layer))
    }

    /// The one that was used longest ago.
    pub(super) fn oldest(&self) -> usize {
        (0..self.used.len()).min_by_key(|slot| self.used[*slot]).expect("a ring has slots")
    }

    pub(super) fn empty(&mut self, slot: usize) {
        self.holds[slot] = None;
    }

    pub(super) fn put(&mut self, slot: usize, layer: usize) {
        self.holds[slot] = Some(layer);
        self.touch(slot);
    }

    /// Says that a slot is used now.
    pub(super) fn touch(&mut self, slot: usize) {
        self.clock += 1;
        self.used[slot] = self.clock;
    }
}

/// The layer that is used after this one, of so many.
pub(super) fn next(layer: usize, count: usize, course: Course) -> Option<usize> {
    match course {
        // The backward begins with the last one, which is there.
        Course::Forward => (layer + 1 < count).then_some(layer + 1),
        // The next forward begins with the first one.
        Course::Backward => layer.checked_sub(1),
        Course::Round => Some((layer + 1) % count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_goes_up_and_down_and_generation_round() {
        assert_eq!(next(0, 3, Course::Forward), Some(1));
        assert_eq!(next(2, 3, Course::Forward), None);
        assert_eq!(next(2, 3, Course::Backward), Some(1));
        assert_eq!(next(0, 3, Course::Backward), None);
        assert_eq!(next(2, 3, Course::Round), Some(0));
    }

    #[test]
    fn the_slot_that_was_used_longest_ago_is_filled_next() {
        let mut slots = Slots::new(2);
        slots.put(1, 5);
        slots.put(0, 4);
        assert_eq!((slots.slot_of(4), slots.slot_of(6), slots.oldest()), (Some(0), None, 1));
        slots.touch(1);
        assert_eq!(slots.oldest(), 0);
        slots.empty(0);
        assert_eq!((slots.slot_of(4), slots.slot_of(5)), (None, Some(1)), "a copy that failed left nothing");
    }
}
