//! Logs go to standard error, as text for people or as JSON for machines.

use crate::dam::Dam;
use clap::ValueEnum;
use postrider_server::config::LogLevel;
use std::io::IsTerminal as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// How logs, and the ready line, are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Changes the level while logging goes on.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    /// From now on, this is the least level that is logged.
    pub fn set(&self, level: LogLevel) {
        if let Err(error) = self.0.modify(|filter| *filter = filter_of(level)) {
            eprintln!("postrider: the log level could not be changed: {error}");
        }
    }
}

/// Starts logging. The first call of a process decides.
pub fn start(format: LogFormat, level: LogLevel) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter).with(Dam::default());
    let started = match format {
        LogFormat::Text => registry.with(layer).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    if let Err(error) = started {
        eprintln!("postrider: logging did not start: {error}");
    }
    LevelHandle(handle)
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
