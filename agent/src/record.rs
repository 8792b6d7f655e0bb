//! What the agent remembers of one replica: its engine, and how earlier engines of this attempt ended.

use std::time::Duration;

use jiff::Timestamp;
use sparkherd_crds::ModelReplicaStatus;
use sparkherd_protocol::FailureReason;

use crate::bytes::readable;
use crate::clock::Moment;
use crate::engine::{Engine, Exit, KillReason, Said, Stage};
use crate::memory::PoolBytes;

/// Crashes older than this are forgotten.
const FAILURE_WINDOW: Duration = Duration::from_mins(30);
/// First pause after a crash; doubles with each in the window. Long enough for a port and memory to be free again.
const BACKOFF_FIRST: Duration = Duration::from_secs(10);
/// Longest pause: a fix shows within five minutes without anybody doing anything.
const BACKOFF_LONGEST: Duration = Duration::from_mins(5);
/// This many crashes in the window are a loop.
const CRASH_LOOP_FAILURES: usize = 5;
/// An engine's memory is back within this, or something else has taken it.
const RETURN_DEADLINE: Duration = Duration::from_mins(2);

/// The agent would not start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub message: String,
    pub at: Timestamp,
    pub allocatable_bytes: u64,
}

/// How the last engine of this attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub status: String,
    pub reason: String,
    pub at: Timestamp,
    pub cause: EndCause,
}

/// What of an end is more than a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndCause {
    /// It hung, and was killed.
    Stall,
    /// It said why.
    Said(FailureReason),
    Other,
}

/// What became of the memory of the last engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub returned: bool,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub attempt: u32,
    pub engine: Option<Engine>,
    /// Engines started in this attempt.
    pub starts: u32,
    /// An engine of this attempt has been ready in this life of the agent.
    pub was_ready: bool,
    /// When engines of this attempt failed, oldest first.
    failures: Vec<Duration>,
    pub failed_since: Option<Timestamp>,
    pub retry_at: Option<Duration>,
    pub refused: Option<Refused>,
    pub ended: Option<Ended>,
    pub release: Option<Release>,
}

impl EndCause {
    /// What a sentence of [`Ended::reason`] begins with.
    fn told(reason: &str) -> Self {
        let word = reason.split_once(':').and_then(|(word, _)| FailureReason::named(word));
        word.map_or(Self::Other, Self::Said)
    }
}

impl Record {
    /// Takes over what an earlier life of the agent wrote, so that a restart of the agent forgets no crash (I11). Its
    /// engines died with it.
    pub fn new(attempt: u32, status: Option<&ModelReplicaStatus>, now: Moment) -> Self {
        let fresh = Self { attempt, ..Self::default() };
        let Some(status) = status.filter(|status| status.attempt == attempt) else { return fresh };
        let failures = vec![now.since_start; usize::try_from(status.failures).unwrap_or(usize::MAX).min(64)];
        let ran = status.last_exit.is_some() || status.incarnation.is_some();
        Self {
            starts: status.restarts + u32::from(ran),
            // What failed before waits its turn, and not for longer than it would have.
            retry_at: (!failures.is_empty()).then(|| now.since_start + backoff(failures.len())),
            failures,
            failed_since: status.failed_since.as_ref().map(|time| time.0),
            refused: status.refusal.as_ref().map(|refusal| Refused {
                message: refusal.message.clone(),
                at: refusal.at.0,
                allocatable_bytes: refusal.allocatable_bytes,
            }),
            ended: status.last_exit.as_ref().map(|exit| Ended {
                status: exit.status.clone(),
                reason: exit.reason.clone(),
                at: exit.at.0,
                cause: EndCause::told(&exit.reason),
            }),
            ..fresh
        }
    }

    /// A new attempt counts from zero; an engine that runs goes on running.
    pub fn adopt_attempt(&mut self, attempt: u32) {
        if attempt != self.attempt {
            let stays = |engine: &Engine| matches!(engine.stage, Stage::Loading { .. } | Stage::Serving(_));
            let starts = u32::from(self.engine.as_ref().is_some_and(stays));
            *self = Self {
                attempt,
                starts,
                engine: self.engine.take(),
                was_ready: self.was_ready,
                ..Self::default()
            };
        }
    }

