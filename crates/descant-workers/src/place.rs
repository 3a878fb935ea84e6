//! Which of how many processes this one is, and where they meet: read from what its starter set.
//!
//! torchrun's names come first (our own launcher sets them too), then Slurm's. The environment is given as a function,
//! so that tests need none.

use crate::error::{Error, Result};
use crate::hosts::{first_host, tasks_on};

/// Most processes of a run.
pub(crate) const MAX_WORLD: usize = 4096;
/// From here on Slurm's numbers of steps mean something else: batch scripts and interactive shells.
const SLURM_RESERVED_STEPS: u64 = 0xffff_fff0;
/// Ports that are derived from the number of a Slurm job begin here, and are so many.
const SLURM_PORTS: (u64, u64) = (20_000, 20_000);

/// Who started the processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// `descant train --cards`.
    Launcher,
    /// torchrun, or whoever sets the same names.
    Torchrun,
    /// Slurm's srun.
    Slurm,
}

/// A process of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which one, from 0; 0 prints and writes.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// Which one of its host.
    pub local_rank: usize,
    /// How many its host has.
    pub local_world: usize,
    /// Where rank 0 is.
    pub host: String,
    /// The port that rank 0 listens on.
    pub port: u16,
    /// What tells this run from another one that meets in the same place; empty where the starter names none.
    pub run: String,
    /// Who started it.
    pub started: Started,
}

/// Set to anything by our own launcher.
const LAUNCHED: &str = "DESCANT_LAUNCHED";

impl Place {
    /// The name of the variable that tells a process that our launcher started it.
    pub const LAUNCHED: &str = LAUNCHED;

    /// What the environment says; `None` where the process is alone.
    ///
    /// # Errors
    /// A variable is missing or no number, or the numbers do not fit each other.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let set = |name: &str| get(name).filter(|value| !value.is_empty());
        let place = if set("RANK").is_some() { torchrun(&set)? } else { slurm(&set)? };
        let Some(mut place) = place.filter(|place| place.world > 1) else { return Ok(None) };
        if let Some(port) = port(&set, "DESCANT_PORT")? {
            place.port = port;
        }
        place.check().map(Some)
    }

    /// The variables by which our launcher tells a process its place.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            (LAUNCHED, self.run.clone()),
            ("RANK", self.rank.to_string()),
            ("WORLD_SIZE", self.world.to_string()),
            ("LOCAL_RANK", self.local_rank.to_string()),
            ("LOCAL_WORLD_SIZE", self.local_world.to_string()),
            ("MASTER_ADDR", self.host.clone()),
            ("MASTER_PORT", self.port.to_string()),
        ]
    }

    fn check(self) -> Result<Self> {
        let Self { rank, world, local_rank, local_world, .. } = self;
        let wrong = |text: String| Err(Error::Place(text));
        if world > MAX_WORLD {
            return wrong(format!("{world} processes; at most {MAX_WORLD} are supported"));
        }
        if rank >= world {
            return wrong(format!("this process is rank {rank} of {world}; ranks count from 0"));
        }
        if local_rank >= local_world || local_world > world {
            return wrong(format!(
                "this process is number {local_rank} of {local_world} on its host, in a run of {world}"
            ));
        }
        Ok(self)
    }
}

fn torchrun(set: &dyn Fn(&str) -> Option<String>) -> Result<Option<Place>> {
    let need = |name: &str, why: &str| {
        set(name).ok_or_else(|| Error::Place(format!("RANK is set, but {name} is not; {why}")))
    };
    let world = number("WORLD_SIZE", &need("WORLD_SIZE", "it is the number of processes")?)?;
    let rank = number("RANK", &set("RANK").unwrap_or_default())?;
    if world <= 1 {
        return Ok(None);
    }
    let local_rank = number("LOCAL_RANK", &need("LOCAL_RANK", "it says which card is this process's")?)?;
    let local_world = set("LOCAL_WORLD_SIZE").map(|value| number("LOCAL_WORLD_SIZE", &value)).transpose()?;
    let host = need("MASTER_ADDR", "it is the host of rank 0")?;
    need("MASTER_PORT", "it is the port where the processes meet")?;
    let mut port = port(set, "MASTER_PORT")?.unwrap_or_default();
    // There torchrun itself listens on that port.
    if set("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        port = port.checked_add(1).unwrap_or(port - 1);
    }
    let launched = set(LAUNCHED);
    let started = if launched.is_some() { Started::Launcher } else { Started::Torchrun };
    let run = launched.or_else(|| set("TORCHELASTIC_RUN_ID")).unwrap_or_default();
    // Without it, all that is known is that nobody is beyond this one.
    let local_world = local_world.unwrap_or(local_rank + 1).max(local_rank + 1);
    Ok(Some(Place { rank, world, local_rank, local_world, host, port, run, started }))
}

