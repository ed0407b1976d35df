//! `postrider-bench`: starts the real `postrider`, puts a load on it, checks every delivery, and says what it cost.
//!
//! Invariant: a figure is printed only if nothing was lost and nothing came out of order; else the exit status is 1.
//!
//! The server runs on core 0, this program on core 1, in one thread that holds every connection. What is measured
//! is the server: its CPU time and memory as the kernel counts them, and what its clients saw.

#![allow(
    clippy::print_stdout,
    reason = "the results of a measurement go to standard output"
)]

mod account;
mod clock;
mod disk;
mod figures;
mod floor;
mod histogram;
mod machine;
mod net;
mod options;
mod payload;
mod requests;
mod results;
mod scenarios;
mod server;

use anyhow::Result;
use clap::Parser as _;
use options::{Command, Options};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postrider-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    match &options.command {
        Command::Floor => floor::serve(),
        Command::Launch { command } => server::launch(command),
        Command::Report => results::render(&options.how),
        Command::All => scenarios::ALL
            .iter()
            .try_for_each(|scenario| results::measure(scenario, options))
            .and_then(|()| results::render(&options.how)),
        Command::One(name) => results::measure(name.scenario(), options),
    }
}
