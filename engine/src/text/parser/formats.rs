//! Formats for tests. Special tokens are numbered from 257.

use crate::text::format::{ChatFormat, Marker, ReasoningMarkers, ToolMarkers};

fn text_marker(text: &'static str) -> Marker {
    Marker { text, special: None }
}

fn special_marker(text: &'static str, token: u32) -> Marker {
    Marker { text, special: Some(token) }
}

/// As Qwen 3's.
pub(in crate::text) fn hermes() -> ChatFormat {
    ChatFormat {
        tools: ToolMarkers::Hermes { open: text_marker("<tool_call>"), close: text_marker("</tool_call>") },
        reasoning: Some(ReasoningMarkers { open: text_marker("<think>"), close: text_marker("</think>") }),
        template_knows_tools: true,
    }
}

pub(in crate::text) fn llama() -> ChatFormat {
    ChatFormat {
        tools: ToolMarkers::Llama3Json { tag: special_marker("<|python_tag|>", 262) },
        reasoning: None,
        template_knows_tools: true,
    }
}

/// As Magistral's.
pub(in crate::text) fn mistral() -> ChatFormat {
    ChatFormat {
        tools: ToolMarkers::Mistral {
            calls: special_marker("[TOOL_CALLS]", 257),
            id: special_marker("[CALL_ID]", 259),
            arguments: Some(special_marker("[ARGS]", 258)),
        },
        reasoning: Some(ReasoningMarkers {
            open: special_marker("[THINK]", 260),
            close: special_marker("[/THINK]", 261),
        }),
        template_knows_tools: true,
    }
}

/// As that of Mistral's models of before.
pub(in crate::text) fn mistral_list() -> ChatFormat {
    let calls = special_marker("[TOOL_CALLS]", 257);
    let id = text_marker("[CALL_ID]");
    ChatFormat {
        tools: ToolMarkers::Mistral { calls, id, arguments: None },
        reasoning: None,
        template_knows_tools: true,
    }
}
