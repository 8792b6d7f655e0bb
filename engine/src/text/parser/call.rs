//! The call of a tool, read from the JSON that a model writes for it.

use serde_json::Value;

use super::json_object::{Member, ObjectScanner, Scan};

/// Names under which models write a call's arguments.
const ARGUMENTS: [&str; 2] = ["arguments", "parameters"];
/// Everything that stands in a call. Another first key means that the object is no call.
const KEYS: [&str; 5] = ["name", "type", "id", ARGUMENTS[0], ARGUMENTS[1]];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object, as the model has written it.
    pub(super) arguments: String,
}

/// Reads `{"name": …, "arguments": {…}}`, or only the arguments where the name came before.
#[derive(Clone, Debug)]
pub(super) struct CallReader {
    scanner: ObjectScanner,
    /// The name that came before.
    name: Option<String>,
}

impl CallReader {
    /// Of an object with name and arguments.
    pub(super) fn whole() -> Self {
        Self { scanner: ObjectScanner::new(), name: None }
    }

    /// Of an object that is the arguments of `name`.
    pub(super) fn arguments_of(name: String) -> Self {
        Self { scanner: ObjectScanner::new(), name: Some(name) }
    }

    pub(super) fn scan(&mut self, text: &str) -> Scan {
        let scan = self.scanner.scan(text);
        if self.is_other(text) { Scan::Malformed } else { scan }
    }

    /// Whether the object is no call, by its first key.
    fn is_other(&self, text: &str) -> bool {
        let first = self.scanner.members().first().filter(|_| self.name.is_none());
        first.is_some_and(|member| {
            string(&text[member.key.clone()]).is_none_or(|key| !KEYS.contains(&key.as_str()))
        })
    }

    /// The call, if the scanned text is a complete one.
    pub(super) fn call(&self, text: &str, bytes: usize) -> Option<Call> {
        let arguments = match &self.name {
            Some(_) => object(&text[..bytes])?,
            None => self.arguments_in(text)?,
        };
        Some(Call { name: self.name(text)?, arguments })
    }

    /// What is called, once that is known.
    pub(super) fn name(&self, text: &str) -> Option<String> {
        self.name.clone().or_else(|| self.name_in(text))
    }

    fn member(&self, text: &str, keys: &[&str]) -> Option<&Member> {
        let is_wanted = |member: &&Member| {
            string(&text[member.key.clone()]).is_some_and(|key| keys.contains(&key.as_str()))
        };
        self.scanner.members().iter().find(is_wanted)
    }

    fn name_in(&self, text: &str) -> Option<String> {
        let member = self.member(text, &["name"])?;
        string(&text[member.value_start..member.value_end?]).filter(|name| !name.is_empty())
    }

    /// Absent and null arguments are none; some models write the object as a string.
    fn arguments_in(&self, text: &str) -> Option<String> {
        let Some(member) = self.member(text, &ARGUMENTS) else { return Some("{}".to_owned()) };
        let written = &text[member.value_start..member.value_end?];
        match written.as_bytes() {
            b"null" => Some("{}".to_owned()),
            [b'"', ..] => object(string(written)?.trim()),
            _ => object(written),
        }
    }
}

fn string(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}

/// The text itself if it is a JSON object for every parser.
fn object(json: &str) -> Option<String> {
    matches!(serde_json::from_str(json), Ok(Value::Object(_))).then(|| json.to_owned())
}
