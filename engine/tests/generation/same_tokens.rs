//! I20: what else is in the batch, how the prompt was cut, and whether a request was preempted change no token.

use sparkherd_engine::{FinishReason, GenerationRequest, Sampling};

use crate::{
    Answer, Choices,
    fake::{Fake, Running, text},
    read, request, stopping, submit,
};

/// Requests of all kinds: short and long prompts, greedy and sampled, with and without stop strings.
fn requests(count: u64) -> Vec<GenerationRequest> {
    let mut choices = Choices(42);
    let mut one = |index: u64| {
        let length = 1 + choices.below(if index.is_multiple_of(3) { 150 } else { 20 });
        let prompt: String = (0..length).map(|_| char::from_u32(0x21 + choices.below(94)).unwrap()).collect();
        let sampling = match index % 4 {
            0 | 1 => Sampling::default(),
            2 => Sampling { temperature: 1.0, top_p: 0.9, seed: Some(index), ..Sampling::default() },
            _ => Sampling {
                temperature: 0.6,
                top_k: 12,
                seed: Some(u64::from(choices.below(u32::MAX))),
                ..Sampling::default()
            },
        };
        let stop = if index.is_multiple_of(5) { vec!["a".to_owned(), "Q7".to_owned()] } else { Vec::new() };
        let max_tokens = 1 + choices.below(90);
        stopping(GenerationRequest { sampling, ..request(&prompt, max_tokens) }, stop)
    };
    (0..count).map(&mut one).collect()
}

/// Each request on its own, one after the other.
fn alone(requests: &[GenerationRequest]) -> Vec<Answer> {
    let engine = Running::start(Fake::new(512, 1, 64), text(true), 512, 1);
    requests.iter().map(|request| read(engine.submit(request.clone()).unwrap())).collect()
}

#[test]
fn the_same_alone_and_together_in_any_chunks_preempted_or_not() {
    let requests = requests(32);
    let expected = alone(&requests);
    let ended = |wanted| {
        expected
            .iter()
            .filter(
                |answer| matches!(answer.end, Ok((reason, _)) if (reason == FinishReason::Length) == wanted),
            )
            .count()
    };
    assert!(ended(false) >= 3 && ended(true) >= 3, "the requests end in different ways");

    // (tokens a step, sequences, blocks): the last two cannot hold all that may run.
    for (tokens_max, sequences_max, kv_blocks) in
        [(512, 32, 512), (1, 4, 64), (7, 16, 256), (64, 16, 24), (33, 32, 16)]
    {
        let fake = Fake::new(tokens_max, sequences_max, kv_blocks);
        let steps = fake.steps.clone();
        let engine = Running::start(fake, text(true), 256, 64);
        let all: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        let answers: Vec<Answer> = all.into_iter().map(read).collect();
        let setting = format!("{tokens_max} tokens, {sequences_max} sequences, {kv_blocks} blocks");
        assert_eq!(answers, expected, "{setting}");

        let steps = steps.lock().unwrap();
        assert!(steps.iter().all(|(tokens, sequences)| *tokens <= tokens_max && *sequences <= sequences_max));
        assert_eq!(steps.iter().any(|(_, sequences)| *sequences > 1), tokens_max > 1, "{setting}");
        let stats = engine.handle.stats();
        assert_eq!(stats.preemptions > 0, kv_blocks < 64, "{setting}: {} preemptions", stats.preemptions);
        assert_eq!((stats.kv_used, stats.running, stats.waiting), (0.0, 0, 0));
        assert_eq!(
            stats.prompt_tokens,
            requests.iter().map(|request| request.prompt_tokens.len() as u64).sum::<u64>()
        );
    }
}

#[test]
fn sixteen_clients_at_once() {
    let requests = requests(16);
    let expected = alone(&requests);
    let engine = Running::start(Fake::new(64, 16, 128), text(true), 256, 0);
    std::thread::scope(|scope| {
        for (request, expected) in requests.iter().zip(&expected) {
            let handle = engine.handle.clone();
            scope.spawn(move || assert_eq!(&read(submit(&handle, request.clone()).unwrap()), expected));
        }
    });
    assert!(engine.handle.is_idle());
}

#[test]
fn a_seed_decides_and_its_absence_does_not_repeat() {
    let engine = Running::start(Fake::new(64, 16, 64), text(false), 256, 64);
    let answer = |seed| {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        read(engine.submit(GenerationRequest { sampling, ..request("hello", 40) }).unwrap()).text
    };
    assert_eq!(answer(Some(3)), answer(Some(3)));
    assert_ne!(answer(Some(3)), answer(Some(4)));
    assert_ne!(answer(None), answer(None));
}
