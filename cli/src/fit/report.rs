use std::fmt::{self, Display, Formatter};

use serde::Serialize;
use sparkherd_checkpoint::{Facts, Requantize};
use sparkherd_footprint::{
    Backend, Footprint, FootprintError, KvDtype, Platform, Serving, context_candidates, kv_dtype_auto,
    kv_tokens_default, largest_context, plan, serving_for_memory_cap,
};

use super::machine::{Machine, Memory, Share};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What the user asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) context: Option<u32>,
    pub(super) concurrency: u32,
    /// Cap on the whole footprint.
    pub(super) memory_bytes: Option<u64>,
    pub(super) requantize: Requantize,
}

/// The verdict and all its numbers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) fits: bool,
    facts: Facts,
    platform: Platform,
    serving: Serving,
    footprint: Footprint,
    #[serde(flatten)]
    machine: Machine,
    /// Of the host's pool.
    room_bytes: u64,
    /// With the pool at its default size; absent where none fits.
    largest_context: Option<u32>,
}

impl Report {
    pub(super) fn new(
        facts: Facts,
        platform: Platform,
        wish: Wish,
        machine: Machine,
    ) -> Result<Self, FootprintError> {
        let serving = serving(&facts, &platform, wish, &machine)?;
        let footprint = plan(&facts, &serving, &platform)?;
        let room_bytes = machine.memory.room_bytes();
        let largest_context = largest_context(&facts, &serving, &platform, |footprint| {
            let is_capped = wish.memory_bytes.is_some_and(|cap| footprint.total_bytes() > cap);
            !is_capped && machine.has_room_for(footprint)
        });
        let fits = machine.has_room_for(&footprint);
        Ok(Self { fits, facts, platform, serving, footprint, machine, room_bytes, largest_context })
    }
}

/// The wished context, or the largest candidate that suits the machine, or the smallest one.
fn serving(
    facts: &Facts,
    platform: &Platform,
    wish: Wish,
    machine: &Machine,
) -> Result<Serving, FootprintError> {
    let with_context = |context| {
        let template = Serving {
            context,
            concurrency: wish.concurrency,
            kv_tokens: kv_tokens_default(context, wish.concurrency),
            kv_dtype: kv_dtype_auto(facts.dtype),
            requantize: wish.requantize,
        };
        wish.memory_bytes.map_or_else(
            || Ok(template.clone()),
            |cap| serving_for_memory_cap(facts, &template, platform, cap),
        )
    };
    let suits =
        |serving: &Serving| plan(facts, serving, platform).is_ok_and(|footprint| machine.suits(&footprint));
    if let Some(context) = wish.context {
        return with_context(context);
    }
    let candidates = context_candidates(facts);
    let suitable = candidates.iter().filter_map(|context| with_context(*context).ok()).find(suits);
    suitable.map_or_else(|| with_context(candidates.last().copied().unwrap_or(facts.max_context)), Ok)
}

impl Display for Report {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { facts, serving, footprint, machine, .. } = self;
        let parts = footprint.parts;
        writeln!(
            formatter,
            "Model     {:?}, {} parameters, {}",
            facts.architecture,
            parameters(facts.parameters),
            format!("{:?}", facts.dtype).to_uppercase()
        )?;
        writeln!(
            formatter,
            "Settings  context {} of at most {}, concurrency {}, KV pool of {} tokens in {}, on the {}",
            serving.context,
            facts.max_context,
            serving.concurrency,
            serving.kv_tokens,
            kv_dtype_name(serving.kv_dtype),
            backend_name(self.platform.backend)
        )?;
        let footprint_rows = [
            ("weights", parts.weights_bytes),
            ("kv", parts.kv_bytes),
            ("workspace", parts.workspace_bytes),
            ("runtime", parts.runtime_bytes),
            ("total", footprint.total_bytes()),
        ];
        table(formatter, "Footprint", &footprint_rows)?;
        let host_title = match machine.device_memory {
            None => "Machine",
            Some(device) => {
                memory_table(formatter, "GPU", &device)?;
                "Host"
            }
        };
        memory_table(formatter, host_title, &machine.memory)?;
        writeln!(formatter)?;
        self.verdict(formatter)
    }
}

