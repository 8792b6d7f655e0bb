//! `sparkherd key`: API keys. The cluster stores only their hashes.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};

use anyhow::{Context as _, ensure};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What every key begins with, so that secret scanners and people know one when they see it.
const PREFIX: &str = "sk-spark-";
/// 256 bits: nothing slower than SHA-256 is needed to keep such a key from being found by its hash.
const SECRET_BYTES: usize = 32;
/// Far beyond any key; bounds what is read from standard input.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// Make an API key and the hash to store, or hash one you have.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print one JSON object.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read a key from standard input and print its hash.
    Hash,
}

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    sha256: String,
}

pub(crate) fn run(args: &KeyArgs) -> anyhow::Result<()> {
    let answer = match args.action {
        None => {
            let mut secret = [0; SECRET_BYTES];
            let filled = getrandom(&mut secret, GetRandomFlags::empty()).context("no random bytes")?;
            ensure!(filled == SECRET_BYTES, "only {filled} random bytes");
            let key = format!("{PREFIX}{}", hex(&secret));
            Answer { sha256: hash(&key), key: Some(key) }
        }
        Some(Action::Hash) => {
            let mut key = String::new();
            io::stdin().take(KEY_BYTES_MAX).read_to_string(&mut key).context("cannot read the key")?;
            let key = key.trim();
            ensure!(!key.is_empty(), "no key on standard input");
            Answer { key: None, sha256: hash(key) }
        }
    };
    let text = if args.json { serde_json::to_string(&answer)? } else { lines(&answer) };
    writeln!(io::stdout(), "{text}").context("cannot print")
}

fn lines(Answer { key, sha256 }: &Answer) -> String {
    match key {
        Some(key) => format!("key: {key}\nsha256: {sha256}"),
        None => format!("sha256: {sha256}"),
    }
}

fn hash(key: &str) -> String {
    hex(&Sha256::digest(key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
