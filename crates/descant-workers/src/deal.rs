//! Who computes what: pieces of work, dealt so that all finish together.
//!
//! A function of the costs alone, so that every process finds the same answer without asking. The largest piece goes
//! first, each to whoever has the least (longest processing time first: at most a third longer than the best possible;
//! Graham 1969).

/// Work that was dealt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dealt {
    /// The rank that has each piece.
    pub owners: Vec<usize>,
    /// The cost that each rank has.
    pub loads: Vec<u64>,
}

/// Deals pieces of these costs to so many ranks.
///
/// # Panics
/// If there are no ranks.
pub fn deal(costs: &[u64], world: usize) -> Dealt {
    assert!(world > 0, "somebody computes");
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by_key(|at| (std::cmp::Reverse(costs[*at]), *at));
    let (mut owners, mut loads) = (vec![0; costs.len()], vec![0_u64; world]);
    for at in order {
        let least = (0..world).min_by_key(|rank| (loads[*rank], *rank)).expect("somebody computes");
        owners[at] = least;
        loads[least] = loads[least].saturating_add(costs[at]);
    }
    Dealt { owners, loads }
}

impl Dealt {
    /// The pieces of a rank, in order.
    pub fn of(&self, rank: usize) -> impl Iterator<Item = usize> {
        self.owners.iter().enumerate().filter(move |(_, owner)| **owner == rank).map(|(at, _)| at)
    }

    /// The share of all ranks' time in which they wait for the longest, where time goes as cost.
    pub fn idle(&self) -> f64 {
        let most = self.loads.iter().copied().max().unwrap_or(0);
        if most == 0 {
            return 0.0;
        }
        let mean = self.loads.iter().map(|load| *load as f64).sum::<f64>() / self.loads.len() as f64;
        1.0 - mean / most as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_dealt_once_and_nobody_has_more_than_the_bound() {
        let mut state = 7_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        for round in 0..500 {
            let world = 1 + round % 9;
            let costs: Vec<u64> = (0..random() % 40).map(|_| 1 + random() % 4096).collect();
            let dealt = deal(&costs, world);
            let mut seen: Vec<usize> = (0..world).flat_map(|rank| dealt.of(rank)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..costs.len()).collect::<Vec<_>>());
            let all: u64 = costs.iter().sum();
            assert_eq!(dealt.loads.iter().sum::<u64>(), all);
            let best = (all as f64 / world as f64).max(costs.iter().copied().max().unwrap_or(0) as f64);
            let most = dealt.loads.iter().copied().max().unwrap_or(0) as f64;
            // Any order is within all/world + the largest; the rule is within a third of the best.
            assert!(most <= best * (4.0 / 3.0) + best, "{most} of {best}");
            assert!(deal(&costs, world) == dealt && (0.0..1.0).contains(&dealt.idle()));
        }
    }

    #[test]
    fn packed_sequences_of_nearly_one_length_leave_little_idle() {
        let costs: Vec<u64> = (0..16).map(|i| 4096 - 13 * (i * 7 % 16)).collect();
        for world in [2, 4, 8] {
            assert!(deal(&costs, world).idle() < 0.01, "{world}");
        }
        // Fewer pieces than ranks: who has none waits.
        let few = deal(&[10, 10], 4);
        assert!((few.idle() - 0.5).abs() < 1e-12 && few.of(3).next().is_none());
        assert!(deal(&[], 3).idle() == 0.0);
    }

    #[test]
    fn the_longest_goes_first() {
        // In the order given, 3 ranks would end with 7; sorted they end with 5 (4+1, 3+2, 3+1 in some order).
        let dealt = deal(&[1, 1, 2, 3, 3, 4], 3);
        assert_eq!(dealt.loads.iter().max(), Some(&5));
    }
}
