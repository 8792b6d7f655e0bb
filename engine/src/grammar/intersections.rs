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
    let mut own = 0;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '"' => delimited(rest, '"'),
            '/' if rest.starts_with("//") => line(rest),
            '/' => delimited(rest, '/'),
            '#' => line(rest),
            '<' => special_token(rest),
            '%' => schema(rest, &mut count),
            _ => first.len_utf8(),
        };
        own += usize::from(first == '&');
        rest = rest.get(taken..).unwrap_or_default();
    }
    count.intersections += own;
    count.expressions += own;
    count.check()
}

/// Bytes of a string or a regular expression, its marks included.
fn delimited(text: &str, mark: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|(_, letter)| {
        let ends = *letter == mark && !escaped;
        escaped = *letter == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(place, letter)| place + letter.len_utf8())
}

fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Bytes of `<…>` without space in it, or of `<` alone.
fn special_token(text: &str) -> usize {
    let end =
        text.char_indices().skip(1).find(|(_, letter)| matches!(letter, '<' | '>') || letter.is_whitespace());
    end.filter(|(_, letter)| *letter == '>').map_or(1, |(place, _)| place + 1)
}

/// Bytes of `%json` and the schema behind it, or of `%` alone.
fn schema(text: &str, count: &mut Count) -> usize {
    let keyword = "%json";
    let Some(rest) = text.strip_prefix(keyword) else { return 1 };
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    match values.next() {
        Some(Ok(schema)) => {
            count.add(&schema);
            keyword.len() + values.byte_offset()
        }
        // It will be refused.
        Some(Err(_)) | None => keyword.len(),
    }
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