fn slurm(set: &dyn Fn(&str) -> Option<String>) -> Result<Option<Place>> {
    // A batch script and an interactive shell have Slurm's other names too: a task of srun alone has these.
    let step = set("SLURM_STEP_ID").and_then(|step| step.parse::<u64>().ok());
    let step = step.filter(|step| *step < SLURM_RESERVED_STEPS);
    let (Some(_), Some(world), Some(rank)) = (step, set("SLURM_STEP_NUM_TASKS"), set("SLURM_PROCID")) else {
        return Ok(None);
    };
    let (world, rank) = (number("SLURM_STEP_NUM_TASKS", &world)?, number("SLURM_PROCID", &rank)?);
    if world <= 1 {
        return Ok(None);
    }
    let local_rank = number("SLURM_LOCALID", &set("SLURM_LOCALID").unwrap_or_default())?;
    let node = number("SLURM_NODEID", &set("SLURM_NODEID").unwrap_or_else(|| "0".to_owned()))?;
    let local_world = set("SLURM_STEP_TASKS_PER_NODE").and_then(|list| tasks_on(&list, node));
    let hosts = set("SLURM_STEP_NODELIST").or_else(|| set("SLURM_JOB_NODELIST"));
    let host = set("MASTER_ADDR").or_else(|| first_host(&hosts?)).ok_or_else(|| {
        Error::Place("the host of rank 0 is not known from SLURM_STEP_NODELIST; set MASTER_ADDR".to_owned())
    })?;
    let job = set("SLURM_JOB_ID").unwrap_or_default();
    let derived = || SLURM_PORTS.0 + job.parse::<u64>().unwrap_or(0) % SLURM_PORTS.1;
    let port = port(set, "MASTER_PORT")?.unwrap_or_else(|| derived() as u16);
    let run = format!("{job}.{}", set("SLURM_STEP_ID").unwrap_or_default());
    let local_world = local_world.unwrap_or(local_rank + 1).max(local_rank + 1);
    Ok(Some(Place { rank, world, local_rank, local_world, host, port, run, started: Started::Slurm }))
}

fn number(name: &str, value: &str) -> Result<usize> {
    value.trim().parse().map_err(|_| Error::Place(format!("{name} is `{value}`; expected a number")))
}

fn port(set: &dyn Fn(&str) -> Option<String>, name: &str) -> Result<Option<u16>> {
    let wrong = |value: String| Error::Place(format!("{name} is `{value}`; expected a port from 1 to 65535"));
    let parse =
        |value: String| value.trim().parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong(value));
    set(name).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<Place>> {
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Place::read(&get)
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "gpu1"),
        ("MASTER_PORT", "29500"),
    ];

    const SLURM: [(&str, &str); 8] = [
        ("SLURM_STEP_ID", "0"),
        ("SLURM_STEP_NUM_TASKS", "6"),
        ("SLURM_PROCID", "4"),
        ("SLURM_LOCALID", "0"),
        ("SLURM_NODEID", "1"),
        ("SLURM_STEP_TASKS_PER_NODE", "4,2"),
        ("SLURM_STEP_NODELIST", "gpu[07-08]"),
        ("SLURM_JOB_ID", "1234567"),
    ];

    #[test]
    fn torchrun_is_understood_and_so_is_what_the_launcher_sets() {
        let place = read(&TORCHRUN).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank, place.local_world), (5, 8, 1, 4));
        assert_eq!((place.host.as_str(), place.port, place.started), ("gpu1", 29500, Started::Torchrun));
        let agent = [&TORCHRUN[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True")]].concat();
        assert_eq!(read(&agent).unwrap().unwrap().port, 29501);
        let own = [&TORCHRUN[..], &[("DESCANT_PORT", "4000")]].concat();
        assert_eq!(read(&own).unwrap().unwrap().port, 4000);
        let launched = Place { run: "abc".to_owned(), started: Started::Launcher, ..place };
        let variables = launched.variables();
        let pairs: Vec<(&str, &str)> = variables.iter().map(|(name, v)| (*name, v.as_str())).collect();
        assert_eq!(read(&pairs).unwrap(), Some(launched));
    }

    #[test]
    fn slurm_is_understood_in_a_task_of_srun_alone() {
        let place = read(&SLURM).unwrap().unwrap();
        assert_eq!((place.rank, place.world, place.local_rank, place.local_world), (4, 6, 0, 2));
        assert_eq!((place.host.as_str(), place.port), ("gpu07", 20_000 + 14_567));
        assert_eq!((place.run.as_str(), place.started), ("1234567.0", Started::Slurm));
        // A batch script has all names but those of a step.
        assert_eq!(read(&SLURM[2..]).unwrap(), None);
        let shell = [&[("SLURM_STEP_ID", "4294967290")], &SLURM[1..]].concat();
        assert_eq!(read(&shell).unwrap(), None);
    }

    #[test]
    fn a_process_alone_has_no_place() {
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let without = |name: &str| TORCHRUN.into_iter().filter(|(key, _)| *key != name).collect::<Vec<_>>();
        for name in ["WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
            let error = read(&without(name)).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        for (name, value, said) in [
            ("RANK", "8", "rank 8 of 8"),
            ("RANK", "-1", "RANK is `-1`"),
            ("WORLD_SIZE", "99999", "at most"),
            ("MASTER_PORT", "0", "a port from 1"),
            ("LOCAL_WORLD_SIZE", "9", "in a run of 8"),
        ] {
            let mut pairs = without(name);
            pairs.push((name, value));
            let error = read(&pairs).unwrap_err().to_string();
            assert!(error.contains(said), "{name}={value}: {error}");
        }
    }
}
