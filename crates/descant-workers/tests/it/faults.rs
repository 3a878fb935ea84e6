//! Whatever happens to one member, all learn of it soon, with one cause.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use descant_workers::{Error, Group, Wait};

use crate::{Kept, cause, each, free_port, member, place};

/// Longest that a failure may take to be known everywhere.
const SOON: Duration = Duration::from_secs(30);

#[test]
fn other_settings_and_other_versions_are_named_and_nothing_begins() {
    for (what, said) in
        [(0, "train.seed is 2 at rank 2 and 1 at rank 0"), (1, "it runs 2.0, rank 0 runs 1.0")]
    {
        let start = Instant::now();
        let results = each(
            4,
            move |place, member| {
                if place.rank == 2 && what == 0 {
                    member.facts[0].1 = "2".to_owned();
                } else if place.rank == 2 {
                    member.version = "2.0".to_owned();
                }
            },
            |_| Ok(()),
        );
        // Connected processes receive the cause; the others find nobody.
        assert_eq!((cause(&results[0]).rank, cause(&results[2]).rank), (2, 2));
        assert!(cause(&results[0]).text.contains(said), "{:?}", results[0]);
        assert_eq!(results[0], results[2]);
        assert!(results.iter().all(Result::is_err));
        assert!(start.elapsed() < SOON + Duration::from_secs(10));
    }
}

#[test]
fn a_member_of_another_run_or_two_of_one_rank_are_refused() {
    let results = each(
        2,
        |place, _| {
            if place.rank == 1 {
                place.run = "other".to_owned();
            }
        },
        |_| Ok(()),
    );
    assert!(cause(&results[0]).text.contains("belongs to run `other`"), "{results:?}");
    let results = each(
        3,
        |place, _| {
            if place.rank == 2 {
                (place.rank, place.local_rank) = (1, 1);
            }
        },
        |_| Ok(()),
    );
    assert!(cause(&results[0]).text.contains("two processes are it"), "{results:?}");
}

#[test]
fn facts_that_differ_later_are_named_at_every_rank() {
    let results = each(
        3,
        |_, _| (),
        |group: Group| {
            let value = if group.rank() == 1 { "b" } else { "a" };
            group.agree("identity", &vec![("samples".to_owned(), value.to_owned())], Wait::Step)
        },
    );
    for result in &results {
        assert_eq!(cause(result).to_string(), "rank 1: it differs: samples is b at rank 1 and a at rank 0");
    }
}

#[test]
fn a_failure_is_told_to_all_with_its_rank_its_words_and_its_status() {
    for who in [0, 2] {
        let results = each(
            4,
            |_, _| (),
            move |group: Group| {
                if group.rank() == who {
                    group.fail("the card is full", Some(4));
                    // As a process that ends with its own error.
                    return Ok(());
                }
                group.barrier("step", Wait::Long)
            },
        );
        for (_, result) in results.iter().enumerate().filter(|(rank, _)| *rank != who) {
            let cause = cause(result);
            assert_eq!((cause.rank, cause.text.as_str(), cause.status), (who, "the card is full", Some(4)));
        }
    }
}

#[test]
fn a_member_that_vanishes_is_missed_by_all_even_while_they_do_not_ask() {
    let start = Instant::now();
    let results = each(
        3,
        |_, _| (),
        |group: Group| {
            if group.rank() == 1 {
                group.barrier("first", Wait::Step)?;
                return group.barrier("second", Wait::Step);
            }
            group.barrier("first", Wait::Step)?;
            if group.rank() == 2 {
                // Dropping says goodbye, where another collective is due.
                drop(group);
                return Ok(());
            }
            group.barrier("second", Wait::Step)
        },
    );
    for rank in [0, 1] {
        assert_eq!(cause(&results[rank]).rank, 2, "{results:?}");
    }
    assert!(start.elapsed() < SOON);
}

