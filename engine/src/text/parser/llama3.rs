//! An answer of Llama's: text, or calls from its beginning.

use super::Head;

/// Reads up to the object of a first call; `text` is the beginning of the answer, or follows `tag`.
pub(super) fn head(text: &str, tag: &str, at_end: bool) -> Head {
    let body = text.trim_start();
    if body.starts_with(tag) {
        return Head::Tag { bytes: text.len() - body.len() + tag.len() };
    }
    if tag.starts_with(body) && !at_end { Head::Incomplete } else { object_after(text, at_end, |_| false) }
}

/// Reads on behind a call. Models put a semicolon, a comma or a new line between calls.
pub(super) fn next_call(text: &str, at_end: bool) -> Head {
    object_after(text, at_end, |c| matches!(c, ';' | ','))
}

/// Reads up to an object that follows nothing but white space and separators.
pub(super) fn object_after(text: &str, at_end: bool, is_separator: impl Fn(char) -> bool) -> Head {
    let body = text.trim_start_matches(|c: char| c.is_whitespace() || is_separator(c));
    match body.as_bytes().first() {
        None if !at_end => Head::Incomplete,
        Some(b'{') => Head::Object { bytes: text.len() - body.len() },
        _ => Head::Neither,
    }
}
