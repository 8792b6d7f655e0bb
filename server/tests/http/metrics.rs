//! How long requests wait and work, and what the cache is made of, as `/metrics` says it.

use std::time::Instant;

use serde_json::json;

use crate::harness::{CONCURRENCY, MODEL, Server, until};

const LABEL: &str = "model_name=\"coder\"";

async fn assert_series(server: &Server, expected: &[(String, f64)]) {
    for (series, value) in expected {
        let told = server.metric(series).await;
        assert!((told - value).abs() < f64::EPSILON, "{series} is {told}, not {value}");
    }
}

/// Counts of the time in the queue: of interactive requests, of those that can wait, and of all.
fn queued(interactive: f64, batch: f64) -> [(String, f64); 3] {
    let own =
        |class| format!("sparkherd_engine_request_queue_time_seconds_count{{class=\"{class}\",{LABEL}}}");
    let vllm = format!("vllm:request_queue_time_seconds_count{{{LABEL}}}");
    [(own("interactive"), interactive), (own("batch"), batch), (vllm, interactive + batch)]
}

#[tokio::test]
async fn every_request_is_counted_when_it_leaves_the_queue() {
    let server = Server::start("answer \"one two\"").await;
    // The harness has asked once.
    assert_series(&server, &queued(1.0, 0.0)).await;
    server.chat(json!({"priority": 1})).await;
    server.complete(json!({"service_tier": "flex"})).await;
    server.chat(json!({"n": 2})).await;
    let asked = json!({"model": MODEL, "input": ["a", "b"], "priority": 1});
    assert_eq!(server.post("/v1/embeddings").json(&asked).send().await.unwrap().status(), 200);
    assert_series(&server, &queued(3.0, 4.0)).await;
}

#[tokio::test]
async fn waiting_is_measured() {
    let server = Server::start("answer \"one two three\"\nhang-after 1 tokens").await;
    let waiting = format!("vllm:num_requests_waiting{{{LABEL}}}");
    let mut running = Vec::new();
    for _ in 0..CONCURRENCY {
        running.push(server.chat(json!({"stream": true})).await);
    }
    let last = server.chat(json!({"stream": true, "priority": 1})).await;
    let [interactive, ..] = queued(3.0, 0.0);
    until("all others run", async || server.metric(&interactive.0).await >= interactive.1).await;
    until("it waits", async || server.metric(&waiting).await >= 1.0).await;
    let since = Instant::now();
    assert_series(&server, &queued(3.0, 0.0)).await;
    let waited_at_least = since.elapsed().as_secs_f64();
    drop(running);
    until("it waits no more", async || server.metric(&waiting).await <= 0.0).await;
    let batch = format!("sparkherd_engine_request_queue_time_seconds_sum{{class=\"batch\",{LABEL}}}");
    until("its time is told", async || server.metric(&batch).await >= waited_at_least).await;
    drop(last);
}

#[tokio::test]
async fn the_parts_of_a_request_are_timed_when_it_ends_by_itself() {
    let server = Server::start("answer \"one two three\"\nhang-after 4 tokens").await;
    server.chat(json!({})).await;
    let abandoned = server.chat(json!({"stream": true})).await;
    let first_texts = format!("vllm:time_to_first_token_seconds_count{{{LABEL}}}");
    until("its first word is there", async || server.metric(&first_texts).await >= 3.0).await;
    drop(abandoned);
    let aborted = format!("vllm:request_success_total{{finished_reason=\"abort\",{LABEL}}}");
    until("it is counted", async || server.text_of_metrics().await.contains(&aborted)).await;
    let count = |name: &str| format!("vllm:{name}_count{{{LABEL}}}");
    assert_series(
        &server,
        &[
            (count("request_prefill_time_seconds"), 3.0),
            (count("request_decode_time_seconds"), 2.0),
            (count("request_inference_time_seconds"), 2.0),
            // Three words of the harness, three of the whole answer, and one that somebody read.
            (format!("vllm:request_generation_tokens_sum{{{LABEL}}}"), 7.0),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_cache_is_described() {
    let server = Server::start("").await;
    // Two sequences of 64 tokens in blocks of 16.
    let vllm = format!(
        "vllm:cache_config_info{{block_size=\"16\",enable_prefix_caching=\"False\",{LABEL},num_gpu_blocks=\"8\"}}"
    );
    let own = format!(
        "sparkherd_engine_cache_info{{block_tokens=\"16\",blocks=\"8\",{LABEL},prefix_cache=\"false\"}}"
    );
    assert_series(&server, &[(vllm, 1.0), (own, 1.0)]).await;
}

#[tokio::test]
async fn the_process_is_described_under_its_usual_name() {
    let server = Server::start("").await;
    // Twice: the second scrape adds nothing to what the first has told.
    for _ in 0..2 {
        assert_series(&server, &[("process_cpu_seconds_total".to_owned(), 1.5)]).await;
    }
}
