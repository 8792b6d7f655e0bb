//! `sparkherd inspect`: reads a checkpoint's headers where they can do no harm, and answers in one JSON line.
//!
//! ```text
//! open the root ─► give up rights (sandbox) ─► Checkpoint::read ─► tokenizer and template ─► {"inspection": …}
//!                                                   └─ refused ──────────┴─────────────────► {"error": …}, status 1
//! ```

mod directory;
mod sandbox;

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde::Serialize;
use sparkherd_checkpoint::{
    Checkpoint, Files, GgufText, Inspection, InspectionOutcome, Refusal, RefusalReason, TOKENIZER_BYTES_MAX,
};
use sparkherd_engine::text::{Text, TextError, TextFiles};

pub(crate) use directory::Directory;
use sandbox::Sandbox;

/// Read a checkpoint's headers in a sandbox and print what it is as one JSON line.
#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// Directory with config.json, the safetensors files and tokenizer.json, or with one GGUF file; or that file.
    directory: PathBuf,
    /// Directory that symbolic links may not lead out of; the checkpoint lies in it. Default: the checkpoint's own.
    #[arg(long)]
    root: Option<PathBuf>,
}

/// The printed line.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    outcome: InspectionOutcome,
    /// Absent where nothing was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<Sandbox>,
}

/// Prints one line whatever happens; the status is 0 for an inspection and 1 for a refusal.
pub(crate) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let root = args.root.as_ref().unwrap_or(&args.directory);
    let line = match Directory::beneath(root, &args.directory) {
        Ok(directory) => {
            let sandbox = Some(sandbox::enter(directory.root()));
            let outcome =
                inspect(&directory).map_or_else(InspectionOutcome::Error, InspectionOutcome::Inspection);
            Line { outcome, sandbox }
        }
        Err(error) => {
            let message = format!("the directory cannot be opened: {error}");
            let refusal = Refusal::new(RefusalReason::Unresolvable, &message);
            Line { outcome: InspectionOutcome::Error(refusal), sandbox: None }
        }
    };
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, &line).context("failed to print the answer")?;
    output.write_all(b"\n").context("failed to print the answer")?;
    match line.outcome {
        InspectionOutcome::Inspection(_) => Ok(()),
        InspectionOutcome::Error(refusal) => bail!(refusal.message),
    }
}

fn inspect(directory: &Directory) -> Result<Inspection, Refusal> {
    let checkpoint = Checkpoint::read(directory).map_err(|error| error.refusal())?;
    check_text(directory)?;
    Ok(checkpoint.inspection)
}

/// Parses tokenizer and chat template as the engine will, so that a bad one is refused before a replica exists.
fn check_text(directory: &Directory) -> Result<(), Refusal> {
    if let Some(text) = GgufText::read(directory).map_err(|error| error.refusal())? {
        return parse_text(&TextFiles::from(text));
    }
    let names = directory.names().map_err(|error| unreadable("the directory", &error))?;
    let read = |name: &str| -> Result<Option<Vec<u8>>, Refusal> {
        if !names.contains(name) {
            return Ok(None);
        }
        directory.prefix(name, TOKENIZER_BYTES_MAX).map(Some).map_err(|error| unreadable(name, &error))
    };
    let files = TextFiles {
        tokenizer: read("tokenizer.json")?.unwrap_or_default(),
        tokenizer_config: read("tokenizer_config.json")?,
        generation_config: read("generation_config.json")?,
        config: read("config.json")?,
        chat_template: read("chat_template.jinja")?,
    };
    parse_text(&files)
}

fn parse_text(files: &TextFiles) -> Result<(), Refusal> {
    match Text::from_files(files, jiff::Zoned::now) {
        Ok(_) => Ok(()),
        Err(error @ (TextError::Read { .. } | TextError::TooLarge { .. })) => {
            Err(Refusal::new(RefusalReason::Unresolvable, &error.to_string()))
        }
        Err(error) => Err(Refusal::new(RefusalReason::UnsupportedModel, &error.to_string())),
    }
}

fn unreadable(name: &str, error: &io::Error) -> Refusal {
    Refusal::new(RefusalReason::Unresolvable, &format!("{name} cannot be read: {error}"))
}
