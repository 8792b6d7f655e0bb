use std::{
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use llguidance::CancellationHandle;
use thiserror::Error;

use super::{
    Grammar, MaskThreads, NextTokens,
    masks::{Job, Masked},
    matcher::{MatchError, Matcher},
};

/// How long a step waits for a mask. Fuel ends one after milliseconds; this is for a machine that stands still.
const MASK_LIMIT: Duration = Duration::from_secs(5);

/// Where one answer is in its grammar. One that has not begun takes no memory of its own: many may wait.
pub(crate) struct Constraint {
    state: State,
    /// Its rules are shared, and counted as taken while anybody follows them.
    grammar: Grammar,
    /// Of the matcher, once there is one.
    cancellation: Option<CancellationHandle>,
}

#[derive(Default)]
enum State {
    Waiting,
    Ready(Box<Matcher>),
    Computing(Receiver<Masked>),
    #[default]
    Failed,
}

/// Why a request cannot follow its grammar any further.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ConstraintError {
    #[error("{0}")]
    Grammar(String),
    #[error("it takes more memory than there is")]
    NoRoom,
    #[error("its mask took longer than {} s", MASK_LIMIT.as_secs())]
    TooSlow,
    #[error("its mask was asked for before its step began")]
    NotBegun,
}

impl Constraint {
    pub(crate) fn new(grammar: &Grammar) -> Self {
        Self { state: State::Waiting, grammar: grammar.clone(), cancellation: None }
    }

    /// Has the mask of the next token computed from now on.
    pub(crate) fn begin(&mut self, threads: &MaskThreads) {
        let matcher = match std::mem::take(&mut self.state) {
            State::Waiting => None,
            State::Ready(matcher) => Some(*matcher),
            other @ (State::Computing(_) | State::Failed) => {
                self.state = other;
                return;
            }
        };
        let (answer, computing) = sync_channel(1);
        threads.submit(Job { grammar: self.grammar.clone(), matcher, answer });
        self.state = State::Computing(computing);
    }

    /// Waits for what was begun.
    pub(crate) fn next(&mut self) -> Result<NextTokens, ConstraintError> {
        let State::Computing(computing) = std::mem::take(&mut self.state) else {
            return Err(ConstraintError::NotBegun);
        };
        let Ok(Masked { matcher, next }) = computing.recv_timeout(MASK_LIMIT) else {
            self.cancel();
            return Err(ConstraintError::TooSlow);
        };
        let next = next?;
        self.cancellation.get_or_insert_with(|| matcher.cancellation());
        self.state = State::Ready(Box::new(matcher));
        Ok(next)
    }

    fn cancel(&self) {
        if let Some(cancellation) = &self.cancellation {
            cancellation.cancel();
        }
    }

    /// Goes on by a token. Tells whether the answer is complete: nothing may follow it.
    pub(crate) fn accept(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let State::Ready(mut matcher) = std::mem::take(&mut self.state) else {
            return Err(ConstraintError::NotBegun);
        };
        let complete = matcher.accept(token)?;
        self.state = State::Ready(matcher);
        Ok(complete)
    }
}

/// A mask nobody waits for any more is given up, but for the first: fuel ends that.
impl Drop for Constraint {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl From<MatchError> for ConstraintError {
    fn from(error: MatchError) -> Self {
        match error {
            MatchError::Grammar(message) => Self::Grammar(message),
            MatchError::NoRoom => Self::NoRoom,
        }
    }
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Constraint").finish_non_exhaustive()
    }
}
