//! One noun, one file: a file that needs scrolling for long holds more than one.

use crate::checkout::TextFile;

/// Beyond this a reader loses the thread: no exceptions.
const LINES_MAX: usize = 600;
/// Beyond this a file is named, so that somebody thinks about dividing it.
const LINES_LONG: usize = 400;
/// Languages a person writes here by hand.
const CODE: [&str; 9] = ["rs", "cu", "cuh", "h", "cpp", "go", "py", "sh", "tpl"];

pub fn offences(files: &[TextFile]) -> Vec<String> {
    let too_long = code_files(files).filter(|(_, lines)| *lines > LINES_MAX);
    too_long.map(|(path, lines)| format!("{path}: {lines} lines, at most {LINES_MAX}")).collect()
}

/// Files to think about, in words.
pub fn long_files(files: &[TextFile]) -> Vec<String> {
    let long = code_files(files).filter(|(_, lines)| (LINES_LONG + 1..=LINES_MAX).contains(lines));
    long.map(|(path, lines)| format!("{path} has {lines} lines; {LINES_LONG} is the aim")).collect()
}

fn code_files(files: &[TextFile]) -> impl Iterator<Item = (String, usize)> {
    let code = files.iter().filter(|file| file.has_extension(&CODE));
    code.map(|file| (file.path.display().to_string(), file.text.lines().count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, lines: usize) -> TextFile {
        TextFile { path: path.into(), text: "x\n".repeat(lines) }
    }

    #[test]
    fn code_has_a_limit_and_data_has_none() {
        let files = [file("a.rs", 600), file("b.rs", 601), file("go.sum", 9000), file("c.py", 401)];
        assert_eq!(offences(&files), ["b.rs: 601 lines, at most 600"]);
        assert_eq!(long_files(&files).len(), 2);
    }
}
