//! Prompts as Hugging Face transformers renders them (`tests/goldens/chat.py`, `make.py`).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::vocabulary::{byte_level, bytes, noon};
use crate::text::{ChatPrompt, TemplateError, Text, TextFiles};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn read(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(goldens().join(file)).unwrap()).unwrap()
}

fn family(name: &str, tokens: &Value) -> Text {
    let files = TextFiles {
        tokenizer: bytes(&byte_level()),
        tokenizer_config: Some(bytes(tokens)),
        chat_template: Some(std::fs::read(goldens().join("chat").join(format!("{name}.jinja"))).unwrap()),
        ..TextFiles::default()
    };
    Text::from_files(&files, noon).unwrap()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn prompt(conversation: &Value, add_generation_prompt: bool) -> ChatPrompt {
    ChatPrompt {
        messages: list(&conversation["messages"]),
        tools: list(&conversation["tools"]),
        documents: list(&conversation["documents"]),
        template_kwargs: conversation["chat_template_kwargs"].as_object().cloned().unwrap_or_default(),
        add_generation_prompt,
        continue_final_message: conversation["continue_final_message"] == true,
    }
}

/// A prompt that transformers refuses is refused; with the template's own words where it has some.
fn check(rendered: &Result<String, TemplateError>, expected: &Value, name: &str) {
    match (rendered, expected["text"].as_str()) {
        (Ok(text), Some(expected)) => assert_eq!(text, expected, "{name}"),
        (Err(TemplateError::Refused(words)), None) => assert_eq!(expected["error"], **words, "{name}"),
        (Err(_), None) => {}
        other => panic!("{name}: {other:?}, expected {expected}"),
    }
}

#[test]
fn prompts_are_those_of_transformers() {
    let document = read("chat.json");
    let mut compared = 0;
    for (name, tokens) in document["families"].as_object().unwrap() {
        let text = family(name, tokens);
        for conversation in list(&document["conversations"]) {
            for (generation_prompt, expected) in conversation["rendered"][name].as_object().unwrap() {
                let rendered = text.render_chat(&prompt(&conversation, generation_prompt == "true"));
                check(&rendered, expected, &format!("{name} {} {generation_prompt}", conversation["name"]));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 420);
}

#[test]
fn prompts_of_the_demo_model_are_those_of_transformers() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd");
    let text = Text::load(&directory).unwrap();
    let cases = list(&read("chat_template.json"));
    assert!(!cases.is_empty());
    for case in cases {
        let prompt = prompt(&case, case["add_generation_prompt"] == true);
        check(&text.render_chat(&prompt), &case, &case["name"].to_string());
        if let Some(tokens) = case["tokens"].as_array() {
            assert_eq!(json!(text.encode_chat(&prompt).unwrap()), json!(tokens), "{}", case["name"]);
        }
    }
}
