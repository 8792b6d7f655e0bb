//! `sparkherd bench`: measurements that anybody can repeat.

mod engine;
mod serve;

/// Measure an engine.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Engine(engine::EngineArgs),
    Serve(serve::ServeArgs),
}

pub(crate) fn run(args: BenchArgs) -> anyhow::Result<()> {
    let BenchArgs { what } = args;
    match what {
        What::Engine(args) => engine::run(args),
        What::Serve(args) => serve::run(args),
    }
}
