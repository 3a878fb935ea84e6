//! Writes a folder that is there whole or not at all, with names that somebody else chose:
//!
//! ```sh
//! cargo run -p descant-files --example safe_folder -- /tmp/out notes/a.txt ../../etc/passwd
//! ```
#![allow(clippy::print_stdout, reason = "an example shows what it did")]

use std::error::Error;
use std::path::Path;

use descant_files::{NewDir, RelPath};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(folder) = arguments.next() else {
        println!("usage: safe_folder FOLDER NAME...");
        return Ok(());
    };
    let refused = write(Path::new(&folder), arguments)?;
    println!("wrote {folder}");
    for reason in refused {
        println!("refused {reason}");
    }
    Ok(())
}

/// Writes a file for each name that stays inside; reports why the others do not.
fn write(folder: &Path, names: impl Iterator<Item = String>) -> Result<Vec<String>, Box<dyn Error>> {
    let mut refused = Vec::new();
    let mut new = NewDir::create(folder)?;
    for name in names {
        match RelPath::new(&name) {
            Ok(name) => new.write(&name, b"written whole\n")?,
            Err(error) => refused.push(error.to_string()),
        }
    }
    new.commit()?;
    Ok(refused)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_writes_what_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("out");
        let names = ["a/b.txt", "../x", "/y"].map(str::to_owned);
        let refused = super::write(&folder, names.into_iter()).unwrap();
        assert_eq!(refused.len(), 2);
        assert!(folder.join("a/b.txt").is_file());
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }
}
