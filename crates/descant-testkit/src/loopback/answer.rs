//! What a hub answers, and how it fails.

use std::io::{Result, Write};
use std::sync::Mutex;

use super::state::{Fault, File, Repository, Seen, State};

const LOGIN_PAGE: &str = "<!doctype html><title>Log in</title><p>Please log in to continue.</p>";

/// Answers one request.
pub(super) fn answer(head: &str, state: &Mutex<State>, is_store: bool, out: &mut impl Write) -> Result<()> {
    let seen = Seen::parse(head, is_store);
    let mut state = state.lock().expect("no thread of the hub panics");
    state.seen.push(seen.clone());
    let fault = state.take_fault(&seen.target);
    let reply = state.reply(&seen, fault.as_ref());
    // Others must not wait while this one is slow.
    drop(state);
    reply.send(seen.method == "HEAD", fault, out)
}

impl Seen {
    fn parse(head: &str, at_store: bool) -> Self {
        let mut words = head.split_whitespace().map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let header = |name: &str| {
            let line =
                head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
            Some(line[name.len() + 1..].trim().to_owned())
        };
        let (authorization, range) = (header("authorization"), header("range"));
        Self { at_store, method, target, authorization, range, head: head.to_owned() }
    }

    fn header_is(&self, name: &str, value: &str) -> bool {
        self.head.to_ascii_lowercase().contains(&format!("{name}: {value}").to_ascii_lowercase())
    }
}

/// An answer before it is sent.
#[derive(Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn page(status: u16) -> Self {
        let body = LOGIN_PAGE.as_bytes().to_vec();
        Self { status, headers: vec![("Content-Type", "text/html".into())], body }
    }

    fn missing(code: &str) -> Self {
        Self { status: 404, headers: vec![("X-Error-Code", code.to_owned())], body: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn send(mut self, head: bool, fault: Option<Fault>, out: &mut impl Write) -> Result<()> {
        let (mut announced, mut pause) = (Some(self.body.len()), None);
        match fault {
            Some(Fault::Hang) => return Ok(()),
            Some(Fault::Cut(at)) => self.body.truncate(at),
            Some(Fault::AnnounceMore(more)) => announced = Some(self.body.len() + more),
            Some(Fault::Short(less)) => {
                self.body.truncate(self.body.len().saturating_sub(less));
                announced = Some(self.body.len());
            }
            Some(Fault::Long(more)) => {
                self.body.extend(vec![0; more]);
                announced = None;
            }
            Some(Fault::Stall(after, time)) => {
                self.body.truncate(after);
                pause = Some(time);
            }
            _ => {}
        }
        write!(out, "HTTP/1.1 {} X\r\nConnection: close\r\n", self.status)?;
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n")?;
        }
        if let Some(length) = announced {
            write!(out, "Content-Length: {length}\r\n")?;
        }
        write!(out, "\r\n")?;
        if !head {
            out.write_all(&self.body)?;
        }
        out.flush()?;
        if let Some(time) = pause {
            std::thread::sleep(time);
        }
        Ok(())
    }
}

impl State {
    fn take_fault(&mut self, target: &str) -> Option<Fault> {
        let (_, times, fault) =
            self.faults.iter_mut().find(|(part, times, _)| *times > 0 && target.contains(part.as_str()))?;
        *times -= 1;
        Some(fault.clone())
    }

