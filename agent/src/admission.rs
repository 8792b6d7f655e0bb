//! The start gate: may an engine start now, without ever leaving less than the reserve (I1)?
//!
//! `available − Σ (footprint − held of our other unreleased engines) − footprint ≥ reserve`. The sum is what those engines
//! may still take; what they hold is already gone from `available`.

use crate::bytes::readable;
use crate::memory::Pool;

/// What another engine of ours, not yet released, was promised and has touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    pub footprint_bytes: u64,
    pub held_bytes: u64,
}

impl Promise {
    const fn outstanding_bytes(self) -> u64 {
        self.footprint_bytes.saturating_sub(self.held_bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Starts; this much stays above the reserve when it has taken all of its footprint.
    Admitted { left_bytes: u64 },
    /// Does not fit. The sentence has the numbers.
    Refused { message: String },
}

/// Decides on one footprint.
pub fn admit(pool: &Pool, promises: &[Promise], footprint_bytes: u64) -> Verdict {
    let outstanding_bytes =
        promises.iter().fold(0_u64, |sum, promise| sum.saturating_add(promise.outstanding_bytes()));
    let free_bytes =
        pool.available_bytes.saturating_sub(pool.reserve_bytes).saturating_sub(outstanding_bytes);
    match free_bytes.checked_sub(footprint_bytes) {
        Some(left_bytes) => Verdict::Admitted { left_bytes },
        None => Verdict::Refused {
            message: format!(
                "needs {}, {} are free here: {} of {} are available, less {} kept for the host and {} promised to {} other \
                 engine(s) and not touched yet",
                readable(footprint_bytes),
                readable(free_bytes),
                readable(pool.available_bytes),
                readable(pool.total_bytes),
                readable(pool.reserve_bytes),
                readable(outstanding_bytes),
                promises.len(),
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Promise, Verdict, admit};
    use crate::memory::Pool;

    const GIB: u64 = 1 << 30;

    #[test]
    fn leaves_the_reserve_and_what_others_may_still_take() {
        let pool = |available| Pool {
            total_bytes: 120 * GIB,
            available_bytes: available * GIB,
            held_bytes: 0,
            reserve_bytes: 10 * GIB,
        };
        let loading = Promise { footprint_bytes: 40 * GIB, held_bytes: 15 * GIB };
        let loaded = Promise { footprint_bytes: 20 * GIB, held_bytes: 21 * GIB };
        let cases = [
            (pool(110), vec![], 100, Some(0)),
            (pool(110), vec![], 101, None),
            // 25 GiB of the loading one are still to come; an engine over its footprint takes nothing back.
            (pool(60), vec![loading, loaded], 25, Some(0)),
            (pool(60), vec![loading, loaded], 26, None),
            (pool(9), vec![], 0, Some(0)),
            (pool(9), vec![], 1, None),
        ];
        for (pool, promises, footprint, left) in cases {
            let verdict = admit(&pool, &promises, footprint * GIB);
            match left {
                Some(left) => assert_eq!(verdict, Verdict::Admitted { left_bytes: left * GIB }),
                None => assert!(matches!(verdict, Verdict::Refused { .. }), "{footprint}: {verdict:?}"),
            }
        }
    }

    #[test]
    fn refuses_in_numbers() {
        let pool = Pool {
            total_bytes: 120 * GIB,
            available_bytes: 60 * GIB,
            held_bytes: 15 * GIB,
            reserve_bytes: 10 * GIB,
        };
        let promises = [Promise { footprint_bytes: 40 * GIB, held_bytes: 15 * GIB }];
        let Verdict::Refused { message } = admit(&pool, &promises, 74 * GIB) else { panic!("admitted") };
        let expected = "needs 74.0 GiB, 25.0 GiB are free here: 60.0 GiB of 120.0 GiB are available, less 10.0 GiB kept for \
                        the host and 25.0 GiB promised to 1 other engine(s) and not touched yet";
        assert_eq!(message, expected);
    }
}
