//! What a model's answers look like beside plain words: how it calls tools, and where its thoughts begin and end.
//!
//! ```text
//!                     ┌ tool_grammar, after_reasoning ─► what the sampler allows
//! template, tokens ─► ChatFormat
//!                     └ parser ─► ChatParser: text ─► ChatDelta
//! ```
//!
//! No file of a checkpoint says this. It follows from the chat template, which shows the model its own past answers in the
//! format it was trained on.

mod call_id;
mod grammar;
mod markers;
#[cfg(test)]
mod tests;
mod tool;

use tokenizers::Tokenizer;

pub use tool::{Tool, ToolChoice};

pub(crate) use call_id::{call_id, mistral_id};
pub(crate) use markers::{Marker, ReasoningMarkers, ToolMarkers};

use super::parser::{ChatParser, ParserOptions};

/// How a model writes the call of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolDialect {
    /// JSON between `<tool_call>` and `</tool_call>`: Qwen 2.5 and 3, Hermes.
    Hermes,
    /// Bare JSON with `name` and `parameters`: Llama 3.x.
    Llama3Json,
    /// `[TOOL_CALLS]`, then a JSON list, or a name, `[ARGS]` and JSON.
    Mistral,
}

/// Where an answer stands when its first token is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReasoningStart {
    /// No reasoning comes: the model has none, or the prompt has closed the block.
    Answer,
    /// The model may open a block.
    Undecided,
    /// The prompt has opened the block.
    Reasoning,
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatFormat {
    pub(crate) tools: ToolMarkers,
    pub(crate) reasoning: Option<ReasoningMarkers>,
    pub(crate) template_knows_tools: bool,
}

impl ChatFormat {
    /// `templates` is the text of all of the model's chat templates.
    pub(super) fn detect(templates: &str, template_knows_tools: bool, tokenizer: &Tokenizer) -> Self {
        let marker = |text| Marker::find(text, tokenizer);
        let known = |text: &str| templates.contains(text) || marker_is_special(text, tokenizer);
        let tools = if known("[TOOL_CALLS]") {
            let arguments = known("[ARGS]").then(|| marker("[ARGS]"));
            ToolMarkers::Mistral { calls: marker("[TOOL_CALLS]"), id: marker("[CALL_ID]"), arguments }
        } else if !templates.contains("<tool_call>")
            && (templates.contains("<|python_tag|>")
                || (templates.contains("<|start_header_id|>") && templates.contains("\"parameters\"")))
        {
            ToolMarkers::Llama3Json { tag: marker("<|python_tag|>") }
        } else {
            ToolMarkers::Hermes { open: marker("<tool_call>"), close: marker("</tool_call>") }
        };
        let reasoning = if templates.contains("</think>") {
            Some(ReasoningMarkers { open: marker("<think>"), close: marker("</think>") })
        } else if known("[/THINK]") {
            Some(ReasoningMarkers { open: marker("[THINK]"), close: marker("[/THINK]") })
        } else {
            None
        };
        Self { tools, reasoning, template_knows_tools }
    }

    /// Qwen3's, with plain text for markers: what an engine without a tokenizer speaks.
    pub fn hermes() -> Self {
        let marker = |text| Marker { text, special: None };
        Self {
            tools: ToolMarkers::Hermes { open: marker("<tool_call>"), close: marker("</tool_call>") },
            reasoning: Some(ReasoningMarkers { open: marker("<think>"), close: marker("</think>") }),
            template_knows_tools: true,
        }
    }

    pub fn dialect(&self) -> ToolDialect {
        match self.tools {
            ToolMarkers::Hermes { .. } => ToolDialect::Hermes,
            ToolMarkers::Llama3Json { .. } => ToolDialect::Llama3Json,
            ToolMarkers::Mistral { .. } => ToolDialect::Mistral,
        }
    }

    /// Whether the template shows tools to the model at all. Where it does not, a call can be forced by a grammar (in the
    /// Hermes dialect), but not hoped for.
    pub fn template_knows_tools(&self) -> bool {
        self.template_knows_tools
    }

    pub fn has_reasoning(&self) -> bool {
        self.reasoning.is_some()
    }

    /// Special tokens that must be in the text which [`ChatParser`] gets, because they are its markers. Sorted.
    pub fn marker_tokens(&self) -> Vec<u32> {
        let reasoning = self.reasoning.iter().flat_map(|markers| [markers.open, markers.close]);
        let markers = self.tools.all().into_iter().chain(reasoning);
        let mut tokens: Vec<u32> = markers.filter_map(|marker| marker.special).collect();
        tokens.sort_unstable();
        tokens
    }

    /// Where the answer to a rendered prompt begins.
    pub fn reasoning_start(&self, prompt: &str) -> ReasoningStart {
        let Some(ReasoningMarkers { open, close }) = self.reasoning else { return ReasoningStart::Answer };
        let end = prompt.trim_end();
        if end.ends_with(open.text) {
            ReasoningStart::Reasoning
        } else if end.ends_with(close.text) {
            ReasoningStart::Answer
        } else {
            ReasoningStart::Undecided
        }
    }

    /// Splits one answer. The text has to have [`ChatFormat::marker_tokens`] in it.
    pub fn parser(&self, options: ParserOptions) -> ChatParser {
        ChatParser::new(self, options)
    }
}

fn marker_is_special(text: &str, tokenizer: &Tokenizer) -> bool {
    tokenizer.get_added_vocabulary().is_special_token(text)
}
