use super::{SubmitError, error::out_of_range};
use crate::handle::ModelInfo;

/// Stop strings of one request. OpenAI allows 4; the margin is for clients of other engines.
const STOPS_MAX: usize = 16;

/// Bytes of one stop string: as much text is withheld from the stream while it may be the beginning of one.
const STOP_BYTES_MAX: usize = 1024;

/// Stop tokens of one request: agents send a handful of their template's markers.
const STOP_TOKENS_MAX: usize = 128;

/// What ends an answer beside `max_tokens`. The default is the model's own end-of-sequence tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that do the same, whatever `ignore_eos` says.
    pub stop_token_ids: Vec<u32>,
    /// Go on past the model's end-of-sequence tokens: for benchmarks.
    pub ignore_eos: bool,
    /// Nothing ends the answer before so many tokens: what would is not chosen, and a stop string must begin after them. The
    /// end of a grammar overrules it.
    pub min_tokens: u32,
}

impl Ends {
    /// The strings themselves are the client's text and stay out of the error.
    pub(super) fn check(&self, max_tokens: u32, info: &ModelInfo) -> Result<(), SubmitError> {
        let Self { stop, stop_token_ids, ignore_eos: _, min_tokens } = self;
        if stop.len() > STOPS_MAX {
            return Err(out_of_range("number of stop strings", &stop.len(), "at most 16"));
        }
        if let Some(bytes) = stop.iter().map(String::len).find(|bytes| !(1..=STOP_BYTES_MAX).contains(bytes))
        {
            return Err(out_of_range("length of a stop string", &bytes, "1 to 1024 bytes"));
        }
        if stop_token_ids.len() > STOP_TOKENS_MAX {
            return Err(out_of_range("number of stop_token_ids", &stop_token_ids.len(), "at most 128"));
        }
        if *min_tokens > max_tokens {
            return Err(out_of_range("min_tokens", min_tokens, "at most max_tokens"));
        }
        info.check_tokens(stop_token_ids)
    }
}
