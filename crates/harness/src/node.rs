//! Runs the real `postrider serve` and lets a test kill, drain, restart and measure it.
//!
//! Invariant: the child never outlives its [`Node`], and its data directory lives exactly as long. After a restart
//! every holder of the node's [`Endpoint`] sees the new address.
//!
//! It does not interpret logs and does not touch the data directory.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::http::{Conn, Request, once};
use crate::ports::{free, loopback};
use crate::token::SECRET;

/// API key with every scope.
pub const KEY: &str = "test-key-0123456789abcdef0123456789abcdef";
/// API key that may only publish.
pub const KEY_PUBLISH: &str = "publish-key-0123456789abcdef0123456789ab";
/// API key that may only read.
pub const KEY_READ: &str = "read-key-0123456789abcdef0123456789abcde";
/// What a client is answered while a node is away: the node's own word, and that of a load balancer before it whose
/// request met a node that was just going. No node says the second.
pub const AWAY: [u16; 2] = [503, 502];
/// How long a node may take to be up.
const READY_DEADLINE: Duration = Duration::from_secs(30);
/// How long a node that closed its standard output may take to end.
const EXIT_DEADLINE: Duration = Duration::from_secs(30);
/// How much of the log is printed when a test fails.
const LOG_TAIL_BYTES: usize = 16 * 1024;

/// Where the node is, shared with publishers and readers; empty while it is down.
#[derive(Clone, Default)]
pub struct Endpoint {
    state: Arc<(Mutex<Option<SocketAddr>>, Condvar)>,
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Endpoint {
    /// Of something that stands before nodes, such as a load balancer, and stays where it is.
    pub fn fixed(addr: SocketAddr) -> Endpoint {
        let endpoint = Endpoint::default();
        endpoint.set(Some(addr));
        endpoint
    }

    /// The address now, waiting for a node that is down.
    pub fn wait(&self, deadline: Instant) -> Result<SocketAddr> {
        let (lock, up) = &*self.state;
        let mut addr = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(addr) = *addr {
                return Ok(addr);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the node is down and was not restarted in time");
            }
            addr = up
                .wait_timeout(addr, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The address now, with a deadline that suits a test.
    pub fn addr(&self) -> Result<SocketAddr> {
        self.wait(Instant::now() + READY_DEADLINE)
    }

    /// Whether the node is up at this moment.
    pub fn is_up(&self) -> bool {
        self.state
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// From now on whoever connects by this endpoint does so with TLS. The first choice stays.
    pub fn speak_tls(&self, config: Arc<ClientConfig>) {
        self.tls.get_or_init(|| config);
    }

    /// A connection to the node; `recv_buffer` sets `SO_RCVBUF` before it is made.
    pub fn connect(&self, recv_buffer: Option<usize>) -> Result<Conn> {
        Conn::open_with(self.addr()?, recv_buffer, self.tls.get().cloned())
    }

    fn set(&self, addr: Option<SocketAddr>) {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner) = addr;
        self.state.1.notify_all();
    }
}

/// How a node is started, beside what every node of the harness has.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// Further `--set` values.
    pub sets: Vec<(String, String)>,
    /// Where its data is; none for a directory of its own, which ends with the node.
    pub data_dir: Option<PathBuf>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
    /// Its working directory; none for that of the test.
    pub current_dir: Option<PathBuf>,
    /// Most open files, soft and hard limit alike; none for what the test itself may have.
    pub open_files: Option<u64>,
}

impl NodeOptions {
    /// With these `--set` values.
    pub fn sets(sets: &[(&str, &str)]) -> NodeOptions {
        NodeOptions {
            sets: sets.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..NodeOptions::default()
        }
    }

    /// With its data at a place that outlives the node.
    #[must_use]
    pub fn data_dir(mut self, dir: &Path) -> NodeOptions {
        self.data_dir = Some(dir.to_owned());
        self
    }
}

/// A node that ended before it was ready.
#[derive(Debug)]
pub struct DidNotStart {
    /// How it ended; `None` where it neither ended nor became ready.
    pub status: Option<ExitStatus>,
    /// The end of what it logged.
    pub log: String,
}

impl fmt::Display for DidNotStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the node wrote no ready line; exit {:?}; its log ends with:\n{}",
            self.status, self.log
        )
    }
}

impl std::error::Error for DidNotStart {}

