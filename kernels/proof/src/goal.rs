//! What speeds are held to, by chip: `fraction` of what the same run has measured.

use serde::Serialize;
use sparkherd_checkpoint::Dtype;
use sparkherd_kernels::ComputeCapability;

/// Chips that something is known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// A Spark's.
    Gb10,
    /// H100 and H200.
    Hopper,
    Other,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A matrix by one row or a few.
    FewRows { rows: u32, matrix_bytes: u64 },
    /// A matrix by a prompt's rows.
    ManyRows { rows: u32, dtype: Dtype },
    /// Attention of one row of each sequence.
    Decode { context: u32 },
    /// A step of one sequence as the engine runs it.
    EngineStep,
    /// What a recorded step loses between its launches, at most: with the shortest run of each.
    Gaps,
    /// For comparison with others.
    Beside,
}

/// What a fraction is held to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// Smaller matrices end before all of memory's channels are busy.
const LARGE_MATRIX_BYTES: u64 = 16_000_000;
/// Fewer rows are not bound by arithmetic alone.
const PROMPT_ROWS_MIN: u32 = 512;
const LONG_CONTEXT: u32 = 8192;

impl Chip {
    pub const fn of(capability: ComputeCapability) -> Self {
        match capability {
            ComputeCapability { major: 12, minor: 1 } => Self::Gb10,
            ComputeCapability { major: 9, minor: 0 } => Self::Hopper,
            ComputeCapability { .. } => Self::Other,
        }
    }

    /// From what others reach on these chips: llama.cpp reads 208 of 232 GB/s in a step on a GB10. A Hopper's memory is so fast that
    /// matrices of this size end before it is at its best,
    /// and steps before the shortest runs of their launches, which are counted as lost, are little beside them.
    pub const fn goal(self, kind: Kind) -> Option<Goal> {
        match (kind, self) {
            (Kind::FewRows { rows: 1, matrix_bytes }, Self::Gb10) if matrix_bytes > LARGE_MATRIX_BYTES => {
                Some(Goal::AtLeast(0.92))
            }
            (Kind::FewRows { rows: 1, matrix_bytes }, Self::Hopper) if matrix_bytes > LARGE_MATRIX_BYTES => {
                Some(Goal::AtLeast(0.75))
            }
            (Kind::EngineStep, Self::Gb10) => Some(Goal::AtLeast(0.89)),
            (
                Kind::Decode { context: LONG_CONTEXT.. }
                | Kind::ManyRows { rows: PROMPT_ROWS_MIN.., dtype: Dtype::Bf16 },
                _,
            ) => Some(Goal::AtLeast(0.7)),
            (Kind::Gaps, Self::Gb10) => Some(Goal::AtMost(0.05)),
            (
                Kind::FewRows { .. }
                | Kind::ManyRows { .. }
                | Kind::Decode { .. }
                | Kind::EngineStep
                | Kind::Gaps
                | Kind::Beside,
                _,
            ) => None,
        }
    }
}

impl Goal {
    /// What is no number meets nothing.
    pub fn is_met(self, fraction: f64) -> bool {
        match self {
            Self::AtLeast(least) => fraction >= least,
            Self::AtMost(most) => fraction <= most,
        }
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_checkpoint::Dtype;
    use sparkherd_kernels::ComputeCapability;

    use super::{Chip, Goal, Kind};

    #[test]
    fn chips_are_known_by_their_capability() {
        let chip = |major, minor| Chip::of(ComputeCapability { major, minor });
        assert_eq!([chip(12, 1), chip(9, 0), chip(12, 0)], [Chip::Gb10, Chip::Hopper, Chip::Other]);
    }

    #[test]
    fn large_matrices_by_one_row_have_the_chips_own_goal() {
        let product = |rows, matrix_bytes| Kind::FewRows { rows, matrix_bytes };
        let goals = [Chip::Gb10, Chip::Hopper, Chip::Other].map(|chip| chip.goal(product(1, 16_000_001)));
        assert_eq!(goals, [Some(Goal::AtLeast(0.92)), Some(Goal::AtLeast(0.75)), None]);
        for unjudged in [product(1, 16_000_000), product(8, 1 << 30), product(0, 1 << 30)] {
            assert_eq!(Chip::Gb10.goal(unjudged), None, "{unjudged:?}");
        }
    }

    #[test]
    fn prompts_long_contexts_steps_and_gaps_have_theirs() {
        let goal = |kind| Chip::Gb10.goal(kind);
        let prompt = |rows, dtype| goal(Kind::ManyRows { rows, dtype });
        assert_eq!(prompt(512, Dtype::Bf16), Some(Goal::AtLeast(0.7)));
        assert_eq!([prompt(511, Dtype::Bf16), prompt(512, Dtype::Q8_0)], [None, None]);
        assert_eq!(goal(Kind::Decode { context: 8192 }), Some(Goal::AtLeast(0.7)));
        assert_eq!(goal(Kind::Decode { context: 8191 }), None);
        assert_eq!(goal(Kind::EngineStep), Some(Goal::AtLeast(0.89)));
        assert_eq!(Chip::Hopper.goal(Kind::EngineStep), None);
        assert_eq!(goal(Kind::Gaps), Some(Goal::AtMost(0.05)));
        assert_eq!([Chip::Hopper, Chip::Other].map(|chip| chip.goal(Kind::Gaps)), [None; 2]);
        assert_eq!(goal(Kind::Beside), None);
    }

    #[test]
    fn a_goal_is_met_at_its_border_and_never_by_what_is_no_number() {
        let at_least = [0.91, 0.92, 1.0, f64::NAN].map(|fraction| Goal::AtLeast(0.92).is_met(fraction));
        assert_eq!(at_least, [false, true, true, false]);
        let at_most = [0.051, 0.05, 0.0, f64::NAN].map(|fraction| Goal::AtMost(0.05).is_met(fraction));
        assert_eq!(at_most, [false, true, true, false]);
    }
}
