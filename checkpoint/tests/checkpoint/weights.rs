//! Headers of weight files, the index of shards, and the claim of every tensor.

use crate::support::{config, config_with, file_of, parsed, safetensors, tensors};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::json;
use sparkherd_checkpoint::{Dtype, Facts, HEADER_BYTES_MAX, Shard, ShardMap, TensorIndex, header_bytes};

fn shard(file: &[u8]) -> Result<Shard, String> {
    Shard::parse("model.safetensors", file.len() as u64, file).map_err(|error| error.to_string())
}

fn index(tensors: &[(String, &str, Vec<u64>)]) -> TensorIndex {
    TensorIndex::new(vec![shard(&safetensors(tensors)).expect("valid")], None).expect("valid")
}

#[test]
fn offsets_are_from_the_start_of_the_file() {
    let header = r#"{"b":{"dtype":"F16","shape":[2,3],"data_offsets":[4,16]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}} "#;
    let file = file_of(header, 16);
    let index = TensorIndex::new(vec![shard(&file).expect("valid")], None).expect("valid");
    let tensor = index.get("b").expect("there");
    assert_eq!(tensor.offset_bytes, 8 + header.len() as u64 + 4);
    assert_eq!((tensor.bytes, tensor.dtype, tensor.shape.as_slice()), (12, Dtype::F16, [2, 3].as_slice()));
    assert_eq!(index.get("a").expect("there").bytes, 4);
    assert_eq!(index.len(), 2);
}

