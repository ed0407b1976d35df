//! A private PostgreSQL 15, with or without TLS.
//!
//! Invariant: it runs as an ordinary user, as it insists, and keeps what it was told when it is started again.
//!
//! It asks for no password, and knows the one user of the preset's defaults; `sync` is off, since no test takes its power.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::process::{Process, Program};
use crate::tls::Authority;

/// The user, and its database.
const USER: &str = "my_user";
/// `nobody` and `nogroup` of Debian.
const NOBODY: u32 = 65_534;

/// A running server, or one between two runs.
pub struct Postgres(Process<Kind>);

struct Kind {
    programs: PathBuf,
    /// Its certificate and key, where it speaks TLS.
    has_tls: bool,
}

impl Postgres {
    /// One without TLS.
    pub fn start() -> Result<Postgres> {
        Postgres::start_with(None)
    }

    /// One whose certificate is of this authority, and that refuses who comes without TLS.
    pub fn with_tls(authority: &Authority) -> Result<Postgres> {
        Postgres::start_with(Some(authority))
    }

    fn start_with(authority: Option<&Authority>) -> Result<Postgres> {
        let kind = Kind {
            programs: programs().context("no PostgreSQL")?,
            has_tls: authority.is_some(),
        };
        let initdb = kind.programs.join("initdb");
        let prepare = |dir: &Path| {
            give_away(dir)?;
            let mut command = Command::new(&initdb);
            command.args(["--no-sync", "-A", "trust", "-E", "UTF8", "-U", USER, "-D"]);
            finish(as_ordinary(command.arg(dir.join("data"))))?;
            if let Some(authority) = authority {
                put_certificate(dir, authority)?;
            }
            Ok(())
        };
        let postgres = Postgres(Process::start(kind, prepare)?);
        postgres.sql_in("postgres", "CREATE DATABASE message_service")?;
        Ok(postgres)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// The user that may do everything; any password is right.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The process of the present run.
    pub fn pid(&self) -> Result<u32> {
        self.0.pid()
    }

    /// Runs statements in `message_service`; the rows, with `|` between columns and nothing for NULL.
    pub fn sql(&self, statements: &str) -> Result<Vec<String>> {
        self.sql_in("message_service", statements)
    }

    /// `SIGSTOP` of its main process: it takes connections no longer.
    pub fn pause(&self) -> Result<()> {
        self.0.signal(Signal::STOP)
    }

    /// `SIGCONT`.
    pub fn resume(&self) -> Result<()> {
        self.0.signal(Signal::CONT)
    }

    /// Ends it at once, with all sessions.
    pub fn stop(&mut self) -> Result<()> {
        self.0.stop()
    }

    /// Starts it again at the same address, with its data.
    pub fn restart(&mut self) -> Result<()> {
        self.0.launch()
    }

    fn sql_in(&self, database: &str, statements: &str) -> Result<Vec<String>> {
        let program = self.0.program();
        let mode = if program.has_tls { "require" } else { "disable" };
        let addr = self.addr();
        let place = format!(
            "host=127.0.0.1 port={} user={USER} dbname={database} sslmode={mode}",
            addr.port()
        );
        let mut command = Command::new(program.programs.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements]);
        let said = finish(command.arg(place))?;
        Ok(said.lines().map(str::to_owned).collect())
    }
}

impl Program for Kind {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn command(&self, dir: &Path, port: u16) -> Result<Command> {
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(dir.join("data"));
        let port = format!("port={port}");
        for setting in [
            port.as_str(),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
        ] {
            command.args(["-c", setting]);
        }
        if self.has_tls {
            command.args(["-c", "ssl=on"]);
        }
        as_ordinary(&mut command);
        Ok(command)
    }

    fn answers(&self, addr: SocketAddr) -> bool {
        let mut command = Command::new(self.programs.join("pg_isready"));
        let port = addr.port().to_string();
        finish(command.args(["-q", "-h", "127.0.0.1", "-U", USER, "-d", "postgres", "-p", &port])).is_ok()
    }

    /// By `SIGINT` it ends its sessions and itself, in order.
    fn goodbye(&self) -> Signal {
        Signal::INT
    }
}

/// What to say where there is no PostgreSQL.
pub fn missing() -> Option<&'static str> {
    programs().is_none().then_some("postgresql-15")
}

/// Debian puts them where no `PATH` leads.
fn programs() -> Option<PathBuf> {
    let debian = PathBuf::from("/usr/lib/postgresql/15/bin");
    let of_path = std::env::split_paths(&std::env::var_os("PATH")?).collect::<Vec<_>>();
    let mut folders = std::iter::once(debian).chain(of_path);
    folders.find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// It refuses to be run by root.
fn as_ordinary(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.env("LC_ALL", "C")
}

fn give_away(path: &Path) -> Result<()> {
    if is_root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

/// It takes no key that others may read.
fn put_certificate(dir: &Path, authority: &Authority) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;

    let data = dir.join("data");
    std::fs::copy(authority.cert(), data.join("server.crt"))?;
    std::fs::copy(authority.key(), data.join("server.key"))?;
    for name in ["server.crt", "server.key"] {
        let path = data.join(name);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        give_away(&path)?;
    }
    // Who comes without TLS is refused.
    let rules = "hostssl all all 127.0.0.1/32 trust\n";
    std::fs::write(data.join("pg_hba.conf"), rules)?;
    give_away(&data.join("pg_hba.conf"))
}

fn finish(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
