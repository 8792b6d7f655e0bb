//! A text's vector is a function of its tokens, however its steps are cut and whoever runs beside it.

use sparkherd_engine::{
    Caller, Embedding, EmbeddingRequest, GenerationError, PendingEmbedding, Pooling, SubmitError, Usage,
};

use crate::{
    fake::{Fake, Fault, Running, VOCAB, hidden, text},
    request, submit, wait_until,
};

fn embed(engine: &Running, tokens: &[u32], pooling: Pooling) -> Result<PendingEmbedding, SubmitError> {
    let asked = EmbeddingRequest { prompt_tokens: tokens.to_vec(), pooling };
    engine.handle.reserve(&Caller::default())?.embed(asked)
}

fn answer(pending: PendingEmbedding) -> Result<Embedding, GenerationError> {
    pending.answer.blocking_recv().expect("a text has an answer")
}

/// From the states of all prefixes, in `f64`.
fn expected(tokens: &[u32], pooling: Pooling) -> Vec<f64> {
    let first = match pooling {
        Pooling::Mean => 1,
        Pooling::Last => tokens.len(),
    };
    let states: Vec<Vec<f32>> = (first..=tokens.len()).map(|end| hidden(&tokens[..end])).collect();
    let sum: Vec<f64> = (0..states[0].len())
        .map(|column| states.iter().map(|state| f64::from(state[column])).sum())
        .collect();
    let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
    sum.iter().map(|value| value / length).collect()
}

#[test]
fn vectors_are_pooled_states_of_length_one_whatever_the_steps() {
    let tokens: Vec<u32> = (0..75).map(|index| (index * 31 + 5) % VOCAB).collect();
    for pooling in [Pooling::Mean, Pooling::Last] {
        let mut seen = Vec::new();
        for (tokens_max, beside) in [(128, false), (7, false), (16, true)] {
            let engine = Running::start(Fake::new(tokens_max, 4, 64), text(false), 256, 8);
            let beside = beside.then(|| submit(&engine.handle, request("beside", 100)).unwrap());
            let got = answer(embed(&engine, &tokens, pooling).unwrap()).unwrap();
            for (got, wanted) in got.values.iter().zip(expected(&tokens, pooling)) {
                assert!((f64::from(*got) - wanted).abs() < 1e-6);
            }
            assert_eq!(got.usage, Usage { prompt_tokens: 75, ..Usage::default() });
            let again = answer(embed(&engine, &tokens, pooling).unwrap()).unwrap();
            assert_eq!(again.values, got.values, "the prefix cache changes nothing");
            seen.push(got.values);
            drop(beside);
        }
        assert!(seen.iter().all(|values| *values == seen[0]), "{pooling:?} is bit-equal");
    }
}

#[test]
fn a_text_may_fill_the_context_and_no_more() {
    let engine = Running::start(Fake::new(64, 2, 2), text(false), 32, 8);
    assert!(answer(embed(&engine, &[1; 32], Pooling::Mean).unwrap()).is_ok());
    let refused = |tokens: &[u32]| embed(&engine, tokens, Pooling::Mean).unwrap_err();
    assert_eq!(refused(&[1; 33]), SubmitError::PromptTooLong { prompt_tokens: 33, context: 32 });
    assert_eq!(refused(&[]), SubmitError::EmptyPrompt);
    assert_eq!(refused(&[VOCAB]), SubmitError::UnknownToken { token: VOCAB, vocab_size: VOCAB });
}

#[test]
fn a_model_without_an_output_head_embeds_and_refuses_to_generate() {
    let engine = Running::start(Fake::new(64, 2, 64).headless(), text(false), 256, 8);
    assert!(!engine.handle.info().generates);
    assert_eq!(submit(&engine.handle, request("hi", 3)).unwrap_err(), SubmitError::NoOutputHead);
    for pooling in [Pooling::Mean, Pooling::Last] {
        assert!(answer(embed(&engine, &[1; 100], pooling).unwrap()).is_ok());
    }
    assert!(engine.handle.is_idle());
}

#[test]
fn what_is_dropped_frees_its_place_and_what_fails_is_answered() {
    let (engine, open) = Running::start_gated(Fake::new(8, 2, 64), 256, 8);
    let dropped = embed(&engine, &[1; 100], Pooling::Mean).unwrap();
    drop(dropped);
    let kept = embed(&engine, &[2; 20], Pooling::Mean).unwrap();
    drop(open);
    assert!(answer(kept).is_ok());
    wait_until("all places are free", || engine.handle.is_idle());
    assert_eq!(engine.handle.stats().kv_used.to_bits(), 0.0_f64.to_bits());
    let failing = Running::start(Fake::new(8, 2, 64).with(Fault::Fail(2)), text(false), 256, 8);
    let failed = answer(embed(&failing, &[1; 30], Pooling::Last).unwrap());
    assert!(matches!(failed, Err(GenerationError::Engine(_))), "{failed:?}");
}
