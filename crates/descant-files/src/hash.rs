//! SHA-256 of bytes and files, as lower-case hexadecimal.

use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 16;
/// Files up to this length have a fingerprint of every byte.
const WHOLE_BYTES: u64 = 64 << 20;
/// Pieces of a longer file that its fingerprint is made of.
const PIECES: u64 = 256;

/// The SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The SHA-256 of a file's content, read in chunks.
///
/// # Errors
/// The file cannot be opened or read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(|e| io("open", e))?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(n) => hasher.update(&chunk[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(io("read", e)),
        }
    }
}

/// What distinguishes a file from another of the same kind: its SHA-256, for files up to 64 MiB; for longer ones the
/// SHA-256 of its length and of 256 evenly spread pieces of 64 KiB, the first and the last among them.
///
/// It finds another model under the same name in a moment. It does not prove that no bit has changed.
///
/// # Errors
/// The file cannot be opened or read.
pub fn fingerprint(path: &Path) -> Result<String> {
    let io = |operation, source| Error::Io { operation, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(|e| io("open", e))?;
    let length = file.metadata().map_err(|e| io("look at", e))?.len();
    if length <= WHOLE_BYTES {
        return sha256_file(path);
    }
    let mut hasher = Sha256::new().chain_update(length.to_le_bytes());
    let mut chunk = vec![0; CHUNK_BYTES];
    let last = length - CHUNK_BYTES as u64;
    for piece in 0..PIECES {
        let at = (u128::from(last) * u128::from(piece) / u128::from(PIECES - 1)) as u64;
        file.seek(SeekFrom::Start(at)).map_err(|e| io("seek", e))?;
        file.read_exact(&mut chunk).map_err(|e| io("read", e))?;
        hasher.update(&chunk);
    }
    Ok(hex(&hasher.finalize()))
}

/// The bytes of a digest as lower-case hexadecimal.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::with_capacity(2 * digest.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all text");
        text
    })
}