/// A running node, or one between two runs.
pub struct Node {
    /// Address of the public listener.
    pub endpoint: Endpoint,
    /// Address of the operations listener of the present run.
    pub ops: SocketAddr,
    child: Option<Child>,
    options: NodeOptions,
    dir: tempfile::TempDir,
    last_http: SocketAddr,
}

impl Node {
    /// Starts a node on free ports with a data directory of its own; `sets` are further `--set` values.
    pub fn start(sets: &[(&str, &str)]) -> Result<Node> {
        Node::start_with(NodeOptions::sets(sets))
    }

    /// Starts a node on free ports. One that ends before it is ready is a [`DidNotStart`] inside the error.
    pub fn start_with(options: NodeOptions) -> Result<Node> {
        Node::start_at(loopback(0), options)
    }

    fn start_at(addr: SocketAddr, options: NodeOptions) -> Result<Node> {
        let none = loopback(0);
        let mut node = Node {
            endpoint: Endpoint::default(),
            ops: none,
            child: None,
            options,
            dir: tempfile::Builder::new().prefix("postrider-").tempdir()?,
            last_http: none,
        };
        node.launch(addr)?;
        Ok(node)
    }

    /// Starts a node that can come back at its own port: nobody is given that one while the node is away.
    pub fn start_to_come_back(options: NodeOptions) -> Result<Node> {
        let addr = loopback(free(1)?[0]);
        Node::start_at(addr, options)
    }

    /// Starts a node that must refuse to start, and returns how it did.
    pub fn refusal(options: NodeOptions) -> Result<DidNotStart> {
        match Node::start_with(options) {
            Ok(_) => bail!("the node started where it must refuse"),
            Err(e) => e.downcast::<DidNotStart>(),
        }
    }

    /// The process of the present run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("the node is not running")?.id())
    }

    /// Ends the process as a power cut would for it: `SIGKILL`.
    pub fn kill9(&mut self) -> Result<()> {
        self.endpoint.set(None);
        let mut child = self.child.take().context("the node is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends `SIGTERM` and returns at once; the endpoint stays set while the node drains.
    pub fn signal_term(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid()?.try_into()?).context("pid")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        let child = self.child.as_mut().context("the node is not running")?;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                self.endpoint.set(None);
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the node did not exit within {within:?}");
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// `SIGTERM`, then waits for the exit.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal_term()?;
        self.wait_exit(within)
    }

    /// Starts again on the same data directory, on a free port.
    pub fn restart(&mut self) -> Result<()> {
        self.launch(loopback(0))
    }

    /// Starts again on the same data directory and the same public port. Fails where another process took it, which none
    /// does after [`Node::start_to_come_back`].
    pub fn restart_same_port(&mut self) -> Result<()> {
        self.launch(self.last_http)
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        crate::gauge::rss_bytes(self.pid()?)
    }

    /// Processor time used so far by the present run, user and system, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        crate::gauge::cpu_seconds(self.pid()?)
    }

    /// One sample of `/metrics` by its name and labels as they stand there; 0 where there is none.
    pub fn metric(&self, sample: &str) -> Result<f64> {
        let answer = once(self.ops, &Request::new("GET", "/metrics"))?;
        let text = answer.text();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(Ok(0.0), |value| Ok(value.trim().parse()?))
    }

    /// `/ready`: the status, and what it says.
    pub fn ready(&self) -> Result<(u16, Value)> {
        let answer = once(self.ops, &Request::new("GET", "/ready"))?;
        Ok((answer.status(), answer.json()?))
    }

    /// How many sockets the node has open: its listeners, and its connections until it has closed them, which may be
    /// a moment after the client did.
    pub fn open_sockets(&self) -> Result<usize> {
        let mut sockets = 0;
        for file in std::fs::read_dir(self.proc("fd")?)? {
            // One that is gone by now was closed.
            let kind = std::fs::read_link(file?.path()).unwrap_or_default();
            sockets += usize::from(kind.to_string_lossy().starts_with("socket:"));
        }
        Ok(sockets)
    }

    /// The node's data directory.
    pub fn data_dir(&self) -> PathBuf {
        let own = || self.dir.path().join("data");
        self.options.data_dir.clone().unwrap_or_else(own)
    }

    /// All that the node has logged over its runs.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn proc(&self, file: &str) -> Result<String> {
        Ok(format!("/proc/{}/{file}", self.pid()?))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let from = log.len().saturating_sub(LOG_TAIL_BYTES);
        log[log.ceil_char_boundary(from)..].to_owned()
    }

    /// The binary, by way of `prlimit` where it is to have fewer open files.
    fn program(&self) -> Result<Command> {
        let Some(files) = self.options.open_files else {
            return Ok(Command::new(binary()?));
        };
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(binary()?);
        Ok(command)
    }

    fn launch(&mut self, http: SocketAddr) -> Result<()> {
        if self.child.is_some() {
            bail!("the node is running already");
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let keys = json!([
            {"name": "test", "key": KEY, "scopes": ["publish", "broadcast", "manage", "read"]},
            {"name": "publish", "key": KEY_PUBLISH, "scopes": ["publish"]},
            {"name": "read", "key": KEY_READ, "scopes": ["read"]},
        ]);
        let mut command = self.program()?;
        command.args(["serve", "--log-format", "json"]);
        let data_dir = self.data_dir();
        let fixed = [
            ("http.listen", http.to_string()),
            ("ops.listen", "127.0.0.1:0".to_owned()),
            ("data_dir", data_dir.display().to_string()),
            ("auth.jwt.hmac_secret", SECRET.to_owned()),
            ("auth.api_keys", keys.to_string()),
        ];
        let own = self.options.sets.iter().map(|(k, v)| (k.as_str(), v.clone()));
        for (key, value) in fixed.into_iter().chain(own) {
            command.args(["--set", &format!("{key}={value}")]);
        }
        // A variable of the developer's shell must not change what is tested.
        for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("POSTRIDER_")) {
            command.env_remove(name);
        }
        command.args(&self.options.args);
        if let Some(dir) = &self.options.current_dir {
            command.current_dir(dir);
        }
        command.envs(self.options.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("start the node")?;
        let stdout = child.stdout.take().context("no stdout")?;
        self.child = Some(child);
        let ready = match await_ready(stdout) {
            Ok(ready) => ready,
            Err(_) => {
                let status = self.wait_exit(EXIT_DEADLINE).ok();
                let log = self.log_tail();
                return Err(DidNotStart { status, log }.into());
            }
        };
        let addr = |name: &str| -> Result<SocketAddr> {
            let text = ready[name]
                .as_str()
                .with_context(|| format!("ready line without {name}: {ready}"))?;
            Ok(text.parse()?)
        };
        self.ops = addr("ops")?;
        self.last_http = addr("http")?;
        self.endpoint.set(Some(self.last_http));
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let ended = self
            .child
            .take()
            .map(|mut child| child.kill().and_then(|()| child.wait()));
        if let Some(Err(e)) = ended {
            eprintln!("harness: ending the node: {e}");
        }
        if std::thread::panicking() {
            eprintln!("--- the node's log ends with:\n{}\n---", self.log_tail());
        }
    }
}

