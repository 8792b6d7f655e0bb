//! However an answer is cut into pieces, it comes to the same; and nothing of it is lost or shown twice.

use proptest::prelude::*;

use super::{Answer, gather, hermes, llama, mistral, options, run};
use crate::text::{
    format::{ChatFormat, ReasoningStart},
    parser::ParserOptions,
};

/// Parts of answers: sound ones, broken ones, and parts of parts. `#` becomes a number that occurs once.
const PARTS: [&str; 34] = [
    "w# ",
    "w#\n",
    "\n",
    " ",
    "é#",
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<|python_tag|>",
    "<tool",
    "_call>",
    "</",
    "<",
    "[TOOL",
    "{",
    "}",
    "[",
    "]",
    ",",
    ";",
    "{\"name\": \"f\", \"arguments\": {\"k\": \"v#\"}}",
    "{\"name\": \"g\", \"parameters\": {\"k\": [\"v#\"]}}",
    "{\"name\": \"f\", \"arguments\": {\"k\": \"v#\"",
    "{\"name\": \"v#\"}",
    "f[ARGS]{\"k\": \"v#\"}",
    "\"",
    "f",
    "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"k\": \"v#\"}}\n</tool_call>",
];

fn text() -> impl Strategy<Value = (String, usize)> {
    prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..14).prop_map(|parts| {
        let mut text = String::new();
        let mut count = 0;
        for part in parts {
            if part.contains('#') {
                text += &part.replace('#', &format!("<{count}>"));
                count += 1;
            } else {
                text += part;
            }
        }
        (text, count)
    })
}

fn format() -> impl Strategy<Value = ChatFormat> {
    prop::sample::select(vec![hermes(), llama(), mistral()])
}

fn any_options() -> impl Strategy<Value = ParserOptions> {
    let start = prop::sample::select(vec![
        ReasoningStart::Answer,
        ReasoningStart::Undecided,
        ReasoningStart::Reasoning,
    ]);
    (start, any::<bool>()).prop_map(|(start, has_tools)| ParserOptions {
        tools: if has_tools { vec!["f".to_owned(), "g".to_owned()] } else { Vec::new() },
        ..options(start)
    })
}

fn pieces<'a>(text: &'a str, cuts: &[usize]) -> Vec<&'a str> {
    let mut ends: Vec<usize> =
        cuts.iter().map(|cut| text.floor_char_boundary(cut % (text.len() + 1))).collect();
    ends.extend([0, text.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

fn all_text(answer: &Answer) -> String {
    let calls = answer.calls.iter().flat_map(|(name, arguments)| [name.as_str(), arguments.as_str()]);
    [answer.reasoning.as_str(), answer.content.as_str()].into_iter().chain(calls).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_do_not_matter(
        (text, _) in text(), format in format(), options in any_options(), cuts in prop::collection::vec(any::<usize>(), 0..20),
    ) {
        let whole = gather(run(format.parser(options.clone()), [text.as_str()]));
        let split = gather(run(format.parser(options), pieces(&text, &cuts)));
        prop_assert_eq!(split, whole);
    }

    #[test]
    fn every_word_comes_out_once((text, words) in text(), format in format(), options in any_options()) {
        let out = all_text(&gather(run(format.parser(options), [text.as_str()])));
        for word in 0..words {
            prop_assert_eq!(out.matches(&format!("<{word}>")).count(), 1, "{}: {} of {:?}", word, out, text);
        }
    }

    /// Calls have arguments that parse, whatever the text.
    #[test]
    fn arguments_are_objects((text, _) in text(), format in format(), options in any_options()) {
        for (name, arguments) in gather(run(format.parser(options), [text.as_str()])).calls {
            prop_assert!(!name.is_empty());
            prop_assert!(matches!(serde_json::from_str(&arguments), Ok(serde_json::Value::Object(_))), "{}", arguments);
        }
    }

    /// A special token that is a marker is in no content.
    #[test]
    fn marker_tokens_do_not_leak((text, _) in text(), options in any_options()) {
        let content = gather(run(mistral().parser(options), [text.as_str()])).content;
        for marker in ["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"] {
            let parts = ["[TOOL", "_call>"].iter().any(|part| text.contains(part));
            prop_assert!(parts || !content.contains(marker), "{} in {:?}", marker, content);
        }
    }
}
