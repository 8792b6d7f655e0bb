//! Who is refused when there is no room, and who is not.

use reqwest::Response;
use serde_json::json;
use sparkherd_engine::QueueLimits;

use crate::harness::{CONCURRENCY, CONTEXT, Server, refusal, streamed};

/// More than the tests let run, so that only opening the gate ends one.
const LONG: u32 = CONTEXT - 16;

async fn refused(server: &Server, client: &str) -> (u16, String) {
    let response = server.complete(client, streamed(2)).await;
    assert_ne!(response.status(), 200, "{client} finds room");
    assert!((1..=60).contains(&retry_after(&response)), "{response:?}");
    let (status, code, _) = refusal(response).await;
    (status, code)
}

fn retry_after(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_client_at_its_limit_is_refused_while_another_is_served() {
    let (server, gate) =
        Server::gated(|queue| QueueLimits { requests: 2, client_requests: 3, ..queue }).await;
    let client_limit = (429, "rate_limit_exceeded".to_owned());
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(server.stream("alice", LONG).await);
    }
    assert_eq!(refused(&server, "alice").await, client_limit);
    let other = server.stream("bob", 3).await;
    // Far fewer steps than would end any of the first three.
    gate.let_through(40);
    assert!(!other.rest().await.is_empty());
    assert_eq!(refused(&server, "alice").await, client_limit, "all of its own run still");

    // With one more running and two waiting there is no room for anybody.
    for client in ["bob", "carol", "carol"] {
        streams.push(server.stream(client, LONG).await);
    }
    assert_eq!(streams.len(), CONCURRENCY as usize + 2);
    assert_eq!(refused(&server, "dave").await, (503, "queue_full".to_owned()));
    drop(gate);
    for stream in streams {
        assert!(!stream.rest().await.is_empty(), "what was accepted is answered");
    }
    assert!(!server.stream("dave", 2).await.rest().await.is_empty(), "there is room again");
}

/// A retry would find it no smaller, however idle the engine.
#[tokio::test]
async fn prompts_that_could_never_wait_together_are_refused_for_good() {
    const PROMPTS: usize = 8;
    let max = u64::from(CONTEXT) * 2;
    let (server, gate) = Server::gated(|queue| QueueLimits { client_prompt_tokens: max, ..queue }).await;
    drop(gate);
    let ask = async |tokens: usize| {
        let prompts = vec![vec![7; tokens]; PROMPTS];
        server.complete("alice", json!({"prompt": prompts, "max_tokens": 1})).await
    };
    let tokens = usize::try_from(max).unwrap() / PROMPTS;
    let refused = ask(tokens + 1).await;
    assert!(refused.headers().get("retry-after").is_none(), "{refused:?}");
    let (status, code, message) = refusal(refused).await;
    assert_eq!((status, code.as_str()), (400, "invalid_value"));
    let count = (tokens + 1) * PROMPTS;
    assert!(message.contains(&max.to_string()) && message.contains(&count.to_string()), "{message}");
    assert_eq!(ask(tokens).await.status(), 200);
}
