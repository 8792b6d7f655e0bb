//! What is refused, and how an answer is bounded.

use std::time::Duration;

use sparkherd_engine::{
    Clock, Engine, EngineLimits, FinishReason, GenerationRequest, Sampling, StartError, SubmitError, Usage,
};

use crate::{
    fake::{Fake, Running, VOCAB, text},
    read, request, stopping, wait_until,
};

#[test]
fn requests_outside_the_limits_are_refused_with_numbers() {
    let engine = Running::start(Fake::new(64, 4, 64), text(true), 32, 4);
    let refused = |request: GenerationRequest| engine.submit(request).unwrap_err().to_string();
    let sampled = |temperature, top_p| {
        let sampling = Sampling { temperature, top_p, ..Sampling::default() };
        refused(GenerationRequest { sampling, ..request("hi", 4) })
    };
    let stopped = |stop: Vec<String>| refused(stopping(request("hi", 4), stop));
    assert_eq!(refused(request("", 4)), "prompt is empty");
    assert_eq!(
        refused(request(&"x".repeat(32), 4)),
        "prompt of 32 tokens leaves no room for an answer in the context of 32"
    );
    let unknown = GenerationRequest { prompt_tokens: vec![1, VOCAB], ..request("", 4) };
    assert_eq!(refused(unknown), "token 95 is not below the vocabulary size 95");
    assert_eq!(refused(request("hi", 0)), "max_tokens is 0, must be at least 1");
    assert_eq!(sampled(-0.1, 1.0), "temperature is -0.1, must be between 0 and 2");
    assert_eq!(sampled(f32::NAN, 1.0), "temperature is NaN, must be between 0 and 2");
    assert_eq!(sampled(1.0, 0.0), "top_p is 0, must be above 0 and at most 1");
    assert_eq!(sampled(1.0, f32::NAN), "top_p is NaN, must be above 0 and at most 1");
    assert_eq!(stopped(vec![String::new()]), "length of a stop string is 0, must be 1 to 1024 bytes");
    assert_eq!(stopped(vec!["x".to_owned(); 17]), "number of stop strings is 17, must be at most 16");
    assert!(engine.handle.is_idle());
}

#[test]
fn an_answer_is_clamped_to_the_context() {
    let engine = Running::start(Fake::new(64, 4, 64), text(false), 48, 4);
    let answer = read(engine.submit(request("hello", u32::MAX)).unwrap());
    assert_eq!(answer.text.len(), 43);
    assert_eq!(
        answer.end,
        Ok((FinishReason::Length, Usage { prompt_tokens: 5, completion_tokens: 43, cached_tokens: 0 }))
    );
}

/// A pool smaller than the context bounds what one sequence may hold, so that it always can run.
#[test]
fn the_pool_bounds_the_context() {
    let engine = Running::start(Fake::new(64, 4, 2), text(false), 4096, 4);
    assert_eq!(engine.handle.info().context, 32);
    let answer = read(engine.submit(request("hello", 100)).unwrap());
    assert_eq!(
        answer.end,
        Ok((FinishReason::Length, Usage { prompt_tokens: 5, completion_tokens: 27, cached_tokens: 0 }))
    );
}

#[test]
fn an_answer_ends_before_its_stop_string_across_tokens() {
    let engine = Running::start(Fake::new(64, 4, 64), text(false), 256, 4);
    let whole = read(engine.submit(request("tell-me", 60)).unwrap()).text;
    let stop = whole[20..24].to_owned();
    let place = whole.find(&stop).unwrap();
    let stopped = stopping(request("tell-me", 60), vec!["never".to_owned(), stop]);
    let answer = read(engine.submit(stopped).unwrap());
    assert_eq!(answer.text, whole[..place]);
    let completion_tokens = u32::try_from(place).unwrap() + 4;
    assert_eq!(
        answer.end,
        Ok((FinishReason::StopString, Usage { prompt_tokens: 7, completion_tokens, cached_tokens: 0 }))
    );

    // The beginning of a stop string that never comes is text after all.
    let unmet = format!("{}\u{7f}", &whole[57..]);
    let answer = read(engine.submit(stopping(request("tell-me", 60), vec![unmet])).unwrap());
    assert_eq!(answer.text, whole);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let (engine, open) = Running::start_gated(Fake::new(64, 2, 64), 256, 3);
    let accepted: Vec<_> = (0..5).map(|_| engine.submit(request("hi", 3)).unwrap()).collect();
    let full = SubmitError::QueueFull { waiting: 3, retry_after: Duration::from_secs(1) };
    assert_eq!(engine.submit(request("hi", 3)).unwrap_err(), full);
    wait_until("one runs", || engine.handle.stats().running > 0);
    let stats = engine.handle.stats();
    assert_eq!(stats.running + stats.waiting, 5);
    drop(open);
    assert!(accepted.into_iter().map(read).all(|answer| answer.end.is_ok()));
    assert!(read(engine.submit(request("hi", 3)).unwrap()).end.is_ok());
}

#[test]
fn an_engine_that_could_do_nothing_does_not_start() {
    let limits = EngineLimits::new(64, 4, VOCAB);
    let start =
        |fake: Fake, limits| match Engine::start(Box::new(fake), text(true), limits, Clock::monotonic()) {
            Err(error @ StartError::TooSmall { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        };
    assert_eq!(
        start(Fake::new(64, 4, 4), EngineLimits { context: 1, ..limits }),
        "context is 1, must be at least 2"
    );
    assert_eq!(
        start(Fake::new(64, 4, 0), EngineLimits { kv_blocks: 0, ..limits }),
        "kv_blocks is 0, must be at least 1"
    );
    assert_eq!(start(Fake::new(0, 4, 4), limits), "tokens_max is 0, must be at least 1");
    assert_eq!(start(Fake::new(64, 0, 4), limits), "sequences_max is 0, must be at least 1");
}
