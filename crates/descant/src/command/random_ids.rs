//! Random ids of measurements: those that torch gives, so that peers were measured on the same.

/// Ids are drawn below this, as the peers' were, or below a smaller vocabulary.
pub(super) const ID_LIMIT: u32 = 199_000;

/// MT19937 (Matsumoto and Nishimura 1998), so that the ids are those of
/// `torch.randint(0, 199000, (batch, sequence), generator=torch.Generator().manual_seed(0))`.
pub(super) struct MersenneTwister {
    state: Vec<u32>,
    at: usize,
}

impl MersenneTwister {
    const SIZE: usize = 624;
    const SHIFT: usize = 397;

    pub(super) fn new(seed: u32) -> Self {
        let mut state = vec![seed];
        for i in 1..Self::SIZE as u32 {
            let last = state[i as usize - 1];
            state.push((last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i));
        }
        Self { state, at: Self::SIZE }
    }

    pub(super) fn next(&mut self) -> u32 {
        if self.at == Self::SIZE {
            for i in 0..Self::SIZE {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % Self::SIZE] & 0x7fff_ffff);
                let odd = if mixed % 2 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + Self::SHIFT) % Self::SIZE] ^ (mixed >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_torch() {
        // torch.randint(0, 10, (10,)) after manual_seed(0), as its documentation of reproducibility shows it.
        let mut random = MersenneTwister::new(0);
        let ids: Vec<u32> = (0..10).map(|_| random.next() % 10).collect();
        assert_eq!(ids, [4, 9, 3, 0, 3, 9, 7, 3, 7, 3]);
    }
}
