//! The log that a run writes and continues with.

use descant_files::{Appender, Error, read_bounded};
use tempfile::TempDir;

#[test]
fn lines_are_appended_and_cut_to_a_recorded_length() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("metrics.jsonl");
    let mut log = Appender::create(&path).unwrap();
    log.append("one").unwrap();
    let recorded = log.length();
    log.append("two, of a step that will be done again").unwrap();
    drop(log);

    let mut log = Appender::resume(&path, recorded).unwrap();
    log.append("two").unwrap();
    log.sync().unwrap();
    assert_eq!(read_bounded(&path, 100).unwrap(), b"one\ntwo\n");
    assert_eq!(log.length(), 8);
}

#[test]
fn a_line_break_inside_a_line_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut log = Appender::create(&dir.path().join("log")).unwrap();
    for text in ["a\nb", "a\r"] {
        assert!(matches!(log.append(text), Err(Error::LineBreak { .. })));
    }
    assert_eq!(log.length(), 0);
}

#[test]
fn logs_are_not_taken_over_by_mistake() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("log");
    assert!(matches!(Appender::resume(&path, 0), Err(Error::Io { operation: "open", .. })));
    Appender::create(&path).unwrap().append("1234").unwrap();
    assert!(matches!(Appender::create(&path), Err(Error::Io { operation: "create", .. })));
    assert!(matches!(Appender::resume(&path, 6), Err(Error::Length { expected: 6, actual: 5, .. })));
    assert_eq!(read_bounded(&path, 100).unwrap(), b"1234\n");
}
