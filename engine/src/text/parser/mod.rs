//! An answer's text, split as it comes into thoughts, words and calls of tools.
//!
//! ```text
//!            ┌─► Reasoning ─┐                      ┌──────────────┐
//! text ─► Ahead ────────────┴─► Content ─marker─► CallAhead ─{─► Object ─► a call, then Content or CallAhead
//!                                  ▲                 └─ no call ──┴─ malformed: its text is content
//!                                  └────────────────────────────────┘
//! ```
//!
//! Each step depends only on the text so far, never on where its pieces end. Text that may turn out to be a marker, or a
//! call, is withheld until that is sure. Nothing is lost: all text but the markers, and the white space next to them, comes
//! out as one delta or another. A call is given out when it is whole, so that arguments always parse: what has been given out
//! could not be taken back, and an answer may end anywhere.

mod call;
mod deltas;
#[cfg(test)]
pub(super) mod formats;
mod json_object;
mod llama3;
mod mistral;
#[cfg(test)]
mod tests;

use super::{
    format::{ChatFormat, Marker, ReasoningMarkers, ReasoningStart, ToolMarkers},
    withhold::possible_beginning,
};
use call::CallReader;
pub use deltas::ChatDelta;
use deltas::Deltas;
use json_object::Scan;

/// What the parser has to know of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct ParserOptions {
    /// [`ChatFormat::reasoning_start`] of the prompt.
    pub start: ReasoningStart,
    /// Names of the functions that may be called. Without any, no calls are looked for.
    pub tools: Vec<String>,
    /// Whether an answer may have more than one call; the others are left out.
    pub parallel: bool,
    /// The calls' ids are made of it: another one for each answer.
    pub id_seed: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct ChatParser {
    options: ParserOptions,
    markers: ToolMarkers,
    reasoning: Option<ReasoningMarkers>,
    /// Text that no delta has come of.
    pending: String,
    /// Text before `pending` that goes back to it if no call follows.
    lead: String,
    /// Whether a Hermes call has been opened and not closed.
    is_open: bool,
    /// See [`Self::is_call_cut`].
    is_call_cut: bool,
    state: State,
    deltas: Deltas,
}

#[derive(Clone, Debug)]
enum State {
    /// White space, then perhaps the block's marker.
    ReasoningAhead,
    Reasoning,
    Content,
    /// A call may begin here.
    CallAhead(Place),
    Object {
        reader: CallReader,
        place: Place,
    },
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Hermes,
    LlamaFirst,
    LlamaNext,
    Mistral,
    MistralList,
}

/// What the text before a call turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Head {
    /// More has to come.
    Incomplete,
    /// No call.
    Neither,
    /// A marker that changes nothing.
    Tag {
        bytes: usize,
    },
    /// An object follows after so many bytes.
    Object {
        bytes: usize,
    },
    List {
        bytes: usize,
    },
    ListEnd {
        bytes: usize,
    },
    /// The arguments of `name` follow.
    Named {
        name: String,
        bytes: usize,
    },
}

impl ChatParser {
    pub(super) fn new(format: &ChatFormat, options: ParserOptions) -> Self {
        let state = match options.start {
            ReasoningStart::Undecided if format.reasoning.is_some() => State::ReasoningAhead,
            ReasoningStart::Reasoning if format.reasoning.is_some() => State::Reasoning,
            _ => State::Content,
        };
        let deltas = Deltas::new(format.dialect(), options.id_seed, options.parallel);
        let mut parser = Self {
            markers: format.tools,
            reasoning: format.reasoning,
            options,
            pending: String::new(),
            lead: String::new(),
            is_open: false,
            is_call_cut: false,
            state: State::Content,
            deltas,
        };
        parser.state = if matches!(state, State::Content) { parser.answer_start() } else { state };
        parser
    }

    /// Takes the next piece of text; gives what has become sure.
    pub fn push(&mut self, piece: &str) -> Vec<ChatDelta> {
        self.pending.push_str(piece);
        self.advance(false)
    }

