//! Percentiles of what the clients felt.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::request::{Answer, Timing};
use super::server_times::{ServerTimes, Total};

/// The whole result; its JSON is `--json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    completed: usize,
    failed: usize,
    /// How often each reason for a failure came.
    failures: BTreeMap<String, usize>,
    duration_seconds: f64,
    requests_per_second: f64,
    output_tokens_per_second: f64,
    total_tokens_per_second: f64,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    /// What the server's process computed meanwhile, where it tells `process_cpu_seconds_total`.
    server_cpu_seconds: Option<f64>,
    /// The same for each token of an answer, in microseconds: with `engine --fake` the cost of HTTP.
    server_cpu_us_per_output_token: Option<f64>,
    /// From when a request was due to its first token, milliseconds.
    time_to_first_token_ms: Percentiles,
    /// The part of its mean that is neither the queue nor the model: connection, HTTP, template, tokenizer, the way to the
    /// engine and back. Where the server tells vLLM's times.
    time_to_first_token_outside_model_ms: Option<f64>,
    /// Between two pieces of an answer, milliseconds.
    inter_token_ms: Percentiles,
    /// Of each answer: time after its first token, for each token after its first, milliseconds.
    time_per_output_token_ms: Percentiles,
    /// From when a request was due to the end of its answer, milliseconds.
    end_to_end_ms: Percentiles,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Percentiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    fn of(durations: impl Iterator<Item = Duration>) -> Self {
        let mut values: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1000.0).collect();
        values.sort_by(f64::total_cmp);
        let Some(max) = values.last().copied() else { return Self::default() };
        // Nearest rank: always a value that was measured.
        let rank = |share: usize| {
            let index = (values.len() * share).div_ceil(100).saturating_sub(1);
            values.get(index).copied().unwrap_or(max)
        };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self { mean, p50: rank(50), p90: rank(90), p99: rank(99), max }
    }
}

impl Report {
    /// `server` is what the server's times grew by meanwhile.
    pub(super) fn new(timings: &[Timing], duration: Duration, server: ServerTimes) -> Self {
        let ServerTimes { cpu_seconds: server_cpu_seconds, to_first_token } = server;
        let answers: Vec<&Answer> =
            timings.iter().filter_map(|timing| timing.outcome.as_ref().ok()).collect();
        let mut failures = BTreeMap::new();
        for reason in timings.iter().filter_map(|timing| timing.outcome.as_ref().err()) {
            *failures.entry(reason.clone()).or_insert(0) += 1;
        }
        let total = |count: fn(&Answer) -> u32| answers.iter().map(|answer| u64::from(count(answer))).sum();
        let prompt_tokens: u64 = total(|answer| answer.prompt_tokens);
        let output_tokens: u64 = total(|answer| answer.completion_tokens);
        let duration_seconds = duration.as_secs_f64();
        let each_second = |count: f64| if duration_seconds > 0.0 { count / duration_seconds } else { 0.0 };
        let time_to_first_token_ms = Percentiles::of(answers.iter().map(|answer| answer.first));
        Self {
            completed: answers.len(),
            failed: failures.values().sum(),
            failures,
            duration_seconds,
            requests_per_second: each_second(answers.len() as f64),
            output_tokens_per_second: each_second(output_tokens as f64),
            total_tokens_per_second: each_second((prompt_tokens + output_tokens) as f64),
            prompt_tokens,
            cached_tokens: total(|answer| answer.cached_tokens),
            output_tokens,
            server_cpu_seconds,
            server_cpu_us_per_output_token: server_cpu_seconds
                .filter(|_| output_tokens > 0)
                .map(|seconds| seconds * 1e6 / output_tokens as f64),
            time_to_first_token_ms,
            time_to_first_token_outside_model_ms: to_first_token
                .and_then(Total::mean)
                .map(|inside| time_to_first_token_ms.mean - inside.as_secs_f64() * 1000.0),
            inter_token_ms: Percentiles::of(answers.iter().flat_map(|answer| answer.gaps.iter().copied())),
            time_per_output_token_ms: Percentiles::of(answers.iter().filter_map(|answer| {
                let tokens = answer.completion_tokens.checked_sub(1).filter(|tokens| *tokens > 0)?;
                Some(answer.whole.saturating_sub(answer.first) / tokens)
            })),
            end_to_end_ms: Percentiles::of(answers.iter().map(|answer| answer.whole)),
        }
    }

