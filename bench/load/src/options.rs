//! The command line.

use crate::scenarios::{self, Scenario};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Puts a load on the real `postrider`, checks every delivery, and says what it cost.
#[derive(Parser)]
#[command(name = "postrider-bench", arg_required_else_help = true)]
pub struct Options {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub how: How,
}

/// How to measure.
#[derive(Args)]
pub struct How {
    /// The binary to measure [default: $POSTRIDER_BIN, or target/release/postrider]
    #[arg(long, global = true, default_value_os_t = default_bin(), hide_default_value = true)]
    pub bin: PathBuf,
    /// Another setting of the server, as its own `--set` takes it
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where data directories are made: the disk that is measured
    #[arg(long, global = true, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
    /// Fresh runs of each scenario, of which figures are the medians [default: 3, short: 1]
    #[arg(long, global = true)]
    pub runs: Option<usize>,
    /// Little time and few connections, to see that it works; keeps no results unless told where
    #[arg(long, global = true)]
    pub short: bool,
    /// Print results as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Keep the runs that the results hold already
    #[arg(long, global = true)]
    pub add: bool,
    /// Where results are kept [default: bench/results]
    #[arg(long, global = true)]
    pub results: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Every scenario, then the report
    All,
    #[command(flatten)]
    One(Name),
    /// Write RESULTS.md beside the kept results
    Report,
    /// Becomes a program that ends with its parent, on a core
    #[command(hide = true)]
    Launch {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// The bare loop that broadcasts and idle sessions are compared with
    #[command(hide = true)]
    Floor,
}

#[derive(Subcommand)]
pub enum Name {
    /// Synced publishes per second
    Publish,
    /// From publish to receive, by transport
    Latency,
    /// Memory and CPU of sessions at rest
    Idle,
    /// One notification to every session
    Broadcast,
    /// Reading what was stored while users were away
    Drain,
}

impl Name {
    pub fn scenario(&self) -> &'static Scenario {
        match self {
            Name::Publish => &scenarios::PUBLISH,
            Name::Latency => &scenarios::LATENCY,
            Name::Idle => &scenarios::IDLE,
            Name::Broadcast => &scenarios::BROADCAST,
            Name::Drain => &scenarios::DRAIN,
        }
    }
}

impl How {
    /// How often each scenario runs.
    pub fn runs(&self) -> usize {
        self.runs.unwrap_or(if self.short { 1 } else { 3 })
    }

    /// Where results are kept, if they are.
    pub fn results(&self) -> Option<PathBuf> {
        let default = (!self.short).then(|| PathBuf::from("bench/results"));
        self.results.clone().or(default)
    }

    /// A time, or a fifth of it if there is little.
    pub fn time(&self, full: Duration) -> Duration {
        if self.short { full / 5 } else { full }
    }

    /// A number of connections, users or entries, or a tenth of it.
    pub fn count(&self, full: usize) -> usize {
        if self.short { full / 10 } else { full }
    }
}

fn default_bin() -> PathBuf {
    std::env::var_os("POSTRIDER_BIN").map_or_else(|| "target/release/postrider".into(), PathBuf::from)
}
