//! What has to be changed in a template's text for minijinja to read it as Jinja2 with transformers' extensions does.

/// `{% generation %}` marks the parts a trainer learns from and means nothing here; it becomes a condition that holds, which
/// keeps the tag's white-space control.
pub(super) fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, (tag, after))) =
        rest.split_once("{%").and_then(|(before, from)| from.split_once("%}").map(|tag| (before, tag)))
    {
        let replacement = match tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        out.extend([before, "{%", &replacement, "%}"]);
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Strings as Python reads them: a backslash at the end of a line joins it with the next, and one before a slash stays.
///
/// A `}}` that closes two objects is taken for the tag's end; what follows in that tag is left as it is.
pub(super) fn with_python_strings(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let (mut in_tag, mut in_comment, mut quote) = (false, false, None);
    let mut characters = source.chars().peekable();
    while let Some(character) = characters.next() {
        let next = characters.peek().copied();
        match (quote, character, next) {
            (Some(_), '\\', Some(escaped)) => {
                characters.next();
                match escaped {
                    '\n' => {}
                    '/' => out.push_str(r"\\/"),
                    _ => out.extend(['\\', escaped]),
                }
                continue;
            }
            (Some(open), ..) => quote = quote.filter(|_| character != open),
            (None, '#', Some('}')) if in_comment => in_comment = false,
            (None, '\'' | '"', _) if in_tag => quote = Some(character),
            (None, '%' | '}', Some('}')) if in_tag => in_tag = false,
            (None, '{', Some('#')) if !in_tag => in_comment = true,
            (None, '{', Some('{' | '%')) if !in_comment => in_tag = true,
            _ => {}
        }
        out.push(character);
    }
    out
}
