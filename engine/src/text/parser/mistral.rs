//! What follows `[TOOL_CALLS]`.

use super::Head;

/// OpenAI's limit for names of functions.
const NAME_BYTES_MAX: usize = 64;

/// Markers between a name and its arguments; the id of a call may stand after the first.
pub(super) const ID: &str = "[CALL_ID]";
pub(super) const ARGUMENTS: &str = "[ARGS]";

/// Reads up to the object of the first call.
pub(super) fn head(text: &str, at_end: bool) -> Head {
    let body = text.trim_start();
    let lead = text.len() - body.len();
    match body.as_bytes().first() {
        None if at_end => Head::Neither,
        None => Head::Incomplete,
        Some(b'[') => Head::List { bytes: lead + 1 },
        Some(b'{') => Head::Object { bytes: lead },
        Some(_) => named(text, lead, at_end),
    }
}

/// Reads on in a list of calls.
pub(super) fn next_in_list(text: &str, at_end: bool) -> Head {
    let body = text.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    let lead = text.len() - body.len();
    match body.as_bytes().first() {
        None if at_end => Head::Neither,
        None => Head::Incomplete,
        Some(b'{') => Head::Object { bytes: lead },
        Some(b']') => Head::ListEnd { bytes: lead + 1 },
        Some(_) => Head::Neither,
    }
}

fn named(text: &str, start: usize, at_end: bool) -> Head {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    let name = &text[start..];
    let name = &name[..name.find(|c| !is_name(c)).unwrap_or(name.len())];
    let after = &text[start + name.len()..];
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Head::Neither;
    }
    let mut rest = after.trim_start();
    if let Some(from_id) = rest.strip_prefix(ID) {
        let (id, arguments) = from_id.split_once(ARGUMENTS).unzip();
        // An id has no white space: what has some ends the wait.
        let is_id = !id.unwrap_or(from_id).trim_start().contains(char::is_whitespace);
        match arguments {
            Some(arguments) if is_id => rest = arguments,
            None if is_id && !at_end => return Head::Incomplete,
            _ => return Head::Neither,
        }
    } else if let Some(arguments) = rest.strip_prefix(ARGUMENTS) {
        rest = arguments;
    } else if !rest.starts_with('{') {
        let may_come = ARGUMENTS.starts_with(rest) || ID.starts_with(rest);
        return if may_come && !at_end { Head::Incomplete } else { Head::Neither };
    }
    let arguments = rest.trim_start();
    match arguments.as_bytes().first() {
        Some(b'{') => Head::Named { name: name.to_owned(), bytes: text.len() - arguments.len() },
        None if !at_end => Head::Incomplete,
        _ => Head::Neither,
    }
}
