//! A disk that is really full: a small file system in memory, where this user may mount one.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Bytes, Subject};

/// A mounted file system, gone when dropped.
struct Disk(PathBuf);

impl Disk {
    /// One of this size; `None` where this user may not mount.
    fn mount(at: &Path, size: &str) -> Result<Option<Self>, String> {
        std::fs::create_dir(at).map_err(|e| e.to_string())?;
        let mounted = mount(at, &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        Ok(mounted.then(|| Self(at.to_owned())))
    }

    fn grow(&self) -> Result<(), String> {
        let grown = mount(&self.0, &["-o", "remount,size=64m"]);
        if grown { Ok(()) } else { Err("full disk: it cannot be made larger".to_owned()) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

fn mount(at: &Path, arguments: &[&str]) -> bool {
    Command::new("mount").args(arguments).arg(at).output().is_ok_and(|output| output.status.success())
}

/// Trains on disks of these sizes, each of which must become full: the run ends with 2 and says where and why. With
/// room it continues to `expected`. Says what was done, or that this user may not mount a disk.
///
/// # Errors
/// It ended otherwise.
pub fn full_disks(subject: &Subject, dir: &Path, expected: &Bytes, sizes: &[&str]) -> Result<String, String> {
    let mut said = Vec::new();
    for size in sizes {
        let Some(disk) = Disk::mount(&dir.join(format!("disk-{size}")), size)? else {
            return Ok("full disk: left out, this user may not mount one".to_owned());
        };
        let folder = disk.0.join("run");
        let output = subject.command(&folder).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(2) || !text.contains(&*folder.to_string_lossy()) {
            return Err(format!("full disk of {size}: {}: {text}", output.status));
        }
        said.push(text.lines().next().unwrap_or_default().replace(&*dir.to_string_lossy(), ""));
        disk.grow()?;
        if subject.run(&folder)? != *expected {
            return Err(format!("full disk of {size}: other bytes than an undisturbed run"));
        }
    }
    Ok(format!(
        "full disk: {} of them, each ended with 2 and resumed when there was room; bytes equal\n  {}",
        sizes.len(),
        said.join("\n  ")
    ))
}
