//! What the server tells of itself on `/metrics`, by the names that vLLM and we both use.

use std::time::Duration;

/// Totals since the server's start; `None` is what it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ServerTimes {
    /// Seconds that its process has computed.
    pub(super) cpu_seconds: Option<f64>,
    /// From a request's place in the queue to its first token.
    pub(super) to_first_token: Option<Total>,
}

/// Of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Total {
    seconds: f64,
    count: f64,
}

impl ServerTimes {
    /// Reads the Prometheus text format, where a sample is `name{labels} value [time]`.
    pub(super) fn parse(text: &str) -> Self {
        let queue = Total::parse(text, "vllm:request_queue_time_seconds");
        let prefill = Total::parse(text, "vllm:request_prefill_time_seconds");
        let to_first_token = queue
            .zip(prefill)
            .map(|(queue, prefill)| Total { seconds: queue.seconds + prefill.seconds, count: prefill.count });
        Self { cpu_seconds: sum(text, "process_cpu_seconds_total"), to_first_token }
    }

    /// What was added since `before`.
    pub(super) fn since(self, before: Self) -> Self {
        let Self { cpu_seconds, to_first_token } = before;
        Self {
            cpu_seconds: self.cpu_seconds.zip(cpu_seconds).map(|(after, before)| after - before),
            to_first_token: self.to_first_token.zip(to_first_token).map(|(after, before)| Total {
                seconds: after.seconds - before.seconds,
                count: after.count - before.count,
            }),
        }
    }
}

impl Total {
    fn parse(text: &str, name: &str) -> Option<Self> {
        let seconds = sum(text, &format!("{name}_sum"))?;
        Some(Self { seconds, count: sum(text, &format!("{name}_count"))? })
    }

    pub(super) fn mean(self) -> Option<Duration> {
        (self.count > 0.0).then(|| Duration::try_from_secs_f64(self.seconds / self.count).ok())?
    }
}

/// Of all samples of a name, whatever their labels; `None` if there is none.
fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let sample = line.strip_prefix(name)?;
        let value = match sample.strip_prefix('{') {
            // A label's value may hold a brace; what follows the last one is the value.
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => sample.strip_prefix(' ')?,
        };
        value.split_ascii_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |total, value| Some(total.unwrap_or(0.0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "\
# HELP process_cpu_seconds_total CPU.
process_cpu_seconds_total 1.5
vllm:request_queue_time_seconds_bucket{le=\"+Inf\"} 2
vllm:request_queue_time_seconds_sum{engine=\"a}b\"} 0.25
vllm:request_queue_time_seconds_count{engine=\"a}b\"} 2
vllm:request_prefill_time_seconds_sum{model_name=\"m\"} 1
vllm:request_prefill_time_seconds_sum{model_name=\"n\"} 2 1700000000000
vllm:request_prefill_time_seconds_count{model_name=\"m\"} 1
vllm:request_prefill_time_seconds_count{model_name=\"n\"} 1
";

    #[test]
    fn samples_are_added_over_their_labels() {
        let times = ServerTimes::parse(BEFORE);
        assert_eq!(times.cpu_seconds, Some(1.5));
        assert_eq!(times.to_first_token, Some(Total { seconds: 3.25, count: 2.0 }));
    }

    #[test]
    fn what_was_added_has_a_mean() {
        let after =
            BEFORE.replace("} 0.25", "} 0.75").replace("{model_name=\"m\"} 1\n", "{model_name=\"m\"} 2\n");
        let added = ServerTimes::parse(&after).since(ServerTimes::parse(BEFORE));
        // Half a second in the queue and one more of prefill, over one request.
        assert_eq!(added.to_first_token.and_then(Total::mean), Some(Duration::from_millis(1500)));
        assert_eq!(added.cpu_seconds, Some(0.0));
    }

    #[test]
    fn a_server_that_tells_nothing_has_no_times() {
        let silent = ServerTimes::parse("up 1\nprocess_cpu_seconds_total_created 5\n");
        assert_eq!(silent, ServerTimes::default());
        assert_eq!(silent.since(ServerTimes::parse(BEFORE)), ServerTimes::default());
    }
}
