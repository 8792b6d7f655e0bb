//! Rust source with what is not code blanked out: comments and literals, and on request tests. Every kept character
//! stays on its line, so an offence can be named by file and line.

/// Replaces comments and the insides of string and character literals with spaces.
pub fn code_only(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = end_of_blank(&characters, at);
        if end == at {
            code.push(characters[at]);
            at += 1;
        } else {
            code.extend(characters[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Blanks items under `#[cfg(test)]`, given [`code_only`] text.
pub fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(MARK) {
        kept.push_str(before);
        let end = end_of_item(after);
        kept.extend(after[..end].chars().filter(|c| *c == '\n'));
        rest = &after[end..];
    }
    kept.push_str(rest);
    kept
}

/// An item ends with a semicolon or the brace that closes its first one.
fn end_of_item(text: &str) -> usize {
    let mut depth = 0_u32;
    for (at, character) in text.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Where the comment or literal that starts here ends; `at` itself if none does.
fn end_of_blank(text: &[char], at: usize) -> usize {
    match (text[at], text.get(at + 1)) {
        ('/', Some('/')) => find(text, at, &['\n']),
        ('/', Some('*')) => end_of_block_comment(text, at),
        ('"', _) => end_of_quoted(text, at + 1, '"'),
        ('r', Some('"' | '#')) if !is_in_word(text, at) => end_of_raw_string(text, at),
        ('b', Some('r')) if !is_in_word(text, at) && end_of_raw_string(text, at + 1) > at + 1 => {
            end_of_raw_string(text, at + 1)
        }
        // 'x' or '\n' is a literal; 'x alone is a lifetime or a label.
        ('\'', Some('\\')) => end_of_quoted(text, at + 1, '\''),
        ('\'', Some(_)) if text.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn end_of_block_comment(text: &[char], at: usize) -> usize {
    let (mut depth, mut position) = (0_u32, at);
    while position < text.len() {
        match (text[position], text.get(position + 1)) {
            ('/', Some('*')) => (depth, position) = (depth + 1, position + 2),
            ('*', Some('/')) if depth == 1 => return position + 2,
            ('*', Some('/')) => (depth, position) = (depth - 1, position + 2),
            _ => position += 1,
        }
    }
    text.len()
}

fn end_of_quoted(text: &[char], start: usize, quote: char) -> usize {
    let mut position = start;
    while position < text.len() {
        match text[position] {
            '\\' => position += 2,
            character if character == quote => return position + 1,
            _ => position += 1,
        }
    }
    text.len()
}

/// `at` is on the `r`; `r#name` is an identifier and not a string.
fn end_of_raw_string(text: &[char], at: usize) -> usize {
    let hashes = text[at + 1..].iter().take_while(|character| **character == '#').count();
    if text.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    find(text, at + 2 + hashes, &close).saturating_add(close.len()).min(text.len())
}

fn find(text: &[char], from: usize, wanted: &[char]) -> usize {
    let found = text[from..].windows(wanted.len()).position(|window| window == wanted);
    found.map_or(text.len(), |offset| from + offset)
}

fn is_in_word(text: &[char], at: usize) -> bool {
    at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        let cases = [
            ("a // todo!()\nb", "a b"),
            ("a /* x /* y */ z */ b", "a b"),
            (r#"f("todo!() \" x", 1)"#, "f( , 1)"),
            ("f(r#\"a \" b\"#)", "f( )"),
            ("'{' 'a: '\\'' x", "'a: x"),
            ("r#type + br\"x\" + b", "r#type + + b"),
            ("\"one\ntwo\" three", "three"),
        ];
        for (text, code) in cases {
            let blanked = code_only(text);
            assert_eq!(blanked.split_whitespace().collect::<Vec<_>>().join(" "), code, "{text}");
            assert_eq!(blanked.chars().count(), text.chars().count(), "{text}");
            assert_eq!(blanked.matches('\n').count(), text.matches('\n').count(), "{text}");
        }
    }

    #[test]
    fn tests_are_blank_and_what_follows_is_not() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { todo!() }\n}\nfn c() {}\n#[cfg(test)]\nmod d;\nfn e() {}";
        let kept = without_tests(code);
        assert!(kept.contains("fn a") && kept.contains("fn c") && kept.contains("fn e"), "{kept}");
        assert!(!kept.contains("todo!") && !kept.contains("mod d"), "{kept}");
        assert_eq!(kept.lines().count(), code.lines().count());
    }
}
