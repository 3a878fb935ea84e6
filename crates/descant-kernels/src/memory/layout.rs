//! Where each buffer lies in each phase: in memory that is kept from forward to backward, or in scratch memory that
//! the next layer overwrites. Derived from the rows of the table, so that what is planned is what is used.

use super::sizes::Plan;
use super::table::{Buffer, Phase, Row};

/// Where buffers begin.
pub(super) const ALIGNMENT: u64 = 256;

/// An address, once the beginnings of both memories are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// This far into the kept memory.
    Kept(u64),
    /// This far into the scratch memory.
    Scratch(u64),
}

/// Buffers of a layer, by phase.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    plan: Plan,
    /// Of the first chunk.
    places: [[Option<At>; Buffer::ALL.len()]; Phase::ALL.len()],
    /// Bytes of scratch memory in all.
    pub(crate) scratch_bytes: u64,
}

/// Bytes that a buffer takes up.
fn rounded(row: &Row, plan: &Plan) -> u64 {
    ((row.bytes)(plan) as u64).next_multiple_of(ALIGNMENT)
}

fn is_kept(row: &Row, plan: &Plan) -> bool {
    row.keep.is_some_and(|level| plan.kept >= level)
}

/// Bytes that a buffer takes up where it is kept: of all chunks.
fn kept(row: &Row, plan: &Plan) -> u64 {
    rounded(row, plan) * if row.is_of_chunk() { plan.chunks() as u64 } else { 1 }
}

/// Bytes that a layer keeps.
pub(super) fn kept_bytes(plan: &Plan) -> u64 {
    Buffer::ALL.iter().map(|b| b.row()).filter(|row| is_kept(row, plan)).map(|row| kept(&row, plan)).sum()
}

impl Layout {
    pub(crate) fn new(plan: &Plan) -> Self {
        let places = [[None; Buffer::ALL.len()]; Phase::ALL.len()];
        let mut new = Self { plan: *plan, places, scratch_bytes: 0 };
        let mut end = 0;
        for buffer in Buffer::ALL.iter().filter(|buffer| is_kept(&buffer.row(), plan)) {
            for phase in Phase::ALL {
                new.put(*buffer, phase, At::Kept(end));
            }
            end += kept(&buffer.row(), plan);
        }
        for halves in Phase::DIRECTIONS {
            new.direction(plan, halves);
        }
        new
    }

    /// Hands out the scratch of a direction: first to what both halves use, then to each half above that.
    fn direction(&mut self, plan: &Plan, halves: [Phase; 2]) {
        let own = |row: &Row| !is_kept(row, plan) && row.within.is_none() && (row.bytes)(plan) > 0;
        let alive = |row: &Row| halves.map(|half| row.alive.contains(&half));
        let mut next = 0;
        for buffer in Buffer::ALL {
            let row = buffer.row();
            if own(&row) && alive(&row) == [true; 2] {
                for half in halves {
                    self.put(*buffer, half, At::Scratch(next));
                }
                next += rounded(&row, plan);
            }
        }
        let base = next;
        for half in halves {
            next = base;
            for buffer in Buffer::ALL {
                let row = buffer.row();
                if own(&row) && alive(&row) != [true; 2] && row.alive.contains(&half) {
                    self.put(*buffer, half, At::Scratch(next));
                    next += rounded(&row, plan);
                }
            }
            self.scratch_bytes = self.scratch_bytes.max(next);
        }
        for buffer in Buffer::ALL {
            let row = buffer.row();
            if let (Some(host), true) = (row.within, (row.bytes)(plan) > 0) {
                for half in halves.into_iter().filter(|half| row.alive.contains(half)) {
                    self.places[half as usize][*buffer as usize] = self.find(host, half, 0);
                }
            }
        }
    }

    fn put(&mut self, buffer: Buffer, phase: Phase, at: At) {
        self.places[phase as usize][buffer as usize] = Some(at);
    }

