//! `postrider serve`: a node in the foreground.

use crate::exit::Failure;
use crate::logging::{self, LogFormat};
use crate::preset_options::PresetOptions;
use anyhow::Context as _;
use clap::Args;
use postrider_server::config::{self, Given, Loaded};
use postrider_server::{Node, OpenFault, StartError};
use serde_json::json;
use std::io::Write as _;
use std::path::PathBuf;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Where the configuration comes from; the later wins: defaults, presets, files, environment, `--set`.
#[derive(Args)]
pub struct ConfigArgs {
    /// A configuration file: .yaml, .yml, .json, .toml or .properties; may be given several times
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// A ready-made configuration, e.g. redis-notify; `config doc` lists them; may be given several times
    #[arg(long, value_name = "NAME")]
    pub preset: Vec<String>,
    #[command(flatten)]
    pub preset_options: PresetOptions,
    /// One key, e.g. --set http.listen=0.0.0.0:8080; lists as JSON
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl ConfigArgs {
    /// Joins all layers.
    pub fn load(&self) -> Result<Loaded, Failure> {
        let given = Given {
            presets: self.preset.clone(),
            options: self.preset_options.0.clone(),
            files: self.config.clone(),
            env: std::env::vars_os().collect(),
            sets: self.set.clone(),
        };
        config::load(&given).map_err(Failure::faults)
    }
}

/// Arguments of `serve`.
#[derive(Args)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How logs and the ready line are written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Drain too when standard input ends: for a program that starts a node and may be killed
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

const SERVE_HELP: &str = "\
Every key can also be set by an environment variable: http.listen is POSTRIDER_HTTP__LISTEN. \
When the node is up it writes one line to standard output. SIGTERM or Ctrl-C drains it. \
SIGHUP reads the configuration again: keys, origins, rates, certificates and the log level change at once.

Examples:
  postrider serve --config postrider.yaml --set log.level=debug
  postrider serve --preset redis-notify --notify-jwt-secret \"$SECRET\"";

/// Runs until a signal, then drains.
pub fn run(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    let level = logging::start(args.log_format, loaded.config.log.level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let node = Node::start(loaded.config, None, runtime.handle().clone()).map_err(start_failure)?;
    node.reload().register(&["log.level"], move |config| {
        let (level, wanted) = (level.clone(), config.log.level);
        Ok(Box::new(move || level.set(wanted)))
    });
    let (signals, hangups) = {
        let _entered = runtime.enter();
        (Signals::watch()?, signal(SignalKind::hangup())?)
    };
    let signals = match args.until_input_ends {
        true => signals.or_end_of_input()?,
        false => signals,
    };
    say_ready(&node, args.log_format)?;
    runtime.block_on(run_until_signal(node, signals, Some((hangups, &args.config))))
}

/// Reads the configuration again, as it was given at the start, and hands it to the running node.
fn reload(node: &Node, config: &ConfigArgs) {
    let kept = |fault: &str| tracing::error!("the configuration in force is kept: {fault}");
    let loaded = match config.load() {
        Ok(loaded) => loaded,
        Err(Failure::Configuration(faults)) => return faults.iter().for_each(|fault| kept(fault)),
        Err(Failure::Other(error)) => return kept(&format!("{error:#}")),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match node.reload().reload(loaded.config) {
        Err(faults) => faults.iter().for_each(|fault| kept(fault)),
        Ok(reloaded) => {
            let changed = reloaded.changed.join(", ");
            tracing::info!(changed, "the configuration was read again");
            if !reloaded.needs_restart.is_empty() {
                let keys = reloaded.needs_restart.join(", ");
                tracing::warn!("changed, but not in force before a restart: {keys}");
            }
        }
    }
}

/// The runtime for everything that is no session.
pub fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime did not start")
}

/// What to do about a node that does not start.
pub fn start_failure(error: StartError) -> Failure {
    if let StartError::Tls(fault) = &error {
        return Failure::Configuration(vec![fault.to_string()]);
    }
    let advice = match &error {
        StartError::Listen { key, source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            format!("another process has that address: stop it, or choose another with --set {key}=…")
        }
        StartError::Listen { .. } => "choose an address of this machine".into(),
        StartError::TicketKey(_) => "look at ticket.key in data_dir and at its permissions".into(),
        StartError::Auth(_) => "look at auth.jwt with `postrider config check`".into(),
        StartError::Registry(_) => "look at registry.*, and at the files that it names".into(),
        StartError::Store(OpenFault::Directory(_)) => {
            "look at the directory, or choose another with --set data_dir=…".into()
        }
        StartError::Store(OpenFault::NotBuilt(_)) => "choose another engine, or another build".into(),
        StartError::Store(_) | StartError::Nodes(_) => {
            "look at Redis: `postrider doctor` with this configuration says more".into()
        }
        _ => "this is a fault of the system or of Postrider".into(),
    };
    Failure::Other(anyhow::Error::new(error).context(advice))
}

/// The line that says that the node is up.
pub fn say_ready(node: &Node, format: LogFormat) -> anyhow::Result<()> {
    let (http, ops) = (node.http(), node.ops());
    let line = match format {
        LogFormat::Json => {
            json!({"event": "ready", "http": http.to_string(), "ops": ops.to_string()}).to_string()
        }
        LogFormat::Text => {
            let scheme = if node.is_tls() { "https" } else { "http" };
            format!("postrider is ready: {scheme}://{http}, operations http://{ops}")
        }
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// The signals that end a node. They are watched before anyone is told that it is up, so that none of them
/// kills it without a drain.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Closed when standard input has ended; `None` where that means nothing.
    input: Option<oneshot::Receiver<()>>,
}

impl Signals {
    /// Watches from now on. Called within a runtime.
    pub fn watch() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            input: None,
        })
    }

