//! One request, timed.

use std::error::Error;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};

use super::events::{Event, Events};
use super::server_times::ServerTimes;

/// What every request asks for.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) model: String,
    pub(super) output_tokens: u32,
    pub(super) ignore_eos: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: [Message<'a>; 1],
    max_tokens: u32,
    temperature: f32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_eos: bool,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl Load {
    pub(super) fn body(&self, prompt: &str) -> serde_json::Result<Vec<u8>> {
        let Self { model, output_tokens, ignore_eos } = self;
        serde_json::to_vec(&Body {
            model,
            messages: [Message { role: "user", content: prompt }],
            max_tokens: *output_tokens,
            temperature: 0.0,
            ignore_eos: *ignore_eos,
            stream: true,
            stream_options: StreamOptions { include_usage: true },
        })
    }
}

/// What a client felt, from when its request was due.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Timing {
    pub(super) outcome: Result<Answer, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// From when the request was due to the first piece of the answer, reasoning included.
    pub(super) first: Duration,
    /// Between one piece of the answer and the next.
    pub(super) gaps: Vec<Duration>,
    /// From when the request was due to the last byte.
    pub(super) whole: Duration,
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
    /// As the server counts them: reasoning included.
    pub(super) completion_tokens: u32,
}

/// The body of an error, as far as a count of reasons needs it.
#[derive(Deserialize)]
struct Refusal {
    error: RefusalDetail,
}

#[derive(Deserialize)]
struct RefusalDetail {
    code: Option<String>,
}

#[derive(Debug)]
pub(super) struct Target {
    client: reqwest::Client,
    url: String,
    metrics_url: reqwest::Url,
    key: Option<String>,
}

impl Target {
    pub(super) fn new(base: &reqwest::Url, key: Option<&str>, timeout: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .context("cannot make an HTTP client")?;
        let url = format!("{}/chat/completions", base.as_str().trim_end_matches('/'));
        let metrics_url = base.join("/metrics").context("no place for metrics")?;
        Ok(Self { client, url, metrics_url, key: key.map(str::to_owned) })
    }

    /// What the server tells of its times; nothing, where it has no metrics.
    pub(super) async fn server_times(&self) -> ServerTimes {
        let metrics = async {
            let answer = self.client.get(self.metrics_url.clone()).send().await?;
            answer.error_for_status()?.text().await
        };
        metrics.await.map(|text| ServerTimes::parse(&text)).unwrap_or_default()
    }

    /// Sends a request that was due at `due`, and reads its answer to the end.
    pub(super) async fn ask(&self, body: Vec<u8>, due: Instant) -> Timing {
        Timing { outcome: self.answer(body, due).await }
    }

    async fn answer(&self, body: Vec<u8>, due: Instant) -> Result<Answer, String> {
        let mut request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let mut response = request.send().await.map_err(|error| cause(&error))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let code = response.json::<Refusal>().await.ok().and_then(|refusal| refusal.error.code);
            return Err(format!("status {status}: {}", code.as_deref().unwrap_or("no code")));
        }
        let mut events = Events::default();
        let mut answer = Answer::default();
        let mut last_piece: Option<Instant> = None;
        let mut done = false;
        while let Some(bytes) = response.chunk().await.map_err(|error| cause(&error))? {
            let now = Instant::now();
            for event in events.push(&bytes)? {
                match event {
                    Event::Piece => match last_piece.replace(now) {
                        None => answer.first = now - due,
                        Some(previous) => answer.gaps.push(now - previous),
                    },
                    Event::Usage { prompt_tokens, completion_tokens, cached_tokens } => {
                        answer = Answer { prompt_tokens, cached_tokens, completion_tokens, ..answer };
                    }
                    Event::Failed => return Err("an error within the answer".to_owned()),
                    Event::Done => done = true,
                }
            }
        }
        answer.whole = due.elapsed();
        match last_piece {
            Some(_) if done => Ok(answer),
            Some(_) => Err("the answer was cut".to_owned()),
            None => Err("an answer without a token".to_owned()),
        }
    }
}

/// The innermost reason: the outer ones repeat the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
