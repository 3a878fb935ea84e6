//! The group: what its members send each other where all of them meet.
//!
//! A collective is one call in every process, in the same order everywhere; its name and its number are compared, so
//! that two programs that went different ways are found and not mixed up. Rank 0 is in the middle: what the others send
//! goes through it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::frame::{Frame, Head, Kind, topic};
use crate::hello::{Facts, Member, difference, meet};
use crate::place::Place;
use crate::watch::{Cause, Link, Watch};

/// How long a member that answers may be late in a step, unless told otherwise.
const PATIENCE: Duration = Duration::from_mins(10);
/// The others wait so much longer than rank 0, so that it names the one that is late.
const LONGER: Duration = Duration::from_secs(5);
/// How often a waiting thread looks whether the group has failed.
const GLANCE: Duration = Duration::from_millis(20);

/// How long a collective waits for members that answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as the group's patience.
    Step,
    /// The same, or so long if that is shorter: it is known how long the others should take.
    Within(Duration),
    /// For ever: one of them may do something that takes hours.
    Long,
}

/// The members of a run, connected.
pub struct Group {
    place: Place,
    hosts: Vec<String>,
    watch: Arc<Watch>,
    inboxes: Vec<Mutex<Receiver<Frame>>>,
    number: AtomicU32,
    patience: Duration,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({} of {})", self.place.rank, self.place.world)
    }
}

impl Group {
    /// Meets the others. Once a cause to end is known and this process has not left the group within some seconds,
    /// `callback` is called with it from another thread.
    ///
    /// # Errors
    /// Somebody does not come, runs another program or has other settings, or the place where all meet is taken.
    pub fn join(
        place: &Place,
        member: &Member,
        callback: impl FnOnce(Cause) + Send + 'static,
    ) -> Result<Self> {
        let (streams, hosts) = meet(place, member)?;
        let broken = |error: std::io::Error| Error::Place(format!("rank {}: {error}", place.rank));
        let links = streams.into_iter().map(|(rank, stream)| Link::new(rank, stream));
        let links = links.collect::<std::io::Result<Vec<_>>>().map_err(broken)?;
        let (watch, inboxes) = Watch::start(place.rank, links, Box::new(callback)).map_err(broken)?;
        let inboxes = inboxes.into_iter().map(Mutex::new).collect();
        let number = AtomicU32::new(0);
        Ok(Self { place: place.clone(), hosts, watch, inboxes, number, patience: PATIENCE })
    }

    /// The same, which waits so long for a member that is late in a step.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where this process stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Which member this is, from 0.
    pub fn rank(&self) -> usize {
        self.place.rank
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        self.place.world
    }

    /// Whether this one prints and writes.
    pub fn is_first(&self) -> bool {
        self.place.rank == 0
    }

    /// The host of each rank.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Why the group ends, if it does.
    pub fn failure(&self) -> Option<Cause> {
        self.watch.failed()
    }

    /// Tells everybody that this process fails, and how.
    pub fn fail(&self, text: &str, status: Option<u8>) {
        self.watch.fail(Cause { rank: self.rank(), by: self.rank(), text: text.to_owned(), status }, None);
    }

    /// Tells everybody that a process is not as the others are, and how; the cause that counts. What this process then
    /// fails with adds nothing.
    pub fn blame(&self, rank: usize, text: String) -> Error {
        self.failed(rank, text, None)
    }

    /// Everybody's bytes, by rank, to everybody.
    ///
    /// # Errors
    /// A member ended, failed, is silent or late, or went another way; here and in every collective.
    pub fn all_gather(&self, name: &str, mine: &[u8], wait: Wait) -> Result<Vec<Vec<u8>>> {
        let due = self.next(name);
        if !self.is_first() {
            self.send(0, due, mine)?;
            return self.parts(self.receive(0, due, name, wait)?);
        }
        let mut all = vec![mine.to_vec()];
        for at in 0..self.inboxes.len() {
            all.push(self.receive(at, due, name, wait)?);
        }
        let mut joined: Vec<u8> = all.iter().flat_map(|part| (part.len() as u64).to_le_bytes()).collect();
        joined.extend(all.iter().flatten());
        (0..self.inboxes.len()).try_for_each(|at| self.send(at, due, &joined))?;
        Ok(all)
    }

    /// Everybody's bytes, by rank, to rank 0; nothing elsewhere.
    ///
    /// # Errors
    /// See [`all_gather`](Self::all_gather).
    pub fn gather(&self, name: &str, mine: &[u8], wait: Wait) -> Result<Option<Vec<Vec<u8>>>> {
        let due = self.next(name);
        if !self.is_first() {
            self.send(0, due, mine)?;
            return Ok(None);
        }
        let mut all = vec![mine.to_vec()];
        for at in 0..self.inboxes.len() {
            all.push(self.receive(at, due, name, wait)?);
        }
        Ok(Some(all))
    }