    /// The end of standard input counts as a signal.
    fn or_end_of_input(mut self) -> std::io::Result<Signals> {
        let (open, ended) = oneshot::channel::<()>();
        let read = move || {
            // Whoever started this node says nothing, and holds the other end.
            if let Err(error) = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()) {
                tracing::debug!(%error, "standard input");
            }
            drop(open);
        };
        std::thread::Builder::new().name("input".into()).spawn(read)?;
        self.input = Some(ended);
        Ok(self)
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = ended(&mut self.input) => {}
        }
    }

    /// The next one after the first. Whoever started this node and ends, ends its input too: that hurries nobody.
    async fn again(&mut self) {
        self.input = None;
        self.recv().await;
    }
}

/// Returns once, when standard input has ended.
async fn ended(input: &mut Option<oneshot::Receiver<()>>) {
    let Some(open) = input else {
        return std::future::pending().await;
    };
    // Nothing is ever sent: the error is the news.
    drop(open.await);
    *input = None;
}

/// Waits for SIGTERM or SIGINT (or the end of standard input, where that counts) and drains; a second signal ends
/// at once. Each SIGHUP reads the configuration again, where there is one to read.
pub async fn run_until_signal(
    node: Node,
    mut signals: Signals,
    mut hangups: Option<(Signal, &ConfigArgs)>,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            () = signals.recv() => break,
            config = hangup(&mut hangups) => reload(&node, config),
        }
    }
    tokio::select! {
        () = node.drain() => Ok(()),
        () = signals.again() => {
            let ended = "stopped by a second signal before the drain was over";
            Err(Failure::Other(anyhow::anyhow!(ended)))
        }
    }
}

/// What to read again, at the next SIGHUP.
async fn hangup<'a>(hangups: &mut Option<(Signal, &'a ConfigArgs)>) -> &'a ConfigArgs {
    if let Some((signal, config)) = hangups
        && signal.recv().await.is_some()
    {
        return config;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn the_end_of_input_begins_a_drain_and_does_not_cut_one_short() {
        let with_ended_input = || {
            let (_, ended) = oneshot::channel();
            let input = Some(ended);
            Signals {
                input,
                ..Signals::watch().unwrap()
            }
        };
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (with_ended_input(), with_ended_input());
        assert!(pin!(first.recv()).poll(&mut context).is_ready());
        assert!(pin!(second.again()).poll(&mut context).is_pending());
    }
}
