use std::time::Duration;

use jiff::Timestamp;
use sparkherd_checkpoint::{Inspection, InspectionOutcome, Refusal, RefusalReason};
use sparkherd_planner::Reason;

use super::{LocateError, Located};
use crate::clock::Moment;
use crate::record::doubled;

const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_LONGEST: Duration = Duration::from_mins(5);

/// Files a `Model.status.resolved` may list.
const FILES_MAX: usize = 512;

/// Whether a replica's weights lie here as resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    Ready { located: Located },
    NotReady { reason: Reason, message: String },
}

/// What is known of a model's files on this node.
#[derive(Clone, Debug, PartialEq)]
pub enum CopyFacts<'a> {
    /// Not looked at yet, or being read anew.
    Checking,
    Whole(&'a Inspection),
    Failed {
        refusal: &'a Refusal,
        at: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq)]
struct Tried {
    located: Option<Located>,
    at: Moment,
    /// Failures in a row of the same files.
    failures: usize,
    outcome: Result<Inspection, Refusal>,
}

/// One model's files on this node: the last cheap look, and the last time their headers were read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelCopy {
    located: Option<Result<Located, LocateError>>,
    tried: Option<Tried>,
}

impl ModelCopy {
    /// Takes in a cheap look. A path that leads nowhere is a failed try by itself: there is nothing to read.
    pub fn looked(&mut self, look: Result<Located, LocateError>, now: Moment) {
        if let Err(error) = &look {
            let refusal = Refusal::new(RefusalReason::Unresolvable, &error.to_string());
            let repeated =
                matches!(&self.tried, Some(tried) if tried.outcome.as_ref().err() == Some(&refusal));
            if !repeated || self.is_retry_due(now.since_start) {
                self.failed(None, refusal, now);
            }
        }
        self.located = Some(look);
    }

    /// Nobody looks at the files any more: what was read is good again only if the next look finds them unchanged.
    pub fn forget_look(&mut self) {
        self.located = None;
    }

    /// The files whose headers should be read now, if any.
    pub fn due(&self, now: Duration) -> Option<&Located> {
        let located = self.located.as_ref()?.as_ref().ok()?;
        match &self.tried {
            Some(tried) if tried.located.as_ref() == Some(located) => {
                (tried.outcome.is_err() && self.is_retry_due(now)).then_some(located)
            }
            _ => Some(located),
        }
    }

    /// Takes in what reading the headers of these files gave.
    pub fn inspected(&mut self, located: Located, outcome: InspectionOutcome, now: Moment) {
        match outcome {
            InspectionOutcome::Inspection(inspection) if inspection.files.len() > FILES_MAX => {
                let message = format!("{} files, at most {FILES_MAX} are served", inspection.files.len());
                let refusal = Refusal::new(RefusalReason::UnsupportedModel, &message);
                self.failed(Some(located), refusal, now);
            }
            InspectionOutcome::Inspection(inspection) => {
                self.tried =
                    Some(Tried { located: Some(located), at: now, failures: 0, outcome: Ok(inspection) });
            }
            InspectionOutcome::Error(refusal) => self.failed(Some(located), refusal, now),
        }
    }

    /// Another try is wanted at once, for example because this node has just become the resolver.
    pub const fn retry_now(&mut self) {
        if let Some(tried) = &mut self.tried
            && tried.outcome.is_err()
        {
            tried.failures = 0;
        }
    }

    pub fn facts(&self) -> CopyFacts<'_> {
        let (Some(look), Some(tried)) = (&self.located, &self.tried) else { return CopyFacts::Checking };
        match &tried.outcome {
            Err(refusal) if tried.located.as_ref() == look.as_ref().ok() => {
                CopyFacts::Failed { refusal, at: tried.at.wall }
            }
            Ok(inspection) if tried.located.as_ref() == look.as_ref().ok() => CopyFacts::Whole(inspection),
            // The files have changed since.
            _ => CopyFacts::Checking,
        }
    }

    /// Whether these files are what `digest` names.
    pub fn weights(&self, digest: &str) -> Weights {
        match self.facts() {
            CopyFacts::Checking => Weights::NotReady {
                reason: Reason::Downloading,
                message: "the files are being verified".to_owned(),
            },
            CopyFacts::Failed { refusal, .. } => {
                Weights::NotReady { reason: reason(refusal.reason), message: refusal.message.clone() }
            }
            CopyFacts::Whole(inspection) if inspection.digest != digest => Weights::NotReady {
                reason: Reason::ChecksumMismatch,
                message: mismatch(&inspection.digest, digest),
            },
            CopyFacts::Whole(_) => match &self.located {
                Some(Ok(located)) => Weights::Ready { located: located.clone() },
                _ => Weights::NotReady {
                    reason: Reason::Downloading,
                    message: "the files are being looked for".to_owned(),
                },
            },
        }
    }

    fn failed(&mut self, located: Option<Located>, refusal: Refusal, now: Moment) {
        let before = match &self.tried {
            Some(tried) if tried.located == located => tried.failures,
            _ => 0,
        };
        self.tried = Some(Tried { located, at: now, failures: before + 1, outcome: Err(refusal) });
    }

    fn is_retry_due(&self, now: Duration) -> bool {
        self.tried.as_ref().is_none_or(|tried| {
            let pause = match tried.failures {
                0 => Duration::ZERO,
                failures => doubled(RETRY_FIRST, RETRY_LONGEST, failures),
            };
            now >= tried.at.since_start + pause
        })
    }
}

/// The API's reason for a refusal by the reader of headers.
pub const fn reason(reason: RefusalReason) -> Reason {
    match reason {
        RefusalReason::Unresolvable => Reason::Unresolvable,
        RefusalReason::UnsupportedModel => Reason::UnsupportedModel,
    }
}

/// The sentence for files that are whole but not the resolved ones.
pub fn mismatch(found: &str, resolved: &str) -> String {
    // Twelve digits tell digests apart for people; the whole ones are in the status.
    let short = |digest: &str| digest.get(..12).unwrap_or(digest).to_owned();
    format!(
        "the files have digest {}, resolved was {}: put the old files back, or delete the Model to move to the new ones",
        short(found),
        short(resolved)
    )
}

#[cfg(test)]
mod tests;
