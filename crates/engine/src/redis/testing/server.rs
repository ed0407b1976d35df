//! One `redis-server`, which can be killed, paused and started again on its port and directory.

use super::{PATIENCE, port, wait_until};
use crate::redis::links::RedisUrl;
use redis::{Cmd, Value};
use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How often another port is tried where one was taken in the meantime.
const TRIES: usize = 10;

#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    directory: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Server {
    /// A single server that syncs each write to its append-only file.
    pub(crate) fn start() -> Server {
        Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A server with these arguments besides port, address and directory.
    pub(crate) fn start_with(arguments: &[&str]) -> Server {
        for _ in 0..TRIES {
            let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            let directory = tempfile::tempdir().expect("a private directory");
            let mut server = Server {
                port: port::free(),
                directory,
                arguments,
                process: None,
            };
            if server.spawn() {
                return server;
            }
        }
        panic!("no redis-server started in {TRIES} tries");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> RedisUrl {
        format!("redis://127.0.0.1:{}", self.port)
            .parse()
            .expect("a well-formed address")
    }

    /// One command, outside of everything that is tested.
    pub(crate) fn ask(&self, command: &Cmd) -> Value {
        ask(self.port, command).unwrap_or_else(|error| panic!("port {}: {error}", self.port))
    }

    /// One command as it would be typed.
    pub(crate) fn ask_line(&self, line: &str) -> Value {
        self.ask(&command_line(line))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a process of ours can be killed");
            process.wait().expect("a child can be waited for");
        }
    }

    /// Starts it again on its port, over its files.
    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(
            self.spawn(),
            "redis-server did not start again on port {}",
            self.port
        );
    }

    /// Starts it on its port, over its files, with other arguments.
    pub(crate) fn restart_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.restart();
    }

    /// `SIGSTOP`: it holds its connections and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// `SIGCONT`.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().expect("a running server");
        let sent = Command::new("kill")
            .arg(signal)
            .arg(process.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// True once it answers; false where it ended, as over a taken port.
    fn spawn(&mut self) -> bool {
        let mut command = Command::new("redis-server");
        // A first argument that is no option is read as the configuration file, which Sentinels need.
        let (file, options): (Vec<_>, Vec<_>) = self
            .arguments
            .iter()
            .enumerate()
            .partition(|(at, argument)| *at == 0 && !argument.starts_with('-'));
        command.args(file.into_iter().map(|(_, argument)| argument));
        command.args([
            "--port",
            &self.port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
        ]);
        command
            .arg("--dir")
            .arg(self.directory.path())
            .args(["--logfile", "redis.log"]);
        command.args(options.into_iter().map(|(_, argument)| argument));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = command.spawn().expect("redis-server is installed");
        let mut ended = false;
        wait_until("redis-server answers", || {
            ended = process.try_wait().expect("a child can be waited for").is_some();
            let pong = ask(self.port, &redis::cmd("PING"));
            // A server with a password, or one that loads, is up too; a Sentinel answers as well.
            ended || pong.is_ok_and(|value| !matches!(&value, Value::ServerError(e) if e.code() == "LOADING"))
        });
        self.process = (!ended).then_some(process);
        !ended
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One command on a connection of its own.
pub(super) fn ask(port: u16, command: &Cmd) -> Result<Value, redis::RedisError> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE.min(Duration::from_secs(5))))?;
    socket.write_all(&command.get_packed_command())?;
    redis::Parser::new().parse_value(&mut socket)
}

pub(super) fn command_line(line: &str) -> Cmd {
    let mut command = Cmd::new();
    for word in line.split_whitespace() {
        command.arg(word);
    }
    command
}
