//! Five minutes of 32 streams on a real engine process: its memory stays where it is (I18), and each request gets its own
//! answer, once (I19).
//!
//! ```text
//! cargo test --workspace --test engine -- --ignored --nocapture soak
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

use crate::harness::{Engine, MODEL, admitted, resident_bytes};

const STREAMS: usize = 32;
const WARM_UP: Duration = Duration::from_secs(30);
const DURATION: Duration = Duration::from_mins(5);
const GROWTH_MAX_BYTES: u64 = 8 << 20;
const CONTEXT: u32 = 256;
/// Distinct requests, each asked alone before.
const KINDS: usize = 48;

/// A request that differs from all others in its answer: by prompt, seed, length and form.
fn request(kind: usize) -> Value {
    let mut body = json!({
        "model": MODEL, "stream": true, "stream_options": {"include_usage": true}, "temperature": 1, "seed": kind,
        "messages": [{"role": "user", "content": format!("What is sparkherd? {}", "spark ".repeat(kind % 13))}],
        "max_tokens": 8 + kind * 5 % 97, "ignore_eos": kind.is_multiple_of(3),
    });
    if kind.is_multiple_of(8) {
        let schema = json!({"type": "object", "required": ["size"], "properties": {"size": {"enum": ["small", "large"]}}});
        body["response_format"] =
            json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    }
    body
}

/// What an answer says, without what differs each time: how it ended, how long it was, and all of its words.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    text: String,
    reason: String,
    completion_tokens: u64,
}

/// Reads an answer, or its first `events_max` events.
async fn ask(client: &Client, url: &str, body: &Value, events_max: usize) -> Option<Answer> {
    let mut response = client.post(format!("{url}/v1/chat/completions")).json(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let (mut answer, mut unread, mut events) = (Answer::default(), String::new(), 0);
    while let Some(chunk) = response.chunk().await.unwrap() {
        unread.push_str(std::str::from_utf8(&chunk).unwrap());
        while let Some((event, rest)) = unread.split_once("\n\n") {
            let payload = event.strip_prefix("data: ").unwrap();
            if payload == "[DONE]" {
                assert!(rest.is_empty(), "something follows the end");
                return Some(answer);
            }
            let event: Value = serde_json::from_str(payload).unwrap();
            let choice = &event["choices"][0];
            answer.text += choice["delta"]["content"].as_str().unwrap_or("");
            answer.reason += choice["finish_reason"].as_str().unwrap_or("");
            answer.completion_tokens += event["usage"]["completion_tokens"].as_u64().unwrap_or(0);
            unread = rest.to_owned();
            events += 1;
            if events == events_max {
                return None;
            }
        }
    }
    panic!("a stream without its end: {answer:?}");
}

#[derive(Default)]
struct Seen {
    finished: AtomicU64,
    given_up: AtomicU64,
}

/// One client: a request after the other, one in eight given up on the way.
async fn stream(url: String, number: usize, until: Instant, alone: Arc<Vec<Answer>>, seen: Arc<Seen>) {
    let client = Client::builder().no_proxy().build().unwrap();
    let mut turn = number;
    while Instant::now() < until {
        // A walk through all kinds, in another order for each client.
        turn = turn.wrapping_mul(6_364_136_223).wrapping_add(number * 2 + 1);
        let kind = (turn >> 16) % alone.len();
        let events_max = if (turn >> 8).is_multiple_of(8) { 1 + (turn >> 24) % 8 } else { usize::MAX };
        match ask(&client, &url, &request(kind), events_max).await {
            Some(answer) => {
                assert_eq!(answer, alone[kind], "kind {kind}");
                seen.finished.fetch_add(1, Relaxed);
            }
            None => _ = seen.given_up.fetch_add(1, Relaxed),
        }
    }
}

/// The sum of all series of this metric that have `label`.
async fn metric(url: &str, name: &str, label: &str) -> f64 {
    let text = reqwest::get(format!("{url}/metrics")).await.unwrap().text().await.unwrap();
    let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    let lines = text.lines().filter(of_metric).filter(|line| line.contains(label));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test]
#[ignore = "takes five minutes"]
async fn soak_of_thirty_two_streams() {
    let model_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/ask-sparkherd");
    let engine = Engine::start(&admitted(&model_dir.canonicalize().unwrap(), CONTEXT, 16), None);
    let url = engine.ready();
    let client = Client::builder().no_proxy().build().unwrap();
    let mut alone = Vec::new();
    for kind in 0..KINDS {
        alone.push(ask(&client, &url, &request(kind), usize::MAX).await.unwrap());
    }
    let (alone, seen) = (Arc::new(alone), Arc::new(Seen::default()));
    let start = Instant::now();
    let streams: Vec<_> = (0..STREAMS)
        .map(|number| {
            let (alone, seen) = (Arc::clone(&alone), Arc::clone(&seen));
            tokio::spawn(stream(url.clone(), number, start + DURATION, alone, seen))
        })
        .collect();
    let mut after_warm_up = None;
    while start.elapsed() < DURATION {
        tokio::time::sleep(WARM_UP.min(DURATION.saturating_sub(start.elapsed()))).await;
        let resident = resident_bytes(engine.process());
        after_warm_up.get_or_insert(resident);
        println!("{:3} s: {} KiB resident", start.elapsed().as_secs(), resident >> 10);
    }
    for stream in streams {
        stream.await.unwrap();
    }
    let growth = resident_bytes(engine.process()).saturating_sub(after_warm_up.unwrap());
    let (finished, given_up) = (seen.finished.load(Relaxed), seen.given_up.load(Relaxed));
    println!("{finished} answers, {given_up} given up, {} KiB growth since 30 s", growth >> 10);
    assert!(growth <= GROWTH_MAX_BYTES, "grew by {growth} bytes");
    let counted = metric(&url, "vllm:request_success_total", "finished_reason=\"stop\"").await
        + metric(&url, "vllm:request_success_total", "finished_reason=\"length\"").await;
    // Those asked alone, and those whose end came before their reader had gone.
    let least = KINDS as u64 + finished;
    let most = least + given_up;
    assert!(
        (least as f64..=most as f64).contains(&counted),
        "{counted} of {least} to {most} answers counted"
    );
    let deadline = Instant::now() + crate::harness::DEADLINE;
    while metric(&url, "vllm:kv_cache_usage_perc", "").await
        + metric(&url, "vllm:num_requests_running", "").await
        > 0.0
    {
        assert!(Instant::now() < deadline, "something still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
