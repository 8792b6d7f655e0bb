//! Server-sent events of an answer, read as they arrive.

use serde::Deserialize;

/// What one event says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Part of the answer: content, reasoning or a tool call.
    Piece,
    Usage {
        prompt_tokens: u32,
        completion_tokens: u32,
        cached_tokens: u32,
    },
    /// The server gave up in the middle.
    Failed,
    Done,
}

/// Cuts a body into events. Bytes that are no whole line yet are kept.
#[derive(Debug, Default)]
pub(super) struct Events {
    rest: Vec<u8>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Delta>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    reasoning: Option<String>,
    reasoning_content: Option<String>,
    tool_calls: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: Option<PromptTokensDetails>,
}

#[derive(Deserialize)]
struct PromptTokensDetails {
    cached_tokens: Option<u32>,
}

impl Delta {
    fn says_something(&self) -> bool {
        let Self { content, reasoning, reasoning_content, tool_calls } = self;
        let texts = [content, reasoning, reasoning_content];
        tool_calls.is_some() || texts.into_iter().flatten().any(|text| !text.is_empty())
    }
}

impl Events {
    /// The events that are whole with these bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, String> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            // Comments and other fields keep the connection alive and say nothing.
            if let Some(payload) = line.trim_ascii().strip_prefix(b"data:") {
                events.extend(parse(payload.trim_ascii())?);
            }
        }
        Ok(events)
    }
}

fn parse(payload: &[u8]) -> Result<Vec<Event>, String> {
    if payload == b"[DONE]" {
        return Ok(vec![Event::Done]);
    }
    let Chunk { choices, usage, error } =
        serde_json::from_slice(payload).map_err(|error| format!("an event is not as expected: {error}"))?;
    let mut events = Vec::new();
    if error.is_some() {
        events.push(Event::Failed);
    }
    if choices.iter().any(|choice| choice.delta.as_ref().is_some_and(Delta::says_something)) {
        events.push(Event::Piece);
    }
    if let Some(Usage { prompt_tokens, completion_tokens, prompt_tokens_details }) = usage {
        let cached_tokens = prompt_tokens_details.and_then(|details| details.cached_tokens).unwrap_or(0);
        events.push(Event::Usage { prompt_tokens, completion_tokens, cached_tokens });
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#": waiting

data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}

data: {"choices":[{"index":0,"delta":{"reasoning":"né"}}],"usage":null}

data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]}

data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}}

data: {"error":{"message":"gone"}}

data: [DONE]

"#;

    #[test]
    fn events_are_the_same_however_the_body_is_cut() {
        let usage = Event::Usage { prompt_tokens: 5, completion_tokens: 2, cached_tokens: 3 };
        let expected = [Event::Piece, Event::Piece, usage, Event::Failed, Event::Done];
        for size in [1, 2, 7, 64, BODY.len()] {
            let mut events = Events::default();
            let seen: Vec<Event> =
                BODY.as_bytes().chunks(size).flat_map(|chunk| events.push(chunk).unwrap()).collect();
            assert_eq!(seen, expected, "in pieces of {size}");
        }
        assert!(Events::default().push(b"data: {\"choices\": 7}\n").is_err());
    }
}
