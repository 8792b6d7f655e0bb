/// One pool of memory at one moment, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit is part of each name")]
pub struct Pool {
    pub total_bytes: u64,
    /// What could be taken now without swapping.
    pub available_bytes: u64,
    /// What our engines have touched so far, not what they were promised.
    pub held_bytes: u64,
    /// What is kept for the host.
    pub reserve_bytes: u64,
}

impl Pool {
    /// What all our engines together may take: `available + held − reserve`, at most `total − reserve`.
    pub const fn allocatable_bytes(&self) -> u64 {
        let measured = self.available_bytes.saturating_add(self.held_bytes);
        let bounded = if measured < self.total_bytes { measured } else { self.total_bytes };
        bounded.saturating_sub(self.reserve_bytes)
    }

    /// What everybody else holds.
    pub const fn others_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.available_bytes).saturating_sub(self.held_bytes)
    }

    /// The smallest change worth telling: 1 % of the pool. Status is written no finer and the planner keeps this much
    /// between what it promises and what it reads.
    pub const fn grain_bytes(&self) -> u64 {
        self.total_bytes / 100
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;

    const GIB: u64 = 1 << 30;

    #[test]
    fn allocatable_is_available_and_held_less_the_reserve() {
        let cases = [
            // total, available, held, reserve, allocatable, others
            (120, 100, 0, 10, 90, 20),
            (120, 40, 60, 10, 90, 20),
            // Held is read a moment apart from available: never more than the pool.
            (120, 118, 60, 10, 110, 0),
            (120, 4, 0, 10, 0, 116),
            (8, 8, 0, 9, 0, 0),
        ];
        for (total, available, held, reserve, allocatable, others) in cases {
            let pool = Pool {
                total_bytes: total * GIB,
                available_bytes: available * GIB,
                held_bytes: held * GIB,
                reserve_bytes: reserve * GIB,
            };
            assert_eq!(pool.allocatable_bytes(), allocatable * GIB, "{pool:?}");
            assert_eq!(pool.others_bytes(), others * GIB, "{pool:?}");
        }
    }
}
