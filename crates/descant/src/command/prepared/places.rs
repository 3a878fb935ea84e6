//! What examples are written into beside a plain file: memory up to a bound, and a file of a folder that has no name yet.

use std::io::Write;
use std::path::Path;

use descant_files::Growing;

use crate::words::size;

/// What is left free on the disk.
const LEFT_FREE: u64 = 1 << 30;
/// Most bytes of examples in memory: about a quarter of a million short conversations.
pub(super) const IN_MEMORY: usize = 256 << 20;

/// Says why a folder has no room for the examples of so many bytes of data.
pub(super) fn room(folder: &Path, data: u64) -> Result<(), String> {
    let wanted = data + data / 2 + LEFT_FREE;
    match descant_files::free_bytes(folder).ok().flatten() {
        Some(free) if free < wanted => {
            Err(format!("{} has less than {} free", folder.display(), size(wanted)))
        }
        _ => Ok(()),
    }
}

/// Examples in memory, no more than [`IN_MEMORY`].
pub(super) struct Bounded(pub(super) Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > IN_MEMORY {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A file of a new folder that takes bytes as any other.
pub(super) struct Growth(pub(super) Growing);

impl Write for Growth {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_takes_what_it_is_meant_for_and_no_byte_more() {
        let mut memory = Bounded(vec![0; IN_MEMORY - 3]);
        memory.write_all(b"abc").unwrap();
        assert_eq!(memory.write_all(b"d").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(memory.0.len(), IN_MEMORY);
    }

    #[test]
    fn a_folder_without_room_is_named_with_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            room(dir.path(), 0).is_ok(),
            descant_files::free_bytes(dir.path()).unwrap().unwrap() >= LEFT_FREE
        );
        let reason = room(dir.path(), 1 << 60).unwrap_err();
        assert!(reason.contains(dir.path().to_str().unwrap()) && reason.contains("free"), "{reason}");
    }
}
