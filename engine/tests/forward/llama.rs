//! A tiny random Llama on all backends, alone, in batches and in chunks.

use sparkherd_engine::backend::cases::Random;
use sparkherd_engine::{
    BackendChoice, Batch, BatchSequence, ForwardError, ForwardPass, LoadedModel, Wants, backend::cpu::Path,
};
use sparkherd_footprint::KvDtype;
use tempfile::TempDir;

use crate::{
    checkpoint::{self, CONTEXT, VOCAB_SIZE},
    session::{self, Sequence, bits, greedy, largest_difference, step},
};

const SEQUENCES: u32 = 16;
/// Largest difference of a logit, which are of size 1 to 3: three layers of roundings in another order.
const BOUND: f32 = 2e-5;
/// With BF16 keys and values a last-bit difference before rounding can become a BF16 step, 2⁻⁸ of a value, in one element.
const BOUND_BF16: f32 = 1e-2;

fn model(directory: &TempDir, backend: BackendChoice, kv_dtype: KvDtype) -> LoadedModel {
    session::load(&session::config(directory.path(), backend, kv_dtype, SEQUENCES)).unwrap()
}

fn tiny() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    checkpoint::write(directory.path(), &checkpoint::tensors(11));
    directory
}

fn sequence(index: u32, tokens: usize) -> Sequence {
    let mut random = Random::new(100 + u64::from(index));
    Sequence::new(index, SEQUENCES, CONTEXT, random.tokens(tokens, VOCAB_SIZE))
}

#[test]
fn cpu_logits_are_within_the_bound_of_the_oracle() {
    let directory = tiny();
    for (kv_dtype, bound) in [(KvDtype::F32, BOUND), (KvDtype::Bf16, BOUND_BF16)] {
        let mut oracle = model(&directory, BackendChoice::Oracle, kv_dtype);
        let wanted = session::logits(&mut oracle, &mut sequence(0, 70), 70);
        assert!(wanted.iter().any(|logit| logit.abs() > 0.5), "logits should spread");
        for path in Path::available() {
            let mut cpu = model(&directory, BackendChoice::CpuPath(path), kv_dtype);
            let got = session::logits(&mut cpu, &mut sequence(0, 70), 70);
            let difference = largest_difference(&got, &wanted);
            assert!(difference <= bound, "{} {kv_dtype:?}: {difference:e}", path.name());
        }
    }
}

#[test]
fn logits_are_bit_equal_under_any_chunking() {
    let directory = tiny();
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16] {
        let mut cpu = model(&directory, BackendChoice::Cpu, kv_dtype);
        let whole = session::logits(&mut cpu, &mut sequence(3, 83), 83);
        for chunk in [1, 7, 16, 40] {
            let chunked = session::logits(&mut cpu, &mut sequence(5, 0).with(&sequence(3, 83)), chunk);
            assert_eq!(bits(&chunked), bits(&whole), "{kv_dtype:?} in chunks of {chunk}");
        }
    }
}

impl Sequence {
    /// Another sequence's tokens in this one's blocks.
    fn with(mut self, other: &Self) -> Self {
        self.tokens.clone_from(&other.tokens);
        self
    }
}

/// Prompts of many lengths, then tokens decoded greedily, some sequences in prefill while others decode.
#[test]
fn logits_alone_are_bit_equal_to_those_in_a_batch_of_sixteen() {
    const DECODED: usize = 5;
    let directory = tiny();
    for kv_dtype in [KvDtype::F32, KvDtype::Bf16] {
        let mut cpu = model(&directory, BackendChoice::Cpu, kv_dtype);
        let lengths: Vec<usize> = (0..SEQUENCES as usize).map(|index| 1 + index * 37 % 50).collect();
        // By sequence, then by tokens decoded.
        let mut alone = Vec::new();
        for (index, length) in (0..SEQUENCES).zip(&lengths) {
            let mut sequence = sequence(index, *length);
            let mut rows = vec![session::logits(&mut cpu, &mut sequence, *length)];
            for _ in 0..DECODED {
                sequence.tokens.push(greedy(&rows[rows.len() - 1]));
                rows.extend(step(&mut cpu, &mut [(&mut sequence, 1)]));
            }
            alone.push(rows.iter().map(|row| bits(row)).collect::<Vec<_>>());
        }
        let mut together: Vec<Sequence> =
            (0..SEQUENCES).zip(&lengths).map(|(index, length)| sequence(index, *length)).collect();
        for decoded in 0..=DECODED {
            let mut work: Vec<(&mut Sequence, usize)> = together
                .iter_mut()
                .zip(&lengths)
                .map(|(sequence, length)| (sequence, if decoded == 0 { *length } else { 1 }))
                .collect();
            let rows = step(&mut cpu, &mut work);
            for (index, row) in rows.iter().enumerate() {
                assert_eq!(&bits(row), &alone[index].remove(0), "{kv_dtype:?} sequence {index}");
                together[index].tokens.push(greedy(row));
            }
        }
    }
}

