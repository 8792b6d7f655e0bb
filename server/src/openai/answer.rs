//! Writing an answer while it comes.

use serde::Serialize;
use sparkherd_engine::{FinishReason, Piece, TokenLogprob, Usage};

use super::ApiError;
use super::wire::Members;

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

    /// Appends an object of the members `first` and then those of `rest`, which is an object too and has some. What all
    /// events of an answer repeat is copied; the rest is serialised in place: no tree, no copy.
    pub(super) fn write(&mut self, first: &Members, rest: &impl Serialize) -> serde_json::Result<()> {
        self.bytes.reserve(EVENT_BYTES);
        self.begin();
        self.bytes.extend_from_slice(first.open_object());
        let seam = self.bytes.len();
        serde_json::to_writer(&mut self.bytes, rest)?;
        if let Some(brace) = self.bytes.get_mut(seam) {
            *brace = b',';
        }
        self.end();
        Ok(())
    }

    /// The payload of an error within a stream.
    pub(super) fn write_error(&mut self, error: &ApiError) -> serde_json::Result<()> {
        self.begin();
        serde_json::to_writer(&mut self.bytes, &error.body())?;
        self.end();
        Ok(())
    }

    fn begin(&mut self) {
        if self.events {
            self.bytes.extend_from_slice(b"data: ");
        }
    }

    fn end(&mut self) {
        if self.events {
            self.bytes.extend_from_slice(b"\n\n");
        }
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

/// Which choice, and what it has used by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChoiceNow {
    pub(super) index: usize,
    pub(super) usage: Usage,
}

/// One answer of one endpoint, written in one way. Called in this order: `opening` for each choice; for each choice any number
/// of `prompt`s, any of `piece`s and one `closing`, interleaved with the other choices'; `end`.
pub(crate) trait Answer: Send + Sync + 'static {
    fn opening(&mut self, choice: ChoiceNow, out: &mut Documents) -> serde_json::Result<()>;

    /// Log-probabilities of the prompt's next tokens, where they were asked for.
    fn prompt(
        &mut self,
        choice: ChoiceNow,
        tokens: Vec<TokenLogprob>,
        out: &mut Documents,
    ) -> serde_json::Result<()>;

    fn piece(&mut self, choice: ChoiceNow, piece: Piece, out: &mut Documents) -> serde_json::Result<()>;

    fn closing(
        &mut self,
        choice: ChoiceNow,
        reason: FinishReason,
        out: &mut Documents,
    ) -> serde_json::Result<()>;

    fn end(&mut self, usage: Usage, out: &mut Documents) -> serde_json::Result<()>;
}