#[test]
fn spoiled_headers_are_refused() {
    let one = |entry: &str| format!(r#"{{"a":{entry}}}"#);
    let cases = [
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 12, "tensors end at byte 70 of a file of 74 bytes"),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 4, "tensors end at byte 70 of a file of 66 bytes"),
        (one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#), 8, "tensor \"a\" lies at 0..8, which its shape and type do not fill"),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#), 12, "tensor \"a\" starts at 4, but the one before it ends at 0"),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,-8]}"#), 8, "header is not valid"),
        (one(r#"{"dtype":"I64","shape":[1],"data_offsets":[0,8]}"#), 8, "tensor \"a\" is stored as \"I64\"; supported: F32, F16, BF16"),
        (one(r#"{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}"#), 0, "tensor \"a\" lies at 0..0"),
        (one(r#"{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}"#), 4, "tensor \"a\" has 9 dimensions"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}"#), 4, "unknown field"),
        (one(r#"{"dtype":"F32","shape":[1]}"#), 4, "missing field"),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.to_owned(), 8, "key \"a\" occurs twice"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#.to_owned(), 8, "tensor \"b\" starts at 4, but the one before it ends at 8"),
        (r#"{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#.to_owned(), 4, "name is empty"),
        (" {}".to_owned(), 0, "header does not start with an object"),
        (r#"{"__metadata__":{"a":1}}"#.to_owned(), 0, "header is not valid"),
    ];
    for (header, data_bytes, message) in cases {
        let error = shard(&file_of(&header, data_bytes)).expect_err(&header);
        assert!(error.contains(message), "{header}: {error}");
    }
}

#[test]
fn the_length_is_checked_before_anything_is_read() {
    let message = |length: u64, file_bytes| {
        header_bytes(length.to_le_bytes(), file_bytes).map_err(|error| error.to_string())
    };
    assert_eq!(message(10, 18), Ok(10));
    assert_eq!(message(11, 18), Err("header of 11 bytes does not fit the file of 18 bytes".to_owned()));
    assert_eq!(
        message(u64::MAX, 18),
        Err(format!("header of {} bytes does not fit the file of 18 bytes", u64::MAX))
    );
    assert_eq!(message(0, 7), Err("file of 7 bytes is too short for a safetensors header".to_owned()));
    let error = message(HEADER_BYTES_MAX + 1, u64::MAX).expect_err("too long");
    assert!(error.contains("longer than the limit"), "{error}");
}

#[test]
fn shard_names_are_plain() {
    for name in [
        "../model.safetensors",
        "/etc/x.safetensors",
        "a/b.safetensors",
        "a\\b.safetensors",
        ".safetensors",
        "model.bin",
        "a\u{0}.safetensors",
        "",
    ] {
        let text = json!({"weight_map": {"a": name}}).to_string();
        let error = ShardMap::parse(text.as_bytes()).expect_err(name).to_string();
        assert!(error.contains("is not a plain .safetensors file name"), "{error}");
    }
    ShardMap::parse(br#"{"weight_map": {}}"#).expect_err("no shards");
    ShardMap::parse(br#"{"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}}"#).expect_err("twice");
}

#[test]
fn map_and_headers_must_agree() {
    let file = |name: &str, tensor: &str| {
        let bytes = safetensors(&[(tensor.to_owned(), "F32", vec![1])]);
        Shard::parse(name, bytes.len() as u64, &bytes).expect("valid")
    };
    let map = |text: &str| ShardMap::parse(text.as_bytes()).expect("valid");
    let two = map(r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#);
    let message = |shards, map: Option<&ShardMap>| {
        TensorIndex::new(shards, map).map(|index| index.len()).map_err(|error| error.to_string())
    };
    assert_eq!(message(vec![file("1.safetensors", "a"), file("2.safetensors", "b")], Some(&two)), Ok(2));
    assert_eq!(
        message(vec![file("1.safetensors", "b"), file("2.safetensors", "a")], Some(&two)),
        Err("tensor \"b\" is in 1.safetensors, where the index does not place it".to_owned())
    );
    assert_eq!(
        message(vec![file("1.safetensors", "a")], Some(&two)),
        Err("tensor \"b\" is placed in 2.safetensors, which does not have it".to_owned())
    );
    assert_eq!(
        message(vec![file("1.safetensors", "a"), file("2.safetensors", "a")], None),
        Err("tensor \"a\" occurs in more than one file".to_owned())
    );
}

#[test]
fn every_tensor_is_claimed_exactly_once() {
    let model = parsed(&config());
    let all = tensors(&config());
    assert_eq!(all.len(), 3 + 2 * 9);
    let complete = index(&all);
    let claimed = complete.claim(&model).expect("complete");
    assert_eq!(claimed.first().expect("some").name, "model.embed_tokens.weight");
    assert_eq!(claimed.last().expect("some").name, "lm_head.weight");

    let refusal =
        |tensors: &[(String, &str, Vec<u64>)]| index(tensors).claim(&model).expect_err("refused").to_string();
    let missing = refusal(&all[1..]);
    assert_eq!(missing, "1 of 21 tensors are missing: \"model.embed_tokens.weight\"");
    assert!(refusal(&all[..3]).ends_with("and 14 more"), "{}", refusal(&all[..3]));
    let with = |name: &str, shape: Vec<u64>| {
        let mut tensors = all.clone();
        tensors.push((name.to_owned(), "F32", shape));
        tensors
    };
    assert_eq!(
        refusal(&with("model.layers.0.self_attn.q_proj.bias", vec![8])),
        "1 tensors are not part of the architecture: \"model.layers.0.self_attn.q_proj.bias\""
    );
    let mut wrong = all.clone();
    wrong[2].2 = vec![8, 4];
    assert_eq!(
        refusal(&wrong),
        "tensor \"model.layers.0.self_attn.q_proj.weight\" has shape [8, 4], the configuration makes it [8, 8]"
    );
    index(&with("model.layers.0.self_attn.rotary_emb.inv_freq", vec![1]))
        .claim(&model)
        .expect("a known buffer");
}

#[test]
fn a_tied_output_projection_is_not_counted() {
    let tied = config_with("tie_word_embeddings", json!(true));
    let model = parsed(&tied);
    let with_copy = index(&tensors(&config()));
    let without = index(&tensors(&tied));
    let facts = |index: &TensorIndex| Facts::new(&model, index, 100).expect("valid");
    assert_eq!(facts(&with_copy), facts(&without));
    assert_eq!(facts(&without).parameters, 32 * 8 + 8 + 2 * (2 * 8 + 2 * 64 + 2 * 32 + 3 * 128));
}

#[test]
fn facts_pad_each_tensor_and_name_the_type_of_most_bytes() {
    let mut mixed = tensors(&config());
    mixed[1].1 = "F32";
    let facts = Facts::new(&parsed(&config()), &index(&mixed), 7).expect("valid");
    assert_eq!(facts.dtype, Dtype::Bf16);
    // 512 bytes for embedding and head; per layer 6 tensors of at most 256 bytes and one of 128 bytes, padded, and 3 of 256.
    assert_eq!(facts.weight_bytes, 512 + 2 * 9 * 256 + 256 + 512);
    assert_eq!((facts.layers, facts.attention_heads, facts.kv_heads, facts.head_dim), (2, 4, 2, 2));
    assert_eq!(facts.tokenizer_bytes, 7);
}

/// The same cases in every run.
fn seeded() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(3),
        failure_persistence: None,
        cases: 2000,
        ..ProptestConfig::default()
    }
}

/// Every byte after the header belongs to exactly one tensor, of the length its shape says.
fn assert_consistent(file: &[u8], shard: Shard) -> Result<(), TestCaseError> {
    let index = TensorIndex::new(vec![shard], None).expect("names are unique");
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (_, tensor) in index.iter() {
        prop_assert_eq!(tensor.shape.iter().product::<u64>() * tensor.dtype.block_bytes(), tensor.bytes);
        ranges.push((tensor.offset_bytes, tensor.offset_bytes + tensor.bytes));
    }
    ranges.sort_unstable();
    let header_end = 8 + u64::from_le_bytes(*file.first_chunk().expect("parsed"));
    let mut end = header_end;
    for (from, to) in ranges {
        prop_assert_eq!(from, end);
        end = to;
    }
    prop_assert_eq!(end, file.len() as u64);
    Ok(())
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\{\\}\\[\\]\":,a-z0-9 .-]{0,120}") {
        let _ = shard(&bytes);
        let _ = shard(&file_of(&text, 8));
        let _ = ShardMap::parse(text.as_bytes());
        let _ = sparkherd_checkpoint::ModelConfig::parse(text.as_bytes());
    }

    #[test]
    fn a_mutated_file_is_refused_or_consistent(at in 0_usize..220, value: u8, length_change in -8_i64..8) {
        let mut file = safetensors(&[("a".to_owned(), "F32", vec![2, 3]), ("b".to_owned(), "BF16", vec![4])]);
        let position = at % file.len();
        file[position] = value;
        let bytes = file.len().saturating_add_signed(isize::try_from(length_change).expect("small"));
        file.resize(bytes, 0);
        if let Ok(shard) = shard(&file) {
            assert_consistent(&file, shard)?;
        }
    }

    #[test]
    fn a_mutated_config_is_refused_or_bounded(at: prop::sample::Index, value in prop_oneof![any::<u8>(), 0x30_u8..0x3a]) {
        let mut text = config().to_string().into_bytes();
        let position = at.index(text.len());
        text[position] = value;
        if let Ok(model) = sparkherd_checkpoint::ModelConfig::parse(&text) {
            prop_assert!(model.heads % model.kv_heads == 0 && model.head_dim % 2 == 0);
            prop_assert!(model.eos_token_ids.iter().all(|id| *id < model.vocab_size));
        }
    }
}