    fn reply(&self, seen: &Seen, fault: Option<&Fault>) -> Reply {
        match fault {
            Some(Fault::Status(status, wait)) => {
                let reply = Reply::page(*status);
                return wait.iter().fold(reply, |reply, s| reply.with("Retry-After", s.to_string()));
            }
            Some(Fault::LoginPage) => return Reply::page(200),
            Some(Fault::Redirect(to)) => {
                return Reply { status: 302, ..Reply::default() }.with("Location", to);
            }
            _ => {}
        }
        let path = seen.target.split('?').next().unwrap_or_default();
        if seen.at_store {
            let hash = path.strip_prefix("/blob/").unwrap_or_default();
            let all = self.repositories.values().flat_map(|repository| repository.files.values());
            return all
                .clone()
                .find(|file| file.sha256 == hash)
                .map_or_else(|| Reply::missing("EntryNotFound"), |file| content(file, seen, fault));
        }
        if let Some(rest) = path.strip_prefix("/api/") {
            return self.list(rest, seen);
        }
        let (kind, rest) = path.strip_prefix("/datasets").map_or(("models", path), |rest| ("datasets", rest));
        let parts: Vec<&str> = rest.trim_start_matches('/').splitn(5, '/').collect();
        let [owner, name, "resolve", revision, file] = parts[..] else {
            return Reply::missing("RepoNotFound");
        };
        let Some(repository) = self.repositories.get(&format!("{kind}/{owner}/{name}")) else {
            return Reply::missing("RepoNotFound");
        };
        if !repository.opens(seen) {
            return Reply::page(401).with("X-Error-Code", "RepoNotFound");
        }
        if !repository.knows(revision) {
            return Reply::missing("RevisionNotFound");
        }
        let Some(file) = repository.files.get(&decoded(file)) else { return Reply::missing("EntryNotFound") };
        let tag = format!("\"{}\"", file.tag());
        let about = |reply: Reply| reply.with("X-Repo-Commit", &repository.commit).with("ETag", &tag);
        if seen.header_is("if-none-match", &tag) {
            return about(Reply { status: 304, ..Reply::default() });
        }
        if !file.is_large() {
            return about(content(file, seen, fault));
        }
        let location = format!("{}/blob/{}?Signature=secret-{}", self.store, file.sha256, &file.git[..6]);
        about(Reply { status: 302, ..Reply::default() })
            .with("Location", location)
            .with("X-Linked-Etag", tag)
            .with("X-Linked-Size", file.bytes.len().to_string())
    }

    fn list(&self, rest: &str, seen: &Seen) -> Reply {
        let Some((repo, revision)) = rest.split_once("/revision/") else {
            return Reply::missing("RepoNotFound");
        };
        let Some(repository) = self.repositories.get(repo) else { return Reply::missing("RepoNotFound") };
        if !repository.opens(seen) {
            return Reply::page(401).with("X-Error-Code", "RepoNotFound");
        }
        if !repository.knows(&decoded(revision)) {
            return Reply::missing("RevisionNotFound");
        }
        Reply { status: 200, body: repository.list().to_string().into_bytes(), ..Reply::default() }
            .with("Content-Type", "application/json")
    }
}

impl Repository {
    fn opens(&self, seen: &Seen) -> bool {
        let sent = seen.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        self.token.as_deref().is_none_or(|token| sent == Some(token))
    }

    fn knows(&self, revision: &str) -> bool {
        revision == "main" || revision == self.commit
    }
}

/// A file, or the range of it that was asked for.
fn content(file: &File, seen: &Seen, fault: Option<&Fault>) -> Reply {
    let mut bytes = match fault {
        Some(Fault::Pointer) => file.pointer().into_bytes(),
        _ => file.bytes.to_vec(),
    };
    if let Some(Fault::Flip(at)) = fault
        && let Some(byte) = bytes.get_mut(*at)
    {
        *byte ^= 0x40;
    }
    let whole = bytes.len();
    let range = seen.range.as_deref().filter(|_| fault != Some(&Fault::IgnoreRange));
    let Some((start, last)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return Reply { status: 200, body: bytes, ..Reply::default() }.with("Accept-Ranges", "bytes");
    };
    let start = start.parse::<usize>().unwrap_or(0) + usize::from(fault == Some(&Fault::OtherRange));
    if start >= whole {
        return Reply { status: 416, ..Reply::default() }.with("Content-Range", format!("bytes */{whole}"));
    }
    let end = last.parse::<usize>().map_or(whole, |last| (last + 1).clamp(start, whole));
    Reply { status: 206, body: bytes[start..end].to_vec(), ..Reply::default() }
        .with("Content-Range", format!("bytes {start}-{}/{whole}", end - 1))
}

fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        if let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()).filter(|_| *first == b'%') {
            out.push(byte);
            rest = &tail[2..];
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
