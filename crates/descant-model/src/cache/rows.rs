//! Where new tokens of sequences go in the cache and what they attend to: numbers of rows from positions, before any
//! tensor is made.

use descant_kernels::{PAGE_TOKENS, Segment, Segments};

/// New tokens of a sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct New {
    pub(super) slot: usize,
    pub(super) start: usize,
    pub(super) count: usize,
}

impl New {
    pub(super) fn positions(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.count
    }
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Read<I> {
    /// They are the new ones.
    New,
    /// From the cache with the new ones in it.
    InPlace,
    /// Rows of the cache before it is written, and behind them the new ones, in this order.
    Gathered { before: I, order: I },
}

/// A [`Lane`] before it lies on a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) rows: Vec<i32>,
    pub(super) written: Option<Vec<i32>>,
    pub(super) read: Read<Vec<i32>>,
    pub(super) segments: Segments,
}

/// Of layers that see everything.
pub(super) fn paged<'a>(news: &[New], pages: impl Fn(usize) -> &'a [u32]) -> Plan {
    let row = |slot: usize, position: usize| {
        pages(slot)[position / PAGE_TOKENS] as usize * PAGE_TOKENS + position % PAGE_TOKENS
    };
    let is_run = |slot: usize| pages(slot).windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let rows = news.iter().flat_map(|new| new.positions().map(|position| row(new.slot, position) as i32));
    let rows = rows.collect();
    let first = |new: &New| row(new.slot, 0);
    if news.iter().all(|new| new.start == 0) {
        Plan { rows, written: None, read: Read::New, segments: fresh(news) }
    } else if news.iter().all(|new| is_run(new.slot)) {
        let keys = |new: &New| (first(new), new.start + new.count);
        Plan { rows, written: None, read: Read::InPlace, segments: in_place(news, keys) }
    } else {
        let (read, segments) = gathered(news, |new| 0..new.start, row);
        Plan { rows, written: None, read, segments }
    }
}

/// Of layers with a window.
pub(super) fn ringed(news: &[New], window: usize) -> Plan {
    let row = |slot: usize, position: usize| slot * window + position % window;
    let (mut rows, mut written, mut query) = (Vec::new(), Vec::new(), 0);
    for new in news {
        let kept = new.count.saturating_sub(window)..new.count;
        rows.extend(kept.clone().map(|n| row(new.slot, new.start + n) as i32));
        written.extend(kept.map(|n| (query + n) as i32));
        query += new.count;
    }
    let written = (written.len() < query).then_some(written);
    let (read, segments) = if news.iter().all(|new| new.start == 0) {
        (Read::New, fresh(news))
    } else if news.iter().all(|new| new.count == 1) {
        // One query sees all of the ring, in whatever order.
        let keys = |new: &New| (new.slot * window, (new.start + 1).min(window));
        (Read::InPlace, in_place(news, keys))
    } else {
        gathered(news, |new| new.start.saturating_sub(window - 1)..new.start, row)
    };
    Plan { rows, written, read, segments }
}

/// Sequences that attend to their new tokens alone.
fn fresh(news: &[New]) -> Segments {
    Segments::from_lengths(&news.iter().map(|new| new.count).collect::<Vec<_>>())
}

/// Sequences that attend to rows of the cache: first row and number.
fn in_place(news: &[New], keys: impl Fn(&New) -> (usize, usize)) -> Segments {
    let mut query_start = 0;
    let segment = |new: &New| {
        let (key_start, key_len) = keys(new);
        let segment = Segment { query_start, query_len: new.count, key_start, key_len };
        query_start += new.count;
        segment
    };
    Segments::new(news.iter().map(segment).collect::<Vec<_>>())
}

/// Sequences that attend to earlier positions and to their new tokens.
fn gathered(
    news: &[New],
    earlier: impl Fn(&New) -> std::ops::Range<usize>,
    row: impl Fn(usize, usize) -> usize,
) -> (Read<Vec<i32>>, Segments) {
    let n_before: usize = news.iter().map(|new| earlier(new).len()).sum();
    let (mut before, mut order, mut segments, mut query_start) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for new in news {
        let (key_start, first) = (order.len(), before.len());
        before.extend(earlier(new).map(|position| row(new.slot, position) as i32));
        order.extend((first..before.len()).map(|at| at as i32));
        order.extend((0..new.count).map(|n| (n_before + query_start + n) as i32));
        let key_len = order.len() - key_start;
        segments.push(Segment { query_start, query_len: new.count, key_start, key_len });
        query_start += new.count;
    }
    (Read::Gathered { before, order }, Segments::new(segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(slot: usize, start: usize, count: usize) -> New {
        New { slot, start, count }
    }

    #[test]
    fn rows_of_pages_and_rings_are_those_of_the_positions() {
        let tables: [&[u32]; 2] = [&[5, 2], &[7, 8]];
        let plan = paged(&[new(0, 63, 2), new(1, 0, 1)], |slot| tables[slot]);
        assert_eq!(plan.rows, [5 * 64 + 63, 2 * 64, 7 * 64]);
        let Read::Gathered { before, order } = &plan.read else { panic!("{plan:?}") };
        assert_eq!(*before, (0..63).map(|n| 5 * 64 + n).collect::<Vec<i32>>());
        assert_eq!(*order, (0..66).collect::<Vec<i32>>());
        let lengths: Vec<_> = plan.segments.as_slice().iter().map(|s| (s.key_start, s.key_len)).collect();
        assert_eq!(lengths, [(0, 65), (65, 1)]);
        // Pages in a row are read where they are.
        let plan = paged(&[new(1, 64, 1)], |slot| tables[slot]);
        assert_eq!((plan.rows, &plan.read), (vec![8 * 64], &Read::InPlace));
        assert_eq!(plan.segments.as_slice()[0].key_start, 7 * 64);

        let plan = ringed(&[new(0, 0, 11), new(3, 0, 2)], 8);
        assert_eq!(plan.rows, [3, 4, 5, 6, 7, 0, 1, 2, 24, 25]);
        assert_eq!(plan.written, Some(vec![3, 4, 5, 6, 7, 8, 9, 10, 11, 12]));
        assert_eq!(plan.read, Read::New);
        let plan = ringed(&[new(0, 5, 1), new(3, 21, 1)], 8);
        assert_eq!((plan.rows, plan.read), (vec![5, 24 + 5], Read::InPlace));
        let of: Vec<_> = plan.segments.as_slice().iter().map(|s| (s.key_start, s.key_len)).collect();
        assert_eq!(of, [(0, 6), (24, 8)]);
        // A chunk reads what its first token sees, before that is overwritten.
        let plan = ringed(&[new(1, 10, 4)], 8);
        assert_eq!(plan.rows, [8 + 2, 8 + 3, 8 + 4, 8 + 5]);
        let before = (3..10).map(|position| 8 + position % 8).collect();
        assert_eq!(plan.read, Read::Gathered { before, order: (0..11).collect() });
    }
}
