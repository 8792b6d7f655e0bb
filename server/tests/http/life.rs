use serde_json::{Value, json};
use sparkherd_server::{ChatEngine, Phase};

use crate::harness::{Server, events, until};

#[tokio::test]
async fn a_drain_closes_then_refuses_then_ends_what_runs() {
    let server = Server::start("answer \"one two three\"\nhang-after 1 tokens").await;
    let lifecycle = server.service.lifecycle();
    let mut running = server.chat(json!({"stream": true})).await;
    assert!(running.headers().get("connection").is_none());
    assert!(running.chunk().await.unwrap().is_some());

    lifecycle.advance(Phase::Lingering);
    let lingering = server.get("/v1/models").send().await.unwrap();
    assert_eq!(
        (lingering.status().as_u16(), &lingering.headers()["connection"]),
        (200, &"close".parse().unwrap())
    );

    lifecycle.advance(Phase::Refusing);
    server.engine.drain();
    let refused = server.chat(json!({})).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "draining");
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 503);
    lifecycle.advance(Phase::Serving);
    assert_eq!(lifecycle.phase(), Phase::Refusing, "phases only go forward");

    lifecycle.advance(Phase::Aborting);
    let (payloads, complete) = events(running).await;
    let error: Value = serde_json::from_str(payloads.last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "draining", "an explicit error, and no [DONE]: {payloads:?}");
    assert!(complete);
    lifecycle.idle().await;
}

#[tokio::test]
async fn the_server_ends_once_its_answers_are_written() {
    let server = Server::start("answer \"one two three\"\ntoken-delay 20ms").await;
    let stream = server.chat(json!({"stream": true})).await;
    server.end.send(()).unwrap();
    let client = &server.client;
    let url = format!("{}/healthz", server.url);
    until("new connections are refused", async || client.get(&url).send().await.is_err()).await;
    let (payloads, complete) = events(stream).await;
    assert!(complete && payloads.last().is_some_and(|last| last == "[DONE]"), "{payloads:?}");
    server.ended.await.unwrap();
}

#[tokio::test]
async fn version_is_told() {
    let server = Server::start("").await;
    let body: Value = server.get("/version").send().await.unwrap().json().await.unwrap();
    assert_eq!(body, json!({"version": env!("CARGO_PKG_VERSION")}));
}
