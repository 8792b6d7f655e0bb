//! The parameters both endpoints of generation share. Each is honoured, or refused by name ([`neutral`]).

mod caller;
mod ends;
mod neutral;
mod sampling;
mod streaming;
mod structure;

use sparkherd_engine::{Ends, Sampling};

use super::ApiError;
use super::fields::Fields;

pub(crate) use caller::{CallerWishes, ServiceTier};
pub(crate) use streaming::StreamUsage;
pub(crate) use structure::Structure;

pub(super) use caller::take_caller;
pub(super) use neutral::is_empty;

/// Answers to one prompt: each takes a sequence of the batch.
pub(super) const CHOICES_MAX: u32 = 8;

/// What both endpoints take from the body in the same way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameters {
    pub(super) model: String,
    /// Answers to each prompt.
    pub(super) choices: u32,
    /// As asked; the engine clamps it to what the context leaves.
    pub(super) max_tokens: Option<u32>,
    pub(super) sampling: Sampling,
    pub(super) ends: Ends,
    pub(super) skip_special_tokens: bool,
    pub(super) structure: Option<Structure>,
    pub(super) caller: CallerWishes,
    pub(super) service_tier: Option<ServiceTier>,
    /// `None`: the answer comes whole.
    pub(super) stream: Option<StreamUsage>,
    pub(super) return_token_ids: bool,
}

impl Parameters {
    /// Whether the prompt is sent only to be judged: no token of an answer is wanted.
    pub(super) fn only_echo(&self) -> bool {
        self.max_tokens == Some(0)
    }

    /// `least_tokens`: how few an answer may be asked to have.
    pub(super) fn take(fields: &mut Fields<'_>, least_tokens: u32) -> Result<Self, ApiError> {
        neutral::refuse_not_offered(fields)?;
        let model: String = fields.take_required("model", "a string")?;
        let legacy_max = fields.take_count("max_tokens", least_tokens)?;
        let max_tokens = fields.take_count("max_completion_tokens", least_tokens)?.or(legacy_max);
        let (caller, service_tier) = caller::take_caller(fields)?;
        Ok(Self {
            model,
            choices: take_choices(fields)?,
            max_tokens,
            sampling: sampling::take_sampling(fields)?,
            ends: ends::take_ends(fields, max_tokens)?,
            skip_special_tokens: fields.take("skip_special_tokens", "true or false")?.unwrap_or(true),
            structure: structure::take_structure(fields)?,
            caller,
            service_tier,
            stream: streaming::take_streaming(fields)?,
            return_token_ids: fields.take_flag("return_token_ids")?,
        })
    }
}

/// `best_of` would throw answers away that were paid for; the number asked for with `n` is the same without it.
fn take_choices(fields: &mut Fields<'_>) -> Result<u32, ApiError> {
    let choices = fields.take_count("n", 1)?.unwrap_or(1);
    if choices > CHOICES_MAX {
        return Err(fields.invalid("n", format!("a whole number from 1 to {CHOICES_MAX}")));
    }
    match fields.take_count("best_of", 1)? {
        Some(best_of) if best_of != choices => {
            Err(ApiError::Unsupported { param: fields.path("best_of"), allowed: "the same as n" })
        }
        _ => Ok(choices),
    }
}
