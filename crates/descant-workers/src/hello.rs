//! How processes meet: everyone connects to rank 0, which lets a run begin when all of them are there and run the same
//! program with the same settings.

use std::io::{ErrorKind, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frame::{Frame, Head, Kind, MAX_HELLO, read, write};
use crate::place::Place;
use crate::watch::Cause;

/// What a first message begins with; another number is another protocol.
const PROTOCOL: &str = "descant workers 1";
/// How long processes of one host may take until all are there: they start together.
const NEAR: Duration = Duration::from_secs(25);
/// The same of several hosts.
const FAR: Duration = Duration::from_mins(5);
/// How long whoever connects may take for its first message, and rank 0 for its first answer. Longer than a launcher waits
/// for the others once one has ended, 10 seconds: where a port is taken rank 0 says so, and not rank 1 at the same moment,
/// too.
const ANSWER: Duration = Duration::from_secs(15);
/// Time between two attempts to connect, and between two looks for somebody who does.
const PAUSE: Duration = Duration::from_millis(20);
/// Differences that are named.
const NAMED: usize = 8;

/// Names and values that must be the same everywhere.
pub type Facts = Vec<(String, String)>;

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The program's version, with its build.
    pub version: String,
    /// Name of its host.
    pub host: String,
    /// The settings of the run.
    pub facts: Facts,
}

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    protocol: String,
    run: String,
    rank: usize,
    world: usize,
    member: Member,
}

/// Connections to the others, with their ranks, and the hosts of all.
pub(crate) type Met = (Vec<(usize, TcpStream)>, Vec<String>);

/// Meets the others.
pub(crate) fn meet(place: &Place, member: &Member) -> Result<Met> {
    if place.rank == 0 { host(place, member) } else { visit(place, member).map(|(s, h)| (vec![(0, s)], h)) }
}

/// What differs between rank 0 and another.
pub(crate) fn difference(rank: usize, here: &Facts, there: &Facts) -> Option<String> {
    let value = |facts: &Facts, name: &str| {
        facts.iter().find(|(known, _)| known == name).map_or("absent", |(_, value)| value.as_str()).to_owned()
    };
    let names =
        here.iter().chain(there.iter().filter(|(name, _)| here.iter().all(|(known, _)| known != name)));
    let differing = names.map(|(name, _)| (name, value(there, name), value(here, name)));
    let mut all = differing.filter(|(_, there, here)| there != here);
    let named: Vec<String> = all
        .by_ref()
        .take(NAMED)
        .map(|(name, there, here)| format!("{name} is {there} at rank {rank} and {here} at rank 0"))
        .collect();
    let more = all.count();
    let more = if more > 0 { format!("; {more} more differ") } else { String::new() };
    (!named.is_empty()).then(|| format!("{}{more}", named.join("; ")))
}

fn is_near(host: &str) -> bool {
    host == "localhost" || host == "::1" || host.starts_with("127.")
}

fn patience(place: &Place) -> Duration {
    if is_near(&place.host) || place.local_world == place.world { NEAR } else { FAR }
}

/// Rank 0: waits for all others.
fn host(place: &Place, member: &Member) -> Result<Met> {
    let port = |error: std::io::Error| {
        let text = match error.kind() {
            ErrorKind::AddrInUse => "another program has it".to_owned(),
            _ => error.to_string(),
        };
        Error::Port { port: place.port, text }
    };
    // Only what is on this host may connect where all are.
    let listener = if is_near(&place.host) {
        TcpListener::bind((place.host.as_str(), place.port))
    } else {
        TcpListener::bind(("0.0.0.0", place.port))
    };
    let listener = listener.map_err(port)?;
    listener.set_nonblocking(true).map_err(port)?;
    let (sender, came) = channel();
    let (start, patience) = (Instant::now(), patience(place));
    let mut there: Vec<Option<(TcpStream, Member)>> = (0..place.world).map(|_| None).collect();
    while there[1..].iter().any(Option::is_none) {
        if let Ok((stream, _)) = listener.accept() {
            let sender = sender.clone();
            std::thread::spawn(move || greet(stream, &sender));
            continue;
        }
        let Ok((stream, hello)) = came.try_recv() else {
            if start.elapsed() > patience {
                let absent = (1..place.world).filter(|rank| there[*rank].is_none()).collect();
                let error = Error::Absent { ranks: absent, world: place.world, waited: patience };
                return Err(refuse(there, None, error));
            }
            std::thread::sleep(PAUSE);
            continue;
        };
        match admit(place, member, &there, &hello) {
            Ok(()) => there[hello.rank] = Some((stream, hello.member)),
            Err(error) => return Err(refuse(there, Some(stream), error)),
        }
    }
    let mut hosts = vec![member.host.clone()];
    hosts.extend(there.iter().flatten().map(|(_, member)| member.host.clone()));
    let welcome = serde_json::to_vec(&hosts).expect("texts are JSON");
    let mut streams = Vec::new();
    for (rank, member) in there.into_iter().enumerate() {
        let Some((mut stream, _)) = member else { continue };
        let sent = write(&mut stream, Head::new(Kind::Welcome, 0), &welcome);
        sent.map_err(|error| gone(rank, &error))?;
        streams.push((rank, stream));
    }
    Ok((streams, hosts))
}