    pub fn started(&mut self, engine: Engine) {
        self.engine = Some(engine);
        self.starts += 1;
        self.refused = None;
        self.release = None;
        self.retry_at = None;
    }

    pub const fn ready(&mut self) {
        self.was_ready = true;
        self.failed_since = None;
    }

    /// The process is gone: a failure unless it was asked to go.
    pub fn exited(&mut self, exit: Exit, now: Moment, grain: PoolBytes) {
        let Some(engine) = &mut self.engine else { return };
        let draining = matches!(engine.stage, Stage::Draining { .. });
        let failed = exit.killed.as_ref().map_or(!draining, KillReason::is_failure);
        let reason = match (&exit.killed, &engine.failure) {
            // It may hang after its last words, in a driver that is lost.
            (Some(killed), Some(Said { reason, message })) => format!("{reason}: {message}; then {killed}"),
            (Some(killed), None) => killed.to_string(),
            (None, Some(Said { reason, message })) => format!("{reason}: {message}"),
            (None, None) if draining => "drained".to_owned(),
            (None, None) => "ended without saying why".to_owned(),
        };
        let cause = match (&exit.killed, &engine.failure) {
            (_, Some(said)) => EndCause::Said(said.reason),
            (Some(killed), None) if killed.is_stall() => EndCause::Stall,
            (_, None) => EndCause::Other,
        };
        engine.exited(now.since_start, grain);
        self.ended = Some(Ended { status: exit.status, reason, at: now.wall, cause });
        if failed {
            self.failed(now);
        }
    }

    /// It could not even be started.
    pub fn start_failed(&mut self, reason: String, now: Moment) {
        self.ended =
            Some(Ended { status: "not started".to_owned(), reason, at: now.wall, cause: EndCause::Other });
        self.failed(now);
    }

    fn failed(&mut self, now: Moment) {
        self.failures.push(now.since_start);
        self.failed_since.get_or_insert(now.wall);
        self.retry_at = Some(now.since_start + backoff(self.failures(now.since_start)));
    }

    /// Crashes within the last 30 minutes of this attempt.
    pub fn failures(&self, now: Duration) -> usize {
        self.failures.iter().filter(|at| now.saturating_sub(**at) < FAILURE_WINDOW).count()
    }

    pub fn is_crash_looping(&self, now: Duration) -> bool {
        self.failures(now) >= CRASH_LOOP_FAILURES
    }

    /// Forgets an engine whose memory is back, or which has had its time. `unclaimed`: available, and held by our living
    /// engines.
    pub fn settle_release(&mut self, unclaimed: PoolBytes, now: Duration) {
        let Some(engine) = &self.engine else { return };
        let Stage::Returning { exited_at, floor, whole } = engine.stage else { return };
        let waited = now.saturating_sub(exited_at);
        let returned = unclaimed.covers(floor);
        if !returned && waited < RETURN_DEADLINE {
            return;
        }
        let held = readable(engine.held.total());
        let message = if returned {
            format!("{held} measured back in {:.1} s", waited.as_secs_f64())
        } else {
            format!(
                "of {held} held at exit {} are not back after {} s",
                readable(whole.minus(unclaimed).total()),
                waited.as_secs()
            )
        };
        self.release = Some(Release { returned, message });
        self.engine = None;
    }
}

/// Pause before the next start after this many failures in the window: 10 s, 20 s, 40 s … 5 min; 5 min in a crash loop.
fn backoff(failures: usize) -> Duration {
    if failures >= CRASH_LOOP_FAILURES {
        return BACKOFF_LONGEST;
    }
    doubled(BACKOFF_FIRST, BACKOFF_LONGEST, failures)
}

/// Pause before try number `failures + 1`: `first`, doubling, at most `longest`.
pub fn doubled(first: Duration, longest: Duration, failures: usize) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    first.saturating_mul(1 << doublings).min(longest)
}

#[cfg(test)]
mod tests;
