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

mod disk;
mod floor;
mod options;
mod peers;
mod report;
mod results;
mod scenarios;
mod server;
mod targets;

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
        Command::Launch { command, signal } => server::launch(command, *signal),
        Command::Report => match options.how.results() {
            Some(results) => report::write(&results),
            None => Ok(()),
        },
        Command::All => results::all(options),
        Command::One(name) => results::one(name.scenario(), options),
    }
}