    /// The bytes of `root`, to everybody; what the others give is not looked at.
    ///
    /// # Errors
    /// See [`all_gather`](Self::all_gather).
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn broadcast(&self, name: &str, root: usize, mine: Vec<u8>, wait: Wait) -> Result<Vec<u8>> {
        assert!(root < self.world(), "one of us has the bytes");
        let due = self.next(name);
        if self.is_first() {
            // The link of rank r is the one before: rank 0 has none to itself.
            let bytes = if root == 0 { mine } else { self.receive(root - 1, due, name, wait)? };
            let others = (0..self.inboxes.len()).filter(|at| self.watch.links[*at].rank != root);
            others.into_iter().try_for_each(|at| self.send(at, due, &bytes))?;
            Ok(bytes)
        } else if self.rank() == root {
            self.send(0, due, &mine)?;
            Ok(mine)
        } else {
            self.receive(0, due, name, wait)
        }
    }

    /// Waits for everybody.
    ///
    /// # Errors
    /// See [`all_gather`](Self::all_gather).
    pub fn barrier(&self, name: &str, wait: Wait) -> Result<()> {
        self.all_gather(name, &[], wait).map(drop)
    }

    /// Compares facts with everybody's.
    ///
    /// # Errors
    /// They differ somewhere; see [`all_gather`](Self::all_gather) too.
    pub fn agree(&self, name: &str, facts: &Facts, wait: Wait) -> Result<()> {
        let mine = serde_json::to_vec(facts).expect("texts are JSON");
        let all = self.all_gather(name, &mine, wait)?;
        for (rank, theirs) in all.iter().enumerate().skip(1) {
            let theirs: Facts = serde_json::from_slice(theirs).unwrap_or_default();
            let here: Facts = serde_json::from_slice(&all[0]).unwrap_or_default();
            if let Some(text) = difference(rank, &here, &theirs) {
                let text = format!("it differs: {text}");
                return Err(Error::Member(Cause { rank, by: rank, text, status: None }));
            }
        }
        Ok(())
    }

    fn next(&self, name: &str) -> Head {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Head { kind: Kind::Data, rank: self.rank(), number, topic: topic(name) }
    }

    fn send(&self, at: usize, head: Head, bytes: &[u8]) -> Result<()> {
        self.watch.failed().map_or(Ok(()), |cause| Err(Error::Member(cause)))?;
        let link = &self.watch.links[at];
        link.send(head, bytes).map_err(|error| {
            // The thread that reads may know better, and hears of it at the same time.
            std::thread::sleep(GLANCE);
            self.failed(link.rank, format!("the connection to it broke: {error}"), Some(link.rank))
        })
    }

    fn receive(&self, at: usize, due: Head, name: &str, wait: Wait) -> Result<Vec<u8>> {
        let inbox = self.inboxes[at].lock().unwrap_or_else(PoisonError::into_inner);
        let rank = self.watch.links[at].rank;
        let longer = if self.is_first() { Duration::ZERO } else { LONGER };
        let patience = match wait {
            Wait::Step => Some(self.patience + longer),
            Wait::Within(time) => Some(time.min(self.patience) + longer),
            Wait::Long => None,
        };
        let start = Instant::now();
        let frame = loop {
            match inbox.recv_timeout(GLANCE) {
                Ok(frame) => break frame,
                Err(RecvTimeoutError::Timeout) => {
                    self.watch.failed().map_or(Ok(()), |cause| Err(Error::Member(cause)))?;
                    if patience.is_some_and(|patience| start.elapsed() > patience) {
                        let waited = start.elapsed().as_secs();
                        let text = format!("it did not finish its part within {waited} s, though it answers");
                        return Err(self.failed(rank, text, None));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.ended(at, rank, name)),
            }
        };
        let Head { number, topic, .. } = frame.head;
        if (number, topic) != (due.number, due.topic) {
            let what = if topic == due.topic { name } else { "another one" };
            let text = format!(
                "it sent message {number} ({what}) where message {} ({name}) was due; do all ranks run the same program?",
                due.number
            );
            return Err(self.failed(rank, text, None));
        }
        Ok(frame.bytes)
    }

    /// Why nothing more comes from a member.
    fn ended(&self, at: usize, rank: usize, name: &str) -> Error {
        let text = if self.watch.is_done(at) {
            format!("it ended where `{name}` was due")
        } else {
            "its process ended".to_owned()
        };
        self.failed(rank, text, Some(rank))
    }

    /// Records why the group ends; the cause that counts.
    fn failed(&self, rank: usize, text: String, origin: Option<usize>) -> Error {
        Error::Member(self.watch.fail(Cause { rank, by: self.rank(), text, status: None }, origin))
    }

    /// The parts of what rank 0 joined.
    fn parts(&self, joined: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let wrong = || {
            let text = format!("it sent {} bytes that are not one part for each rank", joined.len());
            self.failed(0, text, None)
        };
        let heads = self.world() * size_of::<u64>();
        let mut rest = joined.get(heads..).ok_or_else(wrong)?;
        let mut parts = Vec::new();
        for length in joined[..heads].chunks_exact(size_of::<u64>()) {
            let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
            let length = usize::try_from(length).map_err(|_| wrong())?;
            let (part, behind) = rest.split_at_checked(length).ok_or_else(wrong)?;
            parts.push(part.to_vec());
            rest = behind;
        }
        if rest.is_empty() { Ok(parts) } else { Err(wrong()) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.watch.close();
    }
}
