//! Files of prepared examples taken apart, so that damage gets past their checksums.

/// Bytes before the records, of an index entry, and of the trailer: those of `descant_harmony::store`.
const HEAD: usize = 8;
const ENTRY: usize = 40;
const TRAILER: usize = 36;

/// The record of a file that has one.
///
/// # Panics
/// It is not such a file.
pub fn record_of(file: &[u8]) -> &[u8] {
    &file[HEAD..index_at(file)]
}

/// The same file with another record, and checksums that fit.
///
/// # Panics
/// It is not such a file.
#[must_use]
pub fn with_record(file: &[u8], record: &[u8]) -> Vec<u8> {
    let (from, trailer) = (index_at(file), file.len() - TRAILER);
    let mut described = file[from..trailer].to_vec();
    described[..4].copy_from_slice(&(record.len() as u32).to_le_bytes());
    described[4..8].copy_from_slice(&crc(record).to_le_bytes());
    let mut end = file[trailer..].to_vec();
    end[..8].copy_from_slice(&((HEAD + record.len()) as u64).to_le_bytes());
    end[24..28].copy_from_slice(&crc(&described).to_le_bytes());
    [&file[..HEAD], record, &described, &end].concat()
}

fn index_at(file: &[u8]) -> usize {
    let trailer = &file[file.len() - TRAILER..];
    let at = u64::from_le_bytes(*trailer.first_chunk().expect("a trailer"));
    assert!(at as usize + ENTRY <= file.len(), "one record");
    at as usize
}

/// CRC-32 as gzip has it, a bit at a time.
fn crc(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xedb8_8320;
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
        (0..8).fold(crc ^ u32::from(*byte), step)
    })
}
