use std::time::Duration;

use jiff::Timestamp;
use sparkherd_crds::{LastExit, ModelReplicaStatus};
use sparkherd_protocol::{Event, FailureReason};

use super::{EndCause, Record, backoff};
use crate::clock::Moment;
use crate::engine::{Engine, Exit, KillReason, Stage};
use crate::fixture::{GIB, engine, moment, wanted};
use crate::memory::PoolBytes;

fn exit(killed: Option<KillReason>) -> Exit {
    Exit { status: "code 3".to_owned(), killed }
}

fn running(at: u64) -> Record {
    let mut record = Record::new(1, None, moment(at));
    record.started(engine(1, &wanted("a", 10), moment(at)));
    record
}

#[test]
fn pauses_double_up_to_five_minutes() {
    let seconds: Vec<u64> = (1..=6).map(|failures| backoff(failures).as_secs()).collect();
    assert_eq!(seconds, [10, 20, 40, 80, 300, 300]);
}

#[test]
fn counts_failures_of_half_an_hour_and_sees_a_loop() {
    let mut record = running(0);
    for failure in 0..5 {
        let at = failure * 60;
        if failure > 0 {
            record.started(engine(failure + 1, &wanted("a", 10), moment(at)));
        }
        assert!(!record.is_crash_looping(moment(at).since_start));
        record.exited(exit(None), moment(at), PoolBytes::host(0));
        record.settle_release(PoolBytes::host(u64::MAX), moment(at).since_start);
    }
    assert!(record.is_crash_looping(Duration::from_mins(4)));
    assert_eq!(record.retry_at, Some(Duration::from_mins(9)));
    assert_eq!(record.failed_since, Some(moment(0).wall));
    // The first three are older than half an hour now.
    assert_eq!(record.failures(Duration::from_mins(32)), 2);
    assert!(!record.is_crash_looping(Duration::from_mins(32)));
}

#[test]
fn an_end_that_was_asked_for_is_no_failure() {
    let cases = [
        (exit(None), false, true),
        (exit(None), true, false),
        (exit(Some(KillReason::Stopped)), false, false),
        (exit(Some(KillReason::DrainOverdue { seconds: 75 })), true, false),
        (exit(Some(KillReason::Stalled { seconds: 60 })), false, true),
        (exit(Some(KillReason::Guard { available_bytes: 1, reserve_bytes: 9 })), false, true),
    ];
    for (exit, draining, fails) in cases {
        let mut record = running(0);
        if draining && let Some(engine) = &mut record.engine {
            engine.drain(Duration::ZERO, Duration::from_secs(75));
        }
        record.exited(exit.clone(), moment(5), PoolBytes::host(0));
        assert_eq!(
            record.failures(Duration::from_secs(5)),
            usize::from(fails),
            "{exit:?}, draining {draining}"
        );
        assert_eq!(record.retry_at.is_some(), fails);
        assert!(record.ended.is_some());
    }
}

#[test]
fn tells_what_the_engine_said_before_it_ended() {
    let mut record = running(0);
    let said = Event::Failed { reason: FailureReason::UnsupportedModel, message: "rope type x".to_owned() };
    record.engine.as_mut().unwrap().heard(said, Duration::ZERO);
    record.exited(exit(None), moment(1), PoolBytes::host(0));
    assert_eq!(record.ended.unwrap().reason, "UnsupportedModel: rope type x");
    // One that hangs after its last words is killed, and they are not forgotten.
    let mut record = running(0);
    let said = Event::Failed { reason: FailureReason::GpuFault, message: "error 700".to_owned() };
    record.engine.as_mut().unwrap().heard(said, Duration::ZERO);
    record.exited(exit(Some(KillReason::Silent { seconds: 30 })), moment(1), PoolBytes::host(0));
    let ended = record.ended.unwrap();
    assert_eq!(ended.reason, "GpuFault: error 700; then said nothing for 30 s");
    assert_eq!(ended.cause, EndCause::Said(FailureReason::GpuFault));
}

