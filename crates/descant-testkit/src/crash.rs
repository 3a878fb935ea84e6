//! The kill harness: `descant train` on the micro model, killed at random moments and started again and again to
//! continue, until it is done; then its bytes are those of a run that nobody disturbed.
//!
//! Three of four kills wait for a save to be under way, which is where a protocol can be wrong. What kills is SIGKILL:
//! nothing of the program runs after it. Loss of power is another harness (`descant-train/tests/it/resume.rs`).
//!
//! [`signals`], [`disk`] and [`soak`] disturb the same subject in other ways. `examples/crash.rs` runs all of them, and
//! with `control=1` shows that each can fail.

pub mod disk;
pub mod signals;
pub mod soak;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::Dice;
use crate::micro::{Micro, Options};

/// Longest that one process may take before the harness calls it hung.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the harness looks for a save under way.
const GLANCE: Duration = Duration::from_micros(100);

/// A program to run, on a micro model of its own.
#[derive(Debug)]
pub struct Subject {
    /// The binary.
    pub binary: PathBuf,
    /// The model and its data.
    pub micro: Micro,
    /// Settings in the form of `--set`.
    pub sets: Vec<String>,
    /// A rule that the program breaks on purpose, as `DESCANT_FAULT` takes it.
    pub broken: Option<&'static str>,
    /// Processes that share a run, where it is more than one.
    pub cards: Option<usize>,
}

/// What a run leaves that must not depend on how often it was disturbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes {
    /// `metrics.jsonl`
    pub metrics: Vec<u8>,
    /// `adapter/adapter_model.safetensors`
    pub adapter: Vec<u8>,
}

/// Counts over killed runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs that were carried to their end.
    pub runs: usize,
    /// Kills.
    pub kills: usize,
    /// Kills that left a save half done.
    pub in_save: usize,
}

impl Subject {
    /// A micro model in `dir` for `binary`, to be trained for `steps` steps.
    ///
    /// # Errors
    /// The model cannot be written.
    pub fn new(binary: &Path, dir: &Path, options: &Options, steps: u64) -> std::io::Result<Self> {
        let micro = Micro::write(dir, options)?;
        let sets = [
            format!("train.max_steps={steps}"),
            "train.warmup_steps=5".to_owned(),
            "train.micro_batch=2".to_owned(),
            "train.accumulation=2".to_owned(),
            "train.learning_rate=1e-2".to_owned(),
            "lora.r=2".to_owned(),
            "lora.alpha=4".to_owned(),
            "lora.targets=[\"q_proj\", \"down_proj\"]".to_owned(),
            "run.save_every=3".to_owned(),
        ];
        Ok(Self { binary: binary.to_owned(), micro, sets: sets.to_vec(), broken: None, cards: None })
    }

    /// The command that trains into `folder`.
    pub fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["train", "-q"]);
        let settings = self.micro.data.with_file_name("run.toml");
        // Without a file the embedded default would want its own data measured.
        let _ = descant_files::write_atomic(&settings, b"");
        command.arg(settings);
        let paths = [
            format!("model.path={}", self.micro.model.display()),
            format!("data.path={}", self.micro.data.display()),
            format!("run.folder={}", folder.display()),
            "model.device=cpu".to_owned(),
        ];
        for set in self.sets.iter().chain(&paths) {
            command.args(["--set", set]);
        }
        command.args(self.cards.map(|cards| format!("--cards={cards}")));
        for name in ["RUST_LOG", "RUST_BACKTRACE", "DESCANT_FAULT"] {
            command.env_remove(name);
        }
        command.envs(self.broken.map(|rule| ("DESCANT_FAULT", rule)));
        command.env("RAYON_NUM_THREADS", "1").stdin(Stdio::null());
        command
    }

    /// Runs to the end, undisturbed.
    ///
    /// # Errors
    /// It does not end well.
    pub fn run(&self, folder: &Path) -> Result<Bytes, String> {
        let output = self.command(folder).output().map_err(|e| e.to_string())?;
        ended_well(&output)?;
        Bytes::read(folder)
    }

    fn start(&self, folder: &Path) -> Result<Child, String> {
        let mut command = self.command(folder);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())
    }

    /// Kills at least `kills` times, over as many runs as that takes; every run must end with `expected`.
    /// `length` is how long an undisturbed run takes.
    ///
    /// # Errors
    /// A run ended otherwise; the text has the seed.
    pub fn kill(
        &self,
        dir: &Path,
        expected: &Bytes,
        kills: usize,
        length: Duration,
        seed: u64,
    ) -> Result<Tally, String> {
        let mut dice = Dice::new(seed);
        let mut tally = Tally::default();
        let mut killer = Killer::new()?;
        while tally.kills < kills {
            let folder = dir.join(format!("run-{}", tally.runs));
            let wrong = |e: String| format!("seed {seed}, run {}: {e}", folder.display());
            while tally.kills < kills + 8 {
                let mut child = self.start(&folder)?;
                let in_save = dice.below(4) > 0;
                let moment = length.mul_f64(dice.unit());
                // Of several, rank 0 saves; now and then another is killed while it does.
                let who =
                    if in_save && dice.below(8) > 0 { Who::Saves } else { Who::Any(dice.below(1 << 16)) };
                let moment = wait_for_moment(&mut child, &folder, moment, in_save).map_err(wrong)?;
                let Moment::Come { swept } = moment else { break };
                killer.kill_one(child, who).map_err(wrong)?;
                tally.kills += 1;
                tally.in_save += usize::from(swept && save_is_under_way(&folder));
            }
            let bytes = self.run(&folder).map_err(wrong)?;
            if bytes != *expected {
                return Err(wrong("the bytes are not those of an undisturbed run".to_owned()));
            }
            std::fs::remove_dir_all(&folder).map_err(|e| e.to_string())?;
            tally.runs += 1;
        }
        Ok(tally)
    }
}

