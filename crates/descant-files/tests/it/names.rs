//! Names from outside: which are refused, and that joined ones stay inside.

use descant_files::{Error, NameDefect, RelPath};
use tempfile::TempDir;

fn defect_of(name: &str) -> Option<NameDefect> {
    match RelPath::new(name) {
        Ok(_) => None,
        Err(Error::Name { defect, .. }) => Some(defect),
        Err(other) => panic!("{name:?}: {other}"),
    }
}

#[test]
fn names_that_are_no_plain_relative_path_are_refused() {
    use NameDefect::{
        Absolute, Backslash, Colon, Control, Device, Dots, Empty, EmptyPart, TooLong, TrailingDotOrSpace,
    };
    let long_part = "a".repeat(256);
    let long_name = "a/".repeat(600) + "b";
    let wide_part = "é".repeat(128);
    let cases: &[(&str, NameDefect)] = &[
        ("", Empty),
        ("/", Absolute),
        ("/etc/passwd", Absolute),
        ("//server/share/x", Absolute),
        ("///x", Absolute),
        ("..", Dots),
        (".", Dots),
        ("../x", Dots),
        ("./x", Dots),
        ("a/../x", Dots),
        ("a/../../x", Dots),
        ("a/..", Dots),
        ("a/.", Dots),
        ("a/./b", Dots),
        ("a//b", EmptyPart),
        ("a/", EmptyPart),
        ("a/b//", EmptyPart),
        ("\\", Backslash),
        ("..\\x", Backslash),
        ("a\\b", Backslash),
        ("\\\\server\\share\\x", Backslash),
        ("\\\\?\\x", Backslash),
        ("C:", Colon),
        ("C:x", Colon),
        ("c:/x", Colon),
        ("C:/Windows/x", Colon),
        ("a.txt:stream", Colon),
        ("file:///etc/passwd", Colon),
        ("a\0b", Control),
        ("\0", Control),
        ("a\nb", Control),
        ("a\rb", Control),
        ("a\tb", Control),
        ("a\u{1b}[2Jb", Control),
        ("a\u{7f}b", Control),
        ("a\u{85}b", Control),
        ("a.", TrailingDotOrSpace),
        ("a ", TrailingDotOrSpace),
        (" ", TrailingDotOrSpace),
        ("...", TrailingDotOrSpace),
        (".. ", TrailingDotOrSpace),
        ("a./b", TrailingDotOrSpace),
        ("a /b", TrailingDotOrSpace),
        ("NUL", Device),
        ("con.txt", Device),
        ("a/aux", Device),
        ("COM1", Device),
        ("lpt9.safetensors", Device),
        (&long_part, TooLong),
        (&wide_part, TooLong),
        (&long_name, TooLong),
    ];
    assert!(cases.len() >= 40);
    for &(name, defect) in cases {
        assert_eq!(defect_of(name), Some(defect), "{name:?}");
    }
}

#[test]
fn ordinary_names_pass() {
    for name in [
        "model.safetensors",
        "model-00001-of-00003.safetensors",
        "original/model.safetensors",
        ".gitattributes",
        "a..b",
        "..a",
        "a b",
        "console",
        "COM10",
        "nul_",
        "~",
        "données/größe.json",
        &"a".repeat(255),
    ] {
        let path = RelPath::new(name).unwrap();
        assert_eq!(path.as_str(), name);
    }
}

#[test]
fn the_error_shows_the_name_escaped() {
    let error = RelPath::new("a\u{1b}[2Jb").unwrap_err().to_string();
    assert_eq!(error, r#"file name "a\u{1b}[2Jb": contains a control character"#);
}

#[test]
fn joining_gives_a_path_below_the_folder() {
    let dir = TempDir::new().unwrap();
    let name = RelPath::new("a/b.txt").unwrap();
    assert_eq!(name.under(dir.path()).unwrap(), dir.path().join("a").join("b.txt"));
    assert_eq!(
        name.under("no/such/folder".as_ref()).unwrap(),
        std::path::Path::new("no/such/folder/a/b.txt")
    );
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn touch(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        descant_files::write_atomic(path, b"x").unwrap();
    }

    fn under(base: &Path, name: &str) -> Result<std::path::PathBuf, Error> {
        RelPath::new(name).unwrap().under(base)
    }

    #[test]
    fn links_that_lead_out_are_refused() {
        let root = TempDir::new().unwrap();
        let base = root.path().join("model");
        touch(&base.join("inside.txt"));
        touch(&root.path().join("secret/key"));
        // A sibling whose name begins like the folder's must not pass for a part of it.
        touch(&root.path().join("model-other/key"));
        for (name, target, asked) in [
            ("file", root.path().join("secret/key"), "file"),
            ("folder", root.path().join("secret"), "folder/key"),
            ("relative", "../secret/key".into(), "relative"),
            ("new", root.path().join("secret"), "new/not-there-yet"),
            ("sibling", "../model-other/key".into(), "sibling"),
        ] {
            symlink(&target, base.join(name)).unwrap();
            let error = under(&base, asked).unwrap_err();
            assert!(matches!(&error, Error::Escapes { path, .. } if path.starts_with(&base)), "{error}");
        }
        symlink("hop", base.join("start")).unwrap();
        symlink("../secret", base.join("hop")).unwrap();
        assert!(matches!(under(&base, "start/key"), Err(Error::Escapes { .. })), "through a second link");
    }

    #[test]
    fn links_that_stay_inside_pass_and_dangling_ones_do_not() {
        let root = TempDir::new().unwrap();
        touch(&root.path().join("a/inside.txt"));
        symlink("a/inside.txt", root.path().join("link")).unwrap();
        assert_eq!(under(root.path(), "link").unwrap(), root.path().join("link"));
        symlink("nowhere", root.path().join("dangling")).unwrap();
        assert!(matches!(under(root.path(), "dangling"), Err(Error::Io { operation: "resolve", .. })));
    }

    #[test]
    fn a_snapshot_of_a_hub_cache_may_link_to_its_blobs_only() {
        let root = TempDir::new().unwrap();
        let cache = root.path().join("models--a--b");
        let snapshot = cache.join("snapshots/0123");
        touch(&cache.join("blobs/abcd"));
        touch(&snapshot.join("config.json"));
        touch(&root.path().join("secret"));
        symlink("../../blobs/abcd", snapshot.join("model.safetensors")).unwrap();
        symlink("../../../secret", snapshot.join("stolen")).unwrap();
        assert!(under(&snapshot, "model.safetensors").is_ok());
        assert!(matches!(under(&snapshot, "stolen"), Err(Error::Escapes { .. })));
    }
}
