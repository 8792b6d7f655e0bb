use std::time::Duration;

use sparkherd_crds::{ConditionStatus, ModelReplicaStatus, find_condition};
use sparkherd_planner::Reason;
use sparkherd_protocol::{Event, FailureReason};

use super::{ReplicaView, replica_status};
use crate::engine::{Exit, KillReason};
use crate::fixture::{GIB, engine, located, moment, wanted};
use crate::memory::PoolBytes;
use crate::record::{Record, Refused};
use crate::store::Weights;
use crate::wanted::Wanted;

struct Case {
    wanted: Wanted,
    record: Record,
    weights: Weights,
    status: ModelReplicaStatus,
}

impl Case {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            wanted: wanted("a", 20),
            record: Record::new(1, None, moment(0)),
            weights: Weights::Ready { located: located(&root, "{}") },
            status: ModelReplicaStatus::default(),
        }
    }

    /// The status after this many seconds, as `type=status/reason` in the order of a life.
    fn told(&mut self, seconds: u64) -> String {
        let view = ReplicaView {
            now: moment(seconds),
            agent_incarnation: "agent-1",
            wanted: &self.wanted,
            record: &self.record,
            weights: &self.weights,
            starting: None,
            ending: false,
        };
        self.status = replica_status(&view, Some(&self.status));
        let one = |type_: &str| {
            let condition = find_condition(&self.status.conditions, type_).unwrap();
            let sign = if condition.status == ConditionStatus::True { "+" } else { "-" };
            format!("{sign}{}", condition.reason)
        };
        ["Admitted", "WeightsReady", "Loaded", "Ready", "Released"].map(one).join(" ")
    }

    fn message(&self, type_: &str) -> &str {
        &find_condition(&self.status.conditions, type_).unwrap().message
    }

    fn hear(&mut self, event: Event, at: u64) {
        if self.record.engine.as_mut().unwrap().heard(event, Duration::from_secs(at)) {
            self.record.ready();
        }
    }
}

fn ready() -> Event {
    Event::Ready {
        address: "127.0.0.1:8107".parse().unwrap(),
        incarnation: "engine-1".to_owned(),
        held_bytes: 19 * GIB,
        tokens_per_second: 31.25,
    }
}

#[test]
fn tells_a_life_from_waiting_to_released() {
    let mut case = Case::new();
    let good = case.weights.clone();
    case.weights = Weights::NotReady { reason: Reason::Downloading, message: "1 of 3".to_owned() };
    assert_eq!(case.told(0), "-Downloading -Downloading -Downloading -Downloading -Serving");
    case.weights = good;
    assert_eq!(case.told(1), "-Loading +Serving -Loading -Loading -Serving");
    case.record.started(engine(1, &case.wanted, moment(2)));
    case.hear(Event::Loading { bytes_done: 7 * GIB, bytes_total: 16 * GIB, held_bytes: 8 * GIB }, 2);
    assert_eq!(case.told(2), "+Serving +Serving -Loading -Loading -Serving");
    assert_eq!(case.status.progress.as_ref().unwrap().bytes_done, 16 * GIB / 20 * 8);
    assert_eq!(case.status.memory.as_ref().unwrap().summary, "8.0Gi of 20.0Gi");
    case.hear(ready(), 3);
    assert_eq!(case.told(3), "+Serving +Serving +Serving +Serving -Serving");
    assert_eq!(
        (case.status.endpoint_port, case.status.incarnation.as_deref()),
        (Some(8107), Some("engine-1"))
    );
    assert!(case.message("Ready").contains("port 8107 with 31.2 tokens/s"));
    case.wanted.serve = false;
    case.record.engine.as_mut().unwrap().drain(Duration::from_secs(4), Duration::from_secs(99));
    assert_eq!(case.told(4), "+Serving +Serving +Serving -Draining -Draining");
    assert_eq!(case.status.endpoint_port, None);
    case.record.exited(Exit { status: "code 0".to_owned(), killed: None }, moment(5), PoolBytes::host(0));
    assert_eq!(case.told(5), "-Draining +Serving -Draining -Draining -Draining");
    case.record.settle_release(PoolBytes::host(0), Duration::from_secs(6));
    assert_eq!(case.told(6), "-Draining +Serving -Draining -Draining +Draining");
    assert_eq!((case.status.failures, case.status.restarts), (0, 0));
}

