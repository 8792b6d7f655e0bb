//! A directory as a whole: which files count, what is refused for which reason, and the digest.

use crate::support::{Memory, config, config_with, safetensors, tensors};
use serde_json::json;
use sparkherd_checkpoint::{Checkpoint, Inspection, InspectionOutcome, RefusalReason, TOKENIZER_BYTES_MAX};

fn inspect(directory: &Memory) -> Inspection {
    Checkpoint::read(directory).expect("valid").inspection
}

fn refusal(directory: &Memory) -> (RefusalReason, String) {
    let refusal = Checkpoint::read(directory).expect_err("refused").refusal();
    (refusal.reason, refusal.message)
}

#[test]
fn one_file_and_shards_give_the_same_facts() {
    let single = inspect(&Memory::checkpoint());
    let sharded = inspect(&Memory::sharded(5));
    assert_eq!(single.facts, sharded.facts);
    assert_ne!(single.digest, sharded.digest);
    let names: Vec<&str> = single.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(sharded.files.len(), 5);
}

#[test]
fn what_is_damaged_or_missing_may_be_whole_elsewhere() {
    let mut cases = Vec::new();
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        let mut without = Memory::checkpoint();
        without.0.remove(name);
        cases.push((without, format!("{name} is missing")));
    }
    let mut truncated = Memory::checkpoint();
    truncated.0.get_mut("model.safetensors").expect("there").truncate(2000);
    cases.push((truncated, "model.safetensors: ".to_owned()));
    let mut empty = Memory::checkpoint();
    empty.put("model.safetensors", "");
    cases.push((empty, "file of 0 bytes is too short".to_owned()));
    let mut no_json = Memory::checkpoint();
    no_json.put("config.json", "<html>");
    cases.push((no_json, "config.json: not valid JSON".to_owned()));
    let mut shard_gone = Memory::sharded(5);
    shard_gone.0.remove("model-2-of-2.safetensors");
    cases.push((shard_gone, "model-2-of-2.safetensors cannot be read: no such file".to_owned()));
    let mut huge = Memory::checkpoint();
    huge.put("tokenizer.json", vec![0; usize::try_from(TOKENIZER_BYTES_MAX).expect("fits") + 1]);
    cases.push((huge, "tokenizer.json has 67108865 bytes, more than the limit of 67108864".to_owned()));
    let mut both = Memory::sharded(5);
    both.put("model.safetensors", safetensors(&tensors(&config())));
    cases.push((both, "which one counts is not clear".to_owned()));
    for (directory, expected) in cases {
        let (reason, message) = refusal(&directory);
        assert_eq!(reason, RefusalReason::Unresolvable, "{message}");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn what_is_whole_but_not_computed_is_unsupported() {
    let mut pickle = Memory::checkpoint();
    pickle.0.remove("model.safetensors");
    pickle.put("pytorch_model.bin", "x");
    let mut activation = Memory::checkpoint();
    activation.put("config.json", config_with("hidden_act", json!("relu")).to_string());
    let mut integers = Memory::checkpoint();
    let header = r#"{"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#;
    integers.put("model.safetensors", crate::support::file_of(header, 1));
    let mut layers = Memory::checkpoint();
    layers.put("config.json", config_with("num_hidden_layers", json!(3)).to_string());
    let cases = [
        (pickle, "no safetensors weights, only pickle files (\"pytorch_model.bin\")"),
        (activation, "config.json: hidden_act is \"relu\""),
        (integers, "model.safetensors: tensor \"a\" is stored as \"I8\""),
        (layers, "tensors do not match the configuration: 9 of 30 tensors are missing"),
    ];
    for (directory, expected) in cases {
        let (reason, message) = refusal(&directory);
        assert_eq!(reason, RefusalReason::UnsupportedModel, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn any_change_that_an_engine_would_read_changes_the_digest() {
    let original = inspect(&Memory::checkpoint());
    assert_eq!(original.digest, inspect(&Memory::checkpoint()).digest);
    assert_eq!(original.digest.len(), 64);
    let mut weight = Memory::checkpoint();
    *weight.0.get_mut("model.safetensors").and_then(|file| file.last_mut()).expect("there") = 1;
    let mut tokenizer = Memory::checkpoint();
    tokenizer.put("tokenizer.json", "{ }");
    let mut template = Memory::checkpoint();
    template.put("chat_template.jinja", "{{ messages }}");
    for changed in [weight, tokenizer, template] {
        assert_ne!(inspect(&changed).digest, original.digest);
    }
    let mut unread = Memory::checkpoint();
    unread.put("README.md", "words");
    assert_eq!(inspect(&unread).digest, original.digest);
}

#[test]
fn the_line_of_inspect_reads_back() {
    let outcome = InspectionOutcome::Inspection(inspect(&Memory::checkpoint()));
    let line = serde_json::to_string(&outcome).expect("serialises");
    assert!(line.starts_with("{\"inspection\":{\"facts\":{\"architecture\":\"Llama\""), "{line}");
    assert_eq!(serde_json::from_str::<InspectionOutcome>(&line).expect("reads"), outcome);
    let with_sandbox = line.replacen('{', "{\"sandbox\":{\"limits\":true},", 1);
    assert_eq!(serde_json::from_str::<InspectionOutcome>(&with_sandbox).expect("reads"), outcome);
    serde_json::from_str::<InspectionOutcome>("{}").expect_err("says nothing");
    let mut without = Memory::checkpoint();
    without.0.remove("config.json");
    let error = InspectionOutcome::Error(Checkpoint::read(&without).expect_err("refused").refusal());
    assert_eq!(
        serde_json::to_string(&error).expect("serialises"),
        r#"{"error":{"reason":"Unresolvable","message":"config.json is missing"}}"#
    );
}
