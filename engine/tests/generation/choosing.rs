//! A model that chooses tokens itself gives the same answers as one whose logits the worker chooses by.

use sparkherd_engine::{
    ClientKey, Ends, Generation, GenerationError, GenerationEvent, GenerationRequest, GrammarSource,
    LogprobOptions, Sampling,
};

use crate::{
    fake::{Fake, Fault, Running, text},
    read, request, submit,
};

/// All that its reader sees but the time it waited and what was found of its prompt.
fn events(mut generation: Generation) -> Vec<GenerationEvent> {
    let mut events = Vec::new();
    while let Some(event) = generation.events.blocking_recv() {
        match event {
            GenerationEvent::Started(_) => {}
            GenerationEvent::Finished { reason, mut usage } => {
                usage.cached_tokens = 0;
                events.push(GenerationEvent::Finished { reason, usage });
            }
            other => events.push(other),
        }
    }
    events
}

/// Of all that a choice depends on: seeds, filters, penalties, bans, grammars, and what is told of probabilities.
fn requests(engine: &Running) -> Vec<GenerationRequest> {
    let choice = GrammarSource::Regex("[a-m]{3,9}(yes|no)".to_owned());
    let grammar = engine.handle.compile_grammar(&choice, ClientKey::default()).unwrap();
    let one = |index: u64| {
        let words: Vec<String> = (0..=index * 7 % 19).map(|word| (word + index).to_string()).collect();
        let prompt = words.join("word");
        let sampling = Sampling { temperature: 1.1, seed: Some(index), ..Sampling::default() };
        let asked = GenerationRequest { sampling: sampling.clone(), ..request(&prompt, 25) };
        match index % 6 {
            0 => request(&prompt, 20),
            1 => GenerationRequest {
                sampling: Sampling { top_p: 0.9, frequency_penalty: 1.5, ..sampling },
                logprobs: LogprobOptions { sampled: Some(4), prompt: None },
                ..asked
            },
            2 => GenerationRequest { grammar: Some(grammar.clone()), ..asked },
            3 => GenerationRequest {
                logprobs: LogprobOptions { sampled: Some(1), prompt: Some(2) },
                sampling: Sampling { repetition_penalty: 1.3, ..sampling },
                ..asked
            },
            4 => GenerationRequest {
                ends: Ends { min_tokens: 12, stop_token_ids: (0..30).collect(), ..Ends::default() },
                ..asked
            },
            _ => GenerationRequest { sampling: Sampling { top_k: 5, ..sampling }, ..asked },
        }
    };
    (0..36).map(one).collect()
}

fn answers(fake: Fake) -> (Vec<Vec<GenerationEvent>>, u64) {
    let engine = Running::start(fake, text(true), 256, 64);
    let running: Vec<_> =
        requests(&engine).into_iter().map(|request| submit(&engine.handle, request).unwrap()).collect();
    let answers = running.into_iter().map(events).collect();
    (answers, engine.handle.stats().preemptions)
}

#[test]
fn answers_are_those_that_the_worker_chooses() {
    let (wanted, _) = answers(Fake::new(512, 1, 64));
    // Room for all, and for so few that some start over.
    for (sequences, blocks) in [(32, 512), (16, 24)] {
        let fake = Fake::new(64, sequences, blocks).choosing();
        let choices = fake.choices.clone();
        let (got, preemptions) = answers(fake);
        for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
            assert_eq!(got, wanted, "request {index}, {sequences} sequences, {blocks} blocks");
        }
        assert_eq!(preemptions > 0, blocks == 24);
        let tokens: usize = wanted.iter().map(Vec::len).sum();
        assert!(choices.load(std::sync::atomic::Ordering::Relaxed) > tokens / 3, "the model chooses");
    }
}

#[test]
fn a_choice_that_fails_ends_its_request_only() {
    let fake = Fake::new(64, 4, 64).with(Fault::NotANumber(0)).choosing();
    let engine = Running::start(fake, text(false), 256, 4);
    let bad = engine.submit(request("stop!", 50)).unwrap();
    let good = engine.submit(request("go", 3)).unwrap();
    assert_eq!(read(bad).end, Err(GenerationError::Engine("logit of token 5 is not a number".to_owned())));
    assert!(read(good).end.is_ok());
    assert_eq!((engine.handle.failed(), engine.handle.stats().kv_used), (None, 0.0));
}