    /// Where a buffer of a chunk lies in a phase; `None` where it is not alive, or the plan has no such buffer.
    pub(crate) fn find(&self, buffer: Buffer, phase: Phase, chunk: usize) -> Option<At> {
        let row = buffer.row();
        Some(match self.places[phase as usize][buffer as usize]? {
            At::Kept(offset) if row.is_of_chunk() => {
                At::Kept(offset + chunk as u64 * rounded(&row, &self.plan))
            }
            at => at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::keep::Kept;
    use super::super::sizes::LayerSizes;
    use super::*;
    use crate::op::experts::ExpertForm;
    use crate::site::Paths;

    const ALL_PATHS: Paths = Paths { input: 32, output: 16, router: 8, gate_up: 8, down: 8 };

    fn plan(kept: Kept, paths: Paths) -> Plan {
        Plan { chunk: 1024, ..Plan::new(LayerSizes::OF_20B, 4096, paths, kept, true) }
    }

    fn plans() -> impl Iterator<Item = Plan> {
        let orders = |plan: Plan| [true, false].map(|in_order| Plan { in_order, ..plan });
        let chunks = |plan: Plan| [plan.tokens, 1024].map(|chunk| Plan { chunk, ..plan });
        let forms = |plan: Plan| [ExpertForm::Bf16, ExpertForm::Fp8].map(|experts| plan.with(experts));
        Kept::ALL
            .into_iter()
            .flat_map(|kept| [Paths::default(), ALL_PATHS].map(|paths| plan(kept, paths)))
            .flat_map(orders)
            .flat_map(chunks)
            .flat_map(forms)
    }

    /// Where a buffer is, kept memory behind the scratch.
    fn span(
        layout: &Layout,
        plan: &Plan,
        buffer: Buffer,
        phase: Phase,
        chunk: usize,
    ) -> Option<std::ops::Range<u64>> {
        let bytes = (buffer.row().bytes)(plan) as u64;
        let start = match layout.find(buffer, phase, chunk)? {
            At::Kept(offset) => layout.scratch_bytes + offset,
            At::Scratch(offset) => offset,
        };
        Some(start..start + bytes)
    }

    #[test]
    fn buffers_that_are_alive_together_share_no_byte_but_where_the_table_says_so() {
        for plan in plans() {
            let layout = Layout::new(&plan);
            for phase in Phase::ALL {
                let of_chunk = |chunk: usize| {
                    let (layout, plan) = (&layout, &plan);
                    let found = move |b: &Buffer| Some((*b, span(layout, plan, *b, phase, chunk)?));
                    Buffer::ALL.iter().filter_map(found)
                };
                // The first chunk's, and what other chunks have in other places.
                let mut alive: Vec<_> = of_chunk(0).collect();
                for chunk in 1..plan.chunks() {
                    let first = alive.clone();
                    alive.extend(of_chunk(chunk).filter(|found| !first.contains(found)));
                }
                for (i, (one, at)) in alive.iter().enumerate() {
                    let end = layout.scratch_bytes + kept_bytes(&plan);
                    assert!(at.start.is_multiple_of(ALIGNMENT) && at.end <= end, "{one:?} in {plan:?}");
                    for (other, there) in &alive[i + 1..] {
                        let shared = one.row().within == Some(*other) || other.row().within == Some(*one);
                        let apart = at.end <= there.start || there.end <= at.start;
                        assert_eq!(apart, !shared, "{one:?} and {other:?} in {phase:?} of {plan:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_kept_lies_at_one_place_in_every_phase_and_nothing_else_does() {
        for plan in plans() {
            let layout = Layout::new(&plan);
            for buffer in Buffer::ALL {
                let places = Phase::ALL.map(|phase| layout.find(*buffer, phase, 0));
                let kept = is_kept(&buffer.row(), &plan);
                assert_eq!(kept, places.iter().any(|at| matches!(at, Some(At::Kept(_)))), "{buffer:?}");
                assert!(!kept || places.iter().all(|at| *at == places[0]), "{buffer:?}: {places:?}");
            }
        }
    }

    #[test]
    fn a_buffer_is_not_found_where_it_is_not_alive() {
        let layout = Layout::new(&plan(Kept::Input, Paths::default()));
        assert_eq!(layout.find(Buffer::DQkv, Phase::ForwardAttention, 0), None, "a gradient in the forward");
        assert_eq!(layout.find(Buffer::Normed, Phase::ForwardExperts, 0), None, "overwritten by the experts");
        assert_eq!(layout.find(Buffer::Pre, Phase::ForwardExperts, 0), None, "not kept");
        assert_eq!(layout.find(Buffer::GateUpV, Phase::ForwardExperts, 0), None, "no such pair");
        let kept = Layout::new(&plan(Kept::Experts, ALL_PATHS));
        assert!(kept.find(Buffer::Pre, Phase::ForwardExperts, 0).is_some());
        assert!(kept.find(Buffer::GateUpV, Phase::ForwardExperts, 0).is_some());
    }

    #[test]
    fn what_lies_within_another_is_no_larger() {
        for plan in plans() {
            for buffer in Buffer::ALL {
                let Some(host) = buffer.row().within else { continue };
                assert!((buffer.row().bytes)(&plan) <= (host.row().bytes)(&plan), "{buffer:?} in {host:?}");
            }
        }
    }

    #[test]
    fn scratch_of_the_20b_is_a_small_part_of_a_card() {
        let plan = Plan { tokens: 16384, chunk: 16384, ..plan(Kept::Input, Paths::default()) };
        let bytes = Layout::new(&plan).scratch_bytes;
        assert!(bytes < 2_200_000_000, "{bytes}");
        let without = Layout::new(&Plan { in_order: false, ..plan }).scratch_bytes;
        assert_eq!(bytes - without, 16384 * 4 * 2880 * 2);
    }

    #[test]
    fn rows_in_fp8_take_no_more_room_than_those_in_bf16_but_for_their_factors() {
        let of = |kept| Plan { tokens: 16384, chunk: 16384, ..plan(kept, Paths::default()) };
        let scratch = |plan: Plan| Layout::new(&plan).scratch_bytes;
        // Where nothing is kept, which is what scratch is laid out for.
        let bf16 = of(Kept::Input);
        assert_eq!(scratch(bf16.with(ExpertForm::Fp8)) - scratch(bf16), 16384 * 4 * 4);
        for kept in Kept::ALL {
            let (bf16, fp8) = (of(kept), of(kept).with(ExpertForm::Fp8));
            assert!(scratch(fp8) <= scratch(of(Kept::Input).with(ExpertForm::Fp8)), "{kept:?}");
            assert_eq!(kept_bytes(&fp8), kept_bytes(&bf16), "nothing in fp8 is kept");
            assert_eq!(Layout::new(&bf16).find(Buffer::InnerRows, Phase::ForwardExperts, 0), None);
        }
    }
}
