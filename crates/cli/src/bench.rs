//! `postrider bench`: measures a node with a load that checks every delivery, from any machine that may use it.
//!
//! Invariant: a figure is given only if nothing was lost, and nothing came out of an order that there was. Its users are named `bench-…`;
//! a node that is not on this machine is left alone unless the user has said yes to what will be done.

mod node;
mod report;
mod users;
mod work;

use crate::client::KeyArg;
use crate::exit::Failure;
use clap::{Args, ValueEnum};
use node::Site;
use postrider_bench_load::machine;
use std::path::PathBuf;
use std::time::Duration;

/// Files that are open beside the sessions' sockets.
const OTHER_FILES: u64 = 600;
/// Publications in flight, by default, where one goes to everyone.
const WIDE_WINDOW: u64 = 16;
/// The same where each goes to one user.
const EACH_WINDOW: u64 = 64;

/// Arguments of `bench`.
#[derive(Args)]
#[command(after_help = HELP)]
pub struct BenchArgs {
    /// What to measure [default: all, one after the other]
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The node, as http://host:port; without it one is started here, on loopback, and ended afterwards
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    key: KeyArg,
    #[command(flatten)]
    users: users::UsersArgs,
    /// How many users connect
    #[arg(long = "users", value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// How long each scenario publishes, or rests
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Publications a second, at a steady rate; latency then counts from when each was due
    #[arg(long, conflicts_with = "window", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Publications in flight, as fast as they are delivered [default: 16 to everyone, 64 to one user each]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    window: Option<u64>,
    /// Bytes of `data` in each notification
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=65_536))]
    data: u32,
    /// Notifications that `drain` stores for each user
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    backlog: u64,
    /// Publish to one user each over one NDJSON stream, not by a request for each
    #[arg(long)]
    stream: bool,
    /// Broadcast to everyone, and not to a topic that only this bench has: all users of the node get it
    #[arg(long)]
    everyone: bool,
    /// The node's process, for its CPU time and memory [default: found by its port, if it is on this machine]
    #[arg(long)]
    pid: Option<u32>,
    /// Do it, though the node is not on this machine
    #[arg(long)]
    yes: bool,
    /// Write the results as one line of JSON
    #[arg(long)]
    json: bool,
    /// Draw how long deliveries took, by percentile
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

const HELP: &str = "\
Its users are named bench-…, its notifications are gone after five minutes. It needs an API key with the scope publish \
(broadcast too with --everyone) and tokens: --secret, --token-command or --tokens. A token made by --secret allows the \
bench's own topic; with other tokens the topic must be open (topics.open), or give --everyone.

Examples:
  postrider bench                                        a node of its own, every scenario, 1,000 users
  postrider bench broadcast --users 10000 --window 1     one notification to all of 10,000 sockets at a time
  postrider bench unicast --rate 2000 --svg unicast.svg  latency at 2,000 a second, as a picture
  postrider bench sse --url http://10.0.0.5:8080 --key \"$KEY\" --secret \"$SECRET\" --yes";

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Open a WebSocket for each user
    Connect,
    /// One notification to all WebSockets
    Broadcast,
    /// Notifications to one user each, over WebSocket
    Unicast,
    /// One notification to all waiting long polls; each polls again with its cursor
    LongPoll,
    /// One notification to all event streams
    Sse,
    /// All sockets drop and come back with their cursors
    Storm,
    /// Read over WebSocket what was stored while nobody was there
    Drain,
    /// Sessions at rest
    Idle,
}

impl Scenario {
    /// Its name on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Measures, and prints what was found.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let files = machine::raise_open_files()?;
    let needed = u64::from(args.count) + OTHER_FILES;
    if files < needed {
        return Err(Failure::usage(format!(
            "{files} open files are allowed, {needed} are needed for --users {}: raise `ulimit -n`, or take fewer users",
            args.count
        )));
    }
    let scenarios = match args.scenarios.as_slice() {
        [] => Scenario::value_variants(),
        chosen => chosen,
    };
    let site = Site::find(args)?;
    site.check()?;
    let mut results = Vec::new();
    for (nth, scenario) in scenarios.iter().enumerate() {
        let result = work::measure(*scenario, nth, &site, args)?;
        if !args.json {
            report::print(&result);
        }
        results.push(result);
    }
    if args.json {
        println!("{}", report::json(&site, &results));
    }
    if let Some(file) = &args.svg {
        report::draw(file, &results)?;
    }
    Ok(())
}

impl BenchArgs {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn window(&self, default: u64) -> u64 {
        self.window.unwrap_or(default)
    }
}
