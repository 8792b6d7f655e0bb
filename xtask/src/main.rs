//! `cargo xtask`: everything a developer or CI does that is more than one cargo command.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who ran it")]

mod arm64;
mod bench_peers;
mod cargo;
mod chart;
mod checkout;
mod demo;
mod generate;
mod gpu;
mod kernels;
mod ladder;
mod shim;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test and try sparkherd")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the tests, cheapest first; everything that CI runs
    Test {
        /// Only what is worth running every few minutes: format, lints, generated files, unit tests
        #[arg(long)]
        fast: bool,
        /// Only the height of this name
        #[arg(long, conflicts_with = "fast", value_name = "NAME")]
        only: Option<String>,
    },
    /// Bring up a real Kubernetes API, operator and two agents, serve a small model and stream an answer
    Demo {
        /// End after the answer
        #[arg(long)]
        once: bool,
        /// Use this cluster instead of building one; it must let us install the chart
        #[arg(long, value_name = "PATH")]
        kubeconfig: Option<PathBuf>,
    },
    /// Run the engine's tests with the instructions of arm64, in an emulator; needs root and debootstrap
    Arm64,
    /// Measure llama.cpp and this engine on the same random checkpoint, taking turns
    BenchPeers {
        /// Runs of each engine and format; medians count
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Only what serving adds to our engine
        #[arg(long)]
        only_serving: bool,
    },
    /// Build one program that proves and measures the CUDA kernels on a GPU, and run it if there is one here
    Gpu {
        /// Build it for this processor; a Spark's is aarch64
        #[arg(long, value_enum, default_value_t = gpu::Processor::of_this_machine())]
        target: gpu::Processor,
    },
    /// Write the files that are made from the code
    Generate {
        /// Write nothing; fail if a file is not what it would be written as
        #[arg(long)]
        check: bool,
    },
    /// Compile the CUDA kernels for every chip, and write down what they take there
    Kernels {
        /// Write machine code of all chips into this file instead: a build with `SPARKHERD_KERNELS=FILE` has it in the program
        #[arg(long, value_name = "FILE", conflicts_with = "check")]
        bundle: Option<PathBuf>,
        /// Write nothing; fail if kernels take something else than is written down
        #[arg(long)]
        check: bool,
    },
    /// Run the CUDA kernels on the host with sanitizers, with a race detector, and with each of a list of faults
    Shim,
    /// Check what no compiler checks: sizes, banned calls, layers, licences, dead files
    Tidy,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo { once, kubeconfig } => demo::run(once, kubeconfig.as_deref()),
        Command::Test { fast, only } => ladder::run(fast, only.as_deref()),
        Command::Arm64 => arm64::test(),
        Command::BenchPeers { rounds, only_serving } => bench_peers::run(rounds, only_serving),
        Command::Generate { check } => generate::run(check),
        Command::Gpu { target } => gpu::run(target),
        Command::Kernels { bundle: Some(path), check: _ } => kernels::bundle(&path),
        Command::Kernels { bundle: None, check } => kernels::run(check),
        Command::Shim => shim::run(),
        Command::Tidy => tidy::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
