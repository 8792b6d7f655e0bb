use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sparkherd_protocol::Access;
use sparkherd_server::fake::FakeEngine;
use sparkherd_server::{Audience, ConnectionLimits, Service, ServiceSettings, serve};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub(crate) const KEY: &str = "sk-spark-test";
pub(crate) const MODEL: &str = "coder";
pub(crate) const ALIAS: &str = "openai/gpt-oss-20b";
pub(crate) const CONTEXT: u32 = 64;
/// Sequences the fake engine runs together.
pub(crate) const CONCURRENCY: u32 = 2;
pub(crate) const INCARNATION: &str = "test-1";
/// Far beyond what anything here takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A served fake engine. Ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) service: Arc<Service>,
    pub(crate) engine: FakeEngine,
    pub(crate) client: Client,
    /// Ends the server gracefully.
    pub(crate) end: oneshot::Sender<()>,
    pub(crate) ended: tokio::task::JoinHandle<()>,
}

pub(crate) fn audience(keys: &[&str]) -> Audience {
    let key_hashes = keys.iter().map(|key| hex(&Sha256::digest(key))).collect();
    let access = Access { anonymous: false, key_hashes };
    Audience::new(&access, vec![MODEL.to_owned(), ALIAS.to_owned()]).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

impl Server {
    /// Serves the script; its first generation is used up, as the child's probe does.
    pub(crate) async fn start(script: &str) -> Self {
        Self::start_within(ConnectionLimits::default(), script).await
    }

    /// The same with other limits on connections.
    pub(crate) async fn start_within(limits: ConnectionLimits, script: &str) -> Self {
        Self::start_as(limits, CONTEXT, script).await
    }

    /// The same for sequences of so many tokens.
    pub(crate) async fn start_as(limits: ConnectionLimits, context: u32, script: &str) -> Self {
        let script = script.parse().unwrap();
        let engine = FakeEngine::new(script, context, CONCURRENCY, Handle::current(), || {});
        let settings = ServiceSettings {
            audience: audience(&[KEY]),
            incarnation: INCARNATION.to_owned(),
            seed: 1,
            stall_limit: Duration::MAX,
            clock: || 1_800_000_000,
            held_bytes: || 4096,
            device_bytes: 0,
            cpu_time: || Duration::from_millis(1500),
        };
        let service = Arc::new(Service::new(Arc::new(engine.clone()), settings).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (end, ended) = oneshot::channel::<()>();
        let shared = Arc::clone(&service);
        let ended =
            tokio::spawn(
                async move { serve(listener, shared, limits, async move { drop(ended.await) }).await },
            );
        let client = Client::builder().timeout(DEADLINE).no_proxy().build().unwrap();
        let server = Self { url, service, engine, client, end, ended };
        let probe = server.chat(json!({})).await;
        assert_eq!(probe.status(), 200);
        server
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url)).bearer_auth(KEY)
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).bearer_auth(KEY)
    }

    /// A chat request with `changes` made to a plain one; `null` removes nothing but counts as absent.
    pub(crate) async fn chat(&self, changes: Value) -> Response {
        let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": "hi"}]});
        merge(&mut body, changes);
        self.post("/v1/chat/completions").json(&body).send().await.unwrap()
    }

    pub(crate) async fn complete(&self, changes: Value) -> Response {
        let mut body = json!({"model": MODEL, "prompt": "hi"});
        merge(&mut body, changes);
        self.post("/v1/completions").json(&body).send().await.unwrap()
    }

    pub(crate) async fn text_of_metrics(&self) -> String {
        self.get("/metrics").send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let text = self.text_of_metrics().await;
        let line =
            text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn merge(body: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    body.as_object_mut().unwrap().extend(changes);
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let poll = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, poll).await.is_ok(), "never: {what}");
}

/// The payloads of a stream, `[DONE]` included, and whether the body ended properly.
pub(crate) async fn events(mut response: Response) -> (Vec<String>, bool) {
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let mut text = Vec::new();
    let complete = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => text.extend(chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    let text = String::from_utf8(text).unwrap();
    let payloads =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned());
    (payloads.collect(), complete)
}

/// Checks the error's shape and returns it as (status, code, param).
pub(crate) async fn refusal(response: Response) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error in {body}"));
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let fields: std::collections::BTreeSet<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(fields, ["code", "message", "param", "type"].into(), "{body}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    let kind = match status {
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    assert_eq!(error["type"], kind, "{body}");
    (status, error["code"].as_str().unwrap().to_owned(), error["param"].as_str().map(str::to_owned))
}

pub(crate) fn refused(status: u16, code: &str, param: Option<&str>) -> (u16, String, Option<String>) {
    (status, code.to_owned(), param.map(str::to_owned))
}
