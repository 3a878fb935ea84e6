//! Every operation of a durable write is made to fail once; then the folder is looked at.

use super::*;
use crate::fault::{Effect, Fault, with};

/// More operations than any subject here has, so that a subject that never succeeds is detected.
const TOO_MANY: u64 = 64;

fn full(after: u64) -> Fault {
    Fault { after, effect: Effect::Full, lasting: false }
}

/// All files below `root` with their content, in order.
fn listing(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                found.push((name + "/", Vec::new()));
                folders.push(path);
            } else {
                found.push((name, crate::read_bounded(&path, 1 << 20).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Fails operation 0, 1, 2, ... of `subject` until it succeeds, each time in a fresh folder made by `before`.
/// Returns what is wrong with the folder after a failure, if anything.
fn first_damage(
    before: impl Fn(&Path),
    subject: impl Fn(&Path) -> Result<()>,
    after: &[(&str, &[u8])],
) -> Option<String> {
    let after: Vec<_> = after.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    for n in 0..TOO_MANY {
        let root = tempfile::tempdir().unwrap();
        before(root.path());
        let was = listing(root.path());
        let (result, struck) = with(full(n), || subject(root.path()));
        let is = listing(root.path());
        if !struck {
            result.unwrap();
            assert_eq!(is, after, "a write that succeeds writes what was asked");
            assert!(n >= 4, "create, write, sync, rename at least, and each was made to fail");
            return None;
        }
        match result {
            Ok(()) => return Some(format!("operation {n} failed unnoticed")),
            Err(Error::Io { path, .. }) if !path.starts_with(root.path()) => {
                return Some(format!("operation {n}: the error names {}", path.display()));
            }
            Err(Error::Io { .. }) if is == was || is == after => {}
            Err(error) => return Some(format!("operation {n}: {error}; left {is:?}")),
        }
    }
    Some("never succeeds".to_owned())
}

fn with_old(root: &Path) {
    write_atomic(&root.join("state.json"), b"old").unwrap();
}

#[test]
fn a_file_is_old_or_new_whichever_operation_fails() {
    let write = |root: &Path| write_atomic(&root.join("state.json"), b"new content");
    assert_eq!(first_damage(with_old, write, &[("state.json", b"new content")]), None);
    assert_eq!(first_damage(|_| (), write, &[("state.json", b"new content")]), None);
}

#[test]
fn a_file_is_made_once_whichever_operation_fails_and_whoever_comes_at_the_same_time() {
    let write = |root: &Path| write_first(&root.join("choice"), b"new content").map(drop);
    assert_eq!(first_damage(|_| (), write, &[("choice", b"new content")]), None);
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("choice");
    for round in 0..20_u8 {
        let all = std::sync::Barrier::new(8);
        let firsts = std::thread::scope(|scope| {
            let (all, path) = (&all, &path);
            let one = |who: u8| {
                all.wait();
                let first = write_first(path, &[round, who]).unwrap();
                (first, crate::read_bounded(path, 10).unwrap(), who)
            };
            let threads: Vec<_> = (0..8).map(|who| scope.spawn(move || one(who))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let winners: Vec<u8> = firsts.iter().filter(|(first, ..)| *first).map(|(.., who)| *who).collect();
        assert_eq!(winners.len(), 1, "{firsts:?}");
        assert!(firsts.iter().all(|(_, found, _)| *found == [round, winners[0]]), "{firsts:?}");
        assert_eq!(listing(root.path()).len(), 1, "no temporary name is left");
        // The control: who replaces is not the first.
        write_atomic(&path, b"another").unwrap();
        assert!(!write_first(&path, b"late").unwrap());
        assert_eq!(crate::read_bounded(&path, 10).unwrap(), b"another");
        crate::remove(&path).unwrap();
    }
}

#[test]
fn a_folder_is_whole_or_absent_whichever_operation_fails() {
    let write = |root: &Path| {
        let mut dir = NewDir::create(&root.join("adapter"))?;
        dir.write(&RelPath::new("config.json")?, b"{}")?;
        dir.write(&RelPath::new("deep/er/weights")?, b"0123456789")?;
        dir.commit()
    };
    let after: [(&str, &[u8]); 5] = [
        ("adapter/", b""),
        ("adapter/config.json", b"{}"),
        ("adapter/deep/", b""),
        ("adapter/deep/er/", b""),
        ("adapter/deep/er/weights", b"0123456789"),
    ];
    assert_eq!(first_damage(|_| (), write, &after), None);
}

#[test]
fn the_harness_sees_a_write_in_place() {
    let careless = |root: &Path| {
        let path = root.join("state.json");
        let mut file = std::fs::File::create(&path).map_err(|source| Error::Io {
            operation: "create",
            path: path.clone(),
            source,
        })?;
        ops::write(&path, &mut file, b"new content")?;
        ops::sync(&path, &file)
    };
    let damage = first_damage(with_old, careless, &[("state.json", b"new content")]).unwrap();
    assert!(damage.starts_with("operation 0"), "{damage}");
}

#[test]
fn the_harness_sees_a_temporary_left_behind() {
    let careless = |root: &Path| {
        let temporary = root.join("state.json.tmp-1-0");
        write_synced(&temporary, b"new content")?;
        ops::rename(&temporary, &root.join("state.json"))
    };
    let damage = first_damage(with_old, careless, &[("state.json", b"new content")]).unwrap();
    assert!(damage.contains("tmp-1-0"), "{damage}");
}

#[test]
fn only_folders_whose_writer_is_gone_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out");
    let alive = NewDir::create(&path).unwrap();
    let name = |name: &str| dir.path().join(name);
    for stays in ["out.tmp-1", "other.tmp-1-2", "out.more.tmp-1-2", "out"] {
        std::fs::create_dir(name(stays)).unwrap();
    }
    std::fs::create_dir(name("out.tmp-1-2")).unwrap();
    write_atomic(&name("out.tmp-1-2/model.safetensors"), b"x").unwrap();
    assert_eq!(sweep_stopped(&path).unwrap(), 1);
    assert!(!name("out.tmp-1-2").exists() && alive.temporary().is_dir());
    assert_eq!(crate::list(dir.path()).unwrap().len(), 5);
    drop(alive);
    assert_eq!(sweep_stopped(&path).unwrap(), 0);
    // Whatever they were to be; files are none of its business.
    let alive = NewDir::create(&name("fresh")).unwrap();
    write_atomic(&name("file.tmp-1-2"), b"x").unwrap();
    assert_eq!(sweep_stopped_in(dir.path()).unwrap(), 2, "`other` and `out.more`");
    assert!(alive.temporary().is_dir() && name("out.tmp-1").is_dir() && name("file.tmp-1-2").is_file());
}

/// A sweep that comes between making a folder and locking it takes the folder and not the writer's work.
#[test]
fn a_folder_that_is_swept_before_it_is_locked_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeping = scope.spawn(|| {
            let mut swept = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Another sweep, or the writer, may be at the same folder.
                swept += sweep_stopped_in(dir.path()).unwrap_or(0);
            }
            swept
        });
        for n in 0..100 {
            let mut folder = NewDir::create(&dir.path().join(format!("out-{n}"))).unwrap();
            folder.write(&RelPath::new("file").unwrap(), b"x").unwrap();
            folder.commit().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        sweeping.join().unwrap();
    });
    assert_eq!(crate::list(dir.path()).unwrap().len(), 100);
}