    /// Gives what is left, when no text follows.
    pub fn finish(&mut self) -> Vec<ChatDelta> {
        let mut deltas = self.advance(true);
        deltas.extend(self.deltas.finish());
        deltas
    }

    /// Whether the answer ended in the middle of a call.
    pub fn is_call_cut(&self) -> bool {
        self.is_call_cut
    }

    fn advance(&mut self, at_end: bool) -> Vec<ChatDelta> {
        while self.step(at_end) {}
        self.deltas.take()
    }

    /// Takes a step; false if more text is needed.
    fn step(&mut self, at_end: bool) -> bool {
        match &self.state {
            State::ReasoningAhead => self.reasoning_ahead(at_end),
            State::Reasoning => self.reasoning(at_end),
            State::Content => self.content(at_end),
            State::CallAhead(place) => self.call_ahead(*place, at_end),
            State::Object { .. } => self.object(at_end),
        }
    }

    fn answer_start(&self) -> State {
        match self.markers {
            ToolMarkers::Llama3Json { .. } if !self.options.tools.is_empty() => {
                State::CallAhead(Place::LlamaFirst)
            }
            _ => State::Content,
        }
    }

    fn reasoning_ahead(&mut self, at_end: bool) -> bool {
        let open = self.reasoning.map_or("", |markers| markers.open.text);
        let body = self.pending.trim_start();
        if body.starts_with(open) {
            self.pending.drain(..self.pending.len() - body.len() + open.len());
            self.state = State::Reasoning;
        } else if open.starts_with(body) && !at_end {
            return false;
        } else {
            self.state = self.answer_start();
        }
        true
    }

    fn reasoning(&mut self, at_end: bool) -> bool {
        let close = self.reasoning.map_or("", |markers| markers.close.text);
        let found = self.pending.find(close);
        let sure = found.unwrap_or_else(|| {
            self.pending.len()
                - if at_end { 0 } else { possible_beginning(&self.pending, std::iter::once(close)) }
        });
        let thought: String = self.pending.drain(..sure).collect();
        self.deltas.reasoning(thought);
        if found.is_some() {
            self.pending.drain(..close.len());
            self.state = self.answer_start();
        }
        found.is_some()
    }

    fn content(&mut self, at_end: bool) -> bool {
        let markers = self.content_markers();
        let places = markers.iter().filter_map(|marker| Some((self.pending.find(marker.text)?, *marker)));
        if let Some((start, marker)) = places.min_by_key(|(start, _)| *start) {
            let text: String = self.pending.drain(..start).collect();
            self.pending.drain(..marker.text.len());
            self.deltas.content(&text);
            self.marked(marker);
            return true;
        }
        let withheld = possible_beginning(&self.pending, markers.iter().map(|marker| marker.text));
        let sure = self.pending.len() - if at_end { 0 } else { withheld };
        let text: String = self.pending.drain(..sure).collect();
        self.deltas.content(&text);
        false
    }

    /// The markers that mean something in content, and those that a plain text would not show.
    fn content_markers(&self) -> Vec<Marker> {
        let reasoning = self.reasoning.iter().flat_map(|markers| [markers.open, markers.close]);
        let mut markers: Vec<Marker> = self.markers.all().into_iter().chain(reasoning).collect();
        let begins = self.call_marker();
        markers.retain(|marker| {
            let ends =
                self.is_open && matches!(self.markers, ToolMarkers::Hermes { close, .. } if close == *marker);
            marker.special.is_some() || Some(*marker) == begins || ends
        });
        markers
    }

    /// The marker that calls begin with, if any are looked for.
    fn call_marker(&self) -> Option<Marker> {
        let marker = match self.markers {
            ToolMarkers::Hermes { open, .. } => open,
            ToolMarkers::Llama3Json { tag } => tag,
            ToolMarkers::Mistral { calls, .. } => calls,
        };
        (!self.options.tools.is_empty()).then_some(marker)
    }

