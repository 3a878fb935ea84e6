//! Durable writes in the ordinary case, and where they cannot work. Faults in the middle are tested inside.

use descant_files::{Error, NewDir, RelPath, read_bounded, write_atomic};
use tempfile::TempDir;

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        dir.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_made_and_replaced() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.json");
    write_atomic(&path, b"one").unwrap();
    write_atomic(&path, b"two").unwrap();
    assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
    assert_eq!(names(dir.path()), ["a.json"]);
}

#[test]
fn a_missing_folder_is_named_with_the_operation() {
    let dir = TempDir::new().unwrap();
    let error = write_atomic(&dir.path().join("no/a.json"), b"x").unwrap_err();
    let Error::Io { operation: "create", path, .. } = &error else { panic!("{error}") };
    assert!(path.starts_with(dir.path().join("no")));
    assert!(names(dir.path()).is_empty());
    assert!(matches!(write_atomic("/".as_ref(), b"x"), Err(Error::Io { .. })), "no name to write under");
}

#[test]
fn a_folder_in_the_way_of_a_file_is_an_error_and_stays() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a");
    std::fs::create_dir_all(path.join("full")).unwrap();
    assert!(matches!(write_atomic(&path, b"x"), Err(Error::Io { operation: "rename", .. })));
    assert_eq!(names(dir.path()), ["a"]);
}

#[test]
fn a_new_folder_is_absent_until_committed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("adapter");
    let mut new = NewDir::create(&path).unwrap();
    new.write(&RelPath::new("weights").unwrap(), b"w").unwrap();
    assert!(!path.exists());
    new.commit().unwrap();
    assert_eq!(names(&path), ["weights"]);
    assert_eq!(names(dir.path()), ["adapter"]);
}

#[test]
fn a_new_folder_that_is_dropped_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let mut new = NewDir::create(&dir.path().join("adapter")).unwrap();
    new.write(&RelPath::new("deep/weights").unwrap(), b"w").unwrap();
    assert_eq!(names(dir.path()).len(), 1, "the temporary folder");
    drop(new);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_new_folder_never_replaces_what_is_there() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("adapter");
    let new = NewDir::create(&path).unwrap();
    // An empty folder is what the system's own rename would put the new one over.
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(NewDir::create(&path), Err(Error::Exists { .. })));
    assert!(matches!(new.commit(), Err(Error::Exists { .. })));
    assert_eq!(names(dir.path()), ["adapter"]);
}

#[test]
fn one_name_twice_in_a_folder_is_an_error() {
    let dir = TempDir::new().unwrap();
    let mut new = NewDir::create(&dir.path().join("adapter")).unwrap();
    let name = RelPath::new("weights").unwrap();
    new.write(&name, b"1").unwrap();
    assert!(matches!(new.write(&name, b"2"), Err(Error::Io { operation: "create", .. })));
}
