//! The tokenizer inside a GGUF, as the files that Hugging Face would have written for it.

use std::collections::HashSet;

use serde_json::{Value as Json, json};
use thiserror::Error;

use super::metadata::{List, Metadata, Value};
use super::sentence_piece;
use crate::json::shown_name;

/// What of a GGUF concerns text, in Hugging Face's form, so that everything after reading is the same for both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufText {
    /// `tokenizer.json`
    pub tokenizer_json: Vec<u8>,
    /// `tokenizer_config.json`: beginning, end and chat template.
    pub tokenizer_config_json: Vec<u8>,
    /// `generation_config.json`: tokens that end an answer.
    pub generation_config_json: Vec<u8>,
}

/// Why the tokenizer is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GgufTextError {
    #[error("metadata {key} is missing or not {wanted}")]
    Missing { key: &'static str, wanted: &'static str },
    #[error("tokenizer.ggml.model is {found}; supported: gpt2, llama")]
    Model { found: String },
    #[error("tokenizer.ggml.pre is {found}; supported: llama-bpe, qwen2, tekken")]
    PreTokenizer { found: String },
    #[error("{key} has {entries} entries for {tokens} tokens")]
    Length { key: &'static str, entries: usize, tokens: usize },
    #[error("token {token} occurs twice")]
    Twice { token: String },
    #[error("merge {merge} is not two pieces with a space between")]
    Merge { merge: String },
    #[error("{key} is {id}, the vocabulary has {tokens} tokens")]
    Token { key: &'static str, id: String, tokens: usize },
    #[error("{key} is {value}; must be {allowed}")]
    Flag { key: &'static str, value: String, allowed: &'static str },
}

/// `tokenizer.ggml.token_type`
mod token_type {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
/// End of text, of turn, of message.
pub(super) const ENDS: [&str; 3] = [EOS, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";

/// Words of Llama 3: letters with the sign before them, up to three digits, signs, spaces.
const LLAMA_3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Llama 3, each digit by itself.
const QWEN_2_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Mistral's: words also end where lower case turns to upper.
const TEKKEN_WORDS: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Metadata {
    /// Tokenizer and chat template.
    pub fn text_files(&self) -> Result<GgufText, GgufTextError> {
        let tokens = Tokens::of(self)?;
        let (normalizer, pre_tokenizer, decoder, model) = match self.text("tokenizer.ggml.model") {
            Some("gpt2") => byte_level(self, &tokens)?,
            Some("llama") => scored(self, &tokens)?,
            found => {
                return Err(GgufTextError::Model { found: found.map_or("missing".to_owned(), shown_name) });
            }
        };
        let bos = tokens.named(self, BOS)?;
        // SentencePiece models begin with it unless they say otherwise; the others only where they say so.
        let begins = self.flag(ADD_BOS)?.unwrap_or(self.text("tokenizer.ggml.model") == Some("llama"));
        if self.flag(ADD_EOS)? == Some(true) {
            let (value, allowed) = ("true".to_owned(), "false: a prompt does not end here");
            return Err(GgufTextError::Flag { key: ADD_EOS, value, allowed });
        }
        let post_processor = bos.filter(|_| begins).map(|bos| template(&bos));
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null,
            "added_tokens": tokens.added(),
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
            "decoder": decoder, "model": model,
        });
        let text_of = |token: Option<Token>| token.map(|token| token.text.to_owned());
        let config = json!({
            "bos_token": text_of(tokens.named(self, BOS)?), "eos_token": text_of(tokens.named(self, EOS)?),
            "chat_template": self.text("tokenizer.chat_template"),
        });
        let mut ends = Vec::new();
        for key in ENDS {
            ends.extend(tokens.named(self, key)?.map(|token| token.id));
        }
        Ok(GgufText {
            tokenizer_json: tokenizer.to_string().into_bytes(),
            tokenizer_config_json: config.to_string().into_bytes(),
            generation_config_json: json!({"eos_token_id": ends}).to_string().into_bytes(),
        })
    }

    fn texts(&self, key: &'static str) -> Result<&[String], GgufTextError> {
        match self.get(key) {
            Some(Value::List(List::Texts(texts))) => Ok(texts),
            _ => Err(GgufTextError::Missing { key, wanted: "a list of texts" }),
        }
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, GgufTextError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(other) => Err(GgufTextError::Flag { key, value: other.shown(), allowed: "true or false" }),
        }
    }
}

#[derive(Clone, Copy)]
struct Token<'a> {
    id: usize,
    text: &'a str,
}

/// The vocabulary: every token different from the others, with its type.
struct Tokens<'a> {
    texts: &'a [String],
    types: &'a [i64],
}

