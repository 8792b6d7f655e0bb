//! What a prompt has in common with earlier ones is not computed again, and nothing else changes.

use sparkherd_engine::{Caller, Clock, EngineLimits, GenerationRequest, Usage};

use crate::{
    Answer,
    fake::{Fake, Running, limits, text},
    read, request,
};

fn start(prefix_cache: bool) -> Running {
    let fake = Fake::new(64, 4, 64);
    let limits = limits(&fake, 256);
    Running::start_with(fake, text(false), EngineLimits { prefix_cache, ..limits }, Clock::monotonic())
}

fn usage(answer: &Answer) -> Usage {
    answer.end.clone().unwrap().1
}

/// A conversation: each prompt is the one before, its answer, and a question.
fn conversation(engine: &Running) -> Vec<Answer> {
    let mut prompt: Vec<u32> = (0..40).collect();
    let mut answers = Vec::new();
    for turn in 0..4 {
        let request = GenerationRequest { prompt_tokens: prompt.clone(), ..request("", 25) };
        let answer = read(engine.submit(request).unwrap());
        prompt.extend(&answer.tokens);
        prompt.extend([turn, 7, 9]);
        answers.push(answer);
    }
    answers
}

#[test]
fn a_conversation_finds_its_own_beginning() {
    let engine = start(true);
    let answers = conversation(&engine);
    // The last token sampled is never computed: 64, 92 and 120 tokens were, and full blocks of them are found.
    let cached: Vec<u32> = answers.iter().map(|answer| usage(answer).cached_tokens).collect();
    assert_eq!(cached, [0, 64, 80, 112]);
    let stats = engine.handle.stats();
    assert_eq!(stats.cache_hits, 64 + 80 + 112);
    assert_eq!(stats.cache_queries, stats.prompt_tokens);
    assert!(stats.kv_used <= 0.0, "what is only remembered is free");
}

#[test]
fn on_and_off_give_the_same_tokens() {
    let (on, off) = (start(true), start(false));
    let (with, without) = (conversation(&on), conversation(&off));
    assert!(without.iter().all(|answer| usage(answer).cached_tokens == 0));
    for (with, without) in with.iter().zip(&without) {
        assert_eq!(&with.without_cache(), without);
    }
    assert_eq!(off.handle.stats().cache_hits, 0);
}

#[test]
fn salts_share_nothing() {
    let engine = start(true);
    let ask = |cache_salt| {
        let caller = Caller { cache_salt, ..Caller::default() };
        let reservation = engine.handle.reserve(&caller).unwrap();
        usage(&read(reservation.submit(request(&"x".repeat(40), 2)).unwrap())).cached_tokens
    };
    assert_eq!([ask(1), ask(1), ask(2), ask(2)], [0, 32, 0, 32]);
}
