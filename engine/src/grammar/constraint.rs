use std::{
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use llguidance::CancellationHandle;
use thiserror::Error;

use super::{Grammar, MaskThreads, NextTokens, masks::Job, matcher::Matcher};

/// How long a step waits for a mask. Fuel ends one after milliseconds; this is for a machine that stands still.
const MASK_LIMIT: Duration = Duration::from_secs(5);

/// Where one answer is in its grammar.
pub(crate) struct Constraint {
    state: State,
    /// Its rules are shared, and counted as taken while anybody follows them.
    grammar: Grammar,
    cancellation: CancellationHandle,
}

#[derive(Default)]
enum State {
    Ready(Box<Matcher>),
    Computing(Receiver<(Matcher, Result<NextTokens, String>)>),
    #[default]
    Failed,
}

/// Why a request cannot follow its grammar any further.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConstraintError {
    #[error("{0}")]
    Grammar(String),
    #[error("its mask took longer than {} s", MASK_LIMIT.as_secs())]
    TooSlow,
    #[error("its mask was asked for before its step began")]
    NotBegun,
}

impl Constraint {
    pub(crate) fn new(grammar: &Grammar) -> Self {
        let matcher = grammar.start();
        let cancellation = matcher.cancellation();
        Self { state: State::Ready(Box::new(matcher)), grammar: grammar.clone(), cancellation }
    }

    /// Has the mask of the next token computed from now on.
    pub(crate) fn begin(&mut self, threads: &MaskThreads) {
        if let State::Ready(matcher) = std::mem::take(&mut self.state) {
            let (answer, computing) = sync_channel(1);
            threads.submit(Job { matcher: *matcher, has_end: self.grammar.has_end(), answer });
            self.state = State::Computing(computing);
        }
    }

    /// Waits for what was begun.
    pub(crate) fn next(&mut self) -> Result<NextTokens, ConstraintError> {
        let State::Computing(computing) = std::mem::take(&mut self.state) else {
            return Err(ConstraintError::NotBegun);
        };
        let Ok((matcher, next)) = computing.recv_timeout(MASK_LIMIT) else {
            self.cancellation.cancel();
            return Err(ConstraintError::TooSlow);
        };
        let next = next.map_err(ConstraintError::Grammar)?;
        self.state = State::Ready(Box::new(matcher));
        Ok(next)
    }

    /// Goes on by a token. Tells whether the answer is complete: nothing may follow it.
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let State::Ready(mut matcher) = std::mem::take(&mut self.state) else {
            return Err(ConstraintError::NotBegun);
        };
        let complete = matcher.accept(token).map_err(ConstraintError::Grammar)?;
        self.state = State::Ready(matcher);
        Ok(complete)
    }
}

/// A mask nobody waits for any more is given up.
impl Drop for Constraint {
    fn drop(&mut self) {
        self.cancellation.cancel();
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Constraint").finish_non_exhaustive()
    }
}
