//! The way from one request's tokens to its reader.

use std::collections::VecDeque;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{
    request::{
        FinishReason, GenerationError, GenerationEvent, Piece, SampledToken, Start, TokenLogprob, Usage,
        ValidRequest,
    },
    shared::Place,
    text::{Detokenizer, StopMatcher, Text, TextError},
};

/// Events a reader may be behind by: about ten seconds of a fast stream, a few tens of kilobytes.
const EVENTS_MAX: usize = 1024;

/// Writes one request's events. The channel keeps room for the first and the last one, and dropping an unfinished output sends it, so
/// every accepted request ends exactly once, whatever becomes of the worker (I19).
#[derive(Debug)]
pub(crate) struct Output {
    /// Gone once the request has ended.
    open: Option<Open>,
    detokenizer: Detokenizer,
    stops: StopMatcher,
    withheld: Withheld,
}

#[derive(Debug)]
struct Open {
    place: Place,
    sender: Sender<GenerationEvent>,
}

/// Tokens whose text is not out. Places in the text are counted in bytes from its beginning.
#[derive(Debug, Default)]
struct Withheld {
    /// Each with the place its text ends at, or that of the next byte where none has come of it yet.
    tokens: VecDeque<(SampledToken, usize)>,
    /// Where the text known so far ends.
    known: usize,
    /// Where the text sent so far ends.
    sent: usize,
    /// Where that of the last token sent ends.
    last_end: usize,
}

impl Output {
    pub(crate) fn new(place: Place, request: &ValidRequest) -> (Self, Receiver<GenerationEvent>) {
        let (sender, events) = channel(EVENTS_MAX + 2);
        let detokenizer = Detokenizer::new(&place.shared().text, request.special_tokens, &request.prompt);
        let stops = StopMatcher::new(request.ends.stop.clone());
        let withheld = Withheld::default();
        (Self { open: Some(Open { place, sender }), detokenizer, stops, withheld }, events)
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.sender.is_closed())
    }

    /// Sends the first event.
    pub(crate) fn start(&self, start: Start) {
        self.send_first(GenerationEvent::Started(start));
    }

    /// The prompt is computed: it does not count as waiting any more.
    pub(crate) fn prompt_computed(&mut self) {
        if let Some(open) = &mut self.open {
            open.place.remove_prompt();
        }
    }

    /// Sends the text that is sure with this token. Tells whether a stop string ended it; none is looked for in text that
    /// comes while `may_stop` is false.
    pub(crate) fn push(
        &mut self,
        text: &Text,
        token: SampledToken,
        may_stop: bool,
    ) -> Result<bool, GenerationError> {
        let piece = self.detokenizer.push(text, token.token).map_err(|error| undecodable(&error))?;
        self.withheld.push(token, piece.len());
        if !may_stop {
            let tokens = self.withheld.take_sure(piece.len());
            self.send(Piece { text: piece, tokens })?;
            return Ok(false);
        }
        let sure = self.stops.push(&piece);
        let mut tokens = self.withheld.take_sure(sure.text.len());
        if sure.stopped {
            tokens.extend(self.withheld.take_begun());
        }
        self.send(Piece { text: sure.text, tokens })?;
        Ok(sure.stopped)
    }

    /// Sends what is left and the last event.
    pub(crate) fn finish(mut self, text: &Text, reason: FinishReason, usage: Usage) {
        let event = match self.flush(text, reason) {
            Ok(reason) => GenerationEvent::Finished { reason, usage },
            Err(error) => GenerationEvent::Failed(error),
        };
        self.end(event);
    }

    pub(crate) fn fail(mut self, error: GenerationError) {
        self.end(GenerationEvent::Failed(error));
    }

    /// Sends the text that was withheld, now that no token follows; a stop string may still be in it.
    fn flush(&mut self, text: &Text, reason: FinishReason) -> Result<FinishReason, GenerationError> {
        if reason == FinishReason::StopString {
            return Ok(reason);
        }
        let piece = self.detokenizer.finish(text).map_err(|error| undecodable(&error))?;
        self.withheld.known += piece.len();
        let sure = self.stops.push(&piece);
        let rest = sure.text + &self.stops.finish();
        let mut tokens = self.withheld.take_sure(rest.len());
        tokens.extend(if sure.stopped { self.withheld.take_begun() } else { self.withheld.take_all() });
        self.send(Piece { text: rest, tokens })?;
        Ok(if sure.stopped { FinishReason::StopString } else { reason })
    }

    /// Sends what was asked of the prompt.
    pub(crate) fn prompt(&self, logprobs: Vec<TokenLogprob>) {
        self.send_first(GenerationEvent::Prompt(logprobs));
    }

    /// Sends what comes before any text, when there is room.
    fn send_first(&self, event: GenerationEvent) {
        if let Some(Open { sender, .. }) = &self.open {
            // Fails only if the reader is gone.
            let _ = sender.try_send(event);
        }
    }

    fn send(&self, piece: Piece) -> Result<(), GenerationError> {
        let says_something = !piece.text.is_empty() || !piece.tokens.is_empty();
        let Some(Open { sender, .. }) = self.open.as_ref().filter(|_| says_something) else {
            return Ok(());
        };
        if sender.capacity() <= 1 && !sender.is_closed() {
            return Err(GenerationError::SlowReader { events: EVENTS_MAX });
        }
        // Fails only if the reader is gone, and then nobody misses it.
        let _ = sender.try_send(GenerationEvent::Text(piece));
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

impl Withheld {
    /// A token, and how much text came with it.
    fn push(&mut self, token: SampledToken, bytes: usize) {
        self.known += bytes;
        self.tokens.push_back((token, if bytes == 0 { self.known + 1 } else { self.known }));
    }

    /// The tokens whose text is out once so many more bytes are sent.
    fn take_sure(&mut self, bytes: usize) -> Vec<SampledToken> {
        self.sent += bytes;
        let sent = self.sent;
        self.take_while(|_, end| end <= sent)
    }

    /// The tokens of which some text is out, where nothing follows.
    fn take_begun(&mut self) -> Vec<SampledToken> {
        let sent = self.sent;
        self.take_while(|start, _| start < sent)
    }

    fn take_all(&mut self) -> Vec<SampledToken> {
        self.take_while(|_, _| true)
    }

    /// Takes tokens from the front while `wanted` of where their text starts and ends.
    fn take_while(&mut self, wanted: impl Fn(usize, usize) -> bool) -> Vec<SampledToken> {
        let mut taken = Vec::new();
        while let Some((token, end)) = self.tokens.pop_front() {
            if !wanted(self.last_end, end) {
                self.tokens.push_front((token, end));
                break;
            }
            self.last_end = end;
            taken.push(token);
        }
        taken
    }
}

fn undecodable(error: &TextError) -> GenerationError {
    GenerationError::Engine(error.to_string())
}
