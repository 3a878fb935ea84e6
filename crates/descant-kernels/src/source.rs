//! Bytes on their way to where they stay: there already, or made as they are written.

use rayon::prelude::*;

/// Bytes a thread writes at a time.
const PIECE: usize = 1 << 20;

/// Bytes to be brought somewhere.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    length: usize,
    from: From<'a>,
}

#[derive(Clone, Copy)]
enum From<'a> {
    Bytes(&'a [u8]),
    Made(&'a (dyn Fn(usize, &mut [u8]) + Sync)),
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("length", &self.length).finish_non_exhaustive()
    }
}

impl<'a> std::convert::From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { length: bytes.len(), from: From::Bytes(bytes) }
    }
}

impl<'a> Source<'a> {
    /// So many bytes, of which `write` writes those from a place on, as many as fill a slice. It is called by several
    /// threads at once, and what it writes depends on the place alone.
    pub fn made(length: usize, write: &'a (dyn Fn(usize, &mut [u8]) + Sync)) -> Self {
        Self { length, from: From::Made(write) }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes bytes `first..`, as many as fill `out`, with all threads.
    ///
    /// # Panics
    /// There are not as many.
    pub fn write(&self, first: usize, out: &mut [u8]) {
        out.par_chunks_mut(PIECE).enumerate().for_each(|(n, piece)| {
            let first = first + n * PIECE;
            match self.from {
                From::Bytes(bytes) => piece.copy_from_slice(&bytes[first..][..piece.len()]),
                From::Made(write) => write(first, piece),
            }
        });
    }

    /// All of them.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.write(0, &mut bytes);
        bytes
    }
}

/// The first place at which `of` finds something in a piece of the bytes; all threads look. Pieces begin at multiples of a
/// power of two that no element spans.
pub fn first_in(bytes: &[u8], of: impl Fn(&[u8]) -> Option<usize> + Sync) -> Option<usize> {
    let found = bytes.par_chunks(PIECE).enumerate().filter_map(|(n, piece)| Some(n * PIECE + of(piece)?));
    found.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_bytes_are_those_of_their_places_whichever_thread_writes_them() {
        let at = |place: usize| (place % 251) as u8;
        let length = 3 * PIECE + 17;
        let make = |first: usize, out: &mut [u8]| {
            out.iter_mut().enumerate().for_each(|(n, byte)| *byte = at(first + n));
        };
        let made = Source::made(length, &make);
        let whole: Vec<u8> = (0..length).map(at).collect();
        assert!(made.to_vec() == whole && made.len() == length && !made.is_empty());
        assert!(Source::from(whole.as_slice()).to_vec() == whole);
        assert_eq!(first_in(&whole, |piece| piece.iter().position(|x| *x == 250)), Some(250));
        assert_eq!(first_in(&whole[250..], |piece| piece.iter().position(|x| *x == 251)), None);
        let (mut late, end) = (vec![0; length], length - 1);
        (late[PIECE + 3], late[end]) = (1, 1);
        assert_eq!(first_in(&late, |piece| piece.iter().position(|x| *x == 1)), Some(PIECE + 3));
        // A part from the middle on.
        let mut part = vec![0; PIECE + 5];
        made.write(PIECE - 3, &mut part);
        assert!(part == whole[PIECE - 3..][..PIECE + 5]);
    }
}
