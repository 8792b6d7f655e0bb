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
        for (answer, expected) in answers.iter().zip(&expected) {
            assert_eq!(answer.without_cache(), expected.without_cache(), "{setting}");
        }

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

/// No request is lost, doubled or given another's tokens.
#[test]
fn thirty_two_streams_at_once() {
    let requests = requests(64);
    let expected = alone(&requests);
    let engine = Running::start(Fake::new(64, 16, 128), text(true), 256, 32);
    std::thread::scope(|scope| {
        for stream in 0..32 {
            let (handle, requests, expected) = (engine.handle.clone(), &requests, &expected);
            scope.spawn(move || {
                for index in [stream, (stream + 11) % 64, 63 - stream] {
                    let answer = read(submit(&handle, requests[index].clone()).unwrap());
                    assert_eq!(answer.without_cache(), expected[index].without_cache());
                }
            });
        }
    });
    assert!(engine.handle.is_idle());
    assert!(engine.handle.stats().cache_hits > 0);
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
