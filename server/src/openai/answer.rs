//! Writing an answer while it comes.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::ApiError;

/// JSON documents on their way to a client: as events, or one as the whole body.
#[derive(Debug)]
pub(crate) struct Documents {
    bytes: Vec<u8>,
    events: bool,
}

/// Room for an event of a token, so that writing one allocates once.
const EVENT_BYTES: usize = 512;

impl Documents {
    pub(super) const fn body() -> Self {
        Self { bytes: Vec::new(), events: false }
    }

    pub(super) const fn events() -> Self {
        Self { bytes: Vec::new(), events: true }
    }

    /// Appends a document. Serialised in place: no tree, no copy.
    pub(super) fn write(&mut self, document: &impl Serialize) -> serde_json::Result<()> {
        self.bytes.reserve(EVENT_BYTES);
        if self.events {
            self.bytes.extend_from_slice(b"data: ");
        }
        serde_json::to_writer(&mut self.bytes, document)?;
        if self.events {
            self.bytes.extend_from_slice(b"\n\n");
        }
        Ok(())
    }

    /// The payload of an error within a stream.
    pub(super) fn write_error(&mut self, error: &ApiError) -> serde_json::Result<()> {
        self.write(&error.body())
    }

    /// Ends a stream that is complete.
    pub(super) fn done(&mut self) {
        self.bytes.extend_from_slice(b"data: [DONE]\n\n");
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What has been written since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

/// One answer of one endpoint, written in one way. Called in this order: `opening`; for each choice at most one `prompt`,
/// any number of `piece`s and one `closing`, interleaved with the other choices'; `end`.
pub(crate) trait Answer: Send + Sync + 'static {
    fn opening(&mut self, out: &mut Documents) -> serde_json::Result<()>;

    /// Log-probabilities of the prompt's tokens, where they were asked for.
    fn prompt(
        &mut self,
        choice: usize,
        tokens: Vec<TokenLogprob>,
        out: &mut Documents,
    ) -> serde_json::Result<()>;

    fn piece(&mut self, choice: usize, piece: Piece, out: &mut Documents) -> serde_json::Result<()>;

    fn closing(&mut self, choice: usize, reason: FinishReason, out: &mut Documents)
    -> serde_json::Result<()>;

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()>;
}