/// Whom to kill.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// The process that saves.
    Saves,
    /// Any of them, by a number that was drawn.
    Any(usize),
}

/// A shell that sends signals: starting a program for each takes longer than most saves.
struct Killer {
    shell: Child,
    lines: ChildStdin,
}

impl Killer {
    fn new() -> Result<Self, String> {
        let mut command = Command::new("sh");
        // Whoever is to be killed may have ended since.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = command.spawn().map_err(|e| format!("sh: {e}"))?;
        let lines = shell.stdin.take().ok_or("a pipe to sh")?;
        Ok(Self { shell, lines })
    }

    /// Kills one process of a run, and waits until all have ended.
    fn kill_one(&mut self, mut child: Child, who: Who) -> Result<(), String> {
        let members = members(child.id());
        let chosen = match who {
            Who::Saves => members.first().copied(),
            Who::Any(drawn) => members.get(drawn % (members.len() + 1)).copied(),
        };
        match chosen {
            Some(member) => {
                let line = format!("kill -s KILL {member}\n");
                self.lines.write_all(line.as_bytes()).map_err(|e| format!("sh: {e}"))?;
            }
            // It is alone, or the launcher is chosen.
            None => child.kill().map_err(|e| e.to_string())?,
        }
        child.wait().map_err(|e| e.to_string())?;
        let start = Instant::now();
        while members.iter().any(|member| is_at_work(*member)) {
            if start.elapsed() > PATIENCE {
                return Err("processes of the run are left".to_owned());
            }
            std::thread::sleep(GLANCE * 20);
        }
        Ok(())
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// The processes that a launcher has started, by rank.
pub fn members(launcher: u32) -> Vec<u32> {
    let place = Path::new("/proc").join(launcher.to_string());
    let children = std::fs::read_to_string(place.join("task").join(launcher.to_string()).join("children"));
    // They are started in the order of their ranks.
    let mut members: Vec<u32> =
        children.unwrap_or_default().split_whitespace().filter_map(|id| id.parse().ok()).collect();
    members.sort_unstable();
    members
}

/// Whether a process is there and has not ended.
fn is_at_work(process: u32) -> bool {
    let files = Path::new("/proc").join(process.to_string()).join("fd").read_dir();
    files.is_ok_and(|mut files| files.next().is_some())
}

/// What came first.
enum Moment {
    /// The moment. What a process before had left in the middle of a save was `swept`: what lies there now is new.
    Come { swept: bool },
    /// The process's end, a good one.
    Ended,
}

/// Waits for the moment to disturb a process.
fn wait_for_moment(
    child: &mut Child,
    folder: &Path,
    moment: Duration,
    in_save: bool,
) -> Result<Moment, String> {
    let start = Instant::now();
    let mut swept = false;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            return if status.success() {
                Ok(Moment::Ended)
            } else {
                Err(format!("it ended by itself with {status}"))
            };
        }
        let passed = start.elapsed();
        if passed > PATIENCE {
            return Err("it hangs".to_owned());
        }
        swept |= !save_is_under_way(folder);
        if passed >= moment && (!in_save || (swept && save_is_under_way(folder))) {
            return Ok(Moment::Come { swept });
        }
        std::thread::sleep(GLANCE);
    }
}

/// Whether there is a temporary name among the checkpoints.
pub fn save_is_under_way(folder: &Path) -> bool {
    let names = descant_files::list(&folder.join("checkpoints"));
    names.is_ok_and(|names| names.iter().any(|name| descant_files::is_temporary(name)))
}

impl Bytes {
    /// Reads them in a run's folder.
    ///
    /// # Errors
    /// They are not there.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| std::fs::read(folder.join(name)).map_err(|e| format!("{name}: {e}"));
        Ok(Self { metrics: read("metrics.jsonl")?, adapter: read("adapter/adapter_model.safetensors")? })
    }
}

fn ended_well(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}
