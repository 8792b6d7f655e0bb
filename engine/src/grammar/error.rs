use std::time::Duration;

use thiserror::Error;

/// Why a grammar is not followed. What llguidance says may quote the source: it is for whoever sent it, not for a log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrammarError {
    #[error("grammar has {bytes} bytes, more than the {bytes_max} allowed")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("grammar is nested more than {levels_max} levels deep")]
    TooDeep { levels_max: usize },
    #[error("{count} expressions have to hold together, more than the {count_max} allowed")]
    Intersections { count: usize, count_max: usize },
    #[error("schema is not JSON: {0}")]
    NotJson(String),
    #[error("schema is neither an object nor a boolean")]
    NotASchema,
    #[error("there is nothing to choose from")]
    NoChoice,
    #[error("grammar is refused: {0}")]
    Refused(String),
    /// Others have what there is.
    #[error("as many grammars are in use as there is memory for")]
    NoRoom,
    #[error("grammar was not compiled within {} s", limit.as_secs())]
    TimedOut { limit: Duration },
    #[error("cannot use the tokenizer's vocabulary for grammars: {0}")]
    Vocabulary(String),
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// Most characters of one message of llguidance that are passed on.
const MESSAGE_CHARACTERS_MAX: usize = 400;

/// The sentence in a message of llguidance, without the state it dumps behind it.
pub(super) fn sentence(message: &str) -> String {
    let end = message.find("\n<").unwrap_or(message.len());
    message[..end].trim().chars().take(MESSAGE_CHARACTERS_MAX).collect()
}
