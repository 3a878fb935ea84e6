//! Tokens in the order of their logits, as far as a draw asks.

/// Tokens that are sorted first.
const FIRST: usize = 128;
/// How many times as many are sorted next.
const TIMES: usize = 8;

/// Tokens from the largest value on, ties to the lower id, sorted as far as somebody asks: a vocabulary has 201,088 of
/// them, and a draw mostly ends among the first hundred.
pub(super) struct Order {
    /// Key of the value, id, weight.
    all: Vec<(u32, u32, u64)>,
    sorted: usize,
}

impl Order {
    pub(super) fn new(values: &[f32], weigh: impl Fn(f32) -> u64) -> Self {
        let token = |(id, value): (usize, &f32)| (descending(*value), id as u32, weigh(*value));
        Self { all: values.iter().enumerate().map(token).collect(), sorted: 0 }
    }

    /// The tokens in order from the first.
    fn get(&mut self, index: usize) -> Option<(u32, u32, u64)> {
        while index >= self.sorted && self.sorted < self.all.len() {
            let end = (self.sorted * TIMES).max(FIRST).min(self.all.len());
            let rest = &mut self.all[self.sorted..];
            let count = end - self.sorted;
            if count < rest.len() {
                rest.select_nth_unstable(count);
            }
            rest[..count].sort_unstable();
            self.sorted = end;
        }
        self.all.get(index).copied()
    }

    /// The sum of the first `count` and of those that tie with the last of them.
    pub(super) fn first(&mut self, count: usize) -> u64 {
        let last = self.get(count - 1).map_or(0, |token| token.0);
        let mut sum = 0;
        for index in 0.. {
            match self.get(index) {
                Some((value, _, weight)) if value <= last => sum += weight,
                _ => break,
            }
        }
        sum
    }

    /// The first token with which the sum is above this, and the sum.
    pub(super) fn at(&mut self, target: u64) -> (u32, u64) {
        let (mut sum, mut id) = (0, 0);
        for index in 0.. {
            let Some((_, token, weight)) = self.get(index) else { break };
            (sum, id) = (sum + weight, token);
            if sum > target {
                break;
            }
        }
        (id, sum)
    }
}

/// Orders numbers, the largest first; -0 counts as 0, so that a tie is a tie.
fn descending(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    if bits >> 31 == 1 { bits } else { !(bits | 1 << 31) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_descend_and_zeros_tie() {
        let values = [f32::MAX, 3.0, 1.0, 1e-40, 0.0, -1e-40, -1.0, -3.0, f32::MIN];
        assert!(values.windows(2).all(|pair| descending(pair[0]) < descending(pair[1])));
        assert_eq!(descending(-0.0), descending(0.0));
    }

    #[test]
    fn tokens_come_as_from_a_whole_sort_however_far_somebody_asks() {
        // Many equal ones, so that ties show.
        let values: Vec<f32> =
            (0..5000_u32).map(|id| (id.wrapping_mul(2_654_435_761) >> 22) as f32).collect();
        let mut sorted: Vec<(u32, u32)> =
            values.iter().enumerate().map(|(id, value)| (descending(*value), id as u32)).collect();
        sorted.sort_unstable();
        for asked in [0, 1, 127, 128, 129, 1024, 4999] {
            let mut order = Order::new(&values, |_| 1);
            let found: Vec<_> = (0..=asked).filter_map(|n| order.get(n)).map(|one| (one.0, one.1)).collect();
            assert_eq!(found, sorted[..=asked]);
            assert_eq!(order.get(5000), None);
            assert_eq!(order.at(asked as u64), (sorted[asked].1, asked as u64 + 1));
        }
    }
}
