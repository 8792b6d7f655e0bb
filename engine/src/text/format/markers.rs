use tokenizers::Tokenizer;

/// A string that tells parts of an answer apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) text: &'static str,
    /// The token it is, if the tokenizer has a *special* one: such a token is left out of plain text, and no other tokens
    /// mean the same. Otherwise the marker is ordinary text, whatever tokens spell it.
    pub(crate) special: Option<u32>,
}

impl Marker {
    pub(super) fn find(text: &'static str, tokenizer: &Tokenizer) -> Self {
        let is_special = tokenizer.get_added_vocabulary().is_special_token(text);
        Self { text, special: if is_special { tokenizer.token_to_id(text) } else { None } }
    }
}

/// What stands around a model's thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReasoningMarkers {
    pub(crate) open: Marker,
    pub(crate) close: Marker,
}

/// What stands around a model's calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolMarkers {
    /// `<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>`, one after the other.
    Hermes { open: Marker, close: Marker },
    /// `{"name": …, "parameters": {…}}`, all of the answer, sometimes after a marker.
    Llama3Json { tag: Marker },
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`, or with `arguments` a marker too:
    /// `[TOOL_CALLS]name[ARGS]{…}[TOOL_CALLS]…`.
    Mistral { calls: Marker, id: Marker, arguments: Option<Marker> },
}

impl ToolMarkers {
    pub(crate) fn all(&self) -> Vec<Marker> {
        match *self {
            Self::Hermes { open, close } => vec![open, close],
            Self::Llama3Json { tag } => vec![tag],
            Self::Mistral { calls, id, arguments } => [calls, id].into_iter().chain(arguments).collect(),
        }
    }
}
