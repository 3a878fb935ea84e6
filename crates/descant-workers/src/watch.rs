//! How the members of a group learn that one of them ended, failed, or fell silent.
//!
//! Each connection has a thread that reads it, and a process has one that sends a beat every second and listens for the
//! others' beats. Whoever sees a failure first tells rank 0, which tells everybody; the first cause is the cause. The
//! thread that computes finds it at its next collective. One that does not get there in time, because it waits for a
//! card or computes something long, is ended by the callback of [`Group::join`](crate::Group::join).

use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::frame::{Frame, Head, Kind, MAX_BYTES, read, write};

/// How often a process says that it is there.
pub const BEAT: Duration = Duration::from_secs(1);
/// A process that was not heard for so long is taken for dead, though its connection stands.
pub const SILENCE: Duration = Duration::from_secs(15);
/// How long the thread that computes has to end by itself once a cause is known.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// How often a thread looks whether the group is closed.
const GLANCE: Duration = Duration::from_millis(50);
/// How long a message about a failure waits for a connection that another thread writes to.
const WRITER: Duration = Duration::from_secs(1);

/// Why all members of a group end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Whose fault it is.
    pub rank: usize,
    /// Who says so: the rank itself, or another that misses it.
    pub by: usize,
    /// What happened.
    pub text: String,
    /// The exit status that the failure has at its origin.
    pub status: Option<u8>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}: {}", self.rank, self.text)
    }
}

/// What is done about a failure that the computing thread does not see in time.
pub(crate) type Callback = Box<dyn FnOnce(Cause) + Send>;

/// A connection to another member.
pub(crate) struct Link {
    pub(crate) rank: usize,
    pub(crate) writer: Mutex<TcpStream>,
    /// The same connection, for closing it while another thread writes.
    stream: TcpStream,
    seen: Mutex<Instant>,
    /// Whether it said that it is done.
    done: AtomicBool,
}

