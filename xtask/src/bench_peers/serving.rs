//! What serving costs: the same checkpoint in the benchmark's own process and behind HTTP, in turns.
//!
//! ```text
//! bench engine, 1 sequence and 8, at the depth of those prompts ───┐
//! sparkherd serve (idle meanwhile) ◄─ bench serve, 1 client and 8 ─┼─► medians ─► what serving adds
//! bench engine again ──────────────────────────────────────────────┘
//! ```
//!
//! Server, clients and compute threads share the processors, as they do on a Spark that is asked from its own host.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::report::median;
use super::{Case, GENERATE, Run, THREADS, output, parsed};

const MODEL: &str = "peers";
const CLIENTS: u32 = 8;
/// What the checkpoint's template and vocabulary make of it is measured: each byte is a token.
const PROMPT: &str = "16";
/// Runs of one client that are thrown away after the server was idle. Memory that nobody touched for some seconds is slower at
/// first on a virtual machine: 32.5 ms a token in the first run, 30.7 in the second, 30.1 from the third on. The benchmark in
/// process has just read its own.
const WARM_RUNS: usize = 2;
/// Loading takes seconds; building nothing, this is only for a busy machine.
const START_DEADLINE: Duration = Duration::from_mins(2);

/// What `bench serve --json` prints, as far as it is needed here.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Served {
    completed: u32,
    prompt_tokens: u32,
    time_per_output_token_ms: Mean,
    time_to_first_token_outside_model_ms: Option<f64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Mean {
    mean: f64,
}

/// A `sparkherd serve` of one checkpoint; ended when dropped.
pub(super) struct Server<'a> {
    sparkherd: &'a Path,
    model: &'a Path,
    process: Child,
    url: String,
    /// Tokens that the model sees of [`PROMPT`].
    depth: u32,
}