impl Report {
    fn verdict(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let shares = self.machine.shares(&self.footprint);
        let pools: &[&str] = if shares.len() > 1 { &[" of GPU memory", " of host memory"] } else { &[""] };
        let told: Vec<String> =
            shares.iter().zip(pools).filter_map(|(share, pool)| self.told(*share, pool)).collect();
        let word = if self.fits { "Fits" } else { "Does not fit" };
        write!(formatter, "{word}: takes {}. ", told.join("; "))?;
        match self.largest_context {
            Some(context) => write!(formatter, "The largest context that fits is {context}."),
            None => write!(
                formatter,
                "No context fits: weights alone take {}.",
                size(self.footprint.parts.weights_bytes)
            ),
        }
    }

    /// What is taken of a pool; of one that has room, only where all have.
    fn told(&self, Share { memory, bytes }: Share, pool: &str) -> Option<String> {
        let room_bytes = memory.room_bytes();
        let (taken, room) = (size(bytes), size(room_bytes));
        if self.fits {
            let left = size(room_bytes.saturating_sub(bytes));
            return Some(format!("{taken} of the {room}{pool} above the reserve, leaves {left}"));
        }
        let short = bytes.checked_sub(room_bytes).filter(|short| *short > 0)?;
        Some(format!("{taken}{pool}, {} more than the {room} above the reserve", size(short)))
    }
}

fn memory_table(formatter: &mut Formatter<'_>, title: &str, memory: &Memory) -> fmt::Result {
    let rows = [
        ("total", memory.total_bytes),
        ("available", memory.available_bytes),
        ("reserve", memory.reserve_bytes),
        ("room", memory.room_bytes()),
    ];
    table(formatter, title, &rows)
}

fn table(formatter: &mut Formatter<'_>, title: &str, rows: &[(&str, u64)]) -> fmt::Result {
    writeln!(formatter, "\n{title}")?;
    rows.iter().try_for_each(|(name, bytes)| writeln!(formatter, "  {name:<10}{:>14}", size(*bytes)))
}

/// Two decimals, rounded to the nearest, in the unit people use for it.
fn size(bytes: u64) -> String {
    let (unit, name) = if bytes >= GIB { (GIB, "GiB") } else { (MIB, "MiB") };
    let hundredths = (u128::from(bytes) * 100 + u128::from(unit / 2)) / u128::from(unit);
    format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
}

/// `8.03 billion`, `1.2 million` or the number itself.
fn parameters(count: u64) -> String {
    const MILLION: u64 = 1_000_000;
    const BILLION: u64 = 1_000_000_000;
    match count {
        BILLION.. => format!("{}.{:02} billion", count / BILLION, count % BILLION / (BILLION / 100)),
        MILLION.. => format!("{}.{} million", count / MILLION, count % MILLION / (MILLION / 10)),
        _ => count.to_string(),
    }
}

const fn kv_dtype_name(kv_dtype: KvDtype) -> &'static str {
    match kv_dtype {
        KvDtype::F32 => "F32",
        KvDtype::Bf16 => "BF16",
        KvDtype::Fp8 => "FP8",
    }
}

const fn backend_name(backend: Backend) -> &'static str {
    match backend {
        Backend::Cuda => "GPU",
        Backend::Cpu => "CPU",
    }
}

#[cfg(test)]
mod tests {
    use sparkherd_checkpoint::{Architecture, Dtype, Facts, Requantize};
    use sparkherd_footprint::{Backend, Footprint, FootprintError, Parts, Platform};

    use super::super::machine::{Machine, Memory};
    use super::{GIB, Report, Wish, size};

    fn facts() -> Facts {
        Facts {
            architecture: Architecture::Llama,
            dtype: Dtype::Bf16,
            parameters: 8_030_261_248,
            weight_bytes: 16_060_522_496,
            layers: 32,
            hidden_size: 4096,
            intermediate_size: 14_336,
            attention_heads: 32,
            kv_heads: 8,
            head_dim: 128,
            vocab_size: 128_256,
            max_context: 131_072,
            // Leaves the constants that are measured, not designed, out of the table below.
            int8_weight_bytes: None,
            tokenizer_bytes: 0,
        }
    }

