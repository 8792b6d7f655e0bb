//! Times of requests.
//!
//! ```text
//! arrived ── place counted ──queue── first step ──prefill── first text ──decode (inter-token)── end
//!    ├──────────────── time to first token ────────────────────┤                                │
//!    │                                     └───────────────── inference ────────────────────────┤
//!    └───────────────────────────────────── e2e latency ────────────────────────────────────────┘
//! ```

use prometheus::{Histogram, HistogramOpts, HistogramVec, Opts};
use sparkherd_engine::Priority;

use super::families::{Aliased, Families};

/// Seconds in the queue, and to the first token: from a cached prompt on a GPU to a long one on a CPU. vLLM's boundaries of
/// the latter.
const WAIT_BUCKETS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
];
/// Seconds between two tokens of one answer. vLLM's boundaries.
const INTER_TOKEN_BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
/// Seconds of a whole request and of its parts. vLLM's boundaries.
const REQUEST_BUCKETS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
];

#[derive(Debug)]
pub(super) struct RequestTimes {
    pub(super) queue: QueueTime,
    pub(super) first_token: Aliased<Histogram>,
    pub(super) inter_token: Aliased<Histogram>,
    pub(super) prefill: Aliased<Histogram>,
    pub(super) decode: Aliased<Histogram>,
    pub(super) inference: Aliased<Histogram>,
    pub(super) request: Aliased<Histogram>,
}

impl RequestTimes {
    pub(super) fn new(families: &Families<'_>) -> Result<Self, prometheus::Error> {
        let seconds = |name, help| families.histogram(name, REQUEST_BUCKETS, help);
        Ok(Self {
            queue: QueueTime::new(families)?,
            first_token: families.histogram(
                "time_to_first_token_seconds",
                WAIT_BUCKETS,
                "Time to first text.",
            )?,
            inter_token: families.histogram(
                "inter_token_latency_seconds",
                INTER_TOKEN_BUCKETS,
                "Time between two pieces of text of one answer.",
            )?,
            prefill: seconds(
                "request_prefill_time_seconds",
                "Time from a request's first step to its first text.",
            )?,
            decode: seconds("request_decode_time_seconds", "Time from a request's first text to its end.")?,
            inference: seconds(
                "request_inference_time_seconds",
                "Time from a request's first step to its end.",
            )?,
            request: seconds("e2e_request_latency_seconds", "Time of a whole request.")?,
        })
    }
}

/// Time in the queue: under our name by class of client, under vLLM's over all.
#[derive(Debug)]
pub(super) struct QueueTime {
    interactive: Histogram,
    batch: Histogram,
    vllm: Histogram,
}

impl QueueTime {
    fn new(families: &Families<'_>) -> Result<Self, prometheus::Error> {
        let (name, help) = ("request_queue_time_seconds", "Time from a request's place to its first step.");
        let opts = |opts: Opts| HistogramOpts { common_opts: opts, buckets: WAIT_BUCKETS.to_vec() };
        let by_class = HistogramVec::new(opts(families.own(name, help)), &["class"])?;
        let by_class = families.register(by_class)?;
        Ok(Self {
            interactive: by_class.with_label_values(&["interactive"]),
            batch: by_class.with_label_values(&["batch"]),
            vllm: families.register(Histogram::with_opts(opts(families.vllm(name, help)))?)?,
        })
    }

    pub(super) fn observe(&self, priority: Priority, seconds: f64) {
        let own = match priority {
            Priority::Interactive => &self.interactive,
            Priority::Batch => &self.batch,
        };
        own.observe(seconds);
        self.vllm.observe(seconds);
    }
}