#[test]
fn is_released_when_nine_tenths_are_back_or_after_two_minutes() {
    // It held 10 GiB while 20 GiB were beside it: 29 GiB less 1 GiB of noise must be there again.
    let cases = [(27, 0, None), (28, 0, Some(true)), (27, 119, None), (27, 120, Some(false))];
    for (unclaimed, waited, returned) in cases {
        let mut record = running(0);
        record.engine.as_mut().unwrap().measured(PoolBytes::host(10 * GIB), PoolBytes::host(20 * GIB));
        record.exited(exit(Some(KillReason::Stopped)), moment(1), PoolBytes::host(GIB));
        record.settle_release(PoolBytes::host(unclaimed * GIB), Duration::from_secs(1 + waited));
        assert_eq!(
            record.release.as_ref().map(|release| release.returned),
            returned,
            "{unclaimed} after {waited} s"
        );
        assert_eq!(record.engine.is_none(), returned.is_some());
    }
    let mut record = running(0);
    record.engine.as_mut().unwrap().measured(PoolBytes::host(10 * GIB), PoolBytes::host(20 * GIB));
    record.exited(exit(None), moment(0), PoolBytes::host(0));
    record.settle_release(PoolBytes::host(25 * GIB), Duration::from_mins(2));
    let message = record.release.unwrap().message;
    assert!(
        message.contains("10.0 GiB held") && message.contains("5.0 GiB are not back after 120 s"),
        "{message}"
    );
}

#[test]
fn a_new_attempt_forgets_failures_and_keeps_the_engine() {
    let mut record = running(0);
    record.exited(exit(None), moment(1), PoolBytes::host(0));
    record.settle_release(PoolBytes::host(u64::MAX), Duration::from_secs(1));
    record.adopt_attempt(2);
    assert_eq!((record.failures(Duration::from_secs(1)), record.starts, record.retry_at), (0, 0, None));
    record.started(engine(2, &wanted("a", 10), moment(2)));
    record.adopt_attempt(3);
    assert_eq!((record.attempt, record.starts), (3, 1));
    assert!(matches!(record.engine, Some(Engine { stage: Stage::Loading { .. }, .. })));
}

#[test]
fn an_agent_that_was_restarted_remembers_the_crashes_of_this_attempt() {
    let status = ModelReplicaStatus {
        attempt: 2,
        failures: 5,
        restarts: 4,
        last_exit: Some(LastExit {
            status: "signal 9".to_owned(),
            reason: "x".to_owned(),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
        }),
        ..ModelReplicaStatus::default()
    };
    let now: Moment = moment(7);
    let record = Record::new(2, Some(&status), now);
    assert!(record.is_crash_looping(now.since_start));
    assert_eq!((record.starts, record.retry_at), (5, Some(Duration::from_secs(307))));
    assert_eq!(Record::new(3, Some(&status), now), Record { attempt: 3, ..Record::default() });
}

#[test]
fn an_agent_that_was_restarted_knows_what_the_engine_said() {
    let cause = |reason: &str| {
        let last_exit = LastExit {
            status: "exit 1".to_owned(),
            reason: reason.to_owned(),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
        };
        let status =
            ModelReplicaStatus { attempt: 1, last_exit: Some(last_exit), ..ModelReplicaStatus::default() };
        Record::new(1, Some(&status), moment(7)).ended.unwrap().cause
    };
    assert_eq!(cause("GpuFault: error 700; then killed"), EndCause::Said(FailureReason::GpuFault));
    assert_eq!(cause("OutOfMemory: 5 bytes"), EndCause::Said(FailureReason::OutOfMemory));
    for other in ["drained", "said nothing for 30 s", "FromTheFuture: x", "GpuFault"] {
        assert_eq!(cause(other), EndCause::Other, "{other}");
    }
}
