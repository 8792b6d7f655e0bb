//! Deployments whose last action failed wait before they are tried again; only they do (I12).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use sparkherd_planner::DeploymentId;

/// First wait, doubled by each failure in a row: a conflict is over at once, a denied write stays denied.
const WAIT_MIN: SignedDuration = SignedDuration::from_secs(1);
const WAIT_MAX: SignedDuration = SignedDuration::from_mins(1);

#[derive(Clone, Debug, Default)]
pub(crate) struct Retries {
    waiting: BTreeMap<DeploymentId, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    length: SignedDuration,
    until: Timestamp,
}

impl Retries {
    pub(crate) fn must_wait(&self, id: &DeploymentId, now: Timestamp) -> bool {
        self.waiting.get(id).is_some_and(|wait| now < wait.until)
    }

    pub(crate) fn failed(&mut self, id: DeploymentId, now: Timestamp) {
        let length = self.waiting.get(&id).map_or(WAIT_MIN, |wait| (wait.length * 2).min(WAIT_MAX));
        self.waiting.insert(id, Wait { length, until: now.saturating_add(length).unwrap_or(Timestamp::MAX) });
    }

    pub(crate) fn succeeded(&mut self, id: &DeploymentId) {
        self.waiting.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_failed_waits_and_ever_longer() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let (bad, good) = (DeploymentId::new("lab", "bad"), DeploymentId::new("lab", "good"));
        let mut retries = Retries::default();
        retries.failed(bad.clone(), start);
        assert!(retries.must_wait(&bad, start) && !retries.must_wait(&good, start));
        let second = start + SignedDuration::from_secs(1);
        assert!(!retries.must_wait(&bad, second));
        retries.failed(bad.clone(), second);
        assert!(retries.must_wait(&bad, second + SignedDuration::from_secs(1)));
        retries.succeeded(&bad);
        assert!(!retries.must_wait(&bad, second));
    }
}
