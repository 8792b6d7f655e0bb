//! Answers as models write them, and what they come to.

use super::{Answer, answer, gather, hermes, llama, mistral, options, run};
use crate::text::{
    format::{ChatFormat, ReasoningStart},
    parser::{ChatDelta, ParserOptions},
};

fn expect(format: &ChatFormat, start: ReasoningStart, text: &str, expected: (&str, &str, &[(&str, &str)])) {
    let (reasoning, content, calls) = expected;
    let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect();
    let expected = Answer { reasoning: reasoning.to_owned(), content: content.to_owned(), calls };
    assert_eq!(answer(format, options(start), text), expected, "{text}");
}

const CALL: &str = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";

#[test]
fn thoughts_are_split_from_words() {
    use ReasoningStart::{Answer, Reasoning, Undecided};
    let cases: &[(ReasoningStart, &str, (&str, &str))] = &[
        (Undecided, "<think>\nHm.\n</think>\n\nYes.", ("\nHm.\n", "\n\nYes.")),
        (Undecided, "\n <think>Hm.</think>Yes.", ("Hm.", "Yes.")),
        (Undecided, "Yes.", ("", "Yes.")),
        (Undecided, "  Yes <think>.", ("", "  Yes <think>.")),
        (Undecided, "<thinking about it", ("", "<thinking about it")),
        (Undecided, "<think", ("", "<think")),
        (Undecided, "", ("", "")),
        (Reasoning, "Hm.\n</think>Yes.", ("Hm.\n", "Yes.")),
        (Reasoning, "Hm. </thin", ("Hm. </thin", "")),
        (Reasoning, "Hm. <think> again</think>", ("Hm. <think> again", "")),
        (Answer, "<think>no</think>", ("", "<think>no</think>")),
        (Answer, "\n\n", ("", "\n\n")),
    ];
    for (start, text, (reasoning, content)) in cases {
        expect(&hermes(), *start, text, (reasoning, content, &[]));
    }
}

#[test]
fn marker_tokens_never_show() {
    use ReasoningStart::{Answer, Undecided};
    expect(&mistral(), Undecided, "[THINK]Hm.[/THINK]Yes.", ("Hm.", "Yes.", &[]));
    expect(&mistral(), Answer, "a[/THINK]b[ARGS]c[CALL_ID]d", ("", "abcd", &[]));
    let no_tools = ParserOptions { tools: Vec::new(), ..options(Answer) };
    assert_eq!(answer(&mistral(), no_tools.clone(), "a[TOOL_CALLS]f[ARGS]{}").content, "af{}");
    assert_eq!(answer(&hermes(), no_tools.clone(), CALL).content, CALL);
    assert_eq!(answer(&llama(), no_tools, "<|python_tag|>{}").content, "{}");
}

