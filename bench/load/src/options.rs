//! The command line.

use crate::scenarios::{self, Scenario};
use crate::server::Ending;
use clap::{Args, Parser, Subcommand};
use postrider_bench_load::target::Kind;
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
    /// Where the peers were unpacked; else those that the machine has installed
    #[arg(long, global = true, default_value = "target/bench-peers/root")]
    pub peers: PathBuf,
    /// Fresh runs of each scenario, of which figures are the medians [default: 3, short: 1]
    #[arg(long, global = true)]
    pub runs: Option<usize>,
    /// Postrider alone, less time, and what it costs beside the kept results; keeps no results unless told where
    #[arg(long, global = true)]
    pub short: bool,
    /// When all are measured: after so many minutes no run is begun any more
    #[arg(long, global = true, default_value_t = 18)]
    pub minutes: u64,
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
        /// What the program is told when this one is gone
        #[arg(long, value_enum, default_value_t = Ending::Kill)]
        signal: Ending,
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
    /// One notification to every session, by WebSocket
    Broadcast,
    /// Notifications to one user each
    Unicast,
    /// Memory and CPU of sessions at rest
    Idle,
    /// Waiting long polls
    Longpoll,
    /// One notification to every session, by SSE
    Sse,
    /// All sessions drop and come back
    Storm,
    /// Synced publishes per second
    Publish,
    /// Reading what was stored while users were away
    Drain,
    /// One to one while one goes to all
    Beside,
    /// What acks by id cost
    Acks,
    /// From publish to receive, by transport
    Latency,
}

impl Name {
    pub fn scenario(&self) -> &'static Scenario {
        match self {
            Name::Broadcast => &scenarios::BROADCAST,
            Name::Unicast => &scenarios::UNICAST,
            Name::Idle => &scenarios::IDLE,
            Name::Longpoll => &scenarios::LONG_POLL,
            Name::Sse => &scenarios::SSE,
            Name::Storm => &scenarios::STORM,
            Name::Publish => &scenarios::PUBLISH,
            Name::Drain => &scenarios::DRAIN,
            Name::Beside => &scenarios::BESIDE,
            Name::Acks => &scenarios::ACKS,
            Name::Latency => &scenarios::LATENCY,
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

    /// A time, or a third of it if there is little.
    pub fn time(&self, full: Duration) -> Duration {
        if self.short { full / 3 } else { full }
    }

    /// Those of the servers that are measured.
    pub fn kinds<'a>(&self, all: &'a [Kind]) -> impl Iterator<Item = Kind> + use<'a> {
        let only_ours = self.short;
        all.iter()
            .copied()
            .filter(move |kind| !only_ours || *kind == Kind::Postrider)
    }

    /// What of these is measured in a short run too.
    pub fn some<T: Copy>(&self, all: &[T], few: &[T]) -> Vec<T> {
        if self.short { few.to_vec() } else { all.to_vec() }
    }
}

fn default_bin() -> PathBuf {
    std::env::var_os("POSTRIDER_BIN").map_or_else(|| "target/release/postrider".into(), PathBuf::from)
}
