//! Starts a process for each card with this command's own arguments, and watches them until all have ended.
//!
//! Each gets its place by the variables that torchrun sets too, and holds a pipe to this process, by which it hears of
//! signals and of this process's end. When one ends badly the others learn it from their group and end by themselves;
//! who does not is killed. Rank 0 says what happened; this process speaks only where nobody else can.

use std::io::Write as _;
use std::net::TcpListener;
use std::num::NonZero;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use descant_workers::{Place, Started};

use super::leash;
use crate::failure::{Exit, Hinted};
use crate::signals::Signals;

/// How long the others have to end once one has ended badly. With the 15 seconds after which a process that hangs is
/// found, all are gone within 30.
const GRACE: Duration = Duration::from_secs(10);
/// How often the processes are looked at.
const GLANCE: Duration = Duration::from_millis(20);
/// The host where processes of one machine meet.
const HERE: &str = "127.0.0.1";

/// A process that was started.
struct Worker {
    rank: usize,
    child: Child,
    leash: Option<ChildStdin>,
    ended: Option<ExitStatus>,
}

/// Runs this command once for each device.
pub(crate) fn launch(devices: &[String]) -> Result<Exit> {
    let signals = Signals::catch()?;
    signals.hold();
    let mut all = Vec::new();
    let port = port()?;
    // Distinct for each launch, so that two that meet at one port are distinguished.
    let run = format!("{}-{port}", std::process::id());
    for (rank, device) in devices.iter().enumerate() {
        let place = Place {
            rank,
            world: devices.len(),
            local_rank: rank,
            local_world: devices.len(),
            host: HERE.to_owned(),
            port,
            run: run.clone(),
            started: Started::Launcher,
        };
        match start(&place, device) {
            Ok(started) => all.push(started),
            Err(error) => {
                all.iter_mut().for_each(Worker::kill);
                return Err(error);
            }
        }
    }
    watch(&mut all, &signals)?;
    if let Some(exit) = signals.came() {
        return Ok(exit);
    }
    verdict(&all)
}

/// The port that the environment names, or one that is free now.
fn port() -> Result<u16> {
    for name in ["DESCANT_PORT", "MASTER_PORT"] {
        let Ok(value) = std::env::var(name) else { continue };
        let port = value.trim().parse().ok().filter(|port| *port > 0);
        return port.with_context(|| format!("{name} is `{value}`; expected a port from 1 to 65535"));
    }
    let listener = TcpListener::bind((HERE, 0)).context("look for a free port")?;
    Ok(listener.local_addr().context("look for a free port")?.port())
}

fn start(place: &Place, device: &str) -> Result<Worker> {
    let program = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).envs(place.variables()).env(leash::DEVICE, device);
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        command.env("RAYON_NUM_THREADS", (threads / place.local_world).max(1).to_string());
    }
    command.stdin(Stdio::piped());
    if place.rank > 0 {
        command.stdout(Stdio::null());
    }
    let mut child = command.spawn().with_context(|| format!("start rank {}", place.rank))?;
    let leash = child.stdin.take();
    Ok(Worker { rank: place.rank, child, leash, ended: None })
}

impl Worker {
    fn kill(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    fn is_bad(&self) -> bool {
        self.ended.is_some_and(|status| !status.success())
    }
}

/// Waits until all have ended; passes a signal on, and ends those who do not end by themselves.
fn watch(all: &mut [Worker], signals: &Signals) -> Result<()> {
    let (mut told, mut bad_since) = (false, None);
    while all.iter().any(|started| started.ended.is_none()) {
        for started in all.iter_mut().filter(|started| started.ended.is_none()) {
            started.ended = started.child.try_wait().context("look at a process")?;
        }
        if let Some(exit) = signals.came().filter(|_| !told) {
            told = true;
            let word = [leash::word(exit)];
            for leash in all.iter_mut().filter_map(|started| started.leash.as_mut()) {
                // Who does not hear it has ended.
                let _ = leash.write_all(&word).and_then(|()| leash.flush());
            }
        }
        if all.iter().any(Worker::is_bad) {
            let since: &Instant = bad_since.get_or_insert_with(Instant::now);
            if since.elapsed() > GRACE {
                all.iter_mut().for_each(Worker::kill);
            }
        }
        std::thread::sleep(GLANCE);
    }
    Ok(())
}

/// How this process ends: as rank 0 did, where that had something to say.
fn verdict(all: &[Worker]) -> Result<Exit> {
    let code = |started: &Worker| started.ended.and_then(|status| status.code());
    if let Some(code) = code(&all[0]) {
        return Ok(Exit::of_code(code));
    }
    // Rank 0 was killed. Rank 1 has missed it and said so, if it could.
    if let Some(code) = all.get(1).and_then(code).filter(|code| *code != 0) {
        return Ok(Exit::of_code(code));
    }
    let ends: Vec<String> = all
        .iter()
        .map(|started| {
            format!("rank {}: {}", started.rank, started.ended.map_or_else(String::new, |s| s.to_string()))
        })
        .collect();
    let error = anyhow!("the processes of the run were ended from outside: {}", ends.join("; "));
    Err(Hinted::new(error, "the same command again resumes from the last checkpoint").into())
}
