//! The binary `sparkherd`: arguments and wiring only.

mod agent;
mod bench;
mod cluster;
mod crds;
mod doctor;
mod engine;
mod fit;
mod gpu;
mod inspect;
mod key;
mod operator;
mod serve;

use clap::{Parser, Subcommand};

/// Turns a lab's DGX Sparks into model endpoints that stay up.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::AgentArgs),
    Bench(bench::BenchArgs),
    Operator(operator::OperatorArgs),
    Serve(serve::ServeArgs),
    Crds(crds::CrdsArgs),
    Doctor(doctor::DoctorArgs),
    Engine(engine::EngineArgs),
    Fit(fit::FitArgs),
    Inspect(inspect::InspectArgs),
    Key(key::KeyArgs),
}

fn main() -> anyhow::Result<()> {
    let Args { command } = Args::parse();
    // Logs are structured lines on standard error; standard output belongs to the subcommands' answers.
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match command {
        Command::Agent(args) => agent::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Operator(args) => operator::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Crds(args) => crds::run(&args),
        Command::Doctor(args) => doctor::run(args),
        Command::Engine(args) => engine::run(args),
        Command::Fit(args) => fit::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Key(args) => key::run(&args),
    }
}
