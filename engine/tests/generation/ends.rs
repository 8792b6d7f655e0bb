//! I19: however it goes, each accepted request ends once and its blocks are free.

use sparkherd_engine::{
    Caller, ClientKey, EngineFailure, Generation, GenerationError, GenerationEvent, Priority, SubmitError,
};

use crate::{
    Choices,
    fake::{Fake, Fault, Running, text},
    read, request, wait_until,
};

/// The place of one of them.
fn any(choices: &mut Choices, open: &[Generation]) -> usize {
    choices.below(u32::try_from(open.len()).unwrap()) as usize
}

/// A thousand cancellations: of requests that wait, that are in their prompt, or that have sent something, of several clients
/// and both priorities, most of them with a common beginning.
#[test]
fn an_abort_storm_leaves_no_block_behind() {
    // So few blocks that eight answers of up to 60 tokens cannot all grow to their end, whatever they share.
    let engine = Running::start(Fake::new(48, 8, 20), text(true), 256, 4000);
    let mut choices = Choices(7);
    let mut open: Vec<Generation> = Vec::new();
    let mut cancelled = 0;
    while cancelled < 1000 {
        for _ in 0..=choices.below(2) {
            let prompt = "x".repeat(1 + choices.below(120) as usize) + &open.len().to_string();
            let priority = if choices.below(4) == 0 { Priority::Batch } else { Priority::Interactive };
            let client = ClientKey(u64::from(choices.below(5)));
            let caller =
                Caller { account: client, client, priority, cache_salt: u64::from(choices.below(2)) };
            let reservation = engine.handle.reserve(&caller).unwrap();
            if choices.below(20) > 0 {
                open.push(reservation.submit(request(&prompt, 1 + choices.below(60))).unwrap());
            }
        }
        let Some(place) = (!open.is_empty()).then(|| any(&mut choices, &open)) else { continue };
        let mut generation = open.swap_remove(place);
        for _ in 0..choices.below(3) {
            let event = generation.events.blocking_recv().expect("an event before the end");
            if !matches!(event, GenerationEvent::Started(_) | GenerationEvent::Text(_)) {
                break;
            }
        }
        drop(generation);
        cancelled += 1;
    }
    for generation in open {
        assert!(read(generation).end.is_ok());
    }
    wait_until("all requests have ended", || engine.handle.is_idle());
    let stats = engine.handle.stats();
    assert_eq!((stats.kv_used, stats.running, stats.waiting, stats.waiting_prompt_tokens), (0.0, 0, 0, 0));
    assert!(stats.preemptions > 0 && stats.cache_hits > 0, "{stats:?}");
    assert!(read(engine.submit(request("still-there?", 9)).unwrap()).end.is_ok());
}

/// A dropped request is gone in the step after, wherever it was.
#[test]
fn a_cancelled_request_frees_its_blocks_in_the_same_step() {
    let (engine, open) = Running::start_gated(Fake::new(16, 2, 64), 512, 8);
    let long = engine.submit(request(&"x".repeat(200), 9)).unwrap();
    wait_until("its prompt is under way", || engine.handle.stats().kv_used > 0.0);
    drop(long);
    open.send(()).unwrap();
    wait_until("its blocks are free", || engine.handle.is_idle());
    let stats = engine.handle.stats();
    assert_eq!((stats.kv_used, stats.steps), (0.0, 1));
}

#[test]
fn draining_lets_accepted_requests_go_on() {
    let (engine, open) = Running::start_gated(Fake::new(64, 1, 64), 256, 4);
    let accepted: Vec<_> = (0..3).map(|_| engine.submit(request("hi", 5)).unwrap()).collect();
    engine.handle.drain();
    assert_eq!(engine.submit(request("hi", 5)).unwrap_err(), SubmitError::Draining);
    assert!(!engine.handle.is_idle());
    drop(open);
    assert!(accepted.into_iter().map(read).all(|answer| answer.text.len() == 5 && answer.end.is_ok()));
    wait_until("the engine is idle", || engine.handle.is_idle());
    assert_eq!(engine.handle.failed(), None);
}

#[test]
fn stopping_ends_what_runs_and_what_waits() {
    let (mut engine, open) = Running::start_gated(Fake::new(64, 1, 64), 1024, 4);
    let accepted: Vec<_> = (0..3).map(|_| engine.submit(request("hi", 1000)).unwrap()).collect();
    engine.handle.stop();
    drop(open);
    assert!(engine.join().is_ok());
    for generation in accepted {
        assert_eq!(read(generation).end, Err(GenerationError::Draining));
    }
    assert_eq!(engine.submit(request("hi", 5)).unwrap_err(), SubmitError::Stopped);
    assert!(engine.handle.is_idle() && !engine.handle.stats().failed);
}

/// Running requests and waiting ones fail with the reason, and the engine serves nothing any more.
fn fails(fault: Fault, reason: &str) {
    let (mut engine, open) = Running::start_gated(Fake::new(64, 2, 64).with(fault), 256, 4);
    let accepted: Vec<_> = (0..5).map(|_| engine.submit(request("hi", 50)).unwrap()).collect();
    drop(open);
    // The worker's own panic, where there is one, is its thread's result.
    let _ = engine.join();
    for generation in accepted {
        assert_eq!(read(generation).end, Err(GenerationError::Engine(reason.to_owned())));
    }
    assert_eq!(engine.handle.failed(), Some(EngineFailure::other(reason)));
    assert_eq!(engine.submit(request("hi", 5)).unwrap_err(), SubmitError::Stopped);
    let stats = engine.handle.stats();
    assert!(stats.failed && engine.handle.is_idle());
    assert_eq!((stats.running, stats.waiting, stats.kv_used, stats.last_step_age_ms), (0, 0, 0.0, 0));
}

#[test]
fn a_failed_forward_pass_fails_the_engine() {
    fails(Fault::Fail(4), "device failed: sticky fault");
}

#[test]
fn a_panic_in_the_worker_fails_the_engine() {
    fails(Fault::Panic(4), "the worker panicked");
}

#[test]
fn missing_logits_fail_the_engine() {
    fails(Fault::NoRows, "batch is inconsistent: sequence 0 of the batch got too few rows of logits");
}

#[test]
fn logits_that_are_no_numbers_fail_their_request_only() {
    let bang = 0;
    let fake = Fake::new(64, 4, 64).with(Fault::NotANumber(bang));
    let engine = Running::start(fake, text(false), 256, 4);
    let bad = engine.submit(request("stop!", 50)).unwrap();
    // Three tokens without an exclamation mark, which the hash happens to give.
    let good = engine.submit(request("go", 3)).unwrap();
    assert_eq!(read(bad).end, Err(GenerationError::Engine("logit of token 5 is not a number".to_owned())));
    assert!(read(good).end.is_ok());
    assert_eq!((engine.handle.failed(), engine.handle.stats().kv_used), (None, 0.0));
}

#[test]
fn a_reader_that_falls_behind_is_cancelled_and_told() {
    let engine = Running::start(Fake::new(64, 4, 128), text(false), 2048, 4);
    let idle = engine.submit(request("nobody-reads-this", 2000)).unwrap();
    wait_until("it is cancelled", || engine.handle.is_idle());
    assert!(engine.handle.stats().kv_used <= 0.0);
    let answer = read(idle);
    assert_eq!((answer.text.len(), answer.end), (1024, Err(GenerationError::SlowReader { events: 1024 })));
}
