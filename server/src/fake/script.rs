use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// What a script says; see the module's documentation for the directives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    pub load: Duration,
    pub hold_bytes: usize,
    pub fail_load: Option<String>,
    pub exit_at_start: Option<u8>,
    pub answer: String,
    pub token_delay: Duration,
    pub hang_after_tokens: Option<u64>,
    pub die_after_tokens: Option<u64>,
    pub balloon_bytes: usize,
    pub ignore_stop: bool,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            load: Duration::ZERO,
            hold_bytes: 0,
            fail_load: None,
            exit_at_start: None,
            answer: "Hello from the fake engine.".to_owned(),
            token_delay: Duration::ZERO,
            hang_after_tokens: None,
            die_after_tokens: None,
            balloon_bytes: 0,
            ignore_stop: false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScriptError {
    #[error("script line {line}: no directive is called {name:?}")]
    Unknown { line: usize, name: String },
    #[error("script line {line}: {name} is given twice")]
    Repeated { line: usize, name: String },
    #[error("script line {line}: {name} needs {expected}")]
    Malformed { line: usize, name: String, expected: &'static str },
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let mut seen = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let directive = line.trim();
            if directive.is_empty() || directive.starts_with('#') {
                continue;
            }
            let (name, argument) = directive.split_once(' ').unwrap_or((directive, ""));
            let (line, owned) = (index + 1, || name.to_owned());
            if !seen.insert(name) {
                return Err(ScriptError::Repeated { line, name: owned() });
            }
            script.apply(name, argument.trim()).map_err(|problem| match problem {
                Problem::Unknown => ScriptError::Unknown { line, name: owned() },
                Problem::Needs(expected) => ScriptError::Malformed { line, name: owned(), expected },
            })?;
        }
        Ok(script)
    }
}

enum Problem {
    Unknown,
    Needs(&'static str),
}

impl Script {
    fn apply(&mut self, name: &str, argument: &str) -> Result<(), Problem> {
        match name {
            "load" => self.load = duration(argument)?,
            "hold" => self.hold_bytes = bytes(argument)?,
            "fail-load" => self.fail_load = Some(quoted(argument)?),
            "exit-at-start" => {
                let status = argument.parse().ok().filter(|status| *status != 0);
                self.exit_at_start = Some(status.ok_or(Problem::Needs("a status from 1 to 255"))?);
            }
            "answer" => self.answer = quoted(argument)?,
            "token-delay" => self.token_delay = duration(argument)?,
            "hang-after" => self.hang_after_tokens = Some(tokens(argument)?),
            "die-after" => self.die_after_tokens = Some(tokens(argument)?),
            "balloon" => self.balloon_bytes = bytes(argument)?,
            "ignore-stop" if argument.is_empty() => self.ignore_stop = true,
            "ignore-stop" => return Err(Problem::Needs("nothing after it")),
            _ => return Err(Problem::Unknown),
        }
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, Problem> {
    let milliseconds = text.strip_suffix("ms").and_then(|number| number.parse().ok());
    let seconds = || text.strip_suffix('s').and_then(|number| number.parse().ok());
    milliseconds
        .map(Duration::from_millis)
        .or_else(|| seconds().map(Duration::from_secs))
        .ok_or(Problem::Needs("a duration like 500ms or 2s"))
}

fn bytes(text: &str) -> Result<usize, Problem> {
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(unit, unit_bytes)| {
            text.strip_suffix(unit)?.parse::<usize>().ok()?.checked_mul(unit_bytes)
        })
        .ok_or(Problem::Needs("a size like 100MiB"))
}

fn tokens(text: &str) -> Result<u64, Problem> {
    let number = text.strip_suffix(" tokens").and_then(|number| number.parse().ok());
    number.ok_or(Problem::Needs("a count like '3 tokens'"))
}

fn quoted(text: &str) -> Result<String, Problem> {
    serde_json::from_str(text).map_err(|_| Problem::Needs("a text in double quotes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_is_understood() {
        let script: Script = "
            # a slow, fat, doomed engine
            load 500ms
            hold 100MiB
            fail-load \"no such tensor\"
            exit-at-start 7
            answer \"one two\\nthree\"
            token-delay 2s
            hang-after 3 tokens
            die-after 5 tokens
            balloon 64KiB
            ignore-stop
        "
        .parse()
        .unwrap();
        let expected = Script {
            load: Duration::from_millis(500),
            hold_bytes: 100 << 20,
            fail_load: Some("no such tensor".to_owned()),
            exit_at_start: Some(7),
            answer: "one two\nthree".to_owned(),
            token_delay: Duration::from_secs(2),
            hang_after_tokens: Some(3),
            die_after_tokens: Some(5),
            balloon_bytes: 64 << 10,
            ignore_stop: true,
        };
        assert_eq!(script, expected);
        assert_eq!("".parse(), Ok(Script::default()));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, message) in [
            ("load 1s\nlaod 2s", "script line 2: no directive is called \"laod\""),
            ("load 1s\nload 2s", "script line 2: load is given twice"),
            ("load 1", "script line 1: load needs a duration like 500ms or 2s"),
            ("hold 100MB", "script line 1: hold needs a size like 100MiB"),
            ("hold 99999999999999999GiB", "script line 1: hold needs a size like 100MiB"),
            ("answer hi", "script line 1: answer needs a text in double quotes"),
            ("exit-at-start 0", "script line 1: exit-at-start needs a status from 1 to 255"),
            ("die-after 5", "script line 1: die-after needs a count like '3 tokens'"),
            ("ignore-stop now", "script line 1: ignore-stop needs nothing after it"),
        ] {
            assert_eq!(text.parse::<Script>().unwrap_err().to_string(), message);
        }
    }
}
