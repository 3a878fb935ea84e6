//! The architectures that we know: what NVRTC compiles for, and what a card says that it is.

/// A card's compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// 9 of sm_90.
    pub major: u8,
    /// 0 of sm_90.
    pub minor: u8,
}

/// What NVRTC compiles for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture {
    /// 90 of sm_90a.
    pub number: u16,
    /// Whether with the instructions that only this very architecture has (the `a` of sm_90a).
    pub specific: bool,
}

/// The architectures for which the check compiles: data-center and consumer cards since Ampere.
pub const ARCHITECTURES: [Architecture; 6] = [
    Architecture { number: 80, specific: false },
    Architecture { number: 86, specific: false },
    Architecture { number: 89, specific: false },
    Architecture { number: 90, specific: true },
    Architecture { number: 100, specific: true },
    Architecture { number: 120, specific: true },
];

impl Architecture {
    /// Of a card. Since Hopper an architecture has instructions of its own, and a binary is for it alone anyway.
    pub const fn of(capability: Capability) -> Self {
        let number = capability.major as u16 * 10 + capability.minor as u16;
        Self { number, specific: number >= 90 }
    }

    /// Shared memory a block may use, in bytes.
    pub const fn shared_memory(self) -> u32 {
        match self.number {
            80 | 87 => 163 * 1024,
            90 | 100 | 103 => 227 * 1024,
            _ => 99 * 1024,
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sm_{}{}", self.number, if self.specific { "a" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_architectures_are_those_of_nvrtc() {
        let name = |major, minor| Architecture::of(Capability { major, minor }).to_string();
        assert_eq!(name(8, 0), "sm_80");
        assert_eq!(name(8, 6), "sm_86");
        assert_eq!(name(8, 9), "sm_89");
        assert_eq!(name(9, 0), "sm_90a");
        assert_eq!(name(10, 0), "sm_100a");
        assert_eq!(name(12, 0), "sm_120a");
    }

    #[test]
    fn every_checked_architecture_is_that_of_a_card() {
        for architecture in ARCHITECTURES {
            let (major, minor) = ((architecture.number / 10) as u8, (architecture.number % 10) as u8);
            assert_eq!(Architecture::of(Capability { major, minor }), architecture);
        }
    }
}