#[test]
fn a_member_that_is_late_is_named_though_it_answers() {
    let results = each(
        3,
        |_, _| (),
        |group: Group| {
            let group = group.patient(Duration::from_millis(300));
            if group.rank() == 2 {
                std::thread::sleep(Duration::from_secs(2));
            }
            group.barrier("step", Wait::Step)
        },
    );
    assert_eq!(cause(&results[0]).rank, 2);
    assert!(cause(&results[1]).text.contains("did not finish its part"), "{results:?}");
    assert!(results[2].is_err());
    // It is known how long the others should take: the group's patience, of minutes, does not count.
    let start = Instant::now();
    let results = each(
        2,
        |_, _| (),
        |group: Group| {
            let wait = Wait::Within(Duration::from_millis(300));
            group.barrier("in time", wait)?;
            if group.rank() == 1 {
                std::thread::sleep(Duration::from_secs(2));
            }
            group.barrier("step", wait)
        },
    );
    assert_eq!(cause(&results[0]).rank, 1);
    assert!(results[1].is_err() && start.elapsed() < SOON, "{results:?}");
    // With patience without end nobody is late.
    let results = each(
        2,
        |_, _| (),
        |group: Group| {
            let group = group.patient(Duration::from_millis(100));
            if group.rank() == 1 {
                std::thread::sleep(Duration::from_millis(500));
            }
            group.barrier("answers", Wait::Long)
        },
    );
    assert!(results.iter().all(Result::is_ok));
}

#[test]
fn programs_that_went_different_ways_are_found() {
    let results = each(
        2,
        |_, _| (),
        |group: Group| {
            if group.rank() == 0 {
                group.barrier("save", Wait::Step)
            } else {
                group.barrier("losses", Wait::Step)
            }
        },
    );
    assert!(cause(&results[0]).text.contains("where message 0 (save) was due"), "{results:?}");
}

#[test]
fn a_port_that_is_taken_is_named_and_a_stranger_on_it_is_no_rank_0() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    match Group::join(&place(0, 2, port), &member(), |_| ()) {
        Err(Error::Port { port: named, text }) => {
            assert_eq!((named, text.as_str()), (port, "another program has it"));
        }
        other => panic!("{other:?}"),
    }
    // Something listens and says something else.
    let server = std::thread::spawn(move || {
        let (mut stream, _) = taken.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(200));
    });
    let start = Instant::now();
    let error = Group::join(&place(1, 2, port), &member(), |_| ()).unwrap_err().to_string();
    assert!(error.contains("does not answer as descant does"), "{error}");
    assert!(start.elapsed() < SOON);
    server.join().unwrap();
}

#[test]
fn strangers_who_connect_do_not_disturb_those_who_belong() {
    let port = free_port();
    let join = move |rank| {
        std::thread::spawn(move || {
            let group = Group::join(&place(rank, 2, port), &member(), |_| ())?;
            group.all_gather("x", &[rank as u8], Wait::Step)
        })
    };
    let first = join(0);
    let mut strangers = Vec::new();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0; 21], &[0xff; 64]] {
        let mut stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        stream.write_all(bytes).unwrap();
        strangers.push(stream);
    }
    let second = join(1);
    for thread in [first, second] {
        assert_eq!(thread.join().unwrap().unwrap(), [[0], [1]]);
    }
}

#[test]
fn whoever_does_not_come_is_missed_by_name_and_who_computes_on_is_ended() {
    // The callback is the last resort for a thread that does not ask.
    let (sender, ended) = channel();
    let sender = Arc::new(Mutex::new(sender));
    let port = free_port();
    let kept: Kept = Kept::default();
    let threads: Vec<_> = (0..2)
        .map(|rank| {
            let (sender, kept) = (Arc::clone(&sender), Kept::clone(&kept));
            std::thread::spawn(move || {
                let callback = move |cause| sender.lock().unwrap().send((rank, cause)).unwrap();
                let group = Group::join(&place(rank, 2, port), &member(), callback).unwrap();
                if rank == 1 {
                    group.fail("a bug", Some(2));
                }
                // It computes, and asks nothing of the group.
                kept.lock().unwrap().push(group);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let mut told: Vec<_> = (0..2).map(|_| ended.recv_timeout(SOON).expect("it is ended")).collect();
    told.sort_by_key(|(rank, _)| *rank);
    assert_eq!((told[0].0, told[0].1.to_string()), (0, "rank 1: a bug".to_owned()));
    assert_eq!(told[1].0, 1);
}
