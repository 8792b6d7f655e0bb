//! `/metrics` and `/healthz` over HTTP, with one engine that answers and one that does not.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

use std::net::SocketAddr;
use std::sync::Arc;

use sparkherd_agent::{EngineTarget, Health, Metrics, bind_admin};
use tokio::net::TcpListener;
use warp::Filter;

async fn engine() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics =
        warp::path!("metrics").map(|| "# TYPE steps_total counter\nsteps_total{kind=\"decode\"} 3\n");
    tokio::spawn(warp::serve(metrics).incoming(listener).run());
    address
}

/// Accepts and never answers.
async fn mute() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn target(replica: &str, address: SocketAddr) -> EngineTarget {
    let (namespace, deployment) = ("lab".to_owned(), "coder".to_owned());
    EngineTarget { namespace, deployment, replica: replica.to_owned(), address }
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let response = reqwest::get(format!("http://{address}/{path}")).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn re_exports_engines_that_answer_and_counts_those_that_do_not() {
    let (_held, mute) = mute().await;
    let health = Arc::new(Health::new());
    health.passed(vec![target("a", engine().await), target("b", mute)]);
    let (address, server) =
        bind_admin("127.0.0.1:0".parse().unwrap(), Metrics::new().unwrap(), Arc::clone(&health))
            .await
            .unwrap();
    tokio::spawn(server);
    let (status, text) = get(address, "metrics").await;
    assert_eq!(status, 200);
    let sample =
        "steps_total{deployment_namespace=\"lab\",deployment=\"coder\",replica=\"a\",kind=\"decode\"} 3";
    assert!(text.contains(sample), "{text}");
    assert!(text.contains("sparkherd_agent_engine_scrape_failures_total 1"), "{text}");
    assert!(!text.contains("replica=\"b\""), "{text}");
    assert_eq!(get(address, "healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(address, "secrets").await.0, 404);
}
