//! Logits and greedy tokens of transformers, in `tests/goldens` (its README says how they were made).

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde::Deserialize;
use sparkherd_checkpoint::Requantize;
use sparkherd_engine::{
    BackendChoice, Batch, BatchSequence, ForwardPass, LoadedModel, SpecialTokenText, Text, Wants,
    sample::PromptLogprobs,
};
use sparkherd_footprint::KvDtype;

use crate::session::{self, Sequence, bits, greedy, largest_difference};

/// Logits spread over tens; transformers' own float32 is within 6e-5 of its float64 here.
const BOUND_F32: f32 = 5e-4;
/// Two right computations may round a key or a value apart by one BF16 step; 0.0073 was seen between float32 and float64.
const BOUND_BF16: f32 = 2e-2;

/// The integer dot products of the CPU round activations to 8 bits, 0.4 % of the largest in 32, before every product;
/// over two layers of peaked attention that is this part of the logits' own spread. The oracle, on the same blocks, does
/// not round and keeps the bounds above.
const BOUND_ROUNDED: f32 = 0.06;

/// How far logits may be from transformers'.
#[derive(Clone, Copy)]
enum Agreement {
    /// Every logit within the bound, and the same greedy tokens.
    Each(f32),
    /// The difference's norm within this part of the norm of the logits around their mean.
    Whole(f32),
}

impl Agreement {
    fn check(self, got: &[f32], wanted: &[f32], named: &str) {
        let (error, bound) = match self {
            Self::Each(bound) => (largest_difference(got, wanted), bound),
            Self::Whole(bound) => {
                let mean = wanted.iter().sum::<f32>() / wanted.len() as f32;
                let spread = wanted.iter().map(|wanted| (wanted - mean).powi(2)).sum::<f32>().sqrt();
                let difference =
                    got.iter().zip(wanted).map(|(got, wanted)| (got - wanted).powi(2)).sum::<f32>().sqrt();
                (difference / spread, bound)
            }
        };
        assert!(error <= bound, "{named}: {error:e}");
    }
}

#[derive(Deserialize)]
struct Golden {
    /// Directory of the checkpoint, from the root of the repository.
    checkpoint: PathBuf,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt_tokens: Vec<u32>,
    greedy_tokens: Vec<u32>,
    logit_positions: Vec<usize>,
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("goldens")
}

fn load(golden: &Golden, kv_dtype: KvDtype, backend: BackendChoice, requantize: Requantize) -> LoadedModel {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&golden.checkpoint);
    let mut config = session::config(&directory, backend, kv_dtype, 1);
    // Admitted as stored, which is more.
    config.serving.requantize = requantize;
    session::load(&config).unwrap()
}

/// The log-probabilities of all tokens as one prompt, in chunks, against the log-softmax of the rows that are stored.
fn compare_logprobs(model: &mut LoadedModel, case: &Case, rows: &[f32], bound: f32) {
    let tokens = [&case.prompt_tokens[..], &case.greedy_tokens[..]].concat();
    let vocab_size = rows.len() / case.logit_positions.len();
    for chunk in [1, 5, model.logit_rows_max()] {
        let mut logprobs = PromptLogprobs::new(&tokens, 1);
        for (index, part) in tokens.chunks(chunk).enumerate() {
            let position = (index * chunk) as u32;
            let sequences = vec![BatchSequence {
                token_count: part.len() as u32,
                position,
                block_table: (0..tokens.len().div_ceil(16) as u32).collect(),
                wants: Wants::EveryLogits,
            }];
            let output = model.forward(&Batch { tokens: part.to_vec(), sequences }).unwrap();
            logprobs.push(position, output.logits).unwrap();
        }
        let entries = logprobs.into_entries();
        assert_eq!(entries.len(), tokens.len() - 1);
        for (position, row) in case.logit_positions.iter().zip(rows.chunks(vocab_size)) {
            let Some(entry) = entries.get(*position) else { continue };
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            let wanted = f64::from(row[tokens[position + 1] as usize]) - sum.ln();
            let difference = (f64::from(entry.logprob) - wanted).abs();
            assert!(
                difference <= f64::from(2.0 * bound),
                "{} position {position}: {difference:e}",
                case.name
            );
            if position + 1 >= case.prompt_tokens.len() {
                assert_eq!(entry.top[0].0, greedy(row));
            }
        }
    }
}

