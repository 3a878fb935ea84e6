//! What is sent arrives everywhere, in order, whatever its length and however many there are.

use descant_workers::{Group, Wait};

use crate::each;

#[test]
fn everybody_gets_everybodys_bytes_by_rank() {
    for world in [2, 3, 4, 8] {
        let results = each(
            world,
            |_, _| (),
            move |group: Group| {
                let mut seen = Vec::new();
                for round in 0..20 {
                    // Lengths differ by rank and round, and some are nothing.
                    let mine = vec![group.rank() as u8; group.rank() * round];
                    let all = group.all_gather("round", &mine, Wait::Step)?;
                    let expected: Vec<Vec<u8>> =
                        (0..world).map(|rank| vec![rank as u8; rank * round]).collect();
                    assert_eq!(all, expected);
                    let root = round % world;
                    let text = format!("{round} of {}", group.rank()).into_bytes();
                    let told = group.broadcast("told", root, text, Wait::Step)?;
                    assert_eq!(told, format!("{round} of {root}").into_bytes());
                    let gathered = group.gather("gathered", &mine, Wait::Long)?;
                    assert_eq!(gathered.is_some(), group.is_first());
                    assert!(gathered.is_none_or(|all| all == expected));
                    group.barrier("end of round", Wait::Step)?;
                    seen.push(told);
                }
                group.agree("facts", &vec![("a".to_owned(), "1".to_owned())], Wait::Step)?;
                assert_eq!(group.hosts().len(), world);
                Ok(seen)
            },
        );
        let first = results[0].clone().expect("rank 0 ends well");
        assert!(results.into_iter().all(|seen| seen.expect("all end well") == first));
    }
}

#[test]
fn large_messages_go_both_ways_at_once() {
    const BYTES: usize = 48 << 20;
    let results = each(
        3,
        |_, _| (),
        |group: Group| {
            let mine = vec![group.rank() as u8 + 1; BYTES];
            let all = group.all_gather("large", &mine, Wait::Step)?;
            let told = group.broadcast("large", 2, mine, Wait::Step)?;
            Ok(all.iter().map(|part| (part.len(), part[BYTES / 2])).collect::<Vec<_>>()
                == [(BYTES, 1), (BYTES, 2), (BYTES, 3)]
                && told[BYTES - 1] == 3)
        },
    );
    assert!(results.into_iter().all(|well| well.expect("it arrives")));
}