    fn report(wish: Wish, total_gib: u64) -> Result<Report, FootprintError> {
        let total_bytes = total_gib * GIB;
        let memory = Memory { total_bytes, available_bytes: total_bytes, reserve_bytes: total_bytes / 10 };
        let platform = Platform {
            backend: Backend::Cpu,
            threads: 20,
            runtime_host_bytes: 100 << 20,
            runtime_device_bytes: 0,
        };
        Report::new(facts(), platform, wish, Machine { memory, device_memory: None })
    }

    const ANY: Wish =
        Wish { context: None, concurrency: 16, memory_bytes: None, requantize: Requantize::None };

    /// With bytes that do not depend on how the engine sizes its buffers.
    fn table(fits: bool, total_gib: u64) -> String {
        let parts = Parts {
            weights_bytes: 16_060_522_496,
            kv_bytes: 4 * GIB,
            state_bytes: 0,
            workspace_bytes: 300 << 20,
            runtime_bytes: 150_000_000,
        };
        let host_bytes = parts.weights_bytes + parts.kv_bytes + parts.workspace_bytes + parts.runtime_bytes;
        let footprint = Footprint { device_bytes: 0, host_bytes, parts };
        let largest_context = fits.then_some(131_072);
        Report { fits, footprint, largest_context, ..report(ANY, total_gib).unwrap() }.to_string()
    }

    #[test]
    fn the_table_of_a_model_that_fits() {
        assert_eq!(table(true, 120), include_str!("golden/fits.txt").trim_end());
    }

    #[test]
    fn the_table_of_a_model_that_does_not_fit() {
        assert_eq!(table(false, 16), include_str!("golden/does_not_fit.txt").trim_end());
    }

    #[test]
    fn a_gpu_with_memory_of_its_own_is_judged_by_both_pools() {
        let report = |gpu_gib: u64, host_gib: u64| {
            let memory = |gib: u64| Memory {
                total_bytes: gib * GIB,
                available_bytes: gib * GIB,
                reserve_bytes: GIB / 2,
            };
            let machine = Machine { memory: memory(host_gib), device_memory: Some(memory(gpu_gib)) };
            Report::new(facts(), Platform::cuda(20), ANY, machine).unwrap()
        };
        let roomy = report(80, 16);
        assert!(roomy.fits && roomy.serving.context == 32_768, "{roomy}");
        let told = roomy.to_string();
        for part in ["\nGPU\n  total          80.00 GiB", "\nHost\n  total          16.00 GiB"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(told.contains(" of the 79.50 GiB of GPU memory above the reserve, leaves "), "{told}");
        assert!(told.contains(" of the 15.50 GiB of host memory above the reserve, leaves "), "{told}");
        // Plenty on one side does not help the other.
        let told = report(16, 500).to_string();
        assert!(told.contains("GiB of GPU memory, ") && !told.contains("of host memory"), "{told}");
        assert!(told.contains("No context fits"), "{told}");
        let host = report(80, 0);
        assert!(!host.fits && host.to_string().contains("MiB of host memory, "), "{host}");
    }

    #[test]
    fn the_context_follows_the_machine() {
        let context = |total_gib| report(ANY, total_gib).unwrap().serving.context;
        assert_eq!((context(120), context(24), context(8)), (32_768, 8192, 4096));
        let smaller = report(Wish { context: Some(32_768), ..ANY }, 24).unwrap();
        assert!(!smaller.fits);
        assert!(smaller.largest_context.is_some_and(|largest| largest > 8192 && largest < 32_768));
    }

    #[test]
    fn a_cap_sizes_the_pool() {
        let capped = report(Wish { memory_bytes: Some(40 * GIB), context: Some(4096), ..ANY }, 120).unwrap();
        let total = capped.footprint.total_bytes();
        assert!(total <= 40 * GIB && total > 40 * GIB - (2 << 20) - 1, "{total}");
        let too_small = report(Wish { memory_bytes: Some(8 * GIB), ..ANY }, 120);
        assert!(matches!(too_small, Err(FootprintError::MemoryCap { context: 4096, .. })));
    }

    #[test]
    fn sizes_are_rounded_to_the_nearest_hundredth() {
        assert_eq!(size(0), "0.00 MiB");
        assert_eq!(size(GIB - 1), "1024.00 MiB");
        assert_eq!(size(GIB + GIB / 2), "1.50 GiB");
        assert_eq!(size(u64::MAX), "17179869184.00 GiB");
    }
}
