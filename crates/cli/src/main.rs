//! The `postrider` binary: runs a node, and talks to one.
//!
//! Exit status: 0 after a drain or a finished command, 2 for a bad configuration or usage, 1 otherwise.
//! Standard output carries results, standard error logs and what went wrong, with what to do next.

#![allow(
    clippy::print_stdout,
    reason = "results of a command line go to standard output"
)]

mod bench;
mod client;
mod config_command;
mod dam;
mod dead_letters;
mod demo;
mod doctor;
mod exit;
mod listen;
mod logging;
mod publish;
mod serve;
mod shell;
mod sse;
mod token;
mod why;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Delivers notifications to people over long polling, SSE and WebSocket, and accounts for every one.
#[derive(Parser)]
#[command(name = "postrider", version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  postrider demo                                    try it: a node, a page, and what to paste
  postrider serve --config postrider.yaml           run a node
  postrider config check --config postrider.yaml    look for faults before that
  postrider publish --to ada --data '{\"order\":7}'   send something
  postrider why order-7-shipped ada                 what became of it";

#[derive(Subcommand)]
enum Command {
    /// Run a node in the foreground
    Serve(serve::ServeArgs),
    /// Run a node on loopback to try things out; everything is gone when it stops
    Demo(demo::DemoArgs),
    /// Publish notifications
    Publish(publish::PublishArgs),
    /// Show a user's notifications as they come
    Listen(listen::ListenArgs),
    /// Mint a user token
    Token(token::TokenArgs),
    /// Tell what became of a notification
    Why(why::WhyArgs),
    /// See to what nothing could deliver
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Measure a node, with a load that checks every delivery
    Bench(bench::BenchArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_command::ConfigCommand),
    /// Look at all that a node needs, and say how to mend what is wrong
    Doctor(doctor::DoctorArgs),
    /// Write a completion script for a shell
    Completions(shell::CompletionsArgs),
    /// Write the manual pages
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Listen(args) => listen::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Why(args) => why::run(&args),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Bench(args) => bench::run(&args),
        Command::Config(command) => config_command::run(&command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => shell::completions::<Cli>(&args),
        Command::Man(args) => shell::man::<Cli>(&args),
    };
    exit::report(done)
}
