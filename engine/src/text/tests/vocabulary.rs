//! Two small tokenizers, one of each kind that checkpoints ship.

use serde_json::{Map, Value, json};

use crate::text::{Text, TextFiles};

/// Tokens 0 to 255 are the bytes in the order of GPT-2's alphabet, then a few merges, then the added tokens.
pub(super) const BOS: &str = "<|begin|>";
pub(super) const EOS: &str = "<|end|>";
pub(super) const MERGES: [[&str; 2]; 5] = [["h", "e"], ["l", "l"], ["he", "ll"], ["Ġ", "w"], ["Ã", "©"]];

fn added_token(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": special,
    })
}

/// Byte-level BPE with a beginning-of-sequence token, as Llama 3 and Qwen have. `<think>` is added but not special.
pub(in crate::text) fn byte_level() -> Value {
    let printable = (0x21..=0x7E).chain(0xA1..=0xAC).chain(0xAE..=0xFF).chain(0x100..=0x143);
    let mut names: Vec<String> = printable.filter_map(char::from_u32).map(String::from).collect();
    assert_eq!(names.len(), 256);
    names.extend(MERGES.iter().map(|pair| pair.concat()));
    let vocab: Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    let added = names.len();
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [
            added_token(added, BOS, true), added_token(added + 1, EOS, true), added_token(added + 2, "<think>", false),
            added_token(added + 3, "工具", false),
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [added], "tokens": [BOS]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": MERGES,
        },
    })
}

/// SentencePiece's way, as Llama 2 has it: spaces are `▁`, unknown characters fall back to byte tokens.
pub(in crate::text) fn pieces() -> Value {
    let mut names: Vec<String> =
        ["<unk>", "<s>", "</s>", "[TOOL_CALLS]", "[ARGS]", "[INST]"].map(String::from).into();
    names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    names.extend(["a", "b", "▁a", "▁", "▁▁", "é", "�", "\n"].map(String::from));
    let vocab: Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), json!(id))).collect();
    let added: Vec<Value> =
        names[..6].iter().enumerate().map(|(id, name)| added_token(id, name, true)).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": [["▁", "▁"], ["▁", "a"]],
        },
    })
}

/// [`pieces`], and the same with what newer conversions have in place of its normaliser: Mistral's pre-tokenizer, with a
/// space in front of the text and without.
pub(in crate::text) fn sentence_pieces() -> [Value; 3] {
    let metaspace = |prepend: &str| {
        let mut tokenizer = pieces();
        tokenizer["normalizer"] = Value::Null;
        tokenizer["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend, "split": false});
        if prepend == "never" {
            tokenizer["decoder"]["decoders"].as_array_mut().unwrap().pop();
        }
        tokenizer
    };
    [pieces(), metaspace("first"), metaspace("never")]
}

pub(in crate::text) fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

/// A fixed moment for templates that write the date.
pub(in crate::text) fn noon() -> jiff::Zoned {
    "2026-08-22T12:00:00[UTC]".parse().unwrap()
}

pub(in crate::text) fn text(tokenizer: &Value) -> Text {
    Text::from_files(&TextFiles { tokenizer: bytes(tokenizer), ..TextFiles::default() }, noon).unwrap()
}

/// A byte-level text whose `tokenizer_config.json` has this chat template.
pub(in crate::text) fn text_with_template(template: &Value) -> Result<Text, crate::TextError> {
    let config = json!({"bos_token": BOS, "eos_token": {"content": EOS}, "chat_template": template});
    let files = TextFiles {
        tokenizer: bytes(&byte_level()),
        tokenizer_config: Some(bytes(&config)),
        ..TextFiles::default()
    };
    Text::from_files(&files, noon)
}
