use prometheus::core::Collector;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use sparkherd_engine::CacheSize;

/// Tokens of a prompt or an answer, in vLLM's steps of 1, 2 and 5, up to the largest contexts.
const TOKEN_BUCKETS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6];

/// The same number under our name and under vLLM's.
#[derive(Debug)]
pub(super) struct Aliased<M> {
    pub(super) own: M,
    pub(super) vllm: M,
}

impl Aliased<IntGauge> {
    pub(super) fn set(&self, value: i64) {
        self.own.set(value);
        self.vllm.set(value);
    }
}

impl Aliased<IntCounter> {
    pub(super) fn raise_to(&self, value: u64) {
        raise(&self.own, value);
        raise(&self.vllm, value);
    }
}

impl Aliased<Histogram> {
    pub(super) fn observe(&self, value: f64) {
        self.own.observe(value);
        self.vllm.observe(value);
    }
}

/// Brings a counter to an engine's total; totals never fall within one process.
pub(super) fn raise(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// Makes and registers families; `own` and `vllm` names differ only in the prefix where vLLM's name fits ours.
pub(super) struct Families<'a> {
    pub(super) registry: Registry,
    pub(super) model_name: &'a str,
}

impl Families<'_> {
    fn opts(&self, name: String, help: &str) -> Opts {
        Opts::new(name, help).const_label("model_name", self.model_name)
    }

    pub(super) fn own(&self, name: &str, help: &str) -> Opts {
        self.opts(format!("sparkherd_engine_{name}"), help)
    }

    pub(super) fn vllm(&self, name: &str, help: &str) -> Opts {
        self.opts(format!("vllm:{name}"), help)
    }

    pub(super) fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    pub(super) fn own_counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(self.own(name, help))?)
    }

    pub(super) fn own_gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(self.own(name, help))?)
    }

    pub(super) fn counter(
        &self,
        own: &str,
        vllm: &str,
        help: &str,
    ) -> Result<Aliased<IntCounter>, prometheus::Error> {
        let vllm = self.register(IntCounter::with_opts(self.vllm(vllm, help))?)?;
        Ok(Aliased { own: self.own_counter(own, help)?, vllm })
    }

    pub(super) fn gauge(
        &self,
        own: &str,
        vllm: &str,
        help: &str,
    ) -> Result<Aliased<IntGauge>, prometheus::Error> {
        let vllm = self.register(IntGauge::with_opts(self.vllm(vllm, help))?)?;
        Ok(Aliased { own: self.own_gauge(own, help)?, vllm })
    }

    pub(super) fn ratio(
        &self,
        own: &str,
        vllm: &str,
        help: &str,
    ) -> Result<Aliased<Gauge>, prometheus::Error> {
        Ok(Aliased {
            own: self.register(Gauge::with_opts(self.own(own, help))?)?,
            vllm: self.register(Gauge::with_opts(self.vllm(vllm, help))?)?,
        })
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        buckets: &[f64],
        help: &str,
    ) -> Result<Aliased<Histogram>, prometheus::Error> {
        let histogram = |opts: Opts| {
            let opts = HistogramOpts { common_opts: opts, buckets: buckets.to_vec() };
            self.register(Histogram::with_opts(opts)?)
        };
        Ok(Aliased { own: histogram(self.own(name, help))?, vllm: histogram(self.vllm(name, help))? })
    }

    pub(super) fn tokens(&self, name: &str, help: &str) -> Result<Aliased<Histogram>, prometheus::Error> {
        self.histogram(name, TOKEN_BUCKETS, help)
    }

    /// A counter that vLLM calls as we do.
    pub(super) fn same(&self, name: &str, help: &str) -> Result<Aliased<IntCounter>, prometheus::Error> {
        self.counter(name, name, help)
    }

    pub(super) fn preemptions(&self) -> Result<Aliased<IntCounter>, prometheus::Error> {
        self.counter("preemptions_total", "num_preemptions_total", "Requests put back to wait.")
    }

    pub(super) fn finished(&self) -> Result<Aliased<IntCounterVec>, prometheus::Error> {
        let help = "Requests that were accepted and have ended, by how.";
        let counters = |opts: Opts| self.register(IntCounterVec::new(opts, &["finished_reason"])?);
        Ok(Aliased {
            own: counters(self.own("requests_finished_total", help))?,
            vllm: counters(self.vllm("request_success_total", help))?,
        })
    }

    pub(super) fn info(&self, incarnation: &str) -> Result<(), prometheus::Error> {
        let opts = self
            .own("info", "Always 1; its labels say what runs.")
            .const_label("incarnation", incarnation)
            .const_label("version", env!("CARGO_PKG_VERSION"));
        self.register(IntGauge::with_opts(opts)?)?.set(1);
        Ok(())
    }

    /// Labels with vLLM's names are spelt as Python spells them: the Gateway API's endpoint picker reads the first two.
    pub(super) fn cache_size(&self, size: CacheSize) -> Result<(), prometheus::Error> {
        let CacheSize { block_tokens, blocks, prefix_cache } = size;
        let help = "Always 1; its labels say what the KV pool is made of.";
        let own = self
            .own("cache_info", help)
            .const_label("block_tokens", block_tokens.to_string())
            .const_label("blocks", blocks.to_string())
            .const_label("prefix_cache", prefix_cache.to_string());
        let vllm = self
            .vllm("cache_config_info", help)
            .const_label("block_size", block_tokens.to_string())
            .const_label("num_gpu_blocks", blocks.to_string())
            .const_label("enable_prefix_caching", if prefix_cache { "True" } else { "False" });
        for opts in [own, vllm] {
            self.register(IntGauge::with_opts(opts)?)?.set(1);
        }
        Ok(())
    }
}
