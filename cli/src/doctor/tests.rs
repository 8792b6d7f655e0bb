use std::fs;
use std::path::{Path, PathBuf};

use sparkherd_gpu::{
    CudaVersion, Gpu, GpuError, GpuMemory, GpuProcess, GpuReport, GpuSource, ThrottleReason,
};

use super::bench::{self, GpuBench};
use super::line::Verdict;
use super::readings::{BenchReadings, CpuRead, CudaMemory, DiskReading, GpuSpeed, Readings};
use super::report::Report;
use super::{check, probe};

const GIB: u64 = 1 << 30;
/// `MemTotal` of a Spark.
const SPARK_KIB: u64 = 127_600_748;

/// A GB10 as procfs shows it: headless, freshly started, nothing wrong.
struct Spark {
    proc_root: tempfile::TempDir,
    gpu: Gpu,
    report: GpuReport,
    bench: Option<BenchReadings>,
    disk_bytes_per_second: f64,
}

impl Spark {
    fn new() -> Self {
        let proc_root = tempfile::tempdir().unwrap();
        let spark = Self {
            gpu: Gpu {
                name: Some("NVIDIA GB10".to_owned()),
                compute_capability: Some((12, 1)),
                sm_clock_mhz: Some(208),
                sm_clock_max_mhz: Some(3003),
                power_milliwatts: Some(4_700),
                temperature_celsius: Some(41),
                throttle_reasons: Some(Vec::new()),
                ..Gpu::default()
            },
            report: GpuReport {
                driver: Some("580.173.02".to_owned()),
                cuda: Some(CudaVersion { major: 13, minor: 0 }),
                gpus: Vec::new(),
            },
            bench: None,
            disk_bytes_per_second: 6.2e9,
            proc_root,
        };
        spark.write("driver/nvidia/gpus/000f:01:00.0/information", "Model: \t\t NVIDIA GB10\nIRQ: 1\n");
        spark.write("sys/kernel/osrelease", "6.17.0-1029-nvidia\n");
        spark.write("cmdline", "quiet\n");
        spark.write("sys/vm/overcommit_memory", "0\n");
        spark.write("sys/vm/min_free_kbytes", "67584\n");
        let order_nine_and_ten = "Node 0, zone Normal 0 0 0 0 0 0 0 0 0 1024 20480\n";
        spark.write("buddyinfo", order_nine_and_ten);
        spark.meminfo(115, 83, 0, 0);
        spark
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.proc_root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn meminfo(&self, available_gib: u64, free_gib: u64, swap_kib: u64, huge_kib: u64) {
        let kib = |gib: u64| gib << 20;
        let text = format!(
            "MemTotal: {SPARK_KIB} kB\nMemFree: {} kB\nMemAvailable: {} kB\nSwapTotal: {swap_kib} kB\nSwapFree: {swap_kib} \
             kB\nHugePages_Total: 0\nHugetlb: {huge_kib} kB\n",
            kib(free_gib),
            kib(available_gib)
        );
        self.write("meminfo", &text);
    }

    fn process(&self, pid: u32, name: &str, resident_gib: u64) {
        self.write(&format!("{pid}/comm"), &format!("{name}\n"));
        let pages = resident_gib * GIB / rustix::param::page_size() as u64;
        self.write(&format!("{pid}/statm"), &format!("{pages} {pages} 0 1 0 9 0\n"));
    }

    fn readings(&self) -> Readings {
        let gpu = GpuReport { gpus: vec![self.gpu.clone()], ..self.report.clone() };
        Readings {
            gpu: Ok(gpu),
            host: probe::host(self.proc_root.path(), Some(&self.gpu)),
            disk: DiskReading::Measured {
                directory: PathBuf::from("/var/lib/sparkherd"),
                bytes: GIB,
                read_bytes_per_second: self.disk_bytes_per_second,
                write_bytes_per_second: 3.1e9,
            },
            cpu_read: Ok(CpuRead { threads: 20, bytes_per_second: 143.0e9 }),
            bench: self.bench.clone(),
        }
    }

    /// Verdict, and what was found with the advice, of each line of this check.
    fn said(&self, name: &str) -> Vec<(Verdict, String)> {
        said(&self.readings(), name)
    }
}

fn said(readings: &Readings, name: &str) -> Vec<(Verdict, String)> {
    check(readings)
        .into_iter()
        .filter(|line| line.check == name)
        .map(|line| (line.verdict, format!("{} > {}", line.found, line.advice.unwrap_or_default())))
        .collect()
}

/// The one line of this check has this verdict, and says each of these.
fn assert_said(said: &[(Verdict, String)], verdict: Verdict, words: &[&str]) {
    let [(found, text)] = said else { panic!("not one line: {said:?}") };
    assert_eq!(*found, verdict, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

fn loaded(clock_mhz: u32, read: f64, bf16: f64) -> BenchReadings {
    let gpu = Gpu {
        name: Some("NVIDIA GB10".to_owned()),
        sm_clock_mhz: Some(clock_mhz),
        sm_clock_max_mhz: Some(3003),
        ..Gpu::default()
    };
    BenchReadings {
        memory: Ok(CudaMemory { free_bytes: 83 * GIB, total_bytes: SPARK_KIB << 10 }),
        speed: Ok(GpuSpeed { read_bytes_per_second: read, bf16_flop_per_second: bf16 }),
        under_load: vec![Gpu { sm_clock_mhz: Some(300), ..gpu.clone() }, gpu],
    }
}

#[test]
fn a_good_spark_gets_this_table() {
    let spark = Spark { bench: Some(loaded(2418, 228e9, 88e12)), ..Spark::new() };
    let text = Report::new(check(&spark.readings())).to_string();
    let page_kib = rustix::param::page_size() / 1024;
    let expected = include_str!("golden/good_spark.txt").replace("PAGE", &page_kib.to_string());
    assert_eq!(text, expected);
}

#[test]
fn without_a_gpu_the_rest_is_checked() {
    let spark = Spark::new();
    fs::remove_dir_all(spark.proc_root.path().join("driver")).unwrap();
    let readings = Readings { gpu: Err(GpuError::NoLibrary("no such file".to_owned())), ..spark.readings() };
    let lines = check(&readings);
    let names: Vec<&str> = lines.iter().map(|line| line.check).collect();
    let expected = [
        "GPU",
        "memory",
        "2 MiB blocks",
        "swap",
        "kernel settings",
        "disk of the store",
        "memory read by CPU",
    ];
    assert_eq!(names, expected);
    assert_said(&said(&readings, "GPU"), Verdict::Warn, &["none: ", "on the CPU"]);
    assert!(!Report::new(lines).has_failed(), "no GPU is no failure");
}

#[test]
fn a_gpu_that_cannot_be_reached_is_a_failure() {
    let spark = Spark::new();
    let unreachable =
        Readings { gpu: Err(GpuError::NoLibrary("no such file".to_owned())), ..spark.readings() };
    assert_said(&said(&unreachable, "GPU"), Verdict::Fail, &["NVIDIA GB10 is there, but", "gpu.mode"]);
    let broken = Readings { gpu: Err(GpuError::Driver("GPU is lost".to_owned())), ..spark.readings() };
    assert_said(&said(&broken, "GPU"), Verdict::Fail, &["GPU is lost"]);
    let none = Readings { gpu: Ok(GpuReport::default()), ..spark.readings() };
    assert_said(&said(&none, "GPU"), Verdict::Fail, &["shows no GPU"]);
    assert!(Report::new(check(&none)).has_failed());
}

#[test]
fn drivers_and_kernels_are_judged() {
    let mut spark = Spark::new();
    assert_said(&spark.said("known faults"), Verdict::Ok, &["6.17.0-1029-nvidia"]);
    spark.write("sys/kernel/osrelease", "7.0.0-1019-nvidia\n");
    assert_said(&spark.said("known faults"), Verdict::Fail, &["NV_ERR_NO_MEMORY", "kho=off"]);
    spark.write("cmdline", "quiet kho=off\n");
    assert_said(&spark.said("known faults"), Verdict::Ok, &[]);
    spark.report.driver = Some("590.44.01".to_owned());
    assert_said(&spark.said("known faults"), Verdict::Fail, &["590.44.01", "driver 580"]);
    spark.report.cuda = Some(CudaVersion { major: 12, minor: 8 });
    assert_said(&spark.said("driver"), Verdict::Fail, &["CUDA 12.8", "580 or later"]);
    spark.report.cuda = None;
    assert_said(&spark.said("driver"), Verdict::Unknown, &["CUDA unknown"]);
}

#[test]
fn clocks_are_judged_under_load() {
    let mut spark = Spark::new();
    assert_said(&spark.said("clock"), Verdict::Ok, &["208 MHz at rest, 3003 at most, 4 W, 41 °C"]);
    spark.bench = Some(loaded(850, 90e9, 30e12));
    assert_said(&spark.said("clock"), Verdict::Fail, &["850 MHz under load", "unplug"]);
    assert_said(&spark.said("memory read by GPU"), Verdict::Warn, &["90.0 GB/s"]);
    assert_said(&spark.said("BF16 on GPU"), Verdict::Warn, &["30.0 TFLOPS", "power supply"]);
    let mut hot = loaded(2100, 228e9, 80e12);
    hot.under_load[0].throttle_reasons =
        Some(vec![ThrottleReason::PowerCap, ThrottleReason::HardwareThermal]);
    spark.bench = Some(hot);
    assert_said(&spark.said("clock"), Verdict::Warn, &["held down: power cap, too hot, by hardware"]);
    spark.gpu.sm_clock_mhz = None;
    spark.bench = None;
    assert_said(&spark.said("clock"), Verdict::Unknown, &["does not tell"]);
}

#[test]
fn memory_is_what_is_available() {
    let spark = Spark { bench: Some(loaded(2418, 228e9, 88e12)), ..Spark::new() };
    let truth = ["115.0 GiB available, 83.0 GiB free", "CUDA says 83.0 GiB", "available is what counts"];
    assert_said(&spark.said("memory"), Verdict::Ok, &truth);
    spark.process(70, "gnome-shell", 6);
    spark.process(71, "jupyter", 1);
    spark.meminfo(100, 83, 0, 0);
    let processes = Some(vec![GpuProcess { pid: 71, bytes: Some(8 * GIB) }]);
    let spark = Spark { gpu: Gpu { processes, ..spark.gpu.clone() }, ..spark };
    assert_said(&spark.said("memory"), Verdict::Warn, &["jupyter 9.0 GiB, gnome-shell 6.0 GiB"]);
    spark.meminfo(10, 1, 0, 0);
    assert_said(&spark.said("memory"), Verdict::Fail, &["10.0 GiB are kept for the host"]);
    fs::remove_file(spark.proc_root.path().join("meminfo")).unwrap();
    assert_said(&spark.said("memory"), Verdict::Fail, &["cannot read", "--proc-root"]);
}

#[test]
fn fragments_swap_and_settings_are_told() {
    let spark = Spark::new();
    spark.write("buddyinfo", "Node 0, zone Normal 9999 0 0 0 0 0 0 0 0 0 0\n");
    assert_said(&spark.said("2 MiB blocks"), Verdict::Warn, &["0.0 MiB", "compact_memory"]);
    spark.meminfo(115, 83, 16 << 20, 4 << 20);
    assert_said(&spark.said("swap"), Verdict::Warn, &["0.0 MiB of 16.0 GiB", "swapoff"]);
    spark.write("sys/vm/overcommit_memory", "2\n");
    spark.write("sys/vm/min_free_kbytes", "6291456\n");
    let settings =
        ["overcommit 2, 4.0 GiB set aside", "vm.nr_hugepages=0", "vm.overcommit_memory=0", "min_free"];
    assert_said(&spark.said("kernel settings"), Verdict::Warn, &settings);
    // A machine whose GPU has memory of its own may swap a little.
    let h200 = Gpu {
        name: Some("NVIDIA H200".to_owned()),
        memory: Some(GpuMemory { total_bytes: 140 * GIB, used_bytes: 20 * GIB, free_bytes: 120 * GIB }),
        ..Gpu::default()
    };
    fs::remove_dir_all(spark.proc_root.path().join("driver")).unwrap();
    let spark = Spark { gpu: h200, ..spark };
    assert_said(&spark.said("swap"), Verdict::Ok, &[]);
    assert_said(&spark.said("2 MiB blocks"), Verdict::Ok, &[]);
    assert_said(&spark.said("GPU memory"), Verdict::Warn, &["140.0 GiB in all, 20.0 GiB used"]);
}

#[test]
fn a_disk_is_judged_where_it_can_be_measured() {
    let mut spark = Spark::new();
    spark.disk_bytes_per_second = 4e8;
    assert_said(
        &spark.said("disk of the store"),
        Verdict::Warn,
        &["400 MB/s read, 3.1 GB/s written", "takes 150 s"],
    );
    let with = |disk: DiskReading| said(&Readings { disk, ..spark.readings() }, "disk of the store");
    let directory = || Path::new("/store").to_owned();
    assert_said(
        &with(DiskReading::DirectRefused { directory: directory() }),
        Verdict::Unknown,
        &["refuses O_DIRECT"],
    );
    assert_said(&with(DiskReading::InMemory { directory: directory() }), Verdict::Warn, &["tmpfs"]);
    assert_said(&with(DiskReading::Missing { directory: directory() }), Verdict::Unknown, &["--store"]);
    let error = "too little room to measure it".to_owned();
    assert_said(
        &with(DiskReading::Failed { directory: directory(), error }),
        Verdict::Unknown,
        &["too little room"],
    );
}

#[test]
fn a_gpu_that_computes_nothing_fails() {
    let mut spark = Spark::new();
    assert_said(&spark.said("memory read by GPU"), Verdict::Unknown, &["not measured"]);
    spark.bench = Some(BenchReadings { speed: Err("launch failed".to_owned()), ..loaded(2418, 0.0, 0.0) });
    assert_said(&spark.said("memory read by GPU"), Verdict::Fail, &["launch failed"]);
}

/// Works until somebody has looked at it.
#[derive(Debug, Default)]
struct Looked(std::sync::atomic::AtomicBool);

impl GpuSource for Looked {
    fn read(&self) -> Result<GpuReport, GpuError> {
        self.0.store(true, std::sync::atomic::Ordering::Release);
        Ok(GpuReport {
            gpus: vec![Gpu { sm_clock_mhz: Some(2000), ..Gpu::default() }],
            ..GpuReport::default()
        })
    }
}

struct Busy<'a>(&'a Looked);

impl GpuBench for Busy<'_> {
    fn memory(&mut self) -> anyhow::Result<CudaMemory> {
        anyhow::bail!("out of memory")
    }

    fn speed(&mut self) -> anyhow::Result<GpuSpeed> {
        while !self.0.0.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::yield_now();
        }
        Ok(GpuSpeed { read_bytes_per_second: 1.0, bf16_flop_per_second: 2.0 })
    }
}

#[test]
fn the_gpu_is_looked_at_while_it_works() {
    let source = Looked::default();
    let readings = bench::measure(&mut Busy(&source), &source);
    assert_eq!(readings.under_load.first().and_then(|gpu| gpu.sm_clock_mhz), Some(2000));
    assert_eq!(readings.memory.unwrap_err(), "out of memory");
    assert!(readings.speed.is_ok());
}