fn compare(
    checkpoint: &str,
    variant: &str,
    kv_dtype: KvDtype,
    agreement: Agreement,
    backend: &BackendChoice,
    requantize: Requantize,
) {
    let golden: Golden =
        serde_json::from_slice(&fs::read(goldens().join(format!("{checkpoint}.json"))).unwrap()).unwrap();
    let stored = fs::read(goldens().join(format!("{checkpoint}.safetensors"))).unwrap();
    let stored = SafeTensors::deserialize(&stored).unwrap();
    let mut model = load(&golden, kv_dtype, backend.clone(), requantize);
    for case in &golden.cases {
        let rows: Vec<f32> = stored
            .tensor(&format!("{}.{variant}", case.name))
            .unwrap()
            .data()
            .as_chunks()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let vocab_size = rows.len() / case.logit_positions.len();
        let tokens = [&case.prompt_tokens[..], &case.greedy_tokens[..]].concat();
        let mut sequence = Sequence::new(0, 1, tokens.len(), tokens.clone());
        let mut checked = 0;
        for position in 0..tokens.len() {
            let logits = session::step(&mut model, &mut [(&mut sequence, 1)]).remove(0);
            let named = format!("{checkpoint} {} {variant} position {position}", case.name);
            let is_greedy = matches!(agreement, Agreement::Each(_));
            if is_greedy && position + 1 >= case.prompt_tokens.len() && position + 1 < tokens.len() {
                assert_eq!(greedy(&logits), tokens[position + 1], "{named}");
            }
            if let Some(index) = case.logit_positions.iter().position(|wanted| *wanted == position) {
                let wanted = &rows[index * vocab_size..(index + 1) * vocab_size];
                agreement.check(&logits, wanted, &named);
                checked += 1;
            }
        }
        assert_eq!(checked, case.logit_positions.len());
        if let Agreement::Each(bound) = agreement {
            compare_logprobs(&mut model, case, &rows, bound);
        }
        // The same tokens as one prompt, up to the last row that is stored.
        let last = case.logit_positions.len() - 1;
        let prompt = tokens[..=case.logit_positions[last]].to_vec();
        let mut again = Sequence::new(0, 1, prompt.len(), prompt.clone());
        let whole = session::logits(&mut model, &mut again, prompt.len());
        agreement.check(&whole, &rows[last * vocab_size..], &format!("{checkpoint} {} {variant}", case.name));
        let mut chunked = Sequence::new(0, 1, prompt.len(), prompt);
        if !matches!(backend, BackendChoice::Oracle) {
            assert_eq!(bits(&session::logits(&mut model, &mut chunked, 5)), bits(&whole));
        }
    }
}

fn compare_all(checkpoint: &str) {
    for backend in [BackendChoice::Cpu, BackendChoice::Oracle] {
        let each = Agreement::Each(BOUND_F32);
        compare(checkpoint, "f32", KvDtype::F32, each, &backend, Requantize::None);
        compare(
            checkpoint,
            "kv_bf16",
            KvDtype::Bf16,
            Agreement::Each(BOUND_BF16),
            &backend,
            Requantize::None,
        );
    }
}

/// Of a checkpoint in a block format, or that becomes one.
fn compare_blocks(checkpoint: &str, requantize: Requantize) {
    for (variant, kv_dtype, bound) in
        [("f32", KvDtype::F32, BOUND_F32), ("kv_bf16", KvDtype::Bf16, BOUND_BF16)]
    {
        compare(checkpoint, variant, kv_dtype, Agreement::Each(bound), &BackendChoice::Oracle, requantize);
        compare(
            checkpoint,
            variant,
            kv_dtype,
            Agreement::Whole(BOUND_ROUNDED),
            &BackendChoice::Cpu,
            requantize,
        );
    }
}

#[test]
fn llama3_rope_in_two_bf16_shards_matches_transformers() {
    compare_all("tiny-llama3-bf16");
}

#[test]
fn tied_f16_matches_transformers() {
    compare_all("tiny-tied-f16");
}

#[test]
fn untied_f32_with_default_head_size_matches_transformers() {
    compare_all("tiny-untied-f32");
}

#[test]
fn qwen2_with_biases_and_yarn_matches_transformers() {
    compare_all("tiny-qwen2-bf16");
}

#[test]
fn qwen3_with_normalised_heads_matches_transformers() {
    compare_all("tiny-qwen3-bf16");
}

#[test]
fn mistral_without_a_window_matches_transformers() {
    compare_all("tiny-mistral-f16");
}

#[test]
fn a_gguf_of_k_quants_with_interleaved_heads_and_divided_pairs_matches_transformers() {
    compare_blocks("tiny-gguf-k", Requantize::None);
}

#[test]
fn a_gguf_of_q8_0_with_biases_and_yarn_matches_transformers() {
    compare_blocks("tiny-gguf-q8_0", Requantize::None);
}

#[test]
fn a_gguf_of_bf16_and_f16_matches_transformers() {
    compare_all("tiny-gguf-bf16");
}

#[test]
fn a_gguf_of_q4_0_matches_transformers() {
    compare_blocks("tiny-gguf-q4_0", Requantize::None);
}

#[test]
fn bf16_requantised_while_it_is_read_matches_transformers_on_the_rounded_weights() {
    compare_blocks("tiny-int8", Requantize::Int8);
}

/// Tokens and text of the tokenizer that the metadata was written from.
#[test]
fn tokenizers_in_ggufs_give_the_tokens_of_their_originals() {
    #[derive(Deserialize)]
    struct Sample {
        text: String,
        tokens: Vec<u32>,
        decoded: String,
    }
    for checkpoint in ["tiny-gguf-k", "tiny-gguf-q8_0", "tiny-gguf-q4_0"] {
        let stored = fs::read(goldens().join(format!("{checkpoint}.texts.json"))).unwrap();
        let samples: Vec<Sample> = serde_json::from_slice(&stored).unwrap();
        let text = Text::load(&goldens().join(checkpoint)).unwrap();
        for Sample { text: sample, tokens, decoded } in samples {
            assert_eq!(text.encode(&sample, true).unwrap(), tokens, "{checkpoint} {sample:?}");
            assert_eq!(
                text.decode(&tokens, SpecialTokenText::Hidden).unwrap(),
                decoded,
                "{checkpoint} {sample:?}"
            );
        }
        assert!(text.has_chat_template(), "{checkpoint}");
    }
}

#[test]
fn the_demo_model_matches_transformers() {
    compare_all("ask-sparkherd");
}
