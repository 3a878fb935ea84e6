//! A message on the wire: its kind, the rank it is from, its number, what it is about, its length, its bytes.
//!
//! A length is a claim: memory grows with the bytes that really come.

use std::io::{Error, ErrorKind, Read, Result, Write};

/// Longest message: the state of the largest adapters has a few gigabytes.
pub(crate) const MAX_BYTES: u64 = 64 << 30;
/// Longest message of a process that has not been let in yet.
pub(crate) const MAX_HELLO: u64 = 4 << 20;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Bytes of the head: kind, rank, number, topic, length.
const HEAD: usize = 1 + 4 + 4 + 4 + 8;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who connects.
    Hello,
    /// Rank 0 lets a process in.
    Welcome,
    /// "I am here."
    Beat,
    /// Bytes of a collective.
    Data,
    /// A cause for all to end.
    Failed,
    /// The sender is done and closes.
    Bye,
}

const KINDS: [Kind; 6] = [Kind::Hello, Kind::Welcome, Kind::Beat, Kind::Data, Kind::Failed, Kind::Bye];

/// What comes before the bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) rank: usize,
    /// Of the collective that data belong to, counted by everybody alike.
    pub(crate) number: u32,
    /// A hash of the collective's name.
    pub(crate) topic: u32,
}

impl Head {
    /// Of a message that belongs to no collective.
    pub(crate) fn new(kind: Kind, rank: usize) -> Self {
        Self { kind, rank, number: 0, topic: 0 }
    }
}

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) head: Head,
    pub(crate) bytes: Vec<u8>,
}

/// The hash of a collective's name (FNV-1a).
pub(crate) fn topic(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Writes a message.
pub(crate) fn write(to: &mut impl Write, what: Head, bytes: &[u8]) -> Result<()> {
    let mut head = [0; HEAD];
    head[0] = what.kind as u8;
    head[1..5].copy_from_slice(&(what.rank as u32).to_le_bytes());
    head[5..9].copy_from_slice(&what.number.to_le_bytes());
    head[9..13].copy_from_slice(&what.topic.to_le_bytes());
    head[13..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    if bytes.len() < PIECE {
        // One packet for what is small.
        let whole = [&head, bytes].concat();
        to.write_all(&whole)?;
    } else {
        to.write_all(&head)?;
        to.write_all(bytes)?;
    }
    to.flush()
}

/// Reads a message of up to `most` bytes; `came` hears of every piece.
pub(crate) fn read(from: &mut impl Read, most: u64, mut came: impl FnMut()) -> Result<Frame> {
    let mut head = [0; HEAD];
    from.read_exact(&mut head)?;
    came();
    let wrong = |what: String| Error::new(ErrorKind::InvalidData, what);
    let kind = KINDS.into_iter().find(|kind| *kind as u8 == head[0]);
    let kind = kind.ok_or_else(|| wrong(format!("{:#04x} is not a kind of message", head[0])))?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (rank, number, topic) = (word(1) as usize, word(5), word(9));
    let length = u64::from(word(13)) | u64::from(word(17)) << 32;
    if length > most {
        return Err(wrong(format!("a message of {length} bytes; at most {most} are allowed")));
    }
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < length {
        let (had, more) = (bytes.len(), (length - bytes.len() as u64).min(PIECE as u64) as usize);
        bytes.resize(had + more, 0);
        from.read_exact(&mut bytes[had..])?;
        came();
    }
    Ok(Frame { head: Head { kind, rank, number, topic }, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_its_length() {
        for n in [0, 1, PIECE - 1, PIECE, 3 * PIECE + 7] {
            let bytes: Vec<u8> = (0..n).map(|i| (i % 251) as u8).collect();
            let mut wire = Vec::new();
            let head = Head { kind: Kind::Data, rank: 7, number: 9, topic: topic("losses") };
            write(&mut wire, head, &bytes).unwrap();
            let frame = read(&mut wire.as_slice(), MAX_BYTES, || ()).unwrap();
            assert_eq!(frame, Frame { head, bytes });
        }
    }

    #[test]
    fn damage_is_an_error_and_a_claim_takes_no_memory() {
        let mut wire = Vec::new();
        write(&mut wire, Head::new(Kind::Hello, 1), b"text").unwrap();
        for cut in 0..wire.len() {
            assert!(read(&mut &wire[..cut], MAX_HELLO, || ()).is_err(), "cut at {cut}");
        }
        let mut claim = wire.clone();
        claim[13..21].copy_from_slice(&(1u64 << 35).to_le_bytes());
        assert!(read(&mut claim.as_slice(), MAX_BYTES, || ()).is_err());
        assert!(read(&mut claim.as_slice(), MAX_HELLO, || ()).unwrap_err().to_string().contains("at most"));
        wire[0] = 200;
        assert!(read(&mut wire.as_slice(), MAX_HELLO, || ()).unwrap_err().to_string().contains("0xc8"));
    }
}
