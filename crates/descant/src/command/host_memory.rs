//! What the host's memory can give: what the system can hand out without taking from others or swapping, and what the
//! groups that this process was put in leave it (containers).
//!
//! Swap does not count: pinned memory is never swapped, and a step that waits for a disk is not a step.

use std::path::{Path, PathBuf};

/// Longest file of the system that is read here.
const LONGEST: u64 = 1 << 16;

/// Where the system shows groups.
const GROUPS: &str = "/sys/fs/cgroup";

/// A line of this process's status.
pub(crate) fn resident(name: &str) -> Option<u64> {
    kib(Path::new("/proc/self/status"), name)
}

/// Bytes that are available, where the system reports them.
pub(crate) fn available() -> Option<u64> {
    let system = kib(Path::new("/proc/meminfo"), "MemAvailable");
    let groups = text(Path::new("/proc/self/cgroup")).map(|groups| places(&groups)).unwrap_or_default();
    let groups = groups.iter().filter_map(|(kind, path)| left(Path::new(GROUPS), *kind, path)).min();
    [system, groups].into_iter().flatten().min()
}

/// Such a file of the group of memory that this process is in, and of those above it, the innermost first; they need not
/// exist.
pub(crate) fn group_files(name: &str) -> Vec<PathBuf> {
    let groups = text(Path::new("/proc/self/cgroup")).map(|groups| places(&groups)).unwrap_or_default();
    files_of(&groups, name)
}

fn files_of(groups: &[(Kind, PathBuf)], name: &str) -> Vec<PathBuf> {
    let of = |(kind, path): &(Kind, PathBuf)| -> Vec<PathBuf> {
        // Where both hierarchies are there, the unified one lies in a folder of its own too.
        let folders: &[&str] = if *kind == Kind::V2 { &["", "unified"] } else { &["memory"] };
        let places = folders.iter().map(|folder| Path::new(GROUPS).join(folder));
        places.flat_map(|place| path.ancestors().map(move |group| place.join(group).join(name))).collect()
    };
    groups.iter().flat_map(of).collect()
}

/// The value of `NAME:   123 kB` in such a file, in bytes.
pub(crate) fn kib(path: &Path, name: &str) -> Option<u64> {
    let text = text(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn text(path: &Path) -> Option<String> {
    let bytes = descant_files::read_bounded(path, LONGEST).ok()?;
    String::from_utf8(bytes).ok()
}

/// Which hierarchy of groups, with the names of its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The unified one.
    V2,
    /// That of memory alone.
    V1,
}

impl Kind {
    /// Where it is, its limit, what is used of it, and what of that are pages of files, which can be given back.
    fn files(self) -> (&'static str, &'static str, &'static str, [&'static str; 2]) {
        match self {
            Self::V2 => ("", "memory.max", "memory.current", ["inactive_file", "active_file"]),
            Self::V1 => (
                "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            ),
        }
    }
}

/// The groups of memory in a `/proc/self/cgroup`: `0::/a/b` of the unified hierarchy, `4:memory:/a/b` of the older one.
fn places(text: &str) -> Vec<(Kind, PathBuf)> {
    let of = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, kinds, path) = (fields.next()?, fields.next()?, fields.next()?);
        let kind = match (number, kinds) {
            ("0", "") => Kind::V2,
            (_, kinds) if kinds.split(',').any(|kind| kind == "memory") => Kind::V1,
            _ => return None,
        };
        Some((kind, PathBuf::from(path.trim_start_matches('/'))))
    };
    text.lines().filter_map(of).collect()
}

/// What a group and those above it leave. In a container the path is the host's, and the group's own files lie at the
/// top.
fn left(root: &Path, kind: Kind, path: &Path) -> Option<u64> {
    let (place, limit, used, of_files) = kind.files();
    let place = root.join(place);
    let of = |group: &Path| -> Option<u64> {
        let number = |name: &str| text(&place.join(group).join(name))?.trim().parse::<u64>().ok();
        let stat = text(&place.join(group).join("memory.stat")).unwrap_or_default();
        let line =
            |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let of_files: u64 = of_files.into_iter().filter_map(line).sum();
        Some(number(limit)?.saturating_sub(number(used)?.saturating_sub(of_files)))
    };
    path.ancestors().filter_map(of).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(dir: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(dir).unwrap();
        for (name, text) in files {
            descant_files::write_atomic(&dir.join(name), text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn groups_of_both_hierarchies_are_found() {
        assert_eq!(places("0::/user.slice/a\n"), [(Kind::V2, PathBuf::from("user.slice/a"))]);
        let old = "9:name=systemd:/\n4:memory:/jobs/7\n3:cpu,cpuacct:/x\nnonsense\n";
        assert_eq!(places(old), [(Kind::V1, PathBuf::from("jobs/7"))]);
        assert_eq!(places("2:cpu,memory:/"), [(Kind::V1, PathBuf::new())]);
    }

    #[test]
    fn files_of_a_group_are_looked_for_in_both_hierarchies_the_innermost_first() {
        let files = files_of(&places("0::/a/b\n4:memory:/jobs/7\n"), "memory.pressure");
        let of = |path: &str| Path::new(GROUPS).join(path).join("memory.pressure");
        let v2 = ["a/b", "a", "", "unified/a/b", "unified/a", "unified"].map(of);
        assert_eq!(files[..6], v2);
        assert_eq!(files[6..], ["memory/jobs/7", "memory/jobs", "memory"].map(of));
    }

    #[test]
    fn the_tightest_group_counts_and_pages_of_files_can_be_given_back() {
        let root = tempfile::tempdir().unwrap();
        let outer = root.path().join("outer");
        let stat = "anon 1\ninactive_file 300\nactive_file 100\n";
        group(&outer, &[("memory.max", "1000\n"), ("memory.current", "700\n"), ("memory.stat", stat)]);
        group(&outer.join("inner"), &[("memory.max", "max\n"), ("memory.current", "100\n")]);
        let of = |path: &str| left(root.path(), Kind::V2, Path::new(path));
        assert_eq!(of("outer/inner"), Some(700));
        assert_eq!(of("outer"), Some(700));
        assert_eq!(of("elsewhere"), None, "no limit is known");
        group(&outer.join("inner"), &[("memory.max", "150\n")]);
        assert_eq!(of("outer/inner"), Some(50));
        // A container sees its own group at the top.
        group(root.path(), &[("memory.max", "90"), ("memory.current", "100")]);
        assert_eq!(of("not/seen/here"), Some(0));
    }

    #[test]
    fn the_older_hierarchy_lies_in_a_folder_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        let stat = "inactive_file 1\ntotal_inactive_file 20\ntotal_active_file 5\n";
        let files =
            [("memory.limit_in_bytes", "200"), ("memory.usage_in_bytes", "100"), ("memory.stat", stat)];
        group(&root.path().join("memory/jobs"), &files);
        assert_eq!(left(root.path(), Kind::V1, Path::new("jobs/7")), Some(125));
    }
}
