use serde_json::{Map, Value, json};

use super::{Bench, Ending, GrammarSource};
use crate::text::{Text, TextFiles};

/// SentencePiece's form: blanks as U+2581, raw bytes as `<0x00>`, and an end that is not marked special.
fn pieces() -> Text {
    let mut vocab: Map<String, Value> = Map::new();
    let mut add = |name: String| {
        let token = vocab.len();
        vocab.insert(name, json!(token));
    };
    ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().for_each(&mut add);
    (0..=255_u8).map(|byte| format!("<0x{byte:02X}>")).for_each(&mut add);
    (0x21..0x7F_u8).map(|byte| char::from(byte).to_string()).for_each(&mut add);
    ["\u{2581}", "\u{2581}{", "\u{2581}\"", "é"].map(str::to_owned).into_iter().for_each(&mut add);
    let special = |token: u32, name: &str, special: bool| {
        json!({
            "id": token, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special,
        })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null, "pre_tokenizer": null,
        "added_tokens": [special(0, "<unk>", true), special(1, "<s>", true), special(2, "</s>", false)],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "byte_fallback": true},
    });
    let files = TextFiles {
        tokenizer: tokenizer.to_string().into_bytes(),
        config: Some(br#"{"eos_token_id": 2}"#.to_vec()),
        ..TextFiles::default()
    };
    Text::from_files(&files, || "2026-08-22T12:00:00[UTC]".parse().unwrap()).unwrap()
}

/// Two tokens may write the same byte, and the end looks like text.
#[test]
fn answers_of_a_vocabulary_of_pieces_are_valid_too() {
    let bench = Bench::new(pieces(), 363);
    let source = json!({
        "type": "object", "additionalProperties": false, "required": ["é", "b"],
        "properties": {"é": {"type": "string", "maxLength": 6}, "b": {"type": "array", "items": {"type": "null"}, "maxItems": 2}},
    });
    let grammar = bench.compile(&GrammarSource::JsonSchema(source.to_string()));
    for seed in 0..20 {
        let (answer, ending) = bench.babble(&grammar, seed, 300);
        assert_eq!(ending, Ending::Complete, "{answer}");
        let value: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert!(value["é"].is_string() && value["b"].is_array(), "{answer}");
    }
}
