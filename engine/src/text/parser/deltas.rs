use super::call::Call;
use crate::text::format::{ToolDialect, call_id};

/// The next part of an answer. Parts of the same kind that follow one another belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatDelta {
    Reasoning(String),
    Content(String),
    /// Calls are counted from 0.
    ToolCallStart {
        index: u32,
        id: String,
        name: String,
    },
    /// The JSON object that is the call's arguments; it follows the call's start.
    ToolCallArguments {
        index: u32,
        text: String,
    },
}

/// The parts that are sure, and what of the content is not yet.
#[derive(Debug)]
pub(super) struct Deltas {
    dialect: ToolDialect,
    id_seed: u64,
    /// Whether calls beyond the first are given out.
    parallel: bool,
    calls: u32,
    sure: Vec<ChatDelta>,
    /// White space behind a marker: content only if some follows.
    blank: String,
    /// Whether only white space has come since the beginning or a marker.
    is_blank: bool,
}

impl Deltas {
    pub(super) fn new(dialect: ToolDialect, id_seed: u64, parallel: bool) -> Self {
        Self { dialect, id_seed, parallel, calls: 0, sure: Vec::new(), blank: String::new(), is_blank: true }
    }

    pub(super) fn take(&mut self) -> Vec<ChatDelta> {
        std::mem::take(&mut self.sure)
    }

    /// What is left when no text follows: beside calls, white space is no content.
    pub(super) fn finish(&mut self) -> Vec<ChatDelta> {
        let blank = std::mem::take(&mut self.blank);
        if self.calls == 0 {
            self.give(ChatDelta::Content(blank));
        }
        self.take()
    }

    pub(super) fn reasoning(&mut self, text: String) {
        self.give(ChatDelta::Reasoning(text));
    }

    pub(super) fn content(&mut self, text: &str) {
        if self.is_blank && text.trim_start().is_empty() {
            self.blank.push_str(text);
            return;
        }
        self.is_blank = false;
        let text = std::mem::take(&mut self.blank) + text;
        self.give(ChatDelta::Content(text));
    }

    /// A marker stands here: white space that follows may be no content.
    pub(super) fn marker_begins_calls(&mut self) {
        self.is_blank = true;
    }

    /// A marker stands here: white space before it was no content.
    pub(super) fn marker_ends_call(&mut self) {
        self.blank.clear();
    }

    /// A whole call.
    pub(super) fn call(&mut self, call: Call) {
        let Call { name, arguments } = call;
        self.blank.clear();
        let index = self.calls;
        if index == 0 || self.parallel {
            let id = call_id(self.dialect, self.id_seed, index);
            self.sure.push(ChatDelta::ToolCallStart { index, id, name });
            self.sure.push(ChatDelta::ToolCallArguments { index, text: arguments });
        }
        self.is_blank = true;
        self.calls += 1;
    }

    /// Appends words, to those before where both are of one kind.
    fn give(&mut self, delta: ChatDelta) {
        use ChatDelta::{Content, Reasoning};
        match (self.sure.last_mut(), delta) {
            (_, Reasoning(text) | Content(text)) if text.is_empty() => {}
            (Some(Reasoning(last)), Reasoning(text)) | (Some(Content(last)), Content(text)) => {
                last.push_str(&text);
            }
            (_, delta) => self.sure.push(delta),
        }
    }
}
