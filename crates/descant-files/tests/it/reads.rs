//! Whole reads with a limit, mapped files, digests.

use descant_files::{Error, MappedFile, read_bounded, sha256, sha256_file, write_atomic};
use tempfile::TempDir;

#[test]
fn a_file_of_the_limit_is_read_and_a_longer_one_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f");
    write_atomic(&path, b"12345").unwrap();
    assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
    assert_eq!(read_bounded(&path, u64::MAX).unwrap(), b"12345");
    let error = read_bounded(&path, 4).unwrap_err();
    assert!(matches!(&error, Error::TooLong { limit: 4, .. }), "{error}");
    assert!(error.to_string().contains("f: longer than the limit of 4 bytes"), "{error}");
    assert!(matches!(read_bounded(&dir.path().join("g"), 4), Err(Error::Io { operation: "open", .. })));
}

#[test]
fn a_mapped_file_has_the_files_bytes() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f");
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    write_atomic(&path, &bytes).unwrap();
    let mapped = MappedFile::open(&path).unwrap();
    assert_eq!(mapped.bytes(), bytes);
    assert_eq!(mapped.path(), path);
    write_atomic(&path, b"").unwrap();
    assert_eq!(mapped.bytes(), bytes, "replacing leaves the mapped file as it was");
    assert_eq!(MappedFile::open(&path).unwrap().bytes(), b"", "an empty file maps to nothing");
}

#[test]
fn a_mapped_file_that_changes_its_length_is_told() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f");
    write_atomic(&path, &[7; 10_000]).unwrap();
    let mapped = MappedFile::open(&path).unwrap();
    mapped.check_length().unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(5000).unwrap();
    assert!(matches!(mapped.check_length(), Err(Error::Length { expected: 10_000, actual: 5000, .. })));
}

#[test]
fn a_folder_cannot_be_mapped() {
    let dir = TempDir::new().unwrap();
    assert!(matches!(MappedFile::open(dir.path()), Err(Error::NotAFile { .. } | Error::Io { .. })));
}

#[test]
fn digests_are_those_of_the_standard() {
    // FIPS 180-2, appendix B.1 and the empty message.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(sha256(b"abc"), abc);
    assert_eq!(sha256(b""), empty);
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("f");
    // Longer than one chunk of reading.
    let bytes = vec![0x61; 200_001];
    write_atomic(&path, &bytes).unwrap();
    assert_eq!(sha256_file(&path).unwrap(), sha256(&bytes));
    assert!(matches!(sha256_file(&dir.path().join("g")), Err(Error::Io { operation: "open", .. })));
}
