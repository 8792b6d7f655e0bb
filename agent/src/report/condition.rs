use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sparkherd_crds::{Condition, ConditionStatus};
use sparkherd_planner::Reason;

/// Longest message a condition may carry, bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// One verdict on one aspect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub holds: bool,
    pub reason: Reason,
    pub message: String,
}

impl Verdict {
    pub fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { holds: true, reason, message: message.into() }
    }

    pub fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { holds: false, reason, message: message.into() }
    }

    pub fn condition(self, type_: &str, generation: Option<i64>, now: Timestamp) -> Condition {
        Condition {
            type_: type_.to_owned(),
            status: if self.holds { ConditionStatus::True } else { ConditionStatus::False },
            reason: self.reason.as_str().to_owned(),
            message: bounded(&self.message),
            last_transition_time: time(now),
            observed_generation: generation,
        }
    }
}

/// Whole seconds, as Kubernetes keeps its times.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// At most as long as the API takes, cut between characters; an engine's words may hold anything, so control characters go.
pub fn bounded(message: &str) -> String {
    let clean: String = message.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    let end = clean.floor_char_boundary(MESSAGE_BYTES_MAX);
    clean.get(..end).unwrap_or_default().to_owned()
}
