//! Runs every file of `tests/scenarios`: commands, a line `---`, and what they print. Where the answer differs, the whole
//! file as it would be now lies beside the test's other output: look at it, and copy it over if it is right.

use std::path::{Path, PathBuf};

use crate::script::run;

const SEPARATOR: &str = "---\n";

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

#[test]
fn scenarios_give_their_golden_answers() {
    let mut wrong = Vec::new();
    let files = files();
    assert!(files.len() >= 15, "found only {} scenarios", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let (commands, golden) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
        let actual = run(commands);
        if actual != golden {
            let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(path.file_name().unwrap());
            let commands = commands.trim_end();
            std::fs::write(&copy, format!("{commands}\n{SEPARATOR}{actual}")).unwrap();
            wrong.push(format!("{} differs; now it is {}:\n{actual}", path.display(), copy.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
