//! The machine without its cards: program, processor, memory, disk, the program's own cache.

use std::path::Path;

use serde_json::json;

use super::check::Check;
use crate::command::host_memory::{available, kib};
use crate::user_cache;
use crate::version;
use crate::words::size;

/// Least memory and disk that anything can be done with.
const LEAST: u64 = 512 << 20;
/// Most entries of a folder that are counted.
const MOST_ENTRIES: usize = 1_000_000;
/// Longest file of limits.
const LIMITS_BYTES: u64 = 1 << 16;

pub(super) fn checks() -> Vec<Check> {
    let windows = kernel().as_deref().and_then(windows);
    let looked =
        [Some(program()), Some(processor()), Some(memory()), windows, pinning(), disk(), Some(cache())];
    looked.into_iter().flatten().collect()
}

fn program() -> Check {
    let (commit, features) = (version::COMMIT, version::features());
    let text = format!(
        "{}, commit {commit}, {}, features {}",
        version::VERSION,
        version::TARGET,
        features.join(", ")
    );
    let facts = json!({
        "version": version::VERSION, "commit": commit, "target": version::TARGET, "features": features,
        "rustc": version::RUSTC,
    });
    Check::ok("descant", text, facts)
}

fn processor() -> Check {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let features = features();
    let facts = json!({"threads": threads, "architecture": std::env::consts::ARCH, "features": features});
    let named = if features.is_empty() { "none looked for".to_owned() } else { features.join(", ") };
    let check = Check::ok("cpu", format!("{threads} threads, {}: {named}", std::env::consts::ARCH), facts);
    let is_slow = cfg!(target_arch = "x86_64") && !(features.contains(&"avx2") && features.contains(&"fma"));
    if is_slow {
        check.or_note("without AVX2 and FMA the CPU is several times slower; a GPU does not need them")
    } else {
        check
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    let found = [
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
    ];
    found.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> Vec<&'static str> {
    Vec::new()
}

fn memory() -> Check {
    let total = kib(Path::new("/proc/meminfo"), "MemTotal");
    let free = available();
    let facts = json!({"total_bytes": total, "available_bytes": free});
    let Some(free) = free else {
        return Check::note("memory", "the system does not report free memory", facts);
    };
    let total = total.map_or_else(String::new, |total| format!(" of {}", size(total)));
    let check = Check::ok("memory", format!("{} available{total}", size(free)), facts);
    if free < LEAST {
        check.bad("stop other programs: this is too little memory for training")
    } else {
        check
    }
}

/// The kernel's release.
fn kernel() -> Option<String> {
    let bytes = descant_files::read_bounded(Path::new("/proc/sys/kernel/osrelease"), LIMITS_BYTES).ok()?;
    String::from_utf8(bytes).ok()
}

/// Windows' Linux, where the driver is that of Windows; `release` is the kernel's.
fn windows(release: &str) -> Option<Check> {
    let release = release.trim();
    let facts = json!({"kernel": release});
    let check = release.to_lowercase().contains("microsoft").then(|| Check::ok("wsl", release, facts))?;
    Some(check.or_note(
        "WSL2 limits pinned host memory, and Windows may move a full GPU's memory to the host, which is slow: keep 1 GiB of the GPU free with `--memory`",
    ))
}

/// What a process may lock; the driver pins memory for weights that have no room on a card.
fn pinning() -> Option<Check> {
    let limits = descant_files::read_bounded(Path::new("/proc/self/limits"), LIMITS_BYTES).ok()?;
    let limit = locked(std::str::from_utf8(&limits).ok()?)?;
    Some(match limit {
        Locked::Unlimited => Check::ok("pinning", "no limit on locked memory", json!({"limit_bytes": null})),
        Locked::Bytes(bytes) => {
            let text = format!("at most {} of locked memory (ulimit -l)", size(bytes));
            let facts = json!({"limit_bytes": bytes});
            Check::ok("pinning", text, facts).or_note(
                "if the GPU driver counts pinned memory against this limit, weights in host memory need `ulimit -l unlimited`",
            )
        }
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Locked {
    Unlimited,
    Bytes(u64),
}

/// The soft limit of locked memory in such a table.
fn locked(limits: &str) -> Option<Locked> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(Locked::Unlimited),
        bytes => bytes.parse().ok().map(Locked::Bytes),
    }
}

fn disk() -> Option<Check> {
    let free = descant_files::free_bytes(Path::new("runs")).ok()?;
    let facts = json!({"free_bytes": free});
    let Some(free) = free else {
        return Some(Check::note("disk", "the system does not report free memory", facts));
    };
    let check = Check::ok("disk", format!("{} free here, where runs/ goes", size(free)), facts);
    Some(if free < LEAST { check.bad("free some space, or set run.folder to another disk") } else { check })
}

fn cache() -> Check {
    let Some(folder) = user_cache::folder() else {
        let check = Check::note("own cache", "the system has no folder for it", json!({"folder": null}));
        return check.or_note(
            "set HOME or XDG_CACHE_HOME, otherwise every start compiles kernels and prepares data again",
        );
    };
    let (files, bytes) = contents(&folder);
    let facts = json!({"folder": folder, "files": files, "bytes": bytes});
    let text =
        format!("{}: {files} files of compiled kernels and prepared data, {}", folder.display(), size(bytes));
    Check::ok("own cache", text, facts)
}

/// Files below a folder and their bytes, links not followed.
pub(super) fn contents(folder: &Path) -> (usize, u64) {
    let (mut files, mut bytes, mut seen) = (0, 0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MOST_ENTRIES {
                return (files, bytes);
            }
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) if data.is_file() => {
                    files += 1;
                    bytes += data.len();
                }
                _ => {}
            }
        }
    }
    (files, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_locked_memory_is_the_soft_one() {
        let table = |soft: &str| {
            format!(
                "Limit   Soft Limit  Hard Limit  Units\nMax cpu time  unlimited  unlimited  seconds\nMax locked memory         {soft}              unlimited            bytes\n"
            )
        };
        assert_eq!(locked(&table("8388608")), Some(Locked::Bytes(8 << 20)));
        assert_eq!(locked(&table("unlimited")), Some(Locked::Unlimited));
        assert_eq!((locked(&table("much")), locked("")), (None, None));
    }

    #[test]
    fn the_kernel_of_wsl_is_known_by_its_name() {
        let check = windows("5.15.153.1-microsoft-standard-WSL2\n").unwrap();
        assert_eq!((check.name, check.text.as_str()), ("wsl", "5.15.153.1-microsoft-standard-WSL2"));
        assert!(check.todo.unwrap().contains("--memory"));
        assert!(windows("6.8.0-45-generic\n").is_none());
    }

    #[test]
    fn files_are_counted_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        descant_files::create_dirs(&inner).unwrap();
        descant_files::write_atomic(&inner.join("x"), &[0; 10]).unwrap();
        descant_files::write_atomic(&dir.path().join("y"), &[0; 5]).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(dir.path().join("y"), dir.path().join("z")).unwrap();
        assert_eq!(contents(dir.path()), (2, 15));
        assert_eq!(contents(&dir.path().join("none")), (0, 0));
    }
}