#[test]
fn hermes_calls_are_read() {
    let start = ReasoningStart::Answer;
    let hermes = &hermes();
    expect(hermes, start, CALL, ("", "", &[("f", "{\"a\": 1}")]));
    let text = format!("\n{CALL}\n{CALL}\n");
    expect(hermes, start, &text, ("", "", &[("f", "{\"a\": 1}"), ("f", "{\"a\": 1}")]));
    let text = format!("Let me see.\n{CALL}\nDone.");
    expect(hermes, start, &text, ("", "Let me see.\n\nDone.", &[("f", "{\"a\": 1}")]));
    let one = |json: &str| format!("<tool_call>{json}</tool_call>");
    let cases: &[(&str, &str)] = &[
        (r#"{"arguments": {"a": "</tool_call>"}, "name": "f"}"#, r#"{"a": "</tool_call>"}"#),
        (r#"{"name": "f", "arguments": "{\"a\": 1}"}"#, r#"{"a": 1}"#),
        (r#"{"name": "f", "parameters": {"ä": "\u00e9"}}"#, r#"{"ä": "\u00e9"}"#),
        (r#"{"name": "f", "arguments": null}"#, "{}"),
        (r#"{"name": "f"}"#, "{}"),
        (r#"{"type": "function", "name": "f", "arguments": {}}"#, "{}"),
    ];
    for (json, arguments) in cases {
        expect(hermes, start, &one(json), ("", "", &[("f", arguments)]));
    }
    // Cut after the object: it is whole.
    expect(hermes, start, "<tool_call>\n{\"name\": \"f\"}\n", ("", "", &[("f", "{}")]));
}

#[test]
fn what_is_no_call_is_content_without_its_markers() {
    let start = ReasoningStart::Answer;
    let cases = [
        "{\"name\": \"f\", \"arguments\": {\"a\": 1,}}",
        "{\"name\": \"f\", \"arguments\": [1]}",
        "{\"name\": \"\", \"arguments\": {}}",
        "{\"name\": 7}",
        // A function that was not offered.
        "{\"name\": \"h\", \"arguments\": {}}",
        "{\"arguments\": {}}",
        "{\"a\": 1}",
        "f(1)",
        "{\"name\": \"f\", \"arguments\": \"none\"}",
        // JSON for Python, but not for every parser.
        "{\"name\": \"f\", \"arguments\": {\"a\": \"\\ud800\"}}",
    ];
    for json in cases {
        expect(
            &hermes(),
            start,
            &format!("<tool_call>{json}</tool_call> x"),
            ("", &format!("{json} x"), &[]),
        );
    }
    let text = format!("<tool_call>{{\"name\"</tool_call>\n{CALL}");
    expect(&hermes(), start, &text, ("", "{\"name\"\n", &[("f", "{\"a\": 1}")]));
    // Cut in the middle.
    expect(
        &hermes(),
        start,
        "ok <tool_call>{\"name\": \"f\", \"arg",
        ("", "ok {\"name\": \"f\", \"arg", &[]),
    );
    expect(&hermes(), start, "ok <tool_ca", ("", "ok <tool_ca", &[]));
}

#[test]
fn a_call_within_thoughts_stays_there() {
    let text = format!("Hm. {CALL}");
    expect(&hermes(), ReasoningStart::Reasoning, &text, (&text, "", &[]));
    let text = format!("Hm. {CALL}</think>\n\n{CALL}");
    let thought = format!("Hm. {CALL}");
    expect(&hermes(), ReasoningStart::Reasoning, &text, (&thought, "", &[("f", "{\"a\": 1}")]));
}

#[test]
fn llama_calls_are_read() {
    let start = ReasoningStart::Answer;
    let call = r#"{"name": "f", "parameters": {"a": 1}}"#;
    let one: &[(&str, &str)] = &[("f", r#"{"a": 1}"#)];
    let two: &[(&str, &str)] = &[("f", r#"{"a": 1}"#), ("g", "{}")];
    expect(&llama(), start, call, ("", "", one));
    expect(&llama(), start, &format!("\n\n{call}\n"), ("", "", one));
    expect(&llama(), start, &format!("<|python_tag|>{call}"), ("", "", one));
    expect(&llama(), start, &format!("Sure.<|python_tag|>{call}"), ("", "Sure.", one));
    expect(&llama(), start, &format!(r#"{call}; {{"name": "g"}}"#), ("", "", two));
    expect(&llama(), start, &format!("{call}\nDone."), ("", "\nDone.", one));
    // Text, other JSON, a function that does not exist, an answer cut in the middle.
    for text in [
        "No.",
        "{\"a\": 1}",
        "{\"name\": \"h\", \"parameters\": {}}",
        "{\"name\": \"f\", \"para",
        "{",
        "",
        " ",
    ] {
        expect(&llama(), start, text, ("", text, &[]));
    }
    let query = "brave_search.call(query=\"x\")";
    expect(&llama(), start, &format!("<|python_tag|>{query}"), ("", query, &[]));
    // Later JSON is text.
    expect(&llama(), start, &format!("See {call}"), ("", &format!("See {call}"), &[]));
}

#[test]
fn mistral_calls_are_read() {
    let start = ReasoningStart::Answer;
    let one: &[(&str, &str)] = &[("f", r#"{"a": 1}"#)];
    let two: &[(&str, &str)] = &[("f", r#"{"a": 1}"#), ("g", "{}")];
    let cases = [
        (r#"[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]"#, "", one),
        (r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "id": "123456789"}]"#, "", two),
        (r#"[TOOL_CALLS]{"name": "f", "arguments": {"a": 1}}"#, "", one),
        (r#"Hm.[TOOL_CALLS]f[ARGS]{"a": 1}"#, "Hm.", one),
        (r#"[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}"#, "", two),
        (r#"[TOOL_CALLS]f[CALL_ID]abc123DEF[ARGS]{"a": 1}"#, "", one),
        (r#"[TOOL_CALLS]f{"a": 1}"#, "", one),
        // The second is broken, the third was never begun.
        (r#"[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": }]"#, ", {\"name\": }]", one),
        (r#"[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]"#, "", one),
        ("[TOOL_CALLS]f[ARGS]{\"a\": 1", "f{\"a\": 1", &[]),
        ("[TOOL_CALLS][{\"name\": \"f\"", "[{\"name\": \"f\"", &[]),
        ("[TOOL_CALLS]not a name[ARGS]{}", "not a name{}", &[]),
        ("[TOOL_CALLS]h[ARGS]{}", "h{}", &[]),
        (r#"[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "h"}]"#, ", {\"name\": \"h\"}]", one),
        ("[TOOL_CALLS]f[CALL_ID]an id[ARGS]{}", "fan id{}", &[]),
        ("[TOOL_CALLS]f[ARGS]x", "fx", &[]),
        ("[TOOL_CALLS]", "", &[]),
    ];
    for (text, content, calls) in cases {
        expect(&mistral(), start, text, ("", content, calls));
    }
}

#[test]
fn only_the_first_call_is_given_where_one_is_wanted() {
    let options = ParserOptions { parallel: false, ..options(ReasoningStart::Answer) };
    let text = format!("{CALL}\n<tool_call>{{\"name\": \"g\"}}</tool_call>");
    assert_eq!(answer(&hermes(), options, &text).calls, [("f".to_owned(), "{\"a\": 1}".to_owned())]);
}

/// In all dialects: nothing of a call while it may still be cut, and all of it with its last byte.
#[test]
fn a_call_comes_when_it_is_whole() {
    let texts = [
        (hermes(), "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}"),
        (llama(), "{\"name\": \"f\", \"parameters\": {\"a\": 1}}"),
        (mistral(), "[TOOL_CALLS]f[ARGS]{\"a\": 1}"),
        (mistral(), "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}"),
    ];
    for (format, text) in texts {
        let mut parser = format.parser(options(ReasoningStart::Answer));
        let (cut, last) = text.split_at(text.len() - 1);
        assert_eq!(parser.push(cut), [], "{text}");
        let Answer { calls, .. } = gather(parser.push(last));
        assert_eq!(calls, [("f".to_owned(), "{\"a\": 1}".to_owned())], "{text}");
        assert_eq!((parser.finish(), parser.is_call_cut()), (vec![], false));
        // An answer that is cut has its text, and no call.
        let mut parser = format.parser(options(ReasoningStart::Answer));
        parser.push(cut);
        let Answer { content, calls, .. } = gather(parser.finish());
        assert!(calls.is_empty() && content.contains("{\"a\": 1"), "{text}: {content}");
        assert!(parser.is_call_cut());
    }
}

/// Whoever asks for calls is told that they are whole, or that they are not.
#[test]
fn a_call_that_is_not_whole_is_told() {
    let second = "<tool_call>{\"name\": \"g\", \"arguments\": {\"b";
    let surrogate = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"\\ud800\"}}</tool_call>";
    let cut = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}";
    for (text, expected) in [
        (CALL.to_owned(), false),
        ("words".to_owned(), false),
        (format!("{CALL}\n{second}"), true),
        (cut.to_owned(), true),
        (surrogate.to_owned(), false),
    ] {
        let mut parser = hermes().parser(options(ReasoningStart::Answer));
        parser.push(&text);
        parser.finish();
        assert_eq!(parser.is_call_cut(), expected, "{text}");
    }
}

#[test]
fn ids_differ_and_come_from_the_seed() {
    let ids = |seed| {
        let options = ParserOptions { id_seed: seed, ..options(ReasoningStart::Answer) };
        let deltas = run(hermes().parser(options), [CALL, CALL]);
        let id = |delta| match delta {
            ChatDelta::ToolCallStart { id, .. } => Some(id),
            _ => None,
        };
        deltas.into_iter().filter_map(id).collect::<Vec<_>>()
    };
    let (first, second) = (ids(1), ids(2));
    assert_eq!(first, ids(1));
    assert!(first.len() == 2 && first[0] != first[1] && first[0] != second[0], "{first:?} {second:?}");
}
