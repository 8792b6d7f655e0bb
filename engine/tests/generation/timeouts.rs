//! How long requests wait, and that what takes too long ends, by a clock that only these tests move.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc::Sender,
    },
    time::Duration,
};

use sparkherd_engine::{
    Caller, Clock, EmbeddingRequest, EngineLimits, GenerationError, GenerationEvent, Pooling, Start,
    TimeoutPhase, Timeouts,
};

use crate::{
    fake::{Fake, Running, limits, text},
    read, request, wait_until,
};

const TIMEOUTS: Timeouts = Timeouts {
    queue: Duration::from_secs(10),
    first_token: Duration::from_secs(20),
    total: Duration::from_secs(30),
    step: Duration::from_secs(5),
};

/// An engine of one sequence at a time; each step waits for a message. And its clock, in milliseconds.
fn start() -> (Running, Sender<()>, Arc<AtomicU64>) {
    let (fake, open) = Fake::new(16, 1, 64).gated();
    let time = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&time);
    let clock = Clock::new(move || Duration::from_millis(shown.load(SeqCst)));
    let limits = EngineLimits { timeouts: TIMEOUTS, ..limits(&fake, 512) };
    (Running::start_with(fake, text(false), limits, clock), open, time)
}

fn timed_out(phase: TimeoutPhase, limit: Duration) -> Result<(), GenerationError> {
    Err(GenerationError::TimedOut { phase, limit })
}

#[test]
fn waiting_is_told_from_the_reservation_to_the_first_step() {
    let (engine, open, time) = start();
    let mut first = engine.submit(request(&"x".repeat(40), 1)).unwrap();
    let started = |waited_ms, cached_tokens| {
        let waited = Duration::from_millis(waited_ms);
        Some(GenerationEvent::Started(Start { waited, cached_tokens }))
    };
    assert_eq!(first.events.blocking_recv(), started(0, 0));
    time.store(1_000, SeqCst);
    let [generate, embed] = [(), ()].map(|()| engine.handle.reserve(&Caller::default()).unwrap());
    time.store(3_000, SeqCst);
    let mut second = generate.submit(request(&"x".repeat(40), 1)).unwrap();
    let third = embed.embed(EmbeddingRequest { prompt_tokens: vec![1], pooling: Pooling::Last }).unwrap();
    time.store(4_500, SeqCst);
    drop(open);
    // Two whole blocks of the same prompt were computed for the first.
    assert_eq!(second.events.blocking_recv(), started(3_500, 32));
    assert!(read(first).end.is_ok() && read(second).end.is_ok());
    assert_eq!(third.answer.blocking_recv().unwrap().unwrap().waited, Duration::from_millis(3_500));
}

#[test]
fn waiting_too_long_ends_a_request_in_the_queue() {
    let (engine, open, time) = start();
    let running = engine.submit(request("go", 30)).unwrap();
    wait_until("the first one runs", || engine.handle.stats().running == 1);
    let waiting = engine.submit(request("and-i?", 3)).unwrap();
    time.store(10_001, SeqCst);
    open.send(()).unwrap();
    assert_eq!(read(waiting).end.map(|_| ()), timed_out(TimeoutPhase::Queue, TIMEOUTS.queue));
    drop(open);
    assert!(read(running).end.is_ok());
}

#[test]
fn a_first_token_that_takes_too_long_ends_a_request_in_its_prompt() {
    let (engine, open, time) = start();
    let long = engine.submit(request(&"x".repeat(300), 3)).unwrap();
    wait_until("it runs", || engine.handle.stats().running == 1);
    time.store(20_000, SeqCst);
    open.send(()).unwrap();
    wait_until("it was in time for one more step", || engine.handle.stats().steps == 1);
    time.store(20_001, SeqCst);
    open.send(()).unwrap();
    assert_eq!(read(long).end.map(|_| ()), timed_out(TimeoutPhase::FirstToken, TIMEOUTS.first_token));
    wait_until("its blocks are free", || engine.handle.stats().kv_used <= 0.0);
}

#[test]
fn an_answer_that_takes_too_long_is_cut() {
    let (engine, open, time) = start();
    let long = engine.submit(request("go", 300)).unwrap();
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    wait_until("there are tokens", || engine.handle.stats().steps == 3);
    time.store(30_001, SeqCst);
    open.send(()).unwrap();
    let answer = read(long);
    assert_eq!(answer.end.map(|_| ()), timed_out(TimeoutPhase::Total, TIMEOUTS.total));
    assert!(answer.tokens.len() <= 4, "{}", answer.tokens.len());
}

#[test]
fn a_step_that_takes_too_long_shows_while_it_lasts_and_until_the_next() {
    let (engine, open, time) = start();
    let answer = engine.submit(request("go", 3)).unwrap();
    wait_until("a step is under way", || engine.handle.stats().running == 1);
    assert!(!engine.handle.stats().stalled);
    time.store(6_000, SeqCst);
    wait_until("it shows", || engine.handle.stats().stalled);
    open.send(()).unwrap();
    wait_until("it is done", || engine.handle.stats().steps == 1);
    assert!(engine.handle.stats().stalled);
    drop(open);
    assert!(read(answer).end.is_ok());
    assert!(!engine.handle.stats().stalled);
}