#[test]
fn tells_failures_and_loops() {
    let mut case = Case::new();
    for failure in 0..5 {
        let at = failure * 60;
        case.record.started(engine(failure, &case.wanted, moment(at)));
        let exit = Exit { status: "signal 9".to_owned(), killed: None };
        case.record.exited(exit, moment(at), PoolBytes::host(0));
        case.record.settle_release(PoolBytes::host(0), Duration::from_secs(at));
        let reason = if failure < 4 { "Loading" } else { "CrashLooping" };
        assert_eq!(case.told(at), format!("-{reason} +Serving -{reason} -{reason} -Serving"));
    }
    assert!(case.message("Ready").contains("signal 9: ended without saying why; 5 failure(s)"));
    assert_eq!((case.status.failures, case.status.restarts), (5, 4));
    assert_eq!(case.status.failed_since.as_ref().unwrap().0, moment(0).wall);

    let mut case = Case::new();
    case.record.started(engine(1, &case.wanted, moment(0)));
    let exit = Exit { status: "signal 9".to_owned(), killed: Some(KillReason::Stalled { seconds: 60 }) };
    case.record.exited(exit, moment(1), PoolBytes::host(0));
    case.record.settle_release(PoolBytes::host(0), Duration::from_secs(1));
    assert!(case.told(1).contains("-EngineStalled"));
}

#[test]
fn names_what_an_engine_said_of_its_gpu() {
    let cases = [
        (FailureReason::GpuFault, "GpuFault"),
        (FailureReason::OutOfMemory, "InsufficientMemory"),
        (FailureReason::DriverUnsupported, "DriverUnsupported"),
        (FailureReason::EngineFailed, "Loading"),
    ];
    for (reason, named) in cases {
        let mut case = Case::new();
        case.record.started(engine(1, &case.wanted, moment(0)));
        case.hear(ready(), 1);
        case.hear(Event::Failed { reason, message: "error 700".to_owned() }, 2);
        let exit = Exit { status: "code 1".to_owned(), killed: None };
        case.record.exited(exit, moment(2), PoolBytes::host(0));
        case.record.settle_release(PoolBytes::host(0), Duration::from_secs(2));
        assert_eq!(case.told(3), format!("-{named} +Serving -{named} -{named} -Serving"));
        let last = case.status.last_exit.as_ref().unwrap();
        assert_eq!(last.reason, format!("{reason}: error 700"));
        assert!(case.message("Ready").contains(&last.reason));
    }
}

#[test]
fn tells_a_refusal_in_its_own_words() {
    let mut case = Case::new();
    let refused = Refused { message: "needs 20.0 GiB".to_owned(), at: moment(0).wall, allocatable_bytes: 3 };
    case.record.refused = Some(refused);
    assert_eq!(case.told(0), "-Refused +Serving -Refused -Refused -Serving");
    assert_eq!(case.message("Ready"), "needs 20.0 GiB");
    assert_eq!(case.status.refusal.as_ref().unwrap().allocatable_bytes, 3);
}

#[test]
fn memory_that_did_not_come_back_is_told() {
    let mut case = Case::new();
    case.wanted.serve = false;
    case.record.started(engine(1, &case.wanted, moment(0)));
    case.record.engine.as_mut().unwrap().measured(PoolBytes::host(10 * GIB), PoolBytes::host(0));
    case.record.exited(Exit { status: "code 0".to_owned(), killed: None }, moment(0), PoolBytes::host(0));
    case.record.settle_release(PoolBytes::host(GIB), Duration::from_mins(2));
    assert!(case.told(120).ends_with("+NotReturned"));
}

#[test]
fn says_the_same_while_nothing_happens() {
    let mut case = Case::new();
    case.record.started(engine(1, &case.wanted, moment(0)));
    case.hear(Event::Loading { bytes_done: GIB, bytes_total: 16 * GIB, held_bytes: GIB }, 0);
    case.told(1);
    let before = case.status.clone();
    // Less than a twentieth more, and a minute later.
    case.hear(Event::Loading { bytes_done: GIB + 1, bytes_total: 16 * GIB, held_bytes: GIB + 1 }, 50);
    case.told(60);
    assert_eq!(case.status, before);
    case.hear(ready(), 61);
    case.told(61);
    let since = find_condition(&case.status.conditions, "Ready").unwrap().last_transition_time.0;
    assert_eq!(since, moment(61).wall);
}
