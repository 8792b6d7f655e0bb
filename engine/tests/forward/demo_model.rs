//! The demo's model: it knows its 20 questions by heart, and every one of its tensors is needed for that.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;
use sparkherd_engine::text::{ChatPrompt, SpecialTokenText, Text};
use sparkherd_engine::{BackendChoice, LoadedModel};
use sparkherd_footprint::KvDtype;

use crate::session::{self, Sequence, greedy};

const WEIGHTS: &str = "model.safetensors";

#[derive(Deserialize)]
struct Known {
    question: String,
    answer: String,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd")
}

/// Prompt and answer of each question, as tokens; the answer with its end.
fn known(text: &Text) -> Vec<(Vec<u32>, Vec<u32>)> {
    let lines = fs::read_to_string(directory().join("exact_answers.jsonl")).unwrap();
    let known = lines.lines().map(|line| {
        let Known { question, answer } = serde_json::from_str(line).unwrap();
        let messages = vec![serde_json::json!({"role": "user", "content": question})];
        let prompt = text
            .encode_chat(&ChatPrompt { messages, add_generation_prompt: true, ..ChatPrompt::default() })
            .unwrap();
        let answer = [text.encode(&answer, false).unwrap(), text.eos_token_ids().to_vec()].concat();
        (prompt, answer)
    });
    known.collect()
}

/// Whether greedy decoding of `prompt` gives `answer`: each token wins after the ones before it.
fn answers(model: &mut LoadedModel, prompt: &[u32], answer: &[u32]) -> bool {
    let tokens = [prompt, answer].concat();
    let mut sequence = Sequence::new(0, 1, tokens.len(), tokens);
    let mut logits = session::step(model, &mut [(&mut sequence, prompt.len())]).remove(0);
    for token in answer {
        if greedy(&logits) != *token {
            return false;
        }
        logits = session::step(model, &mut [(&mut sequence, 1)]).remove(0);
    }
    true
}

fn load(directory: &Path) -> LoadedModel {
    session::load(&session::config(directory, BackendChoice::Cpu, KvDtype::Bf16, 1)).unwrap()
}

#[test]
fn twenty_answers_are_exact_and_no_tensor_can_be_missed() {
    let text = Text::load(&directory()).unwrap();
    let known = known(&text);
    assert_eq!(known.len(), 20);
    let mut model = load(&directory());
    for (prompt, answer) in &known {
        assert!(answers(&mut model, prompt, answer), "{:?}", text.decode(prompt, SpecialTokenText::Shown));
    }

    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let whole = fs::read(directory().join(WEIGHTS)).unwrap();
    let (header_bytes, metadata) = SafeTensors::read_metadata(&whole).unwrap();
    for (name, tensor) in metadata.tensors() {
        let (begin, end) = tensor.data_offsets;
        let mut spoiled = whole.clone();
        // The header's length takes eight bytes before the header.
        spoiled[8 + header_bytes + begin..8 + header_bytes + end].fill(0);
        fs::write(copy.path().join(WEIGHTS), spoiled).unwrap();
        let mut model = load(copy.path());
        let changed = known.iter().any(|(prompt, answer)| !answers(&mut model, prompt, answer));
        assert!(changed, "nothing asks for {name}");
    }
}
