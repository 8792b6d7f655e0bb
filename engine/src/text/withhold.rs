//! Text that arrives in pieces, and strings that may begin at the end of one.

/// Bytes of the longest end of `text` that begins one of `patterns` without being all of it.
pub(super) fn possible_beginning<'a>(text: &str, patterns: impl Iterator<Item = &'a str>) -> usize {
    let longest_of = |pattern: &str| {
        let longest = text.len().min(pattern.len().saturating_sub(1));
        (1..=longest).rev().find(|&bytes| {
            text.as_bytes().ends_with(&pattern.as_bytes()[..bytes]) && pattern.is_char_boundary(bytes)
        })
    };
    patterns.filter_map(longest_of).max().unwrap_or(0)
}
