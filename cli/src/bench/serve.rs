//! `sparkherd bench serve`: load on a URL, and what its clients felt.
//!
//! ```text
//! arrivals, prompts (seeded) ─► one task a request: POST, stream ─► timings ─► report (percentiles) ─► table | JSON
//! ```
//!
//! Open loop (`--rate`): requests come when they are due, whatever the server does, and waiting counts from when they were
//! due. Closed loop (`--concurrency`): so many clients, each asks again when it has its answer.

mod arrivals;
mod events;
mod prompts;
mod random;
mod report;
mod request;
mod server_times;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use arrivals::Arrivals;
use prompts::Prompts;
use report::Report;
use request::{Load, Target, Timing};

/// Measure what the clients of a served model feel: time to first token, between tokens, and throughput.
///
/// A key is read from the environment variable `OPENAI_API_KEY`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// Base URL of an OpenAI-compatible server, for example <http://127.0.0.1:8000/v1>
    #[arg(value_name = "URL")]
    url: reqwest::Url,
    /// Served name to ask for
    #[arg(long)]
    model: String,
    #[command(flatten)]
    loop_kind: LoopKind,
    /// Requests to measure; one more goes before and is not counted
    #[arg(long, default_value = "64", value_name = "COUNT")]
    requests: NonZeroU32,
    /// About how long prompts are; the report says how long they were
    #[arg(long, default_value_t = 256, value_name = "TOKENS")]
    prompt_tokens: u32,
    /// How long answers are
    #[arg(long, default_value = "128", value_name = "TOKENS")]
    output_tokens: NonZeroU32,
    /// Let the model end its answers earlier
    #[arg(long)]
    stop_at_eos: bool,
    /// Ask the same prompt again and again, so that a prefix cache answers for most of it
    #[arg(long)]
    repeat_prompt: bool,
    /// Seed of arrivals and prompts: the same seed sends the same load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give a request up after this many seconds
    #[arg(long, default_value = "600", value_name = "SECONDS")]
    timeout: NonZeroU32,
    /// Write one JSON document instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct LoopKind {
    /// Open loop: requests a second, Poisson
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Closed loop: clients that each wait for their answer
    #[arg(long)]
    concurrency: Option<NonZeroU32>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("expected a number above 0".to_owned()) }
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let key = std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty());
    let json = args.json;
    let report = tokio::runtime::Runtime::new()
        .context("failed to start the runtime")?
        .block_on(measure(args, key))?;
    report.print(json)?;
    ensure!(report.completed() > 0, "no request was answered");
    Ok(())
}

async fn measure(args: ServeArgs, key: Option<String>) -> anyhow::Result<Report> {
    let ServeArgs {
        url,
        model,
        loop_kind: LoopKind { rate, concurrency },
        requests,
        prompt_tokens,
        output_tokens,
        stop_at_eos,
        repeat_prompt,
        seed,
        timeout,
        json: _,
    } = args;
    ensure!(url.scheme() == "http", "{url} is not http: what is measured is a server, not TLS");
    let load = Load { model, output_tokens: output_tokens.get(), ignore_eos: !stop_at_eos };
    let timeout = Duration::from_secs(timeout.get().into());
    let target = Arc::new(Target::new(&url, key.as_deref(), timeout)?);
    let mut prompts = Prompts::new(seed, prompt_tokens, repeat_prompt);
    let first = target.ask(load.body(&prompts.next())?, Instant::now()).await;
    first.outcome.map_err(anyhow::Error::msg).context("the first request was not answered")?;
    let bodies = (0..requests.get()).map(|_| load.body(&prompts.next())).collect::<Result<Vec<_>, _>>()?;
    let before = target.server_times().await;
    let started = Instant::now();
    let timings = match rate {
        Some(rate) => open_loop(&target, bodies, Arrivals::new(seed, rate), started).await,
        None => closed_loop(&target, bodies, concurrency.map_or(1, NonZeroU32::get)).await,
    };
    let duration = started.elapsed();
    let server = target.server_times().await.since(before);
    Ok(Report::new(&timings, duration, server))
}

/// Starts each request when it is due, however many are under way.
async fn open_loop(
    target: &Arc<Target>,
    bodies: Vec<Vec<u8>>,
    mut arrivals: Arrivals,
    started: Instant,
) -> Vec<Timing> {
    let mut running = JoinSet::new();
    for body in bodies {
        let due = started + arrivals.next();
        sleep_until(due.into()).await;
        let target = Arc::clone(target);
        running.spawn(async move { target.ask(body, due).await });
    }
    running.join_all().await
}

async fn closed_loop(target: &Arc<Target>, bodies: Vec<Vec<u8>>, concurrency: u32) -> Vec<Timing> {
    let clients = Arc::new(Semaphore::new(usize::try_from(concurrency).unwrap_or(Semaphore::MAX_PERMITS)));
    let mut running = JoinSet::new();
    for body in bodies {
        let Ok(client) = Arc::clone(&clients).acquire_owned().await else { break };
        let target = Arc::clone(target);
        running.spawn(async move {
            let timing = target.ask(body, Instant::now()).await;
            drop(client);
            timing
        });
    }
    running.join_all().await
}
