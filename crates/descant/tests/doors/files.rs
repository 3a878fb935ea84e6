//! Names from outside.

use std::path::Path;

use descant_files::RelPath;
use descant_testkit::door::{Limits, check};

#[test]
fn names_stay_inside() {
    let _turn = crate::turn();
    check("file names", b"model-00001-of-00002.safetensors", Limits::default(), |bytes| {
        let Ok(name) = RelPath::new(&String::from_utf8_lossy(bytes)) else { return false };
        let path = name.under(Path::new("/nowhere")).unwrap();
        assert!(path.starts_with("/nowhere") && !path.components().any(|part| part.as_os_str() == ".."));
        true
    });
}