#[test]
fn every_weight_counts() {
    let directory = tempfile::tempdir().unwrap();
    let tensors = checkpoint::tensors(11);
    let logits = |tensors: &checkpoint::Tensors| {
        checkpoint::write(directory.path(), tensors);
        let mut cpu = model(&directory, BackendChoice::Cpu, KvDtype::F32);
        bits(&session::logits(&mut cpu, &mut sequence(0, 9), 9))
    };
    let whole = logits(&tensors);
    for name in tensors.keys() {
        let mut changed = tensors.clone();
        changed.get_mut(name).unwrap().1.fill(0.0);
        assert_ne!(logits(&changed), whole, "{name}");
    }
}

#[test]
fn a_batch_that_exceeds_the_plan_or_contradicts_itself_is_refused_and_the_next_runs() {
    let directory = tiny();
    let mut cpu = model(&directory, BackendChoice::Cpu, KvDtype::F32);
    let good = session::logits(&mut cpu, &mut sequence(0, 4), 4);
    let one = |token_count, position, block_table: Vec<u32>| BatchSequence {
        token_count,
        position,
        block_table,
        wants: Wants::LastLogits,
    };
    let too_many = Batch { tokens: vec![0; 600], sequences: vec![one(600, 0, (0..38).collect())] };
    assert!(matches!(cpu.forward(&too_many), Err(ForwardError::BatchTooLarge { tokens: 600, .. })));
    let sequences = vec![one(1, 0, vec![0]); 17];
    let too_wide = Batch { tokens: vec![0; 17], sequences };
    assert!(matches!(cpu.forward(&too_wide), Err(ForwardError::BatchTooLarge { sequences: 17, .. })));
    let wrong = [
        (vec![0; 3], one(2, 0, vec![0]), "sequences count 2 tokens, the batch has 3"),
        (vec![], one(0, 0, vec![]), "a sequence has no tokens"),
        (vec![0; 2], one(2, 15, vec![0]), "17 tokens need 2 blocks, got 1"),
        (vec![0], one(1, 0, vec![4096]), "block 4096 is beyond the pool of 256"),
        (vec![0], one(1, 256, (0..17).collect()), "a sequence reaches position 257, the context is 256"),
        (vec![131], one(1, 0, vec![0]), "token 131 is not below the vocabulary size 131"),
    ];
    for (tokens, sequence, wanted) in wrong {
        let refused = cpu.forward(&Batch { tokens, sequences: vec![sequence] }).unwrap_err();
        assert_eq!(refused.to_string(), format!("batch is inconsistent: {wanted}"));
    }
    assert_eq!(bits(&session::logits(&mut cpu, &mut sequence(0, 4), 4)), bits(&good));
}

#[test]
fn a_step_without_wanted_logits_only_stores_keys_and_values() {
    let directory = tiny();
    let mut cpu = model(&directory, BackendChoice::Cpu, KvDtype::F32);
    let whole = session::logits(&mut cpu, &mut sequence(0, 12), 12);
    let tokens = sequence(0, 12).tokens;
    let mut run = |range: std::ops::Range<usize>, wants| {
        let sequence = BatchSequence {
            token_count: range.len() as u32,
            position: range.start as u32,
            block_table: vec![40],
            wants,
        };
        let batch = Batch { tokens: tokens[range].to_vec(), sequences: vec![sequence] };
        cpu.forward(&batch).unwrap().logits.values.to_vec()
    };
    assert!(run(0..9, Wants::Nothing).is_empty());
    assert_eq!(bits(&run(9..12, Wants::LastLogits)), bits(&whole));
}