impl<'a> Server<'a> {
    pub(super) fn start(sparkherd: &'a Path, model: &'a Path, folder: &Path) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let manifest = folder.join("serving.yaml");
        let model_url = format!("file://{}", model.display());
        fs::write(
            &manifest,
            format!(
                "apiVersion: sparkherd.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {{name: {MODEL}}}\n\
                 spec: {{model: \"{model_url}\", context: 1024, concurrency: {CLIENTS}}}\n"
            ),
        )?;
        let process = Command::new(sparkherd)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--engine-ports",
                &format!("{port}-{port}"),
                "--store",
            ])
            .arg(folder.join("store"))
            .arg(manifest)
            .env("RUST_LOG", "warn")
            .spawn()
            .context("cannot start sparkherd serve")?;
        let mut server =
            Self { sparkherd, model, process, url: format!("http://127.0.0.1:{port}/v1"), depth: 0 };
        server.wait()?;
        let Served { completed, prompt_tokens, .. } = server.served(1)?;
        server.depth = prompt_tokens / completed.max(1);
        Ok(server)
    }

    fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let asked = output(self.client(1).args(["--requests", "1"]));
            match (asked, self.process.try_wait()?) {
                (Ok(_), _) => return Ok(()),
                (Err(_), Some(status)) => bail!("sparkherd serve ended: {status}"),
                (Err(error), None) if started.elapsed() > START_DEADLINE => return Err(error),
                (Err(_), None) => thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn client(&self, concurrency: u32) -> Command {
        let mut command = Command::new(self.sparkherd);
        command
            .args(["bench", "serve", &self.url, "--model", MODEL, "--json"])
            .args(["--prompt-tokens", PROMPT, "--output-tokens", GENERATE])
            .args(["--concurrency", &concurrency.to_string()]);
        command
    }

    fn served(&self, concurrency: u32) -> Result<Served> {
        // One client asks twice: its run is the shorter one.
        let requests = concurrency.max(2);
        parsed(self.client(concurrency).args(["--requests", &requests.to_string()]))
    }

    /// Milliseconds of a step of 1 sequence and of several, after a prompt of `depth` tokens.
    fn in_process(&self, depth: u32) -> Result<[f64; 2]> {
        let mut in_process = Command::new(self.sparkherd);
        in_process
            .args(["bench", "engine", "--json", "--repeat", "1", "--threads", THREADS, "--prompt", PROMPT])
            .args(["--generate", GENERATE, "--depth", &depth.to_string()])
            .args(["--sequences", &format!("1,{CLIENTS}")])
            .arg(self.model);
        let run: Run = parsed(&mut in_process)?;
        let step_ms = |count: u32| {
            let timing = run
                .cases
                .iter()
                .find(|timing| matches!(timing.case, Case::Decode { sequences, .. } if sequences == count));
            timing.map_or(f64::NAN, |timing| 1000.0 * timing.seconds * f64::from(count) / timing.tokens)
        };
        Ok([step_ms(1), step_ms(CLIENTS)])
    }

    /// Served between two runs in process, whose mean stands for the machine as it was then: it drifts by more than serving adds.
    pub(super) fn measure(&self) -> Result<Round> {
        let before = self.in_process(self.depth)?;
        for _ in 0..WARM_RUNS {
            self.served(1)?;
        }
        let (alone, together) = (self.served(1)?, self.served(CLIENTS)?);
        let after = self.in_process(self.depth)?;
        let step = |index: usize, served: Served| Step {
            in_process_ms: f64::midpoint(before[index], after[index]),
            served_ms: served.time_per_output_token_ms.mean,
        };
        Ok(Round {
            outside_model_ms: alone.time_to_first_token_outside_model_ms.unwrap_or(f64::NAN),
            alone: step(0, alone),
            together: step(1, together),
        })
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Already ended is as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// To the first token, of one client.
    outside_model_ms: f64,
    alone: Step,
    together: Step,
}

/// What one token of each sequence takes.
#[derive(Clone, Copy, Debug)]
struct Step {
    in_process_ms: f64,
    served_ms: f64,
}

/// Medians of all rounds, and the bars: 2 % at one client, 90 % of the rate of 8 sequences, 5 ms to the first token.
pub(super) struct Report(pub(super) Vec<Round>);

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rounds) = self;
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        let verdict = |reached: bool| if reached { "reaches" } else { "MISSES" };
        let added = of(|round| 100.0 * (round.alone.served_ms / round.alone.in_process_ms - 1.0));
        let rate = of(|round| 100.0 * round.together.in_process_ms / round.together.served_ms);
        let outside = of(|round| round.outside_model_ms);
        writeln!(
            out,
            "\nServing, BF16, against the same steps in process (medians of {} rounds)",
            rounds.len()
        )?;
        writeln!(
            out,
            "  1 client   {:>6.2} ms a token, in process {:>6.2}: {added:+.1} %  {} 2 %",
            of(|round| round.alone.served_ms),
            of(|round| round.alone.in_process_ms),
            verdict(added < 2.0)
        )?;
        writeln!(
            out,
            "  {CLIENTS} clients  {:>6.2} ms a token, in process {:>6.2}: {rate:.0} % of the rate  {} 90 %",
            of(|round| round.together.served_ms),
            of(|round| round.together.in_process_ms),
            verdict(rate >= 90.0)
        )?;
        writeln!(
            out,
            "  first token: {outside:.2} ms are neither queue nor model  {} 5 ms",
            verdict(outside < 5.0)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Report, Round, Step};

    #[test]
    fn a_missed_bar_is_said() {
        let round = |alone, together, outside_model_ms| Round {
            outside_model_ms,
            alone: Step { in_process_ms: 20.0, served_ms: alone },
            together: Step { in_process_ms: 36.0, served_ms: together },
        };
        let text =
            Report(vec![round(20.2, 45.0, 1.0), round(90.0, 39.0, 9.0), round(20.2, 39.0, 2.0)]).to_string();
        assert!(text.contains("20.20 ms a token, in process  20.00: +1.0 %  reaches 2 %"), "{text}");
        assert!(
            text.contains("39.00 ms a token, in process  36.00: 92 % of the rate  reaches 90 %"),
            "{text}"
        );
        assert!(text.contains("2.00 ms are neither queue nor model  reaches 5 ms"), "{text}");
        assert!(Report(vec![round(20.5, 45.0, 5.0)]).to_string().matches("MISSES").count() == 3);
    }
}
