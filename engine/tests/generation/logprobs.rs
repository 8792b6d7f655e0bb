//! Log-probabilities are those of the model, whatever the request does to its choice.

use sparkherd_engine::{
    GenerationEvent, GenerationRequest, LogprobOptions, SampledToken, Sampling, TokenLogprob,
};

use crate::{
    fake::{Fake, Running, VOCAB, logit, text},
    request, submit,
};

/// log-softmax after `history`, written out.
fn expected(history: &[u32], token: u32) -> f64 {
    let exp = |token| f64::from(logit(history, token)).exp();
    (exp(token) / (0..VOCAB).map(exp).sum::<f64>()).ln()
}

fn check(told: &TokenLogprob, history: &[u32], top: usize) {
    let near = |logprob: f32, token| (f64::from(logprob) - expected(history, token)).abs() < 1e-5;
    assert!(near(told.logprob, told.token), "{told:?}");
    assert_eq!(told.top.len(), top);
    assert!(told.top.iter().all(|(token, logprob)| near(*logprob, *token)));
    let most = told.top.iter().map(|(token, _)| logit(history, *token)).fold(f32::INFINITY, f32::min);
    let above = (0..VOCAB).filter(|token| logit(history, *token) > most).count();
    assert!(top == 0 || above < top, "the likeliest are told");
}

/// The prompt's entries, and the answer's tokens.
fn run(engine: &Running, request: GenerationRequest) -> (Option<Vec<TokenLogprob>>, Vec<SampledToken>) {
    let mut generation = submit(&engine.handle, request).unwrap();
    let (mut prompt, mut tokens) = (None, Vec::new());
    while let Some(event) = generation.events.blocking_recv() {
        match event {
            GenerationEvent::Prompt(entries) => {
                assert!(prompt.is_none() && tokens.is_empty(), "once and first");
                prompt = Some(entries);
            }
            GenerationEvent::Text(piece) => tokens.extend(piece.tokens),
            GenerationEvent::Started(_) | GenerationEvent::Finished { .. } => {}
            GenerationEvent::Failed(error) => panic!("{error}"),
        }
    }
    (prompt, tokens)
}

#[test]
fn settings_change_the_choice_and_not_what_is_told() {
    let engine = Running::start(Fake::new(64, 4, 64), text(false), 256, 8);
    let settings = [
        Sampling::default(),
        Sampling { temperature: 1.5, top_k: 5, seed: Some(3), ..Sampling::default() },
        Sampling { frequency_penalty: 2.0, repetition_penalty: 1.5, ..Sampling::default() },
        Sampling { logit_bias: (0..40).map(|token| (token, -100.0)).collect(), ..Sampling::default() },
    ];
    for sampling in settings {
        let logprobs = LogprobOptions { sampled: Some(3), prompt: None };
        let asked = GenerationRequest { sampling, logprobs, ..request("hello", 12) };
        let mut history = asked.prompt_tokens.clone();
        let (prompt, tokens) = run(&engine, asked);
        assert_eq!((prompt, tokens.len()), (None, 12));
        for SampledToken { token, logprob } in tokens {
            let told = logprob.unwrap();
            assert_eq!(told.token, token);
            check(&told, &history, 3);
            history.push(token);
        }
    }
    assert!(run(&engine, request("hello", 3)).1.iter().all(|sampled| sampled.logprob.is_none()));
}

/// The engine has rows for two tokens in a step, or for many, and the prompt may be in the prefix cache.
#[test]
fn every_token_of_a_prompt_but_the_first_is_told() {
    let text_of_prompt = "The.quick.brown.fox.jumps.over.the.lazy.dog!";
    for sequences_max in [2, 64] {
        let engine = Running::start(Fake::new(64, sequences_max, 64), text(false), 256, 8);
        let beside = submit(&engine.handle, request("beside", 60)).unwrap();
        let plain = run(&engine, request(text_of_prompt, 4));
        for top in [0, 2] {
            let logprobs = LogprobOptions { sampled: None, prompt: Some(top) };
            let asked = GenerationRequest { logprobs, ..request(text_of_prompt, 4) };
            let tokens = asked.prompt_tokens.clone();
            let (prompt, answer) = run(&engine, asked);
            let prompt = prompt.unwrap();
            assert_eq!(prompt.len(), tokens.len() - 1);
            for (index, told) in prompt.iter().enumerate() {
                assert_eq!(told.token, tokens[index + 1]);
                check(told, &tokens[..=index], top as usize);
            }
            assert_eq!(answer, plain.1, "the answer is the same");
        }
        drop(beside);
        let one = GenerationRequest {
            logprobs: LogprobOptions { sampled: None, prompt: Some(1) },
            ..request("x", 1)
        };
        assert_eq!(run(&engine, one).0, Some(Vec::new()));
    }
}
