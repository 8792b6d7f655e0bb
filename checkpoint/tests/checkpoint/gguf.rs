//! GGUF: what a file may contain, what is refused in which words, and that no bytes do harm.

use crate::gguf_file::{File, Meta};
use crate::support::Memory;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sparkherd_checkpoint::{
    Architecture, Checkpoint, Dtype, GgufHeader, GgufText, OutputHead, RefusalReason, RopeScaling, RowOrder,
};

type Change = fn(&mut File);

fn read(file: &File) -> Checkpoint {
    Checkpoint::read(&directory(file)).expect("valid")
}

fn directory(file: &File) -> Memory {
    let mut directory = Memory::default();
    directory.put("model.gguf", file.bytes());
    directory
}

fn refusal(file: &File) -> (RefusalReason, String) {
    let refusal = Checkpoint::read(&directory(file)).expect_err("refused").refusal();
    (refusal.reason, refusal.message)
}

fn parse(bytes: &[u8]) -> Result<GgufHeader, String> {
    GgufHeader::parse("model.gguf", bytes.len() as u64, bytes).map_err(|error| error.to_string())
}

#[test]
fn a_llama_is_read_under_the_names_of_transformers() {
    let Checkpoint { config, index, inspection, generation } = read(&File::llama());
    assert_eq!((config.architecture, config.head), (Architecture::Llama, OutputHead::Tied));
    assert_eq!((config.layers, config.hidden_size, config.intermediate_size), (1, 64, 32));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (2, 1, 32));
    assert_eq!((config.vocab_size, config.max_context), (6, 128));
    assert_eq!((config.bos_token_id, generation.eos_token_ids), (Some(0), vec![1]));
    let query = index.get("model.layers.0.self_attn.q_proj.weight").expect("there");
    assert_eq!((query.dtype, query.shape.as_slice()), (Dtype::Q8_0, [64, 64].as_slice()));
    assert_eq!(query.row_order, RowOrder::PairsAdjacent { head_dim: 32 });
    let value = index.get("model.layers.0.self_attn.v_proj.weight").expect("there");
    assert_eq!((value.row_order, value.offset_bytes % 32), (RowOrder::AsComputed, 0));
    assert_eq!(inspection.facts.dtype, Dtype::Q8_0);
    assert_eq!(inspection.facts.parameters, 6 * 64 + 64 + (64 + 32 + 32 + 64) * 64 + 3 * 32 * 64 + 2 * 64);
    let text = GgufText::read(&directory(&File::llama())).expect("valid").expect("there");
    assert_eq!(inspection.facts.tokenizer_bytes, text.tokenizer_json.len() as u64);
    assert_eq!(inspection.files.len(), 1);
}

#[test]
fn versions_and_families_that_are_read() {
    let mut old = File::llama();
    old.version = 2;
    assert_eq!(read(&old).config, read(&File::llama()).config);
    let mut separate = File::llama();
    separate.tensors.push(("output.weight".to_owned(), vec![64, 6], 8));
    assert_eq!(read(&separate).config.head, OutputHead::Own);
    let qwen = read(&File::qwen3());
    assert_eq!(qwen.config.architecture, Architecture::Qwen3);
    let query = qwen.index.get("model.layers.0.self_attn.q_proj.weight").expect("there");
    assert_eq!(query.row_order, RowOrder::AsComputed);
    let mut pooled = File::qwen3();
    pooled.set("qwen3.pooling_type", Meta::U32(3));
    assert_eq!(read(&pooled).config.head, OutputHead::Absent);
}

