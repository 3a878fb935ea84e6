//! Opens a text file that may be compressed: gzip or zstd by their first bytes, plain otherwise.
//!
//! A few kilobytes can be made to unpack to a terabyte. So what comes out is weighed against what went in, and against
//! an absolute limit, while it comes out.

use crate::error::{Error, Result};
use crate::file::open_regular;
use crate::limits;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
const BUFFER: usize = 1 << 16;

/// The first bytes of a file, fewer if it is shorter.
pub(crate) fn magic(path: &Path) -> Result<Vec<u8>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut magic = Vec::new();
    open_regular(path)?.take(4).read_to_end(&mut magic).map_err(io)?;
    Ok(magic)
}

/// How many bytes of a file were read so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<AtomicU64>);

impl Progress {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The text of a file, unpacked, and how far it is read.
pub(crate) fn open(path: &Path) -> Result<(Box<dyn BufRead>, Progress)> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let magic = magic(path)?;
    let file = open_regular(path)?;
    let progress = Progress::default();
    let packed = Arc::clone(&progress.0);
    let counted = BufReader::with_capacity(BUFFER, Counted { inner: file, bytes: Arc::clone(&packed) });
    let inner: Box<dyn Read> = if magic.starts_with(GZIP) {
        Box::new(flate2::bufread::MultiGzDecoder::new(counted))
    } else if magic.starts_with(ZSTD) {
        Box::new(zstd::stream::read::Decoder::with_buffer(counted).map_err(io)?)
    } else {
        return Ok((Box::new(counted), progress));
    };
    Ok((Box::new(BufReader::with_capacity(BUFFER, Weighed { inner, packed, unpacked: 0 })), progress))
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// Compares what comes out with what went in.
struct Weighed<R> {
    inner: R,
    packed: Arc<AtomicU64>,
    unpacked: u64,
}

impl<R: Read> Read for Weighed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.unpacked += read as u64;
        let fair = self.packed.load(Ordering::Relaxed).saturating_mul(limits::INFLATE_RATIO);
        if self.unpacked > limits::INFLATED_BYTES || self.unpacked > fair.max(limits::INFLATE_FREE_BYTES) {
            let reason = format!(
                "unpacks to more than {} times its size, or to more than {} bytes",
                limits::INFLATE_RATIO,
                limits::INFLATED_BYTES
            );
            return Err(io::Error::other(reason));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_and_the_free_bytes_pass() {
        let read_all = |unpacked: u64| {
            let packed = Arc::new(AtomicU64::new(1000));
            let inner = io::repeat(b'a').take(unpacked);
            io::copy(&mut Weighed { inner, packed, unpacked: 0 }, &mut io::sink())
        };
        assert!(read_all(limits::INFLATE_FREE_BYTES).is_ok());
        let error = read_all(limits::INFLATE_FREE_BYTES + 1).unwrap_err();
        assert!(error.to_string().contains("unpacks to more than 100 times"), "{error}");
    }
}
