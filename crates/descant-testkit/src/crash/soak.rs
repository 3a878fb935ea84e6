//! A long run: what grows with the steps would show.

use std::path::Path;
use std::time::{Duration, Instant};

use super::{Bytes, Subject, ended_well};

/// How often memory and files are looked at.
const PERIOD: Duration = Duration::from_millis(50);
/// Steps between two kills, about.
const STEPS_A_KILL: u64 = 200;

/// A long run in one process, whose memory and open files are watched, and the same killed about every 200 steps.
///
/// # Errors
/// Memory or files grow, or the bytes differ.
pub fn soak(subject: &Subject, dir: &Path, steps: u64, seed: u64) -> Result<String, String> {
    let folder = dir.join("soak-whole");
    let start = Instant::now();
    let mut child = subject.start(&folder)?;
    let mut seen = Vec::new();
    // When the adapter is written, training is over: then the record of all steps is read back for the report, which
    // takes memory in proportion to them, once.
    let trained = folder.join("adapter");
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        if !trained.exists() {
            seen.extend(Look::at(child.id()));
        }
        std::thread::sleep(PERIOD);
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    ended_well(&output)?;
    let expected = Bytes::read(&folder)?;
    let length = start.elapsed();
    let flat = flat(&seen)?;
    let between = length.mul_f64((2 * STEPS_A_KILL) as f64 / steps as f64);
    let tally = subject.kill(dir, &expected, steps.div_ceil(STEPS_A_KILL) as usize, between, seed)?;
    Ok(format!(
        "soak: {steps} steps, {flat}; killed {} times over {} runs: all bytes equal; {:.0} s",
        tally.kills,
        tally.runs,
        start.elapsed().as_secs_f64()
    ))
}

/// A process's memory and files at one moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    resident_kib: u64,
    files: usize,
}

impl Look {
    fn at(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        let resident_kib = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self { resident_kib, files: std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() })
    }
}

/// Says that nothing grows from the second quarter to the last. The first warms up: the allocator's caches, the first
/// of everything.
fn flat(seen: &[Look]) -> Result<String, String> {
    if seen.len() < 40 {
        return Err(format!("soak: too short, it was looked at {} times", seen.len()));
    }
    let most = |quarter: usize| {
        let part = &seen[quarter * seen.len() / 4..(quarter + 1) * seen.len() / 4];
        let most = |of: fn(&Look) -> u64| part.iter().map(of).max().unwrap_or(0);
        (most(|look| look.resident_kib), most(|look| look.files as u64))
    };
    let (early, late) = (most(1), most(3));
    let said = format!("{} to {} KiB resident, {} to {} files open", early.0, late.0, early.1, late.1);
    // A twentieth is what buffers of other lengths make; a leak of a kilobyte a step is ten times that in 20,000.
    if late.0 > early.0 + early.0 / 20 || late.1 > early.1 {
        return Err(format!("soak: it grows: {said}"));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_seen_and_what_only_moves_is_not() {
        let looks = |kib: fn(u64) -> u64, files: fn(u64) -> u64| -> Vec<Look> {
            (0..400).map(|n| Look { resident_kib: kib(n), files: files(n) as usize }).collect()
        };
        let still = |n| 40_000 + 500 * (n % 3);
        assert!(flat(&looks(still, |n| 12 + n % 2)).is_ok());
        assert!(flat(&looks(|n| 40_000 + 12 * n, |_| 12)).is_err(), "a leak of memory");
        assert!(flat(&looks(still, |n| 12 + n / 300)).is_err(), "one file that stays open");
        assert!(flat(&looks(still, |_| 12)[..9]).is_err(), "too short to say");
    }
}