#[test]
fn rotations_are_read() {
    let mut yarn = File::llama();
    yarn.set("llama.rope.scaling.type", Meta::Text("yarn"));
    yarn.set("llama.rope.scaling.factor", Meta::F32(4.0));
    yarn.set("llama.rope.scaling.original_context_length", Meta::U32(64));
    let config = read(&yarn).config;
    assert!(matches!(
        config.rope.scaling,
        RopeScaling::Yarn { original_max_position: 64, truncate: true, .. }
    ));
    assert_eq!(config.max_context, 256);
    let mut pairs = File::llama();
    pairs.tensors.push(("rope_freqs.weight".to_owned(), vec![16], 0));
    let (reason, message) = refusal(&pairs);
    assert_eq!(reason, RefusalReason::UnsupportedModel);
    assert!(
        message.contains("rope_freqs.weight is a list of 16 numbers; must be 16 numbers above 0"),
        "{message}"
    );
    pairs.fill = 0x3f;
    let RopeScaling::Pairs { divisors } = read(&pairs).config.rope.scaling else { panic!("no divisors") };
    assert_eq!(divisors, [f32::from_le_bytes([0x3f; 4]); 16]);
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let cases: [(Change, &str); 17] = [
        (
            |file| file.set("general.architecture", Meta::Text("gemma3")),
            "architecture \"gemma3\" is not supported; supported: llama, qwen2 and qwen3",
        ),
        (
            |file| file.set("llama.attention.clamp_kqv", Meta::F32(8.0)),
            "key \"llama.attention.clamp_kqv\" = 8 is unknown and could change the arithmetic",
        ),
        (|file| file.set("llama.expert_count", Meta::U32(8)), "key \"llama.expert_count\" = 8 is unknown"),
        (
            |file| file.set("llama.attention.causal", Meta::Flag(false)),
            "key \"llama.attention.causal\" = false is unknown",
        ),
        (
            |file| file.set("llama.rope.dimension_count", Meta::U32(16)),
            "llama.rope.dimension_count is 16; must be 32",
        ),
        (|file| file.set("llama.vocab_size", Meta::U32(7)), "llama.vocab_size is 7; must be 6"),
        (
            |file| file.set("llama.rope.scaling.type", Meta::Text("longrope")),
            "llama.rope.scaling.type is \"longrope\"; must be",
        ),
        (
            |file| file.set("llama.attention.head_count", Meta::U32(0)),
            "llama.attention.head_count is 0; must be a whole number from 1 to 1024",
        ),
        (
            |file| file.set("general.type", Meta::Text("adapter")),
            "general.type is \"adapter\"; must be \"model\"",
        ),
        (
            |file| file.set("general.quantization_version", Meta::U32(1)),
            "general.quantization_version is 1; must be 2",
        ),
        (|file| file.set("split.count", Meta::U32(3)), "split.count is 3; must be 1"),
        (|file| file.set("tokenizer.ggml.eos_token_id", Meta::U32(6)), "tokenizer.ggml.eos_token_id is 6"),
        (
            |file| file.set("tokenizer.ggml.pre", Meta::Text("gpt-4o")),
            "tokenizer.ggml.pre is \"gpt-4o\"; supported: llama-bpe, qwen2, tekken",
        ),
        (
            |file| file.set("tokenizer.ggml.model", Meta::Text("bert")),
            "tokenizer.ggml.model is \"bert\"; supported: gpt2, llama",
        ),
        (
            |file| file.set("tokenizer.ggml.add_eos_token", Meta::Flag(true)),
            "tokenizer.ggml.add_eos_token is true; must be false",
        ),
        (
            |file| file.tensors[0].2 = 13,
            "tensor \"token_embd.weight\" is stored as Q5_K; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q6_K",
        ),
        (
            |file| file.tensors.push(("blk.0.attn_q.bias".to_owned(), vec![64], 0)),
            "not part of the architecture: \"model.layers.0.self_attn.q_proj.bias\"",
        ),
    ];
    for (change, expected) in cases {
        let mut file = File::llama();
        change(&mut file);
        let (reason, message) = refusal(&file);
        assert_eq!(reason, RefusalReason::UnsupportedModel, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn damaged_files_are_refused() {
    let whole = File::llama().bytes();
    let spoiled = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&file).expect_err("refused")
    };
    assert_eq!(parse(b"GGU").expect_err("short"), "header ends before it is complete");
    assert_eq!(spoiled(0, b"FUGG"), "file does not begin with GGUF");
    assert_eq!(
        spoiled(4, &1_u32.to_le_bytes()),
        "version 1 is not supported; supported: 2 and 3, little-endian"
    );
    assert_eq!(
        spoiled(4, &3_u32.to_be_bytes()),
        "version 50331648 is not supported; supported: 2 and 3, little-endian"
    );
    assert!(spoiled(8, &u64::MAX.to_le_bytes()).contains("tensors, allowed are 65536"));
    assert!(spoiled(16, &u64::MAX.to_le_bytes()).contains("metadata keys, allowed are 4096"));
    assert!(spoiled(24, &u64::MAX.to_le_bytes()).contains("is longer than the limit"));
    let mut longer = whole.clone();
    longer.extend([0; 64]);
    assert!(parse(&longer).expect_err("longer").contains("tensor data ends at byte"));
    assert!(parse(&whole[..whole.len() - 64]).expect_err("shorter").contains("tensor data ends at byte"));

    let cases: [(Change, &str); 8] = [
        (
            |file| file.set("general.alignment", Meta::U32(24)),
            "general.alignment is 24; must be a power of two",
        ),
        (|file| file.repeat("llama.block_count"), "\"llama.block_count\" occurs twice"),
        (|file| file.tensors[1].1 = vec![64, 1, 1, 1, 1], "has 5 dimensions"),
        (
            |file| file.tensors[0].1 = vec![63, 6],
            "a row of 63 columns is no whole number of Q8_0 blocks of 32",
        ),
        (|file| file.tensors[0].1 = vec![64, u64::MAX], "is larger than 64 bits can count"),
        (|file| file.gap = 32, "begins at"),
        (
            |file| {
                file.set(
                    "x",
                    Meta::Raw(9, [9_u32.to_le_bytes().to_vec(), vec![1, 0, 0, 0, 0, 0, 0, 0]].concat()),
                );
            },
            "has a value of type 9, which is not read",
        ),
        (
            |file| file.set("x", Meta::Raw(9, [8_u32.to_le_bytes().to_vec(), vec![255; 8]].concat())),
            "entries of a list, allowed are",
        ),
    ];
    for (change, expected) in cases {
        let mut file = File::llama();
        change(&mut file);
        let (reason, message) = refusal(&file);
        assert_eq!(reason == RefusalReason::Unresolvable, !message.contains("Q5_K"), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_directory_has_one_gguf_and_safetensors_come_first() {
    let mut two = directory(&File::llama());
    two.put("other.gguf", "x");
    let refusal = Checkpoint::read(&two).expect_err("refused").refusal();
    assert_eq!(refusal.reason, RefusalReason::Unresolvable);
    assert!(refusal.message.starts_with("1 GGUF files beside \"model.gguf\""), "{}", refusal.message);
    let mut both = Memory::checkpoint();
    both.put("model.gguf", "x");
    assert_eq!(
        Checkpoint::read(&both).expect("safetensors").inspection,
        Checkpoint::read(&Memory::checkpoint()).expect("safetensors").inspection
    );
    assert_eq!(GgufText::read(&both).expect("not looked at"), None);
}

#[test]
fn vocabularies_that_contradict_themselves_are_refused() {
    let cases: [(Change, &str); 5] = [
        (
            |file| file.set("tokenizer.ggml.token_type", Meta::I32s(vec![1; 5])),
            "tokenizer.ggml.token_type has 5 entries for 6 tokens",
        ),
        (|file| file.set("tokenizer.ggml.tokens", Meta::Texts(vec!["a"; 6])), "token \"a\" occurs twice"),
        (
            |file| file.set("tokenizer.ggml.merges", Meta::Texts(vec!["ab"])),
            "merge \"ab\" is not two pieces with a space between",
        ),
        (
            |file| file.set("tokenizer.ggml.merges", Meta::U32(1)),
            "metadata tokenizer.ggml.merges is missing or not a list of texts",
        ),
        (
            |file| file.set("tokenizer.ggml.model", Meta::Text("llama")),
            "metadata tokenizer.ggml.scores is missing or not a list of numbers",
        ),
    ];
    for (change, expected) in cases {
        let mut file = File::llama();
        change(&mut file);
        let (reason, message) = refusal(&file);
        assert_eq!(reason, RefusalReason::UnsupportedModel, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

/// The same cases in every run.
fn seeded() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { rng_seed: RngSeed::Fixed(5), failure_persistence: None, cases: 2000, ..default }
}

proptest! {
    #![proptest_config(seeded())]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = parse(&[&b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0"[..], &bytes].concat());
    }

    #[test]
    fn a_mutated_file_is_refused_or_consistent(at: prop::sample::Index, value: u8, within_header in 0_usize..1400) {
        let mut file = File::llama().bytes();
        let position = if value % 4 == 0 { at.index(file.len()) } else { within_header };
        file[position] = value;
        let mut directory = Memory::default();
        directory.put("model.gguf", file.clone());
        if let Ok(checkpoint) = Checkpoint::read(&directory) {
            for (_, tensor) in checkpoint.index.iter() {
                prop_assert!(tensor.offset_bytes + tensor.bytes <= file.len() as u64);
                let columns = tensor.shape[tensor.shape.len() - 1];
                let rows: u64 = tensor.shape[..tensor.shape.len() - 1].iter().product();
                prop_assert_eq!(tensor.dtype.row_bytes(columns).map(|bytes| bytes * rows), Ok(tensor.bytes));
            }
        }
    }

    #[test]
    fn every_prefix_asks_for_more(cut: prop::sample::Index) {
        let file = File::llama().bytes();
        let header = parse(&file).expect("valid").bytes;
        let prefix = &file[..cut.index(usize::try_from(header).expect("small") - 32)];
        let error = GgufHeader::parse("model.gguf", file.len() as u64, prefix).expect_err("cut");
        prop_assert_eq!(error.to_string(), "header ends before it is complete");
    }
}

#[test]
fn padding_at_the_end_may_be_missing_and_nothing_else() {
    let mut file = File::llama();
    // 36 bytes, padded to 64.
    file.tensors = vec![("output_norm.weight".to_owned(), vec![9], 0)];
    let whole = file.bytes();
    for (missing, is_whole) in [(0, true), (1, true), (28, true), (29, false), (64, false)] {
        let parsed = parse(&whole[..whole.len() - missing]);
        assert_eq!(parsed.is_ok(), is_whole, "{missing} missing: {parsed:?}");
    }
    assert!(parse(&[&whole[..], &[0]].concat()).is_err(), "a byte too many");
    // A vocabulary alone is a file without tensors.
    file.tensors.clear();
    let vocabulary = file.bytes();
    // Its last value is the number 1, little-endian in 4 bytes.
    let header_bytes = vocabulary.iter().rposition(|byte| *byte != 0).unwrap() + 4;
    for bytes in [&vocabulary[..], &vocabulary[..header_bytes]] {
        assert!(parse(bytes).is_ok(), "{:?}", parse(bytes));
    }
    assert!(parse(&vocabulary[..header_bytes - 1]).is_err());
    assert!(parse(&[&vocabulary[..], &[0; 40]].concat()).is_err(), "bytes that nothing accounts for");
}
