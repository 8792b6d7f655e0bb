use std::collections::BTreeMap;

use sparkherd_checkpoint::Facts;
use sparkherd_footprint::{Footprint, Serving};

use crate::{NodeName, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    Ready,
    Placed,
    WeightsReady,
    Progressing,
    Degraded,
}

impl ConditionType {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Placed => "Placed",
            Self::WeightsReady => "WeightsReady",
            Self::Progressing => "Progressing",
            Self::Degraded => "Degraded",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl ConditionStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition to write: what, why, and a sentence with numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub status: ConditionStatus,
    pub reason: Reason,
    pub message: String,
}

/// What was decided for one deployment and what it waits for. Conditions, events and metrics come from here only.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "an unread report leaves a user without an answer"]
pub struct Report {
    /// Generation of the spec this was planned from (I8).
    pub observed_generation: i64,
    pub conditions: BTreeMap<ConditionType, Condition>,
    /// Replicas that run or start, ready ones, and those of the wanted revision.
    pub replicas: u32,
    pub ready_replicas: u32,
    pub updated_replicas: u32,
    pub nodes: Vec<NodeName>,
    pub resolved: Option<Resolved>,
}

/// What the operator decided where the user left a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub weights_revision: String,
    pub digest: String,
    pub facts: Facts,
    pub serving: Serving,
    pub footprint: Footprint,
}
