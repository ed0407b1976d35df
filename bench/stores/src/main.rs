//! The store contest: `stores <candidate> <experiment> --dir <directory> [--option number]…`
//!
//! Every store runs under the same engine and is asked through the engine's own traits; what it answers is
//! verified (ids, order, bodies). One process is one measurement. `README.md` says how to run each.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures reads clocks, starts tasks and prints; it decides nothing of the product"
)]

mod append;
mod backlog;
mod bench;
mod candidates;
mod child;
mod crash;
mod damage;
mod load;
mod measure;
mod retention;
mod stalls;
mod victim;

use anyhow::{Context, Result, bail};
use bench::Bench;
use candidates::Candidate;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [candidate, experiment, options @ ..] = words.as_slice() else {
        bail!("usage: stores <candidate> <experiment> --dir <directory> [--option number]…");
    };
    let bench = Bench::new(Candidate::named(candidate)?, options)?;
    run(&bench, experiment)
        .await
        .with_context(|| format!("{candidate} {experiment}"))
}

async fn run(bench: &Bench, experiment: &str) -> Result<()> {
    match experiment {
        "append" => append::run(bench).await,
        "build" => backlog::build(bench).await,
        "drain" => backlog::drain(bench).await,
        "settle" => backlog::settle(bench).await,
        "retention" => retention::run(bench).await,
        "stalls" => stalls::run(bench).await,
        "kill" => crash::kill_loop(bench),
        "damage" => damage::run(bench),
        "start" => crash::start(bench),
        // What the ones above start.
        "victim" => victim::run(bench).await,
        "victim-lazy" => victim::run_lazy(bench).await,
        "look" => victim::look(bench).await,
        "fill" => crash::fill(bench).await,
        "first-answer" => crash::first_answer(bench).await,
        _ => bail!("no such experiment"),
    }
}
