use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::{Command, Event, LINE_BYTES_MAX};

#[derive(Debug, Error)]
pub enum LineError {
    #[error("line of {bytes} bytes is longer than {LINE_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("not a line this side knows: {0}")]
    Unknown(#[from] serde_json::Error),
}

/// Reads one line, without its newline.
pub fn parse_event(line: &[u8]) -> Result<Event, LineError> {
    parse(line)
}

/// Reads one line, without its newline.
pub fn parse_command(line: &[u8]) -> Result<Command, LineError> {
    parse(line)
}

/// An event or a command as a line, newline included.
pub fn to_line(message: &impl Serialize) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::TooLong { bytes: line.len() });
    }
    Ok(line)
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, LineError> {
    if line.len() >= LINE_BYTES_MAX {
        return Err(LineError::TooLong { bytes: line.len() });
    }
    Ok(serde_json::from_slice(line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Access, FailureReason};

    #[test]
    fn lines_come_back_as_they_were_written() {
        let access = Access { anonymous: false, key_hashes: vec!["ab".repeat(32)] };
        for command in [
            Command::Drain { seconds: 30 },
            Command::Access { access, served_names: vec!["a/b".to_owned()] },
            Command::Stop,
        ] {
            let line = to_line(&command).unwrap();
            let (newline, text) = line.split_last().unwrap();
            assert_eq!((*newline, parse_command(text).unwrap()), (b'\n', command));
        }
        let event = Event::Failed { reason: FailureReason::LoadFailed, message: "line\nbreak".to_owned() };
        let line = to_line(&event).unwrap();
        assert!(line.strip_suffix(b"\n").is_some_and(|text| !text.contains(&b'\n')));
        assert_eq!(parse_event(line.trim_ascii_end()).unwrap(), event);
        let newer = br#"{"event":"failed","reason":"NeverHeardOf","message":"m"}"#;
        let unknown = Event::Failed { reason: FailureReason::Unknown, message: "m".to_owned() };
        assert_eq!(parse_event(newer).unwrap(), unknown);
    }

    #[test]
    fn the_longest_line_passes_and_a_longer_one_does_not() {
        let empty = to_line(&Event::Failed { reason: FailureReason::LoadFailed, message: String::new() })
            .unwrap()
            .len();
        let sized = |bytes: usize| Event::Failed {
            reason: FailureReason::LoadFailed,
            message: "m".repeat(bytes - empty),
        };
        let longest = to_line(&sized(LINE_BYTES_MAX)).unwrap();
        assert_eq!(longest.len(), LINE_BYTES_MAX);
        parse_event(longest.trim_ascii_end()).unwrap();
        let too_long = to_line(&sized(LINE_BYTES_MAX + 1)).unwrap_err();
        assert!(
            matches!(too_long, LineError::TooLong { bytes } if bytes == LINE_BYTES_MAX + 1),
            "{too_long}"
        );
        assert!(matches!(parse_event(&vec![b' '; LINE_BYTES_MAX]), Err(LineError::TooLong { .. })));
    }

    #[test]
    fn unknown_lines_are_told_apart() {
        assert!(matches!(parse_command(br#"{"command":"dance"}"#), Err(LineError::Unknown(_))));
        assert!(matches!(
            parse_command(br#"{"command":"drain","seconds":5,"now":true}"#),
            Err(LineError::Unknown(_))
        ));
        assert!(matches!(parse_event(b"panicked at ..."), Err(LineError::Unknown(_))));
    }
}
