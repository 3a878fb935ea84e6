//! The user's cache folder, and the one for passing files, as the system names them.

use std::path::PathBuf;

/// Where programs of this user keep what can be made again; `None` where the system does not say.
pub(crate) fn folder() -> Option<PathBuf> {
    of(|name| std::env::var_os(name).map(PathBuf::from))
}

/// Where large files lie that a process needs while it lives: `TMPDIR`, else the place that is on a disk where `/tmp` may
/// be memory.
pub(crate) fn passing() -> PathBuf {
    let named = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let on_disk = || Some(PathBuf::from("/var/tmp")).filter(|path| path.is_dir());
    named.or_else(on_disk).unwrap_or_else(std::env::temp_dir)
}

fn of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The specification takes absolute paths only.
    let cache = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    cache
        .or_else(|| variable("HOME").map(|home| home.join(".cache")))
        .filter(|path| path.is_absolute())
        .map(|cache| cache.join("descant"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_where_the_system_says() {
        let of = |variables: &[(&str, &str)]| {
            of(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, path)| PathBuf::from(path)))
        };
        assert_eq!(of(&[("HOME", "/home/me")]), Some("/home/me/.cache/descant".into()));
        assert_eq!(of(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/c")]), Some("/c/descant".into()));
        assert_eq!(
            of(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "c")]),
            Some("/home/me/.cache/descant".into())
        );
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("HOME", "me")]), None);
    }
}
