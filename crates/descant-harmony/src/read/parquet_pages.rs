//! What the pages of a parquet file say that they unpack to, looked at before its reader believes them: it allocates what
//! a page's header states, up to 2 GiB, before it unpacks anything.
//!
//! Of a header only the sizes are understood ("PageHeader" of the format's parquet.thrift, in thrift's compact protocol).
//! One that makes no sense is an error here: the reader takes numbers that are longer than the protocol has them, and
//! would find another size.

use std::fs::File;
use std::io::{BufReader, Read as _, Seek as _, SeekFrom};

use parquet::file::metadata::ParquetMetaData;

/// Structs in structs that a header may have; the format has two.
const DEPTH: usize = 8;
/// What stands where a struct ends.
const STOP: u8 = 0;
/// Bytes of a number in seven bits each, at most.
const VARINT_BYTES: usize = 10;

/// Looks at all pages of the columns that are read, or of all.
///
/// # Errors
/// The first page that unpacks to more than `most` bytes, or whose header makes no sense; a file that cannot be read.
pub(super) fn check(
    file: &File,
    metadata: &ParquetMetaData,
    columns: Option<&[&str]>,
    most: u64,
) -> Result<(), String> {
    let is_read = |path: &[String]| {
        columns.is_none_or(|columns| path.first().is_some_and(|name| columns.contains(&name.as_str())))
    };
    let mut headers = Headers(BufReader::new(file));
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        for column in row_group.columns().iter().filter(|column| is_read(column.column_path().parts())) {
            let place = || format!("row group {}, column `{}`", group + 1, column.column_path().string());
            let first = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
            let (Ok(mut at), Ok(length)) = (u64::try_from(first), u64::try_from(column.compressed_size()))
            else {
                continue;
            };
            let end = at.saturating_add(length);
            while at < end {
                headers.0.seek(SeekFrom::Start(at)).map_err(|error| error.to_string())?;
                let [unpacked, packed] = headers
                    .sizes()
                    .ok_or_else(|| format!("{}: the header of a page makes no sense", place()))?;
                if unpacked > most {
                    return Err(format!(
                        "{}: a page says that it unpacks to {unpacked} bytes; a file of this size may have {most}",
                        place()
                    ));
                }
                at = headers.0.stream_position().map_err(|error| error.to_string())?.saturating_add(packed);
            }
        }
    }
    Ok(())
}

/// Where headers are read from.
struct Headers<R>(BufReader<R>);

impl<R: std::io::Read + std::io::Seek> Headers<R> {
    /// Of the header that begins here: the bytes of its page, unpacked and as they are. Goes to its end.
    fn sizes(&mut self) -> Option<[u64; 2]> {
        /// `uncompressed_page_size` and `compressed_page_size`.
        const SIZES: [i64; 2] = [2, 3];
        let mut sizes = [None; 2];
        let mut last = 0;
        loop {
            let (id, kind) = self.field(&mut last)?;
            if kind == STOP {
                break;
            }
            match SIZES.iter().position(|size| *size == id) {
                // As the reader takes it: of a longer number the last 32 bits.
                Some(n) => sizes[n] = Some(u64::try_from(self.zigzag()? as i32).ok()?),
                None => self.skip(kind, DEPTH)?,
            }
        }
        Some([sizes[0]?, sizes[1]?])
    }

    /// Number and type of the next field of a struct, or its end.
    fn field(&mut self, last: &mut i64) -> Option<(i64, u8)> {
        let byte = self.byte()?;
        if byte == STOP {
            return Some((0, STOP));
        }
        let id = if byte >> 4 == 0 { self.zigzag()? } else { *last + i64::from(byte >> 4) };
        *last = id;
        Some((id, byte & 15))
    }

    /// Goes to the end of a value.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // True and false have no bytes of their own.
            1 | 2 => Some(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.0.read_exact(&mut [0; 8]).ok(),
            8 => {
                let length = self.varint()?;
                self.pass(length)
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                // Here a truth has a byte.
                let kind = if byte & 15 <= 2 { 3 } else { byte & 15 };
                (0..count).try_for_each(|_| self.skip(kind, depth))
            }
            12 => {
                let mut last = 0;
                loop {
                    match self.field(&mut last)? {
                        (_, STOP) => return Some(()),
                        (_, kind) => self.skip(kind, depth)?,
                    }
                }
            }
            // Maps, of which headers have none, and what the protocol does not know.
            _ => None,
        }
    }

    fn zigzag(&mut self) -> Option<i64> {
        let number = self.varint()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for n in 0..VARINT_BYTES {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(7 * n as u32)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    fn pass(&mut self, bytes: u64) -> Option<()> {
        self.0.seek_relative(i64::try_from(bytes).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn sizes(bytes: &[u8]) -> (Option<[u64; 2]>, u64) {
        let mut headers = Headers(BufReader::new(Cursor::new(bytes.to_vec())));
        let sizes = headers.sizes();
        (sizes, headers.0.stream_position().expect("a place"))
    }

    /// A data page's header: type 0, 300 bytes in 200, and its own struct with statistics of two texts.
    const HEADER: [u8; 25] = [
        0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, 0x2c, 0x15, 0x30, 0x15, 0x00, 0x15, 0x06, 0x1c, 0x18,
        0x02, b'h', b'i', 0x18, 0x00, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn sizes_are_read_and_the_rest_is_passed_over() {
        assert_eq!(sizes(&HEADER), (Some([300, 200]), HEADER.len() as u64));
    }

    #[test]
    fn a_header_that_makes_no_sense_has_no_sizes() {
        for end in 0..HEADER.len() {
            assert_eq!(sizes(&HEADER[..end]).0, None, "cut at {end}");
        }
        // A negative size, structs without end, a number without end, a list of more than there is.
        assert_eq!(sizes(&[0x25, 0x01, 0x15, 0x02, 0x00]).0, None);
        assert_eq!(sizes(&[0x1c; 40]).0, None);
        assert_eq!(
            sizes(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00]).0,
            None
        );
        assert_eq!(sizes(&[0x49, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x0f]).0, None);
    }
}
