//! The way from one text's hidden states to whoever asked for its vector.

use tokio::sync::oneshot::{Receiver, Sender, channel};

use crate::{
    request::{Embedding, GenerationError},
    shared::Place,
};

type Answer = Result<Embedding, GenerationError>;

/// Gives one answer; dropping it unanswered gives the reason the engine ended for (I19).
#[derive(Debug)]
pub(crate) struct EmbeddingOutput {
    /// Gone once the request has ended.
    open: Option<(Place, Sender<Answer>)>,
}

impl EmbeddingOutput {
    pub(crate) fn new(place: Place) -> (Self, Receiver<Answer>) {
        let (sender, answer) = channel();
        (Self { open: Some((place, sender)) }, answer)
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.open.as_ref().is_none_or(|(_, sender)| sender.is_closed())
    }

    /// The place is given back first, as by [`crate::output::Output`].
    pub(crate) fn end(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        if let Some((place, sender)) = self.open.take() {
            drop(place);
            // Fails only if nobody waits any more.
            let _ = sender.send(answer);
        }
    }
}

impl Drop for EmbeddingOutput {
    fn drop(&mut self) {
        if let Some(error) = self.open.as_ref().map(|(place, _)| place.abandoned()) {
            self.send(Err(error));
        }
    }
}
