use serde_json::{Value, json};

use super::{ChatFormat, ReasoningStart, Tool, ToolChoice, ToolDialect};
use crate::text::parser::formats::{hermes, llama, mistral, mistral_list};
use crate::text::tests::vocabulary::{byte_level, bytes, noon, pieces};
use crate::text::{Text, TextFiles};

fn format(tokenizer: &Value, template: &str) -> ChatFormat {
    let files = TextFiles {
        tokenizer: bytes(tokenizer),
        chat_template: Some(template.as_bytes().to_vec()),
        ..TextFiles::default()
    };
    Text::from_files(&files, noon).unwrap().chat_format().clone()
}

fn of_family(name: &str) -> ChatFormat {
    let path = format!("{}/tests/goldens/chat/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
    format(&byte_level(), &std::fs::read_to_string(path).unwrap())
}

#[test]
fn the_format_follows_from_the_template() {
    let cases = [
        ("llama3", ToolDialect::Llama3Json, false),
        ("qwen25", ToolDialect::Hermes, false),
        ("qwen3", ToolDialect::Hermes, true),
        ("mistral_list", ToolDialect::Mistral, false),
        ("mistral_named", ToolDialect::Mistral, true),
    ];
    for (name, dialect, reasons) in cases {
        let format = of_family(name);
        assert_eq!((format.dialect(), format.has_reasoning()), (dialect, reasons), "{name}");
        assert!(format.template_knows_tools(), "{name}");
        assert!(
            format.marker_tokens().is_empty(),
            "{name}: its markers are no special tokens of this tokenizer"
        );
    }
    let plain = format(&byte_level(), "{{ messages[0].content }}");
    assert!(!plain.template_knows_tools() && !plain.has_reasoning());
    assert_eq!(plain.dialect(), ToolDialect::Hermes);
    // The special tokens tell as well, and they are what the text must show.
    let special = format(&pieces(), "{{ messages[0].content }}");
    assert_eq!((special.dialect(), special.marker_tokens()), (ToolDialect::Mistral, vec![3, 4]));
}

#[test]
fn the_prompt_tells_where_the_answer_begins() {
    let cases = [
        (hermes(), "<|im_start|>assistant\n", ReasoningStart::Undecided),
        (hermes(), "<|im_start|>assistant\n<think>\n", ReasoningStart::Reasoning),
        (hermes(), "<|im_start|>assistant\n<think>\n\n</think>\n\n", ReasoningStart::Answer),
        (llama(), "<think>\n", ReasoningStart::Answer),
        (mistral(), "[/INST]", ReasoningStart::Undecided),
    ];
    for (format, prompt, start) in cases {
        assert_eq!(format.reasoning_start(prompt), start, "{prompt}");
    }
}

fn tools(strict: bool) -> Vec<Tool> {
    let parameters = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]});
    vec![
        Tool { name: "f".to_owned(), parameters: Some(parameters), strict },
        Tool { name: "g".to_owned(), parameters: None, strict: false },
    ]
}

#[test]
fn nothing_is_forced_that_nobody_asked_for() {
    let lark = |tools: &[Tool], choice: &ToolChoice| {
        hermes().tool_grammar(tools, choice, true, ReasoningStart::Answer, None)
    };
    assert_eq!(lark(&tools(true), &ToolChoice::None), None);
    assert_eq!(lark(&tools(false), &ToolChoice::Auto), None);
    assert_eq!(lark(&tools(false), &ToolChoice::Named("h".to_owned())), None);
    assert_eq!(lark(&[], &ToolChoice::Required), None);
    let named = lark(&tools(false), &ToolChoice::Named("g".to_owned())).unwrap();
    assert!(named.contains("\\\"g\\\"") && !named.contains("\\\"f\\\""), "{named}");
    assert_eq!(hermes().after_reasoning("\"x\"", ReasoningStart::Answer), None);
    assert_eq!(llama().after_reasoning("\"x\"", ReasoningStart::Undecided), None);
}

#[test]
fn grammars_are_these() {
    let grammar =
        hermes().tool_grammar(&tools(true), &ToolChoice::Required, true, ReasoningStart::Reasoning, None);
    let style = |lenient: bool| {
        format!(
            "\"x-guidance\":{{\"whitespace_flexible\":false,\"item_separator\":\", \",\"key_separator\":\": \",\
             \"lenient\":{lenient}}}"
        )
    };
    let expected = [
        r#"body: "\n" tool "\n" "</tool_call>""#,
        r#"call: "<tool_call>" body"#,
        r#"thought[suffix="</think>"]: /(?s:.*)/"#,
        r"gap: /\n{1,2}/",
        r#"start: thought gap? call ("\n" call){0,15}"#,
        r#"tool_0: "{\"name\": \"f\", \"arguments\": " arguments_0 "}""#,
        &format!(
            r#"arguments_0: %json {{"type":"object","properties":{{"a":{{"type":"integer"}}}},"required":["a"],{}}}"#,
            style(false)
        ),
        r#"tool_1: "{\"name\": \"g\", \"arguments\": " arguments_1 "}""#,
        &format!(
            r#"arguments_1: %json {{"properties":{{}},"additionalProperties":false,"type":"object",{}}}"#,
            style(true)
        ),
        "tool: tool_0 | tool_1",
        "",
    ];
    assert_eq!(grammar.unwrap(), expected.join("\n"));
    let one = |format: ChatFormat, choice: ToolChoice, strict| {
        let start = ReasoningStart::Undecided;
        let grammar = format.tool_grammar(&tools(strict), &choice, false, start, None).unwrap();
        grammar.lines().find(|line| line.starts_with("start: ")).unwrap().to_owned()
    };
    assert_eq!(one(llama(), ToolChoice::Required, false), "start: call");
    assert_eq!(one(llama(), ToolChoice::Auto, true), "start: (TEXT | call)");
    assert_eq!(one(mistral(), ToolChoice::Required, false), "start: (open thought gap?)? call");
    assert_eq!(
        one(mistral(), ToolChoice::Auto, true),
        "start: (open thought gap?)? TEXT (<[257]> body TEXT){0,1}"
    );
    assert_eq!(one(mistral_list(), ToolChoice::Required, false), "start: call");
    assert_eq!(one(hermes(), ToolChoice::Auto, true), "start: (head body){0,1} TEXT");
    let either = |format: ChatFormat, choice: ToolChoice| {
        let start = ReasoningStart::Undecided;
        let grammar = format.tool_grammar(&tools(false), &choice, true, start, Some("\"x\"")).unwrap();
        (
            grammar.lines().find(|line| line.starts_with("start: ")).unwrap().to_owned(),
            grammar.lines().any(|line| line == "answer: \"x\""),
        )
    };
    let expected = "start: (open thought gap?)? ((call (\"\\n\" call){0,15}) | answer)".to_owned();
    assert_eq!(either(hermes(), ToolChoice::Auto), (expected, true));
    assert_eq!(either(llama(), ToolChoice::Auto), ("start: ((call) | answer)".to_owned(), true));
    // Where calls are forced there are no words that could have a form.
    assert_eq!(either(llama(), ToolChoice::Required), ("start: call".to_owned(), false));
}
