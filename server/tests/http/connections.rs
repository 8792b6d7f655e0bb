//! What one connection may take, and how many there may be.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};
use sparkherd_server::ConnectionLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{DEADLINE, KEY, Server, until};

const VERSION: &[u8] = b"GET /version HTTP/1.1\r\nhost: engine\r\n\r\n";

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads a whole answer to [`VERSION`].
async fn read_version(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\"}") {
        let read = timeout(DEADLINE, stream.read_buf(&mut text)).await.unwrap().unwrap();
        assert!(read > 0, "cut after {:?}", String::from_utf8_lossy(&text));
    }
    assert!(text.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Everything the server still writes before it closes the connection.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut text = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut text)).await.unwrap().unwrap();
    text
}

#[tokio::test]
async fn what_there_is_no_room_for_waits_until_another_leaves() {
    // One is the harness's own, which is kept open.
    let limits = ConnectionLimits { connections: 2, ..ConnectionLimits::default() };
    let server = Server::start_within(limits, "").await;
    let (mut first, mut second) = (connect(&server).await, connect(&server).await);
    second.write_all(VERSION).await.unwrap();
    for _ in 0..2 {
        first.write_all(VERSION).await.unwrap();
        read_version(&mut first).await;
    }
    let unread = second.try_read(&mut [0; 1]).unwrap_err();
    assert_eq!(unread.kind(), ErrorKind::WouldBlock, "there was room for one only");
    drop(first);
    read_version(&mut second).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_its_connection() {
    let limits =
        ConnectionLimits { header_timeout: Duration::from_millis(50), ..ConnectionLimits::default() };
    let server = Server::start_within(limits, "").await;
    let mut slow = connect(&server).await;
    slow.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: eng").await.unwrap();
    let told = String::from_utf8(rest(&mut slow).await).unwrap();
    assert!(!told.contains("200"), "{told}");
    // One that is kept and not used ends the same way.
    let mut kept = connect(&server).await;
    kept.write_all(VERSION).await.unwrap();
    read_version(&mut kept).await;
    assert_eq!(rest(&mut kept).await, b"");
}

/// Writes the head of a request and a part of its body.
async fn begin(stream: &mut TcpStream, path: &str, length: usize, begun: &str) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: engine\r\nauthorization: Bearer {KEY}\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + begun).as_bytes()).await.unwrap();
}

#[tokio::test]
async fn bodies_that_dribble_in_hold_nobody_up() {
    let server = Server::start("answer \"one\"").await;
    let (mut first, mut second) = (connect(&server).await, connect(&server).await);
    let active = async || server.service.lifecycle().active();
    for (stream, path) in [(&mut first, "/v1/embeddings"), (&mut second, "/v1/completions")] {
        begin(stream, path, 3 << 20, "{").await;
    }
    until("both are being read", async || active().await == 2).await;
    // It would wait for longer than the client does.
    let answer = server.post("/v1/embeddings").json(&json!({"model": "coder", "input": vec!["a"; 2048]}));
    assert_eq!(answer.send().await.unwrap().status(), 200);
    assert_eq!(active().await, 2, "they are still at it");
}

#[tokio::test]
async fn a_client_that_reads_none_of_its_answers_gets_no_more() {
    let answer = format!("{} ", "x".repeat(2 << 20)).repeat(16);
    let server = Server::start(&format!("answer {}", Value::from(answer))).await;
    let body = json!({"model": "coder", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let mut deaf = connect(&server).await;
    begin(&mut deaf, "/v1/chat/completions", body.len(), &body).await;
    let tokenize = || server.post("/tokenize").json(&json!({"prompt": "hi"})).send();
    until("the answer lies there", async || tokenize().await.unwrap().status() == 429).await;
    let refused = server.chat(json!({})).await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    drop(deaf);
    until("it is given up", async || tokenize().await.unwrap().status() == 200).await;
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_cut_off_and_its_request_ends() {
    let limits =
        ConnectionLimits { write_timeout: Duration::from_millis(200), ..ConnectionLimits::default() };
    // Far more than the kernel's buffers of both ends hold.
    let answer = format!("{} ", "x".repeat(2 << 20)).repeat(16);
    let server = Server::start_within(limits, &format!("answer {}", Value::from(answer))).await;
    let body = json!({"model": "coder", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let body = body.to_string();
    let mut deaf = connect(&server).await;
    begin(&mut deaf, "/v1/chat/completions", body.len(), &body).await;
    let aborted = "vllm:request_success_total{finished_reason=\"abort\",model_name=\"coder\"} 1";
    until("its request is given up", async || server.text_of_metrics().await.contains(aborted)).await;
    // What was on its way may still be read, and then the connection is at its end.
    let mut answer = Vec::new();
    let end = timeout(DEADLINE, deaf.read_to_end(&mut answer)).await.unwrap();
    assert!(end.is_err() || !answer.ends_with(b"0\r\n\r\n"), "a whole answer of {} bytes", answer.len());
}
