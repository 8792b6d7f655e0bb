mod answers;
mod json_object;
mod splits;

pub(super) use super::formats::{hermes, llama, mistral};
use super::{ChatDelta, ChatParser, ParserOptions};
use crate::text::format::{ChatFormat, ReasoningStart};

pub(super) fn options(start: ReasoningStart) -> ParserOptions {
    ParserOptions { start, tools: vec!["f".to_owned(), "g".to_owned()], parallel: true, id_seed: 1 }
}

/// What an answer comes to in the end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) reasoning: String,
    pub(super) content: String,
    /// Name and arguments.
    pub(super) calls: Vec<(String, String)>,
}

pub(super) fn gather(deltas: impl IntoIterator<Item = ChatDelta>) -> Answer {
    let mut answer = Answer::default();
    for delta in deltas {
        match delta {
            ChatDelta::Reasoning(text) => answer.reasoning += &text,
            ChatDelta::Content(text) => answer.content += &text,
            ChatDelta::ToolCallStart { index, id, name } => {
                assert_eq!(usize::try_from(index).unwrap(), answer.calls.len());
                assert!(!id.is_empty());
                answer.calls.push((name, String::new()));
            }
            ChatDelta::ToolCallArguments { index, text } => {
                assert!(!text.is_empty());
                answer.calls[usize::try_from(index).unwrap()].1 += &text;
            }
        }
    }
    answer
}

/// The deltas of a text that arrives in these pieces.
pub(super) fn run<'a>(mut parser: ChatParser, pieces: impl IntoIterator<Item = &'a str>) -> Vec<ChatDelta> {
    let mut deltas: Vec<ChatDelta> = pieces.into_iter().flat_map(|piece| parser.push(piece)).collect();
    deltas.extend(parser.finish());
    deltas
}

pub(super) fn answer(format: &ChatFormat, options: ParserOptions, text: &str) -> Answer {
    let whole = gather(run(format.parser(options.clone()), [text]));
    let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    ends.push(text.len());
    let single = gather(run(format.parser(options), ends.windows(2).map(|pair| &text[pair[0]..pair[1]])));
    assert_eq!(single, whole, "character by character: {text}");
    whole
}
