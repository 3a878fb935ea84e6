//! Groups over the loopback interface, each member in a thread of its own.

mod collectives;
mod faults;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use descant_workers::{Cause, Error, Group, Member, Place, Result, Started};

/// A port that nobody has now.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map(|a| a.port()).expect("a free port")
}

pub(crate) fn place(rank: usize, world: usize, port: u16) -> Place {
    Place {
        rank,
        world,
        local_rank: rank,
        local_world: world,
        host: "127.0.0.1".to_owned(),
        port,
        run: "test".to_owned(),
        started: Started::Torchrun,
    }
}

pub(crate) fn member() -> Member {
    let facts = vec![("train.seed".to_owned(), "1".to_owned())];
    Member { version: "1.0".to_owned(), host: "here".to_owned(), facts }
}

/// What every member of a group of this size ends with, by rank; `change` makes one differ.
pub(crate) fn each<T: Send + 'static>(
    world: usize,
    change: impl Fn(&mut Place, &mut Member) + Send + Sync + 'static,
    f: impl Fn(Group) -> Result<T> + Send + Sync + 'static,
) -> Vec<Result<T>> {
    let (port, f, change) = (free_port(), Arc::new(f), Arc::new(change));
    let threads: Vec<_> = (0..world)
        .map(|rank| {
            let (f, change) = (Arc::clone(&f), Arc::clone(&change));
            std::thread::spawn(move || {
                let (mut place, mut member) = (place(rank, world, port), member());
                change(&mut place, &mut member);
                f(Group::join(&place, &member, |_| ())?)
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().expect("no member panics")).collect()
}

/// The cause that a member received.
pub(crate) fn cause<T: std::fmt::Debug>(result: &Result<T>) -> &Cause {
    match result {
        Err(Error::Member(cause)) => cause,
        other => panic!("{other:?}"),
    }
}

/// Something that threads of a test keep alive.
pub(crate) type Kept = Arc<Mutex<Vec<Group>>>;
