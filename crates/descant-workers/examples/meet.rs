//! Three members of a group in one process: they meet, deal work of unequal length, and compare what they found.
//!
//! ```sh
//! cargo run -p descant-workers --example meet
//! ```

use std::error::Error;
use std::net::TcpListener;

use descant_workers::{Group, Member, Place, Started, Wait, deal};

/// Members.
const WORLD: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let members: Vec<_> = (0..WORLD).map(|rank| std::thread::spawn(move || take_part(rank, port))).collect();
    for member in members {
        let text = member.join().map_err(|_| "a member panicked")??;
        say(&text);
    }
    Ok(())
}

/// What a member has to say in the end.
fn take_part(rank: usize, port: u16) -> Result<String, descant_workers::Error> {
    let place = Place {
        rank,
        world: WORLD,
        local_rank: rank,
        local_world: WORLD,
        host: "127.0.0.1".to_owned(),
        port,
        run: "an example".to_owned(),
        started: Started::Torchrun,
    };
    let member = Member { version: "1".to_owned(), host: "here".to_owned(), facts: Vec::new() };
    let group = Group::join(&place, &member, |_| ())?;
    // Everybody finds the same answer.
    let lengths = [4096, 4000, 3100, 900, 700, 300];
    let dealt = deal(&lengths, WORLD);
    let mine: u64 = dealt.of(rank).map(|at| lengths[at]).sum();
    let all = group.all_gather("sums", &mine.to_le_bytes(), Wait::Step)?;
    let share = 100.0 * dealt.idle();
    Ok(format!(
        "rank {rank} has {mine} tokens and heard of {} sums; {share:.1} % of the time is idle",
        all.len()
    ))
}

#[expect(clippy::print_stdout, reason = "an example shows what it found")]
fn say(text: &str) {
    println!("{text}");
}