    pub(super) const fn completed(&self) -> usize {
        self.completed
    }

    pub(super) fn print(&self, json: bool) -> anyhow::Result<()> {
        let text = if json { serde_json::to_string_pretty(self)? + "\n" } else { self.table()? };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(())
    }

    fn table(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "{} answered, {} failed in {:.1} s: {:.2} requests/s",
            self.completed, self.failed, self.duration_seconds, self.requests_per_second
        )?;
        for (reason, count) in &self.failures {
            writeln!(text, "  {count} x {reason}")?;
        }
        writeln!(
            text,
            "tokens: {} of prompts ({} cached), {} of answers; {:.1} of answers/s, {:.1} in all/s\n",
            self.prompt_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.output_tokens_per_second,
            self.total_tokens_per_second
        )?;
        if let (Some(seconds), Some(each_us)) = (self.server_cpu_seconds, self.server_cpu_us_per_output_token)
        {
            writeln!(text, "server: {seconds:.2} s of CPU, {each_us:.1} us for each token of an answer\n")?;
        }
        writeln!(text, "{:<26}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "mean", "p50", "p90", "p99", "max")?;
        for (name, Percentiles { mean, p50, p90, p99, max }) in [
            ("time to first token", self.time_to_first_token_ms),
            ("between tokens", self.inter_token_ms),
            ("time per output token", self.time_per_output_token_ms),
            ("end to end", self.end_to_end_ms),
        ] {
            writeln!(text, "{name:<26}{mean:>10.2}{p50:>10.2}{p90:>10.2}{p99:>10.2}{max:>10.2}")?;
        }
        if let Some(outside) = self.time_to_first_token_outside_model_ms {
            writeln!(text, "\nof the mean time to first token {outside:.2} ms are neither queue nor model")?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(first_ms: u64, whole_ms: u64, completion_tokens: u32) -> Timing {
        let milliseconds = Duration::from_millis;
        let answer = Answer {
            first: milliseconds(first_ms),
            gaps: vec![milliseconds(10), milliseconds(30)],
            whole: milliseconds(whole_ms),
            prompt_tokens: 5,
            cached_tokens: 1,
            completion_tokens,
        };
        Timing { outcome: Ok(answer) }
    }

    #[test]
    fn percentiles_are_measured_values() {
        let percentiles = Percentiles::of((1..=200).map(Duration::from_millis));
        assert_eq!(percentiles, Percentiles { mean: 100.5, p50: 100.0, p90: 180.0, p99: 198.0, max: 200.0 });
        assert_eq!(Percentiles::of(std::iter::empty()), Percentiles::default());
    }

    #[test]
    fn failures_are_counted_apart() {
        let failed = Timing { outcome: Err("status 503".to_owned()) };
        let timings = [answered(100, 200, 11), failed.clone(), answered(300, 700, 1), failed];
        let metrics = |queue, prefill, count, cpu| {
            ServerTimes::parse(&format!(
                "vllm:request_queue_time_seconds_sum {queue}\nvllm:request_queue_time_seconds_count {count}\n\
                 vllm:request_prefill_time_seconds_sum {prefill}\nvllm:request_prefill_time_seconds_count {count}\n\
                 process_cpu_seconds_total {cpu}\n"
            ))
        };
        let server = metrics(0.5, 1.25, 3, 0.007).since(metrics(0.4, 1.0, 1, 0.001));
        let report = Report::new(&timings, Duration::from_secs(2), server);
        assert_eq!((report.completed, report.failed, report.failures["status 503"]), (2, 2, 2));
        assert_eq!((report.prompt_tokens, report.cached_tokens, report.output_tokens), (10, 2, 12));
        for (value, expected) in [
            (report.requests_per_second, 1.0),
            (report.output_tokens_per_second, 6.0),
            (report.total_tokens_per_second, 11.0),
            (report.time_to_first_token_ms.p50, 100.0),
            (report.time_to_first_token_ms.max, 300.0),
            (report.inter_token_ms.mean, 20.0),
            (report.server_cpu_us_per_output_token.unwrap(), 500.0),
            // 200 of the clients' mean, less (100 + 250) / 2 of the server's.
            (report.time_to_first_token_outside_model_ms.unwrap(), 25.0),
            // An answer of one token has no time between tokens.
            (report.time_per_output_token_ms.max, 10.0),
        ] {
            assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
        }
        assert!(report.table().unwrap().contains("2 x status 503"));
    }
}