impl<'a> Tokens<'a> {
    fn of(metadata: &'a Metadata) -> Result<Self, GgufTextError> {
        let texts = metadata.texts(TOKENS)?;
        let types = match metadata.get(TOKEN_TYPES) {
            Some(Value::List(List::Integers(types))) => types.as_slice(),
            _ => return Err(GgufTextError::Missing { key: TOKEN_TYPES, wanted: "a list of whole numbers" }),
        };
        if types.len() != texts.len() {
            let (entries, tokens) = (types.len(), texts.len());
            return Err(GgufTextError::Length { key: TOKEN_TYPES, entries, tokens });
        }
        let mut seen = HashSet::with_capacity(texts.len());
        match texts.iter().find(|text| !seen.insert(text.as_str())) {
            Some(twice) => Err(GgufTextError::Twice { token: shown_name(twice) }),
            None => Ok(Self { texts, types }),
        }
    }

    /// The token that a key names by its id.
    fn named(&self, metadata: &Metadata, key: &'static str) -> Result<Option<Token<'a>>, GgufTextError> {
        let Some(value) = metadata.get(key) else { return Ok(None) };
        let id = match value {
            Value::Integer(id) => usize::try_from(*id).ok(),
            _ => None,
        };
        let named = id.and_then(|id| Some(Token { id, text: self.texts.get(id)? }));
        let (id, tokens) = (value.shown(), self.texts.len());
        named.map(Some).ok_or(GgufTextError::Token { key, id, tokens })
    }

    /// Tokens that are matched in the text before it is cut into words.
    fn added(&self) -> Vec<Json> {
        let added = |(id, (text, kind)): (usize, (&String, &i64))| {
            let special = *kind == token_type::CONTROL;
            (special || *kind == token_type::USER_DEFINED).then(|| {
                json!({"id": id, "content": text, "special": special, "single_word": false, "lstrip": false,
                       "rstrip": false, "normalized": false})
            })
        };
        self.texts.iter().zip(self.types).enumerate().filter_map(added).collect()
    }

    fn vocabulary(&self) -> Json {
        self.texts.iter().enumerate().map(|(id, text)| (text.clone(), Json::from(id))).collect()
    }
}

/// Normalizer, pre-tokenizer, decoder and model.
type Parts = (Json, Json, Json, Json);

fn byte_level(metadata: &Metadata, tokens: &Tokens<'_>) -> Result<Parts, GgufTextError> {
    let (words, normalizer, ignore_merges) = match metadata.text("tokenizer.ggml.pre") {
        Some("llama-bpe" | "llama3" | "llama-v3") => (LLAMA_3_WORDS, Json::Null, true),
        Some("qwen2") => (QWEN_2_WORDS, json!({"type": "NFC"}), false),
        Some("tekken") => (TEKKEN_WORDS, Json::Null, true),
        found => {
            let found = found.map_or("missing".to_owned(), shown_name);
            return Err(GgufTextError::PreTokenizer { found });
        }
    };
    let pair = |merge: &String| {
        // No piece holds a space: byte-level vocabularies write it as another letter.
        let parts = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let (left, right) = parts.ok_or_else(|| GgufTextError::Merge { merge: shown_name(merge) })?;
        Ok(json!([left, right]))
    };
    let merges = metadata.texts(MERGES)?.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let split =
        json!({"type": "Split", "pattern": {"Regex": words}, "behavior": "Isolated", "invert": false});
    let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": [split, byte_level]});
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": ignore_merges,
        "vocab": tokens.vocabulary(), "merges": merges,
    });
    Ok((normalizer, pre_tokenizer, byte_level, model))
}

fn scored(metadata: &Metadata, tokens: &Tokens<'_>) -> Result<Parts, GgufTextError> {
    let Some(Value::List(List::Floats(scores))) = metadata.get(SCORES) else {
        return Err(GgufTextError::Missing { key: SCORES, wanted: "a list of numbers" });
    };
    if scores.len() != tokens.texts.len() {
        let (entries, tokens) = (scores.len(), tokens.texts.len());
        return Err(GgufTextError::Length { key: SCORES, entries, tokens });
    }
    let merges = sentence_piece::merges(tokens.texts, scores, |id| tokens.types[id] == token_type::NORMAL);
    // Whether a word at the very beginning looks like one after a space.
    let prefix =
        metadata.flag(ADD_SPACE)?.unwrap_or(true).then(|| json!({"type": "Prepend", "prepend": "▁"}));
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let normalizers: Vec<Json> = prefix.iter().cloned().chain([spaces]).collect();
    let back = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let strip = prefix.map(|_| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let decoders: Vec<Json> =
        [back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})].into_iter().chain(strip).collect();
    let unknown = tokens.named(metadata, "tokenizer.ggml.unknown_token_id")?;
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown.map(|token| token.text),
        "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
        "ignore_merges": false, "vocab": tokens.vocabulary(), "merges": merges,
    });
    let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
    Ok((normalizer, Json::Null, json!({"type": "Sequence", "decoders": decoders}), model))
}

/// One beginning before every text.
fn template(bos: &Token<'_>) -> Json {
    let (id, token) = (bos.id, bos.text);
    let begin = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str| json!({"Sequence": {"id": name, "type_id": 0}});
    json!({
        "type": "TemplateProcessing", "single": [begin, text("A")], "pair": [begin, text("A"), text("B")],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    })
}
