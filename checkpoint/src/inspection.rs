use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Facts;
use crate::json::escaped;

/// One file of a checkpoint. The name is relative to its directory, never a path of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointFile {
    pub name: String,
    pub bytes: u64,
}

/// What reading a checkpoint's headers gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    pub facts: Facts,
    /// The files an engine reads, by name.
    pub files: Vec<CheckpointFile>,
    /// See [`digest`]: 64 hexadecimal digits.
    pub digest: String,
}

/// Why there is no [`Inspection`]; the names are reasons of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// Missing, unreadable or damaged files: another copy, or the same one later, may do.
    Unresolvable,
    /// The files are whole and say something this engine does not compute.
    UnsupportedModel,
}

/// A refusal as `sparkherd inspect` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub reason: RefusalReason,
    /// A sentence for a person, with names and numbers; no host path, and hostile text escaped and cut.
    pub message: String,
}

/// Longest message of a [`Refusal`]: it goes into a status field and a terminal.
const MESSAGE_CHARS_MAX: usize = 1024;

impl Refusal {
    /// Escapes what could confuse a terminal, and cuts what a stranger made too long.
    pub fn new(reason: RefusalReason, message: &str) -> Self {
        Self { reason, message: escaped(message, MESSAGE_CHARS_MAX) }
    }
}

/// The answer of `sparkherd inspect`: one JSON line with `{"inspection": …}` or `{"error": …}`. Reading ignores other
/// keys beside them (how the reader was sandboxed).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "Line")]
pub enum InspectionOutcome {
    Inspection(Inspection),
    Error(Refusal),
}

#[derive(Deserialize)]
struct Line {
    inspection: Option<Inspection>,
    error: Option<Refusal>,
}

impl TryFrom<Line> for InspectionOutcome {
    type Error = &'static str;

    fn try_from(line: Line) -> Result<Self, &'static str> {
        match line {
            Line { inspection: Some(inspection), error: None } => Ok(Self::Inspection(inspection)),
            Line { inspection: None, error: Some(refusal) } => Ok(Self::Error(refusal)),
            Line { .. } => Err("neither or both of inspection and error"),
        }
    }
}

/// Files up to this size are digested in full, larger ones by length and header: reading a model of 100 GB twice to
/// resolve it would take minutes. The content of the large ones is verified when it is fetched from a hub.
pub const DIGEST_CONTENT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How much of a larger file that has no header counts.
pub const DIGEST_PREFIX_BYTES: u64 = 1024 * 1024;

/// A file with the hash of what counts of its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedFile {
    pub file: CheckpointFile,
    sha256: [u8; 32],
}

impl HashedFile {
    /// `counted`: all of a file up to [`DIGEST_CONTENT_BYTES_MAX`]; of a larger one the safetensors header with its length, or
    /// the first [`DIGEST_PREFIX_BYTES`].
    pub fn new(name: &str, bytes: u64, counted: &[u8]) -> Self {
        let file = CheckpointFile { name: name.to_owned(), bytes };
        Self { file, sha256: Sha256::digest(counted).into() }
    }
}

/// Identity of a checkpoint: SHA-256 over each file's name, length and content hash, in the order of the names.
pub fn digest(files: &[HashedFile]) -> String {
    let mut sorted: Vec<&HashedFile> = files.iter().collect();
    sorted.sort_by(|left, right| left.file.name.cmp(&right.file.name));
    let mut hasher = Sha256::new();
    // Names the rule, so that a later rule can never give the same digest for other content.
    hasher.update(b"sparkherd checkpoint digest 1\n");
    for HashedFile { file, sha256 } in sorted {
        hasher.update((file.name.len() as u64).to_le_bytes());
        hasher.update(file.name.as_bytes());
        hasher.update(file.bytes.to_le_bytes());
        hasher.update(sha256);
    }
    hasher.finalize().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}