/// Reads who connects. A stranger is not heard.
fn greet(mut stream: TcpStream, sender: &Sender<(TcpStream, Hello)>) {
    let set = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(ANSWER)));
    if set.and_then(|()| stream.set_write_timeout(Some(ANSWER))).is_err() {
        return;
    }
    let Ok(Frame { head: Head { kind: Kind::Hello, .. }, bytes }) = read(&mut stream, MAX_HELLO, || ())
    else {
        return;
    };
    let Ok(hello) = serde_json::from_slice::<Hello>(&bytes) else { return };
    // So that it knows whom it has reached, however long the others take.
    if write(&mut stream, Head::new(Kind::Beat, 0), &[]).is_ok() {
        let _ = sender.send((stream, hello));
    }
}

/// Whether a process may take part.
fn admit(place: &Place, here: &Member, there: &[Option<(TcpStream, Member)>], hello: &Hello) -> Result<()> {
    let Hello { rank, world, member, .. } = hello;
    let fail = |text: String| Err(Error::Member(Cause { rank: *rank, by: 0, text, status: None }));
    if hello.protocol != PROTOCOL {
        return fail(format!("it speaks `{}`, rank 0 `{PROTOCOL}`", hello.protocol));
    }
    if hello.run != place.run {
        return fail(format!(
            "it belongs to run `{}`, rank 0 to `{}`; use another port",
            hello.run, place.run
        ));
    }
    if *world != place.world || *rank == 0 || *rank >= place.world {
        return fail(format!("it is one of {world}, and rank 0 expects {} in all", place.world));
    }
    if let Some((_, other)) = &there[*rank] {
        return fail(format!("two processes are it, on {} and {}", other.host, member.host));
    }
    if member.version != here.version {
        return fail(format!("it runs {}, rank 0 runs {}", member.version, here.version));
    }
    difference(*rank, &here.facts, &member.facts)
        .map_or(Ok(()), |text| fail(format!("settings differ: {text}")))
}

/// Tells everybody who is there why the run does not begin.
fn refuse(there: Vec<Option<(TcpStream, Member)>>, last: Option<TcpStream>, error: Error) -> Error {
    let cause = match &error {
        Error::Member(cause) => cause.clone(),
        other => Cause { rank: 0, by: 0, text: other.to_string(), status: None },
    };
    let bytes = serde_json::to_vec(&cause).expect("texts and numbers are JSON");
    for mut stream in there.into_iter().flatten().map(|(stream, _)| stream).chain(last) {
        let _ = write(&mut stream, Head::new(Kind::Failed, 0), &bytes);
        let _ = stream.flush();
    }
    error
}

fn gone(rank: usize, error: &std::io::Error) -> Error {
    let text = format!("it left before the run began: {error}");
    Error::Member(Cause { rank, by: 0, text, status: None })
}

/// Another rank: connects to rank 0.
fn visit(place: &Place, member: &Member) -> Result<(TcpStream, Vec<String>)> {
    let address = format!("{}:{}", place.host, place.port);
    let unreached = |text: String| Error::Unreached { rank: place.rank, address: address.clone(), text };
    let (start, patience) = (Instant::now(), patience(place));
    let mut stream = loop {
        let found = (place.host.as_str(), place.port).to_socket_addrs();
        let tried = found.and_then(|all| {
            let mut last = std::io::Error::new(ErrorKind::NotFound, "the host has no address");
            for address in all {
                match TcpStream::connect_timeout(&address, ANSWER) {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = error,
                }
            }
            Err(last)
        });
        match tried {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > patience => {
                return Err(unreached(format!("{error}; tried for {} s", patience.as_secs())));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    let wire = |error: std::io::Error| unreached(error.to_string());
    stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(ANSWER))).map_err(wire)?;
    let hello = Hello {
        protocol: PROTOCOL.to_owned(),
        run: place.run.clone(),
        rank: place.rank,
        world: place.world,
        member: member.clone(),
    };
    let hello = serde_json::to_vec(&hello).expect("texts and numbers are JSON");
    write(&mut stream, Head::new(Kind::Hello, place.rank), &hello).map_err(wire)?;
    let strange =
        || unreached("what listens there does not answer as descant does; use another port".to_owned());
    loop {
        match read(&mut stream, MAX_HELLO, || ()) {
            Ok(Frame { head: Head { kind: Kind::Beat, .. }, .. }) => {
                // The rest takes as long as the slowest of us.
                stream.set_read_timeout(Some(patience + ANSWER)).map_err(wire)?;
            }
            Ok(Frame { head: Head { kind: Kind::Welcome, .. }, bytes }) => {
                let hosts: Vec<String> = serde_json::from_slice(&bytes).map_err(|_| strange())?;
                return Ok((stream, hosts));
            }
            Ok(Frame { head: Head { kind: Kind::Failed, .. }, bytes }) => {
                return Err(serde_json::from_slice(&bytes).map_or_else(|_| strange(), Error::Member));
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(unreached("rank 0 ended before the run began".to_owned()));
            }
            _ => return Err(strange()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_with_both_values_and_not_without_end() {
        let facts = |n: usize, value: &str| -> Facts {
            (0..n).map(|i| (format!("key{i}"), value.to_owned())).collect()
        };
        assert_eq!(difference(1, &facts(3, "a"), &facts(3, "a")), None);
        let text = difference(2, &facts(1, "a"), &facts(1, "b")).unwrap();
        assert_eq!(text, "key0 is b at rank 2 and a at rank 0");
        let text = difference(2, &facts(1, "a"), &facts(2, "a")).unwrap();
        assert_eq!(text, "key1 is a at rank 2 and absent at rank 0");
        let text = difference(2, &facts(20, "a"), &facts(20, "b")).unwrap();
        assert!(text.ends_with("; 12 more differ"), "{text}");
    }
}
