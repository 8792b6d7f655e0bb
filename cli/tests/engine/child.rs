//! The engine child as its agent sees it: protocol, life and faults, with the fake engine.

use std::os::unix::process::ExitStatusExt as _;

use serde_json::{Value, json};
use sparkherd_protocol::{Access, Command, Event, FailureReason};

use crate::harness::{Engine, MODEL, config, resident_bytes};

fn chat(stream: bool) -> Value {
    json!({"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": "hi"}]})
}

async fn ask(url: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
    let client = reqwest::Client::builder().no_proxy().timeout(crate::harness::DEADLINE).build()?;
    client.post(format!("{url}/v1/chat/completions")).json(body).send().await
}

#[tokio::test]
async fn it_loads_says_ready_reports_and_stops() {
    let mut config = config();
    config.footprint.parts.weights_bytes = 1000;
    let mut engine = Engine::start(&config, Some("load 600ms\nhold 32MiB\nanswer \"one two\""));
    let loading = engine.wait_for("a load at work", |event| match event {
        Event::Loading { bytes_done, bytes_total, .. } if bytes_done > 0 => Some((bytes_done, bytes_total)),
        Event::Loading { .. } => None,
        other => panic!("{other:?} before it has loaded"),
    });
    assert!(loading.0 <= 1000 && loading.1 == 1000, "{loading:?}");
    let (address, held_bytes) = engine.wait_for("ready", |event| match event {
        Event::Ready { address, incarnation, held_bytes, tokens_per_second } => {
            assert_eq!(incarnation, "test-1");
            assert!(tokens_per_second > 0.0);
            Some((address, held_bytes))
        }
        _ => None,
    });
    assert!(held_bytes >= 32 << 20, "{held_bytes} held");
    let url = format!("http://{address}");
    let answer: Value = ask(&url, &chat(false)).await.unwrap().json().await.unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], "one two");
    let health = reqwest::get(format!("{url}/healthz")).await.unwrap();
    assert_eq!(health.status(), 200);
    engine.wait_for("stats with the tokens", |event| match event {
        // Two of the start-up generation, two of ours.
        Event::Stats { generated_tokens: 4, running: 0, waiting: 0, .. } => Some(()),
        _ => None,
    });
    engine.tell(&Command::Stop);
    assert_eq!(engine.wait().code(), Some(0));
}

#[tokio::test]
async fn keys_change_while_it_runs() {
    let mut engine = Engine::start(&config(), Some(""));
    let url = engine.ready();
    assert_eq!(ask(&url, &chat(false)).await.unwrap().status(), 200);
    let access = Access { anonymous: false, key_hashes: vec!["0".repeat(64)] };
    engine.tell(&Command::Access { access, served_names: vec!["renamed".to_owned()] });
    let deadline = std::time::Instant::now() + crate::harness::DEADLINE;
    while ask(&url, &chat(false)).await.unwrap().status() != 401 {
        assert!(std::time::Instant::now() < deadline, "keys do not count");
    }
    let broken = Access { anonymous: true, key_hashes: vec!["x".to_owned()] };
    engine.tell(&Command::Access { access: broken, served_names: vec![MODEL.to_owned()] });
    engine.tell(&Command::Stop);
    assert_eq!(engine.wait().code(), Some(0), "a broken list ends nothing");
}

#[test]
fn the_end_of_its_input_ends_it_at_once() {
    for script in ["", "load 3600s", "hang-after 0 tokens", "ignore-stop"] {
        let mut engine = Engine::start(&config(), Some(script));
        engine.next();
        engine.end_input();
        assert_eq!(engine.wait().signal(), Some(9), "{script}");
    }
}

#[test]
fn failures_are_told_before_the_exit() {
    let failed = |engine: &mut Engine| {
        let told = engine.wait_for("failed", |event| match event {
            Event::Failed { reason, message } => Some((reason, message)),
            _ => None,
        });
        assert_eq!(engine.wait().code(), Some(1));
        told
    };
    let mut engine = Engine::start(&config(), Some("fail-load \"no tensor x\""));
    assert_eq!(failed(&mut engine), (FailureReason::LoadFailed, "no tensor x".to_owned()));
    // The real loader on a directory that does not exist.
    let (reason, message) = failed(&mut Engine::start(&config(), None));
    assert_eq!(reason, FailureReason::UnsupportedModel, "{message}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let occupied = sparkherd_protocol::EngineConfig { listen: taken.local_addr().unwrap(), ..config() };
    let (reason, message) = failed(&mut Engine::start(&occupied, Some("load 3600s")));
    assert_eq!(reason, FailureReason::AddressUnavailable, "{message}");
    let nameless = sparkherd_protocol::EngineConfig { served_names: Vec::new(), ..config() };
    assert_eq!(failed(&mut Engine::start(&nameless, Some(""))).0, FailureReason::ConfigInvalid);
    let mut silent = Engine::start(&config(), Some("exit-at-start 7"));
    assert_eq!((silent.next(), silent.wait().code()), (None, Some(7)));
}

#[tokio::test]
async fn death_in_the_middle_of_a_stream_breaks_the_connection() {
    let mut engine = Engine::start(&config(), Some("answer \"one two three\"\ndie-after 2 tokens"));
    let url = engine.ready();
    let mut response = ask(&url, &chat(true)).await.unwrap();
    let mut text = Vec::new();
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend(chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    let text = String::from_utf8(text).unwrap();
    assert!(broken && !text.contains("[DONE]"), "{text}");
    assert_eq!(engine.wait().signal(), Some(9));
}

#[tokio::test]
async fn a_drain_finishes_what_runs_and_exits_0() {
    let mut engine = Engine::start(&config(), Some("answer \"one two three\"\ntoken-delay 100ms"));
    let url = engine.ready();
    let stream = ask(&url, &chat(true)).await.unwrap();
    engine.tell(&Command::Drain { seconds: 60 });
    engine.wait_for("draining", |event| (event == Event::Draining).then_some(()));
    let lingering = ask(&url, &chat(false)).await.unwrap();
    assert_eq!(
        (lingering.status().as_u16(), &lingering.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );
    let text = stream.text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(engine.wait().code(), Some(0));
}

#[tokio::test]
async fn a_drain_ends_what_does_not_finish_with_an_error() {
    let mut engine = Engine::start(&config(), Some("answer \"one two\"\nhang-after 1 tokens"));
    let url = engine.ready();
    let stream = ask(&url, &chat(true)).await.unwrap();
    engine.tell(&Command::Drain { seconds: 1 });
    let text = stream.text().await.unwrap();
    assert!(text.contains("\"code\":\"draining\"") && !text.contains("[DONE]"), "{text}");
    assert_eq!(engine.wait().code(), Some(0));
}

#[test]
fn a_balloon_grows_and_a_deaf_engine_goes_on() {
    let mut engine = Engine::start(&config(), Some("balloon 64MiB\nignore-stop"));
    engine.ready();
    assert!(resident_bytes(engine.process()) >= 64 << 20);
    engine.tell(&Command::Stop);
    engine.tell(&Command::Drain { seconds: 0 });
    for _ in 0..2 {
        engine.wait_for("stats", |event| matches!(event, Event::Stats { .. }).then_some(()));
    }
}
