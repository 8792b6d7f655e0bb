//! The port of several engines.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;

use reqwest::Client;
use serde_json::{Value, json};
use sparkherd_server::ConnectionLimits;
use sparkherd_server::front::{Routes, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::harness::{DEADLINE, KEY, MODEL, Server, refusal, refused};

/// A front with one engine behind it. Ends with the test's runtime.
async fn front_of(engine: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Routes::default();
    routes.set(BTreeMap::from([(MODEL.to_owned(), engine)]));
    tokio::spawn(serve(listener, routes, pending()));
    url
}

fn client() -> Client {
    Client::builder().timeout(DEADLINE).no_proxy().build().unwrap()
}

/// More than an account's half of all room, so that it needs the lane.
fn large_body() -> Value {
    json!({"model": MODEL, "prompt": "hi", "stream": true, "padding": "x".repeat(5 << 20)})
}

#[tokio::test]
async fn a_body_takes_no_room_once_it_is_passed_on() {
    let server =
        Server::start_as(ConnectionLimits::default(), 1 << 18, "answer \"one two\"\nhang-after 1 tokens")
            .await;
    let front = front_of(server.url.trim_start_matches("http://").parse().unwrap()).await;
    let ask = || client().post(format!("{front}/v1/completions")).bearer_auth(KEY).json(&large_body()).send();
    // None of them ends.
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = ask().await.unwrap();
        assert_eq!(answer.status(), 200);
        answers.push(answer);
    }
}

/// The engine has made up its mind before the body is there, and the front still writes.
#[tokio::test]
async fn a_wrong_key_is_told_whatever_the_body() {
    let server = Server::start_as(ConnectionLimits::default(), 1 << 18, "").await;
    let front = front_of(server.url.trim_start_matches("http://").parse().unwrap()).await;
    for _ in 0..8 {
        let asked =
            client().post(format!("{front}/v1/completions")).bearer_auth("sk-other").json(&large_body());
        assert_eq!(refusal(asked.send().await.unwrap()).await, refused(401, "invalid_api_key", None));
    }
}

#[tokio::test]
async fn an_engine_learns_who_asks_and_how_much() {
    let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let front = front_of(engine.local_addr().unwrap()).await;
    let body = json!({"model": MODEL});
    let length = body.to_string().len();
    let asked = tokio::spawn(client().post(format!("{front}/v1/completions")).json(&body).send());
    let (mut connection, _) = engine.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(body.to_string().as_bytes()) {
        assert!(connection.read_buf(&mut request).await.unwrap() > 0);
    }
    let request = String::from_utf8(request).unwrap().to_lowercase();
    assert!(request.contains("\r\nx-sparkherd-peer: 127.0.0.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\ncontent-length: {length}\r\n")), "{request}");
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    assert_eq!(asked.await.unwrap().unwrap().text().await.unwrap(), "{}");
    let unknown = client().post(format!("{front}/v1/completions")).json(&json!({"model": "other"})).send();
    assert_eq!(refusal(unknown.await.unwrap()).await, refused(404, "model_not_found", Some("model")));
}
