use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use serde_json::Value;
use sparkherd_checkpoint::GgufText;

use super::TextError;
use crate::weights::ModelDirectory;

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const GENERATION_CONFIG: &str = "generation_config.json";
pub(super) const CONFIG: &str = "config.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// The largest `tokenizer.json` in use (vocabulary of 262 thousand) has 33 MB; parsed it takes several times that.
const TOKENIZER_BYTES_MAX: u64 = 128 << 20;

/// The other files are kilobytes; a `tokenizer_config.json` that lists thousands of added tokens has about one megabyte.
const SMALL_FILE_BYTES_MAX: u64 = 8 << 20;

/// The files of a model directory that concern text, as they are on disk.
#[derive(Clone, Debug, Default)]
pub struct TextFiles {
    pub tokenizer: Vec<u8>,
    pub tokenizer_config: Option<Vec<u8>>,
    pub generation_config: Option<Vec<u8>>,
    pub config: Option<Vec<u8>>,
    pub chat_template: Option<Vec<u8>>,
}

impl From<GgufText> for TextFiles {
    fn from(text: GgufText) -> Self {
        let GgufText { tokenizer_json, tokenizer_config_json, generation_config_json } = text;
        Self {
            tokenizer: tokenizer_json,
            tokenizer_config: Some(tokenizer_config_json),
            generation_config: Some(generation_config_json),
            config: None,
            chat_template: None,
        }
    }
}

impl TextFiles {
    pub(super) fn read(model_dir: &Path) -> Result<Self, TextError> {
        if let Some(text) = GgufText::read(&ModelDirectory(model_dir.to_owned()))? {
            return Ok(Self::from(text));
        }
        let tokenizer = read_bounded(model_dir, TOKENIZER, TOKENIZER_BYTES_MAX)?;
        let missing = || TextError::Read { file: TOKENIZER, reason: ErrorKind::NotFound.into() };
        let small = |file| read_bounded(model_dir, file, SMALL_FILE_BYTES_MAX);
        Ok(Self {
            tokenizer: tokenizer.ok_or_else(missing)?,
            tokenizer_config: small(TOKENIZER_CONFIG)?,
            generation_config: small(GENERATION_CONFIG)?,
            config: small(CONFIG)?,
            chat_template: small(CHAT_TEMPLATE)?,
        })
    }

    /// The chat templates: the one in the file of its own where there is one, else those of `tokenizer_config.json`, which
    /// is a string or a list of named ones.
    pub(super) fn templates(&self) -> Result<Vec<NamedTemplate>, TextError> {
        if let Some(bytes) = &self.chat_template {
            let invalid = |error: std::str::Utf8Error| TextError::Invalid {
                file: CHAT_TEMPLATE,
                reason: error.to_string(),
            };
            return Ok(vec![NamedTemplate::default_one(std::str::from_utf8(bytes).map_err(invalid)?)]);
        }
        let config = parse(TOKENIZER_CONFIG, self.tokenizer_config.as_deref())?;
        let not_text = || TextError::Invalid {
            file: TOKENIZER_CONFIG,
            reason: "chat_template is neither a string nor a list of named strings".to_owned(),
        };
        match &config["chat_template"] {
            Value::Null => Ok(Vec::new()),
            Value::String(source) => Ok(vec![NamedTemplate::default_one(source)]),
            Value::Array(entries) => {
                entries.iter().map(|entry| NamedTemplate::parse(entry).ok_or_else(not_text)).collect()
            }
            _ => Err(not_text()),
        }
    }
}

/// A model has one chat template, or several for different uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedTemplate {
    pub(super) name: String,
    pub(super) source: String,
}

impl NamedTemplate {
    fn default_one(source: &str) -> Self {
        Self { name: "default".to_owned(), source: source.to_owned() }
    }

    fn parse(entry: &Value) -> Option<Self> {
        Some(Self {
            name: entry["name"].as_str()?.to_owned(),
            source: entry["template"].as_str()?.to_owned(),
        })
    }
}

/// A JSON file's value; null if there is no file.
pub(super) fn parse(file: &'static str, bytes: Option<&[u8]>) -> Result<Value, TextError> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    serde_json::from_slice(bytes).map_err(|error| TextError::Invalid { file, reason: error.to_string() })
}

/// The bytes of a file, or `None` if there is none. Reads no more than is allowed, whatever the file claims to be.
fn read_bounded(model_dir: &Path, file: &'static str, bytes_max: u64) -> Result<Option<Vec<u8>>, TextError> {
    let unreadable = |reason| TextError::Read { file, reason };
    let source = match File::open(model_dir.join(file)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(unreadable)?,
    };
    let mut bytes = Vec::new();
    source.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let read = bytes.len() as u64;
    if read > bytes_max { Err(TextError::TooLarge { file, bytes: read, bytes_max }) } else { Ok(Some(bytes)) }
}
