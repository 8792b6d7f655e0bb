//! Resident memory of tokenizer and grammar compiler: what `TOKENIZER_HOST_BYTES_PER_FILE_BYTE` and
//! `GRAMMAR_HOST_BYTES_PER_VOCABULARY_TOKEN` are chosen from.
//!
//! `cargo bench --workspace --bench vocabulary_memory --profile dev -- [MODEL_DIRECTORY…]`, without directories on generated
//! vocabularies. Each figure is the difference of two processes: one that has read the tokenizer, and one that has also
//! made the compiler and compiled a grammar.

#![expect(clippy::print_stdout, reason = "prints its result")]
#![expect(clippy::cast_possible_truncation, reason = "letters are below 26")]

use std::{env, error::Error, fs, path::Path, process::Command};

use serde_json::{Map, Value, json};
use sparkherd_engine::{ClientKey, GrammarSource, Text, grammar::GrammarCompiler};
use sparkherd_footprint::GrammarRoom;

const VOCABULARIES: [u32; 2] = [32_000, 128_000];
/// Of the letters of a token. No two share much, so that these are worse than any vocabulary of words.
const LETTERS_MAX: [u32; 2] = [7, 13];
/// More than any vocabulary in use.
const TOKENS_MAX: u32 = 1 << 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.as_slice() {
        [child, directory, with_grammar] if child == "child" => {
            println!("{}", resident_bytes_with(Path::new(directory), with_grammar == "1")?);
            Ok(())
        }
        [] => generated(),
        directories => directories.iter().try_for_each(|directory| compare(directory, Path::new(directory))),
    }
}

fn generated() -> Result<()> {
    let directory = tempfile::tempdir()?;
    for tokens in VOCABULARIES {
        for letters_max in LETTERS_MAX {
            fs::write(directory.path().join("tokenizer.json"), tokenizer(tokens, letters_max))?;
            compare(&format!("of 1 to {letters_max} letters"), directory.path())?;
        }
    }
    Ok(())
}

fn compare(name: &str, directory: &Path) -> Result<()> {
    let tokens = vocab_size(&Text::load(directory)?);
    let (without, with) = (child(directory, "0")?, child(directory, "1")?);
    let bytes = with.saturating_sub(without);
    println!(
        "{name}: {tokens} tokens, tokenizer {:.1} MiB, grammar compiler {:.1} MiB, {} bytes per token",
        without as f64 / 1_048_576.0,
        bytes as f64 / 1_048_576.0,
        bytes / u64::from(tokens),
    );
    Ok(())
}

fn vocab_size(text: &Text) -> u32 {
    (0..TOKENS_MAX).rev().find(|token| text.token_bytes(*token).is_some()).map_or(0, |last| last + 1)
}

fn child(directory: &Path, with_grammar: &str) -> Result<u64> {
    let output = Command::new(env::current_exe()?).arg("child").arg(directory).arg(with_grammar).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

fn resident_bytes_with(directory: &Path, with_grammar: bool) -> Result<u64> {
    let text = Text::load(directory)?;
    let compiler = with_grammar
        .then(|| GrammarCompiler::new(&text, vocab_size(&text), GrammarRoom::new(1, 0)))
        .transpose()?;
    let grammar = compiler
        .as_ref()
        .map(|compiler| compiler.compile(&GrammarSource::JsonObject, ClientKey::default()))
        .transpose()?;
    let resident = resident_bytes();
    drop((grammar, compiler, text));
    resident
}

fn resident_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Byte-level BPE without merges: all letters, then seeded words, half of them behind a blank.
fn tokenizer(tokens: u32, letters_max: u32) -> String {
    let mut vocab: Map<String, Value> = Map::new();
    for letter in (0x21..0x7F_u8).map(char::from).chain(['\u{120}']) {
        let token = vocab.len();
        vocab.insert(letter.to_string(), json!(token));
    }
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        u32::try_from(state >> 33).unwrap_or(0) % below
    };
    while vocab.len() < tokens as usize {
        let blank = ["", "\u{120}"][random(2) as usize];
        let word: String = (0..=random(letters_max)).map(|_| char::from(b'a' + random(26) as u8)).collect();
        let token = vocab.len();
        vocab.entry(format!("{blank}{word}")).or_insert_with(|| json!(token));
    }
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
    .to_string()
}
