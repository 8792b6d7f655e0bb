//! Expressions that have to hold together.
//!
//! llguidance looks whether they can, and counts nothing while it does: 20 patterns in an `allOf` took it 1.6 s and 40 took a
//! gigabyte in 10 s, and went on.

use serde_json::{Map, Value};

use super::GrammarError;

/// Most of them in one grammar: below the 20 that still ended.
const INTERSECTIONS_MAX: usize = 16;

/// Keywords that are an expression of strings.
const EXPRESSIONS: [&str; 4] = ["pattern", "format", "minLength", "maxLength"];

/// What a schema, or several in one grammar, puts together.
#[derive(Default)]
struct Count {
    intersections: usize,
    expressions: usize,
}

/// Refuses a schema of more than few intersections; without expressions they are cheap, however many.
pub(super) fn check_schema(schema: &Value) -> Result<(), GrammarError> {
    let mut count = Count::default();
    count.add(schema);
    count.check()
}

/// The same of a grammar in Lark: what its schemas say, and its own `&`.
pub(super) fn check_lark(source: &str) -> Result<(), GrammarError> {
    let mut count = Count::default();
    for (place, keyword) in source.match_indices("%json") {
        let rest = &source[place + keyword.len()..];
        if let Some(Ok(schema)) = serde_json::Deserializer::from_str(rest).into_iter::<Value>().next() {
            count.add(&schema);
        }
    }
    count.check()?;
    let (mut quoted, mut escaped, mut intersections) = (false, false, 0);
    for byte in source.bytes() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b'&' if !quoted => intersections += 1,
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    Count { intersections, expressions: intersections }.check()
}

impl Count {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(members) => {
                self.add_members(members);
                members.values().for_each(|member| self.add(member));
            }
            _ => {}
        }
    }

    fn add_members(&mut self, members: &Map<String, Value>) {
        let expressions = EXPRESSIONS.iter().filter(|name| members.contains_key(**name)).count();
        let all_of = members.get("allOf").and_then(Value::as_array).map_or(0, Vec::len);
        let together = all_of + usize::from(members.contains_key("$ref")) + usize::from(expressions > 0);
        self.expressions += expressions;
        self.intersections += together.saturating_sub(1);
    }

    fn check(&self) -> Result<(), GrammarError> {
        let count = self.intersections.min(self.expressions);
        if count > INTERSECTIONS_MAX {
            return Err(GrammarError::Intersections { count, count_max: INTERSECTIONS_MAX });
        }
        Ok(())
    }
}
