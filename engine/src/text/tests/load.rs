use serde_json::json;

use super::vocabulary::{BOS, EOS, byte_level, bytes, noon, text, text_with_template};
use crate::text::{Text, TextError, TextFiles};

#[test]
fn prompts_are_framed_once_and_never_cut() {
    let text = text_with_template(&json!("x")).unwrap();
    let bos = text.encode(BOS, false).unwrap();
    assert_eq!(bos.len(), 1);
    let framed = text.encode("hello world", true).unwrap();
    assert_eq!(framed[0], bos[0]);
    // The fixture's own truncation would leave 4.
    assert_eq!(framed.len(), 1 + "hell|o| w|o|r|l|d".split('|').count());
    assert_eq!(text.encode(&format!("{BOS}hello world"), true).unwrap(), framed);
    assert_eq!(text.encode("hello world", false).unwrap(), framed[1..]);
    assert_eq!((text.bos_token(), text.eos_token()), (Some(BOS), Some(EOS)));
}

#[test]
fn end_tokens_are_gathered_from_all_files() {
    let files = TextFiles {
        tokenizer: bytes(&byte_level()),
        tokenizer_config: Some(bytes(&json!({"eos_token": EOS}))),
        generation_config: Some(bytes(&json!({"eos_token_id": [7, 3]}))),
        config: Some(bytes(&json!({"eos_token_id": 3}))),
        chat_template: None,
    };
    let text = Text::from_files(&files, noon).unwrap();
    let eos = text.encode(EOS, false).unwrap()[0];
    assert_eq!(text.eos_token_ids(), [3, 7, eos]);

    let negative = TextFiles { config: Some(bytes(&json!({"eos_token_id": -1}))), ..files.clone() };
    let error = Text::from_files(&negative, noon).unwrap_err();
    assert_eq!(
        error.to_string(),
        "config.json is not valid: eos_token_id is -1, must be a token or a list of tokens"
    );
}

#[test]
fn without_configuration_there_are_no_special_tokens() {
    let text = text(&byte_level());
    assert_eq!((text.bos_token(), text.eos_token()), (None, None));
    assert_eq!(text.eos_token_ids(), [0; 0]);
}

#[test]
fn broken_files_are_named() {
    let broken = |files: TextFiles| Text::from_files(&files, noon).unwrap_err().to_string();
    let tokenizer = bytes(&byte_level());
    assert!(broken(TextFiles::default()).starts_with("tokenizer.json is not valid: "));
    let cut = tokenizer[..tokenizer.len() / 2].to_vec();
    assert!(
        broken(TextFiles { tokenizer: cut, ..TextFiles::default() })
            .starts_with("tokenizer.json is not valid: ")
    );
    let config = TextFiles { tokenizer, tokenizer_config: Some(b"{".to_vec()), ..TextFiles::default() };
    assert!(broken(config).starts_with("tokenizer_config.json is not valid: "));
}

#[test]
fn a_directory_is_read_within_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let load = || Text::load(directory.path());
    assert!(matches!(load(), Err(TextError::Read { file: "tokenizer.json", .. })));
    std::fs::write(directory.path().join("tokenizer.json"), bytes(&byte_level())).unwrap();
    assert!(!load().unwrap().has_chat_template());
    std::fs::write(directory.path().join("chat_template.jinja"), "{{ bos_token }}").unwrap();
    assert!(load().unwrap().has_chat_template());
    // A sparse file: large, and nothing on disk.
    std::fs::File::create(directory.path().join("config.json")).unwrap().set_len(9 << 20).unwrap();
    assert!(matches!(load(), Err(TextError::TooLarge { file: "config.json", .. })));
}
