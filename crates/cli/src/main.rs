//! The `postrider` binary: runs a node, and talks to one.
//!
//! Exit status: 0 after a drain or a finished command, 2 for a bad configuration or usage, 1 otherwise.
//! Standard output carries results, standard error logs, progress and what went wrong, with what to do next.

#![allow(
    clippy::print_stdout,
    reason = "results of a command line go to standard output"
)]

mod backoff;
mod bench;
mod client;
mod config_command;
mod dam;
mod dead_letters;
mod demo;
mod doctor;
mod exit;
mod input;
mod interrupt;
mod listen;
mod logging;
mod openapi;
mod output;
mod pages;
mod presence;
mod preset_options;
mod pretty;
mod progress;
mod publish;
mod serve;
mod shell;
mod sse;
mod state;
mod table;
mod term;
mod token;
mod topics;
mod users;
mod why;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Command as ClapCommand, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::process::ExitCode;
use term::ColorWhen;

/// Delivers notifications to people over long polling, SSE and WebSocket, and accounts for every one.
#[derive(Parser)]
#[command(name = "postrider", version, arg_required_else_help = true, after_help = EXAMPLES)]
#[command(styles = STYLES)]
struct Cli {
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true
    )]
    #[arg(help = "When to use colours: auto, always or never", display_order = 900)]
    color: ColorWhen,
    #[command(subcommand)]
    command: Command,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Green.on_default());

const EXAMPLES: &str = "\
Examples:
  postrider demo                                    try it: a node, a page, and what to paste
  postrider serve --config postrider.yaml           run a node
  postrider doctor --config postrider.yaml          look for what is wrong before that
  postrider publish --to ada --data '{\"order\":7}'   send something
  postrider listen                                  watch it arrive
  postrider why order-7-shipped ada                 what became of it

Environment:
  POSTRIDER_URL    the node that the commands talk to       (--url)
  POSTRIDER_CA     the certificates to trust, as PEM        (--ca)
  POSTRIDER_KEY    the API key                              (--key)
  POSTRIDER_TOKEN  the user token of `listen`               (--token)
  POSTRIDER_…      configuration of `serve`: http.listen is POSTRIDER_HTTP__LISTEN
  NO_COLOR         no colours, whatever the terminal can do

Exit status:
  0  done; after a drain; ended by Ctrl-C where that is the end of it
  1  not done, or not all of it
  2  a bad command line or configuration";

const DEMO_HELP: &str = "\
Examples:
  postrider demo                                what to paste is written to standard output
  postrider demo --listen 127.0.0.1:18080
  postrider demo --log-format json | jq -r 'select(.event == \"demo\") | .page'";

#[derive(Subcommand)]
enum Command {
    /// Run a node in the foreground
    Serve(serve::ServeArgs),
    /// Run a node on loopback to try things out; everything is gone when it stops
    #[command(after_help = DEMO_HELP)]
    Demo(demo::DemoArgs),
    Publish(publish::PublishArgs),
    Listen(listen::ListenArgs),
    Why(why::WhyArgs),
    /// See to what nothing could deliver
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Keep the directory of users: import, show, change, erase
    #[command(subcommand)]
    Users(users::UsersCommand),
    /// See and change who belongs to a topic
    #[command(subcommand)]
    Topics(topics::TopicsCommand),
    /// See and change users' state: counters and settings for their clients
    #[command(subcommand)]
    State(state::StateCommand),
    /// See who is connected
    #[command(subcommand)]
    Presence(presence::PresenceCommand),
    Token(token::TokenArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config_command::ConfigCommand),
    /// Write the HTTP interface as an OpenAPI document
    #[command(after_help = openapi::HELP)]
    Openapi,
    Doctor(doctor::DoctorArgs),
    /// Measure a node, with a load that checks every delivery
    Bench(bench::BenchArgs),
    /// Write a completion script for a shell
    Completions(shell::CompletionsArgs),
    /// Write the manual pages
    Man(shell::ManArgs),
}

fn main() -> ExitCode {
    let command = match parse() {
        Ok(command) => command,
        Err(error) => return exit::usage(&error),
    };
    exit::report(run(command))
}

fn parse() -> Result<Command, clap::Error> {
    let matches = coloured(Cli::command()).try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches)?;
    term::choose(cli.color);
    Ok(cli.command)
}

/// Help is written before the arguments are understood, so that its colours are looked for by hand.
fn coloured(command: ClapCommand) -> ClapCommand {
    let arguments = std::env::args_os().map(|one| one.to_string_lossy().into_owned());
    let arguments: Vec<_> = arguments.collect();
    let pair = arguments.windows(2).find(|pair| pair[0] == "--color");
    let joined = arguments.iter().find_map(|one| one.strip_prefix("--color="));
    let when = pair.map(|pair| pair[1].as_str()).or(joined);
    command.color(match when {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    })
}

fn run(command: Command) -> Result<(), exit::Failure> {
    match command {
        Command::Serve(args) => serve::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Listen(args) => listen::run(args),
        Command::Why(args) => why::run(&args),
        Command::DeadLetters(command) => dead_letters::run(&command),
        Command::Users(command) => users::run(&command),
        Command::Topics(command) => topics::run(&command),
        Command::State(command) => state::run(&command),
        Command::Presence(command) => presence::run(&command),
        Command::Token(args) => token::run(&args),
        Command::Config(command) => config_command::run(&command),
        Command::Openapi => openapi::run(),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => shell::completions::<Cli>(&args),
        Command::Man(args) => shell::man::<Cli>(&args),
    }
}

/// A child has its parent's listeners until it executes its own program: a test that counts on a port being free again
/// and a test that starts a child take turns.
#[cfg(test)]
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
