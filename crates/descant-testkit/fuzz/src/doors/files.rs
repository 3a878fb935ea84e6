//! Names, and the planted fault.

use std::path::Path;

use descant_files::RelPath;

use super::Opened;

pub(super) fn names() -> Opened {
    let door = |bytes: &[u8]| {
        let Ok(name) = RelPath::new(&String::from_utf8_lossy(bytes)) else { return };
        let path = name.under(Path::new("/nowhere")).expect("nothing there leads out");
        let inside = path.strip_prefix("/nowhere").expect("a name stays inside");
        assert!(inside.components().all(|part| matches!(part, std::path::Component::Normal(_))));
    };
    let seeds = ["model-00001-of-00002.safetensors", "a/b/config.json", "../x", "C:\\x", "NUL.txt", "a. "];
    (Box::new(door), seeds.map(|seed| seed.as_bytes().to_vec()).to_vec())
}

/// A door with a fault behind two numbers that nobody guesses: found only where comparisons are counted too.
pub(super) fn planted() -> Opened {
    let door = |bytes: &[u8]| {
        let (numbers, _) = bytes.as_chunks::<4>();
        let number = |at: usize| numbers.get(at).map(|bytes| u32::from_le_bytes(*bytes));
        if number(0) == Some(0x1f2e_3d4c) {
            assert_ne!(number(1), Some(0x5b6a_7988), "planted");
        }
    };
    (Box::new(door), vec![b"begin".to_vec()])
}