    /// A marker stood in the content.
    fn marked(&mut self, marker: Marker) {
        if self.call_marker() != Some(marker) {
            if matches!(self.markers, ToolMarkers::Hermes { close, .. } if close == marker) {
                self.is_open = false;
                self.deltas.marker_ends_call();
            }
            return;
        }
        let place = match self.markers {
            ToolMarkers::Hermes { .. } => Place::Hermes,
            ToolMarkers::Llama3Json { .. } => Place::LlamaFirst,
            ToolMarkers::Mistral { .. } => Place::Mistral,
        };
        self.is_open = place == Place::Hermes;
        self.deltas.marker_begins_calls();
        self.state = State::CallAhead(place);
    }

    fn call_ahead(&mut self, place: Place, at_end: bool) -> bool {
        let head = match (place, self.markers) {
            (Place::LlamaFirst, ToolMarkers::Llama3Json { tag }) => {
                llama3::head(&self.pending, tag.text, at_end)
            }
            (Place::LlamaNext, _) => llama3::next_call(&self.pending, at_end),
            (Place::Mistral, _) => mistral::head(&self.pending, at_end),
            (Place::MistralList, _) => mistral::next_in_list(&self.pending, at_end),
            _ => llama3::object_after(&self.pending, at_end, |_| false),
        };
        match head {
            Head::Incomplete => return false,
            Head::Neither => self.no_call(),
            Head::Tag { bytes } => drop(self.pending.drain(..bytes)),
            Head::List { bytes } => {
                self.lead.extend(self.pending.drain(..bytes));
                self.state = State::CallAhead(Place::MistralList);
            }
            Head::ListEnd { bytes } => {
                self.pending.drain(..bytes);
                self.lead.clear();
                self.state = State::Content;
            }
            Head::Object { bytes } => {
                self.lead.extend(self.pending.drain(..bytes));
                let place = if place == Place::Mistral { Place::MistralList } else { place };
                self.state = State::Object { reader: CallReader::whole(), place };
            }
            Head::Named { name, bytes } => {
                self.pending.drain(..bytes);
                self.lead.push_str(&name);
                let reader = CallReader::arguments_of(name);
                self.state = State::Object { reader, place };
            }
        }
        true
    }

    fn object(&mut self, at_end: bool) -> bool {
        let State::Object { mut reader, place } = std::mem::replace(&mut self.state, State::Content) else {
            return false;
        };
        let scan = reader.scan(&self.pending);
        let other = reader.name(&self.pending).is_some_and(|name| !self.is_callable(&name));
        match scan {
            // Nobody has to wait for the end of what is no call.
            _ if other => self.no_call(),
            Scan::Incomplete if !at_end => {
                self.state = State::Object { reader, place };
                return false;
            }
            Scan::Complete(bytes) => match reader.call(&self.pending, bytes) {
                Some(call) if self.is_callable(&call.name) => {
                    self.deltas.call(call);
                    self.call_ended(bytes, place);
                }
                _ => self.no_call(),
            },
            Scan::Incomplete => {
                self.is_call_cut = true;
                self.no_call();
            }
            Scan::Malformed => self.no_call(),
        }
        true
    }

    /// A call is one only if there is such a function.
    fn is_callable(&self, name: &str) -> bool {
        self.options.tools.iter().any(|tool| tool == name)
    }

    fn call_ended(&mut self, bytes: usize, place: Place) {
        self.pending.drain(..bytes);
        self.lead.clear();
        self.state = match place {
            Place::LlamaFirst | Place::LlamaNext => State::CallAhead(Place::LlamaNext),
            Place::MistralList => State::CallAhead(Place::MistralList),
            Place::Hermes | Place::Mistral => State::Content,
        };
    }

    /// What looked like a call is none: its text is content.
    fn no_call(&mut self) {
        self.pending.insert_str(0, &std::mem::take(&mut self.lead));
        self.state = State::Content;
    }
}
