//! The tables of tensors that the kernels of `optimizer.cu` take as a parameter.

use crate::cuda::plain::OPTIMIZER_CHUNK as CHUNK;
use crate::cuda::structures::{MAX_TENSORS, TABLE_BYTES};

/// Addresses of one tensor, 0 where a kernel has no use for one; or, before they are known, what stands for them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Entry<T = u64> {
    pub(super) param: T,
    /// Where the result goes; may be `param`.
    pub(super) out: T,
    pub(super) grad: T,
    pub(super) moments: [T; 2],
    pub(super) scales: [T; 2],
    /// Elements.
    pub(super) n: usize,
}

impl<T> Entry<T> {
    pub(super) fn map<U>(self, mut f: impl FnMut(T) -> U) -> Entry<U> {
        let Self { param, out, grad, moments, scales, n } = self;
        let (param, out, grad) = (f(param), f(out), f(grad));
        Entry { param, out, grad, moments: moments.map(&mut f), scales: scales.map(f), n }
    }
}

/// One launch's tensors, as the bytes of `struct Table`.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) bytes: Vec<u8>,
    /// Blocks of work.
    pub(super) chunks: usize,
}

/// As many tables as the tensors need; one for any adapter of a published model.
pub(super) fn tables(entries: &[Entry]) -> Vec<Table> {
    entries.chunks(MAX_TENSORS).map(table).collect()
}

/// Chunks of all tensors.
pub(super) fn chunks(sizes: impl IntoIterator<Item = usize>) -> usize {
    sizes.into_iter().map(|n| n.div_ceil(CHUNK)).sum()
}

fn table(entries: &[Entry]) -> Table {
    let mut body = Vec::with_capacity(TABLE_BYTES);
    let mut done = 0;
    for entry in entries {
        let [first, second] = entry.moments;
        let [scale1, scale2] = entry.scales;
        for address in [entry.param, entry.out, entry.grad, first, second, scale1, scale2] {
            body.extend(address.to_le_bytes());
        }
        body.extend((entry.n as u32).to_le_bytes());
        body.extend((done as u32).to_le_bytes());
        done += entry.n.div_ceil(CHUNK);
    }
    let mut bytes = (entries.len() as u32).to_le_bytes().to_vec();
    bytes.extend((done as u32).to_le_bytes());
    bytes.extend(body);
    bytes.resize(TABLE_BYTES, 0);
    Table { bytes, chunks: done }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::structures::{ENTRY_BYTES, UPDATE_BYTES};

    #[test]
    fn chunks_follow_each_other_through_a_table() {
        let sizes = [1, 4096, 4097, 0, 10_000];
        let entries = sizes.map(|n| Entry { param: n as u64 + 1, n, ..Entry::default() });
        let [table] = &tables(&entries)[..] else { panic!("one table") };
        let word = |at: usize| u32::from_le_bytes(table.bytes[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((word(0), word(4)), (5, 7));
        assert_eq!(table.chunks, chunks(sizes));
        for (i, first) in [0, 1, 2, 4, 4].into_iter().enumerate() {
            let at = 8 + ENTRY_BYTES * i;
            assert_eq!(
                (word(at), word(at + ENTRY_BYTES - 8), word(at + ENTRY_BYTES - 4)),
                (sizes[i] as u32 + 1, sizes[i] as u32, first)
            );
        }
        assert!(
            table.bytes.len() + UPDATE_BYTES + 16 <= 32_764,
            "with the other parameters it fits a launch"
        );
    }

    #[test]
    fn too_many_tensors_take_two_tables() {
        let entries = vec![Entry { n: 5000, ..Entry::default() }; MAX_TENSORS + 3];
        let sizes: Vec<usize> = tables(&entries).iter().map(|t| t.chunks).collect();
        assert_eq!(sizes, [2 * MAX_TENSORS, 6]);
    }
}
