use llguidance::{api::TopLevelGrammar, regex_to_lark};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    GrammarError,
    intersections::{check_lark, check_schema},
};

/// Bytes of one source. The tools of a large agent together take about a hundred kilobytes.
const SOURCE_BYTES_MAX: usize = 256 << 10;

/// Levels of objects and arrays in a schema; each level of what it describes takes two.
const SCHEMA_LEVELS_MAX: usize = 64;

/// Levels of brackets in a Lark grammar, schemas inlined in it included: its parser calls itself for each.
const LARK_LEVELS_MAX: usize = 256;

/// White space between two tokens of JSON: one blank, or a new line and its indentation. Were it free, a weak model could
/// write it until its tokens are used up, and the JSON would be valid so far.
const WHITE_SPACE: &str = r"[ \t]|\r?\n[ \t]{0,32}";

/// What an answer must be, as a client says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes. Keywords that cannot be kept to are refused, not passed over.
    JsonSchema(String),
    /// A regular expression in the syntax of Rust's `regex`; the whole answer matches it.
    Regex(String),
    /// One of these strings.
    Choice(Vec<String>),
    /// llguidance's dialect of Lark.
    Lark(String),
}

/// What tells a source from all others: SHA-256, as sources are written by strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceDigest([u8; 32]);

impl GrammarSource {
    pub(super) fn digest(&self) -> SourceDigest {
        let (kind, texts) = match self {
            Self::JsonObject => (0_u8, [].as_slice()),
            Self::JsonSchema(source) => (1, std::slice::from_ref(source)),
            Self::Regex(source) => (2, std::slice::from_ref(source)),
            Self::Choice(choices) => (3, choices.as_slice()),
            Self::Lark(source) => (4, std::slice::from_ref(source)),
        };
        let mut hasher = Sha256::new_with_prefix([kind]);
        for text in texts {
            hasher.update(text.len().to_le_bytes());
            hasher.update(text);
        }
        SourceDigest(hasher.finalize().into())
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema(source) | Self::Regex(source) | Self::Lark(source) => source.len(),
            Self::Choice(choices) => choices.iter().map(String::len).sum(),
        }
    }

    /// Checks size and nesting, and says it in llguidance's words.
    pub(super) fn parse(&self) -> Result<TopLevelGrammar, GrammarError> {
        let bytes = self.bytes();
        if bytes > SOURCE_BYTES_MAX {
            return Err(GrammarError::TooLarge { bytes, bytes_max: SOURCE_BYTES_MAX });
        }
        match self {
            Self::JsonObject => Ok(of_schema(any_object())),
            Self::JsonSchema(source) => json_schema(source),
            Self::Regex(source) => Ok(TopLevelGrammar::from_regex(without_anchors(source))),
            Self::Choice(choices) => choice(choices),
            Self::Lark(source) => lark(source),
        }
    }

    /// The same form as an expression of Lark, to stand behind something else. `None` for what is refused in any form.
    pub fn lark_expression(&self) -> Option<String> {
        let json = |schema| format!("%json {}", bounded(schema));
        match self {
            Self::JsonObject => Some(json(any_object())),
            Self::JsonSchema(source) => match serde_json::from_str(source) {
                Ok(Value::Object(schema)) => Some(json(schema)),
                Ok(Value::Bool(true)) => Some(json(Map::new())),
                Ok(_) | Err(_) => None,
            },
            Self::Choice(choices) => (!choices.is_empty()).then(|| one_of(choices)),
            Self::Regex(source) => Some(format!("/{}/", regex_to_lark(without_anchors(source), ""))),
            // The new line ends a comment.
            Self::Lark(source) => Some(format!("%lark {{\n{source}\n}}")),
        }
    }
}

fn json_schema(source: &str) -> Result<TopLevelGrammar, GrammarError> {
    let schema: Value =
        serde_json::from_str(source).map_err(|error| GrammarError::NotJson(error.to_string()))?;
    if levels(&schema) > SCHEMA_LEVELS_MAX {
        return Err(GrammarError::TooDeep { levels_max: SCHEMA_LEVELS_MAX });
    }
    check_schema(&schema)?;
    match schema {
        Value::Object(schema) => Ok(of_schema(schema)),
        Value::Bool(true) => Ok(of_schema(Map::new())),
        Value::Bool(false) => {
            Err(GrammarError::Refused("no JSON is valid under the schema `false`".to_owned()))
        }
        _ => Err(GrammarError::NotASchema),
    }
}

fn of_schema(schema: Map<String, Value>) -> TopLevelGrammar {
    TopLevelGrammar::from_json_schema(bounded(schema))
}

/// Options are written into the schema; a client's own are replaced.
fn bounded(mut schema: Map<String, Value>) -> Value {
    let options = json!({"whitespace_flexible": true, "whitespace_pattern": WHITE_SPACE});
    schema.insert("x-guidance".to_owned(), options);
    Value::Object(schema)
}

fn any_object() -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), "object".into())])
}

fn choice(choices: &[String]) -> Result<TopLevelGrammar, GrammarError> {
    if choices.is_empty() {
        return Err(GrammarError::NoChoice);
    }
    Ok(TopLevelGrammar::from_lark(format!("start: {}", one_of(choices))))
}

/// A string of Lark is one of JSON.
fn one_of(choices: &[String]) -> String {
    let strings: Vec<String> =
        choices.iter().map(|choice| Value::from(choice.as_str()).to_string()).collect();
    strings.join(" | ")
}

fn lark(source: &str) -> Result<TopLevelGrammar, GrammarError> {
    let mut level = 0_usize;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => level += 1,
            b')' | b']' | b'}' => level = level.saturating_sub(1),
            _ => {}
        }
        if level > LARK_LEVELS_MAX {
            return Err(GrammarError::TooDeep { levels_max: LARK_LEVELS_MAX });
        }
    }
    check_lark(source)?;
    Ok(TopLevelGrammar::from_lark(source.to_owned()))
}

/// The whole answer has to match anyway, so anchors at the ends say nothing, and llguidance knows none.
fn without_anchors(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    match regex.strip_suffix('$') {
        Some(rest) if (rest.len() - rest.trim_end_matches('\\').len()).is_multiple_of(2) => rest,
        _ => regex,
    }
}

/// JSON's parser goes no deeper than 128 levels, so neither does this.
fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}