/// Waits for the `ready` line; a thread goes on reading so that the child never blocks on its standard output.
fn await_ready(stdout: std::process::ChildStdout) -> Result<Value> {
    let (found, ready) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value["event"] == "ready"
                && found.try_send(value).is_err()
            {
                eprintln!("harness: a second ready line: {line}");
            }
        }
    });
    ready
        .recv_timeout(READY_DEADLINE)
        .map_err(|e| anyhow::anyhow!("the node wrote no ready line ({e})"))
}

/// The binary under test: `POSTRIDER_BIN`, or the one beside the running test, built if it is not there.
pub fn binary() -> Result<PathBuf> {
    static FOUND: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find_binary().map_err(|e| format!("{e:#}")))
        .clone()
        .map_err(|e| anyhow::anyhow!("no postrider binary: {e}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("POSTRIDER_BIN") {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("POSTRIDER_BIN={} is not a file", path.display());
        }
        return Ok(path);
    }
    let test = std::env::current_exe()?;
    // …/target/<profile>/{deps,examples}/<test>
    let profile_dir = test
        .ancestors()
        .find(|dir| {
            matches!(
                dir.file_name().and_then(|n| n.to_str()),
                Some("debug" | "release")
            )
        })
        .with_context(|| {
            format!(
                "{} is not in a target directory; set POSTRIDER_BIN",
                test.display()
            )
        })?;
    let binary = profile_dir.join("postrider");
    if !binary.is_file() {
        build(profile_dir)?;
    }
    if !binary.is_file() {
        bail!("{} was not built", binary.display());
    }
    Ok(binary)
}

fn build(profile_dir: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "-p", "postrider-cli"]);
    command
        .arg("--target-dir")
        .arg(profile_dir.parent().context("target directory")?);
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    let status = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("run cargo build")?;
    if !status.success() {
        bail!("cargo build -p postrider-cli: {status}");
    }
    Ok(())
}
