//! The way from one request's tokens to its reader.

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{
    request::{FinishReason, GenerationError, GenerationEvent, Usage, ValidRequest},
    shared::Place,
    text::{Detokenizer, StopMatcher, Text, TextError},
};

/// Events a reader may be behind by: about ten seconds of a fast stream, a few tens of kilobytes.
const EVENTS_MAX: usize = 1024;

/// Writes one request's events. The channel keeps room for the last one, and dropping an unfinished output sends it, so
/// every accepted request ends exactly once, whatever becomes of the worker (I19).
#[derive(Debug)]
pub(crate) struct Output {
    /// Gone once the request has ended.
    open: Option<Open>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
}

#[derive(Debug)]
struct Open {
    place: Place,
    sender: Sender<GenerationEvent>,
}

/// Why no more tokens are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    StopString,
    StopToken,
    Length,
}

impl Output {
    pub(crate) fn new(
        place: Place,
        text: &Text,
        request: &ValidRequest,
    ) -> (Self, Receiver<GenerationEvent>) {
        let (sender, events) = channel(EVENTS_MAX + 1);
        let detokenizer = Detokenizer::new(text);
        let stops = StopMatcher::new(request.stop.clone());
        (Self { open: Some(Open { place, sender }), detokenizer, stops }, events)
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.sender.is_closed())
    }

    /// Sends the text that is sure with this token. Tells whether a stop string ended it.
    pub(crate) fn push(&mut self, text: &Text, token: u32) -> Result<bool, GenerationError> {
        let piece = self.detokenizer.push(text, token).map_err(|error| undecodable(&error))?;
        let sure = self.stops.push(&piece);
        self.send(sure.text)?;
        Ok(sure.stopped)
    }

    /// Sends what is left and the last event.
    pub(crate) fn finish(mut self, text: &Text, end: End, usage: Usage) {
        let event = match self.flush(text, end) {
            Ok(reason) => GenerationEvent::Finished { reason, usage },
            Err(error) => GenerationEvent::Failed(error),
        };
        self.end(event);
    }

    pub(crate) fn fail(mut self, error: GenerationError) {
        self.end(GenerationEvent::Failed(error));
    }

    /// Sends the text that was withheld, now that no token follows; a stop string may still be in it.
    fn flush(&mut self, text: &Text, end: End) -> Result<FinishReason, GenerationError> {
        if end == End::StopString {
            return Ok(FinishReason::Stop);
        }
        let piece = self.detokenizer.finish(text).map_err(|error| undecodable(&error))?;
        let sure = self.stops.push(&piece);
        let rest = self.stops.finish();
        self.send(sure.text + &rest)?;
        Ok(if sure.stopped || end == End::StopToken { FinishReason::Stop } else { FinishReason::Length })
    }

    fn send(&self, text: String) -> Result<(), GenerationError> {
        let Some(Open { sender, .. }) = self.open.as_ref().filter(|_| !text.is_empty()) else {
            return Ok(());
        };
        if sender.capacity() <= 1 && !sender.is_closed() {
            return Err(GenerationError::SlowReader { events: EVENTS_MAX });
        }
        // Fails only if the reader is gone, and then nobody misses it.
        let _ = sender.try_send(GenerationEvent::Text(text));
        Ok(())
    }

    /// The place is given back first: a client that has heard the end finds room for its next request.
    fn end(&mut self, event: GenerationEvent) {
        if let Some(Open { place, sender }) = self.open.take() {
            drop(place);
            // There is room; this fails only if the reader is gone.
            let _ = sender.try_send(event);
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(error) = self.open.as_ref().map(|open| open.place.abandoned()) {
            self.end(GenerationEvent::Failed(error));
        }
    }
}

fn undecodable(error: &TextError) -> GenerationError {
    GenerationError::Engine(error.to_string())
}