/// What the threads of a member share.
pub(crate) struct Watch {
    pub(crate) rank: usize,
    pub(crate) links: Vec<Link>,
    failed: Mutex<Option<Cause>>,
    closed: AtomicBool,
    callback: Mutex<Option<Callback>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(crate) fn new(rank: usize, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(SILENCE))?;
        let writer = Mutex::new(stream.try_clone()?);
        let (seen, done) = (Mutex::new(Instant::now()), AtomicBool::new(false));
        Ok(Self { rank, writer, stream, seen, done })
    }

    /// Sends a message, once whoever else writes is done.
    pub(crate) fn send(&self, head: Head, bytes: &[u8]) -> std::io::Result<()> {
        write(&mut *locked(&self.writer), head, bytes)
    }

    /// Sends a message if nobody writes for long; else closes the connection, which says something too.
    fn send_last(&self, head: Head, bytes: &[u8]) {
        let start = Instant::now();
        while start.elapsed() < WRITER {
            if let Ok(mut writer) = self.writer.try_lock() {
                if write(&mut *writer, head, bytes).is_err() {
                    break;
                }
                return;
            }
            std::thread::sleep(GLANCE / 10);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Watch {
    /// Starts the threads; where the data of each link arrive.
    pub(crate) fn start(
        rank: usize,
        links: Vec<Link>,
        callback: Callback,
    ) -> std::io::Result<(Arc<Self>, Vec<Receiver<Frame>>)> {
        let watch = Arc::new(Self {
            rank,
            links,
            failed: Mutex::default(),
            closed: AtomicBool::new(false),
            callback: Mutex::new(Some(callback)),
        });
        let mut inboxes = Vec::new();
        for at in 0..watch.links.len() {
            let (sender, inbox) = channel();
            let (of_thread, stream) = (Arc::clone(&watch), watch.links[at].stream.try_clone()?);
            spawn("workers read", move || of_thread.listen(at, stream, &sender))?;
            inboxes.push(inbox);
        }
        let of_thread = Arc::clone(&watch);
        spawn("workers beat", move || of_thread.beat())?;
        Ok((watch, inboxes))
    }

    /// Why the group ends, if it does.
    pub(crate) fn failed(&self) -> Option<Cause> {
        locked(&self.failed).clone()
    }

    /// Records a cause and tells the others, unless there is one; the cause that counts.
    pub(crate) fn fail(self: &Arc<Self>, cause: Cause, origin: Option<usize>) -> Cause {
        {
            let mut failed = locked(&self.failed);
            if let Some(first) = &*failed {
                return first.clone();
            }
            *failed = Some(cause.clone());
        }
        let bytes = serde_json::to_vec(&cause).expect("texts and numbers are JSON");
        for link in &self.links {
            if Some(link.rank) == origin {
                // It knows, or hears nothing any more; who writes to it must not wait.
                let _ = link.stream.shutdown(Shutdown::Both);
            } else {
                link.send_last(Head::new(Kind::Failed, self.rank), &bytes);
            }
        }
        if let Some(callback) = locked(&self.callback).take() {
            let (watch, cause) = (Arc::clone(self), cause.clone());
            let last_resort = move || {
                if watch.sleeps(GRACE) {
                    callback(cause);
                }
            };
            // Without a thread there is no last resort, and the collective still fails.
            drop(spawn("workers end", last_resort));
        }
        cause
    }

    /// Says goodbye: the ends of connections mean nothing any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for link in &self.links {
            if self.failed().is_none() {
                link.send_last(Head::new(Kind::Bye, self.rank), &[]);
            }
            let _ = link.stream.shutdown(Shutdown::Write);
        }
    }

    /// Waits; whether the group is still open then.
    fn sleeps(&self, time: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < time {
            if self.closed.load(Ordering::SeqCst) {
                return false;
            }
            std::thread::sleep(GLANCE);
        }
        true
    }

    /// Reads what a member sends until it is gone.
    fn listen(self: Arc<Self>, at: usize, mut stream: TcpStream, inbox: &Sender<Frame>) {
        let link = &self.links[at];
        let lost = |text: String| Cause { rank: link.rank, by: self.rank, text, status: None };
        loop {
            match read(&mut stream, MAX_BYTES, || *locked(&link.seen) = Instant::now()) {
                Ok(Frame { head: Head { kind: Kind::Beat, .. }, .. }) => {}
                Ok(frame) if frame.head.kind == Kind::Data => {
                    if inbox.send(frame).is_err() {
                        return;
                    }
                }
                Ok(Frame { head: Head { kind: Kind::Failed, .. }, bytes }) => {
                    let cause = serde_json::from_slice(&bytes);
                    let cause = cause.unwrap_or_else(|_| lost("failed, and its words were lost".to_owned()));
                    self.fail(cause, Some(link.rank));
                    return;
                }
                Ok(Frame { head: Head { kind: Kind::Bye, .. }, .. }) => {
                    link.done.store(true, Ordering::SeqCst);
                    return;
                }
                Ok(frame) => {
                    self.fail(lost(format!("sent {:?} in the middle of a run", frame.head.kind)), None);
                    return;
                }
                Err(error) => {
                    if !self.closed.load(Ordering::SeqCst) {
                        let text = match error.kind() {
                            std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
                                "its process ended without an error; it was killed, or its host is gone"
                                    .to_owned()
                            }
                            _ => format!("the connection to it broke: {error}"),
                        };
                        self.fail(lost(text), Some(link.rank));
                    }
                    return;
                }
            }
        }
    }

    /// Says that this process is there, and sees that the others do.
    fn beat(self: Arc<Self>) {
        while self.sleeps(BEAT) && self.failed().is_none() {
            for link in self.links.iter().filter(|link| !link.done.load(Ordering::SeqCst)) {
                // Who writes says enough.
                if let Ok(mut writer) = link.writer.try_lock() {
                    // That it cannot be sent is the reader's to find.
                    let _ = write(&mut *writer, Head::new(Kind::Beat, self.rank), &[]);
                }
                let silent = locked(&link.seen).elapsed();
                if silent > SILENCE {
                    let text = format!("nothing was heard of it for {} s; it hangs", silent.as_secs());
                    let cause = Cause { rank: link.rank, by: self.rank, text, status: None };
                    self.fail(cause, Some(link.rank));
                    break;
                }
            }
        }
    }

    /// Whether a member said that it is done.
    pub(crate) fn is_done(&self, at: usize) -> bool {
        self.links[at].done.load(Ordering::SeqCst)
    }
}

fn spawn(name: &str, f: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(f).map(drop)
}
