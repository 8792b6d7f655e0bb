//! Five minutes of 32 streams: memory stays where it is (I18), and no request is lost or doubled (I19).
//!
//! `cargo test --workspace --test generation -- --ignored --nocapture soak`

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use sparkherd_engine::{Caller, ClientKey, GenerationEvent, GenerationRequest, Priority, Sampling};

use crate::{
    Choices,
    fake::{Fake, Running, text},
    read, request, wait_until,
};

const STREAMS: u64 = 32;
const WARM_UP: Duration = Duration::from_secs(30);
const DURATION: Duration = Duration::from_mins(5);
const GROWTH_MAX_BYTES: u64 = 8 << 20;

/// Resident bytes of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[derive(Default)]
struct Seen {
    finished: AtomicU64,
    cancelled: AtomicU64,
}

/// One client: a request after the other, of all kinds, one in eight given up on the way.
fn stream(engine: &Running, key: u64, until: Instant, seen: &Seen) {
    let mut choices = Choices(key);
    while Instant::now() < until {
        let longest = if choices.below(4) == 0 { 400 } else { 40 };
        let length = 1 + choices.below(longest);
        let stem = char::from_u32(0x21 + choices.below(6)).unwrap();
        let prompt: String = (0..length)
            .map(|place| if place < 40 { stem } else { char::from_u32(0x21 + choices.below(94)).unwrap() })
            .collect();
        let chance = u64::from(choices.below(u32::MAX));
        let temperature = if choices.below(2) == 0 { 0.0 } else { 0.8 };
        let sampling = Sampling { temperature, seed: Some(chance), ..Sampling::default() };
        let priority = if key.is_multiple_of(8) { Priority::Batch } else { Priority::Interactive };
        let client = ClientKey(key % 12);
        let caller = Caller { account: client, client, priority, cache_salt: key % 2 };
        let wanted = 1 + choices.below(100);
        let request = GenerationRequest { sampling, ..request(&prompt, wanted) };
        let mut generation = engine.handle.reserve(&caller).unwrap().submit(request).unwrap();
        if choices.below(8) == 0 {
            for _ in 0..choices.below(20) {
                let event = generation.events.blocking_recv();
                if !matches!(event, Some(GenerationEvent::Started(_) | GenerationEvent::Text(_))) {
                    break;
                }
            }
            seen.cancelled.fetch_add(1, Relaxed);
        } else {
            let answer = read(generation);
            let (_, usage) = answer.end.unwrap();
            assert!(usage.completion_tokens <= wanted && usage.prompt_tokens == length);
            seen.finished.fetch_add(1, Relaxed);
        }
    }
}

#[test]
#[ignore = "takes five minutes"]
fn soak_of_thirty_two_streams() {
    let fake = Fake::new(256, 16, 192);
    let steps = fake.steps.clone();
    let engine = Running::start(fake, text(true), 1024, 64);
    let start = Instant::now();
    let seen = Seen::default();
    let base = Mutex::new(0);
    std::thread::scope(|scope| {
        for key in 0..STREAMS {
            let (engine, seen) = (&engine, &seen);
            scope.spawn(move || stream(engine, key, start + DURATION, seen));
        }
        let mut next_report = WARM_UP;
        while start.elapsed() < DURATION {
            std::thread::sleep(Duration::from_millis(200));
            // The fake model's own notes are not the engine's memory.
            steps.lock().unwrap().clear();
            if start.elapsed() >= next_report {
                let resident = resident_bytes();
                let mut base = base.lock().unwrap();
                *base = if *base == 0 { resident } else { *base };
                let stats = engine.handle.stats();
                println!("{:3} s: {} KiB resident, {stats:?}", start.elapsed().as_secs(), resident >> 10);
                next_report += WARM_UP;
            }
        }
    });
    wait_until("all requests have ended", || engine.handle.is_idle());
    let base = *base.lock().unwrap();
    let growth = resident_bytes().saturating_sub(base);
    let (finished, cancelled) = (seen.finished.load(Relaxed), seen.cancelled.load(Relaxed));
    println!("{finished} answers, {cancelled} given up, {} KiB growth since 30 s", growth >> 10);
    assert!(growth <= GROWTH_MAX_BYTES, "grew by {growth} bytes");
    let stats = engine.handle.stats();
    assert_eq!((stats.kv_used, stats.running, stats.waiting, stats.waiting_prompt_tokens), (0.0, 0, 0, 0));
}
