//! LocalStack (SQS, SNS) and moto (SQS, SNS, DynamoDB): two emulators by different people, so that nobody's quirks become
//! ours.
//!
//! Both keep everything in memory: after [`Emulator::kill9`] there is no queue any more. [`Emulator::pause`] is the
//! fault that loses nothing.
//!
//! It does not judge how true they are. LocalStack's DynamoDB and API Gateway do not work here; moto delivers SNS to
//! HTTP without confirmation, and is slow with many messages.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::process::{Process, Program};
use super::{environment, tools};
use crate::http::{Request, once};

/// A running emulator, or one between two runs.
pub struct Emulator(Process<Kind>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    LocalStack,
    Moto,
}

impl Emulator {
    /// LocalStack, on a free port.
    pub fn localstack() -> Result<Emulator> {
        Ok(Emulator(Process::start(Kind::LocalStack, |_| Ok(()))?))
    }

    /// moto, on a free port.
    pub fn moto() -> Result<Emulator> {
        Ok(Emulator(Process::start(Kind::Moto, |_| Ok(()))?))
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr()
    }

    /// As `AWS_ENDPOINT_URL` takes it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The process of the present run.
    pub fn pid(&self) -> Result<u32> {
        self.0.pid()
    }

    /// `SIGSTOP`: it keeps its connections and its queues, and says nothing.
    pub fn pause(&self) -> Result<()> {
        self.0.signal(Signal::STOP)
    }

    /// `SIGCONT`.
    pub fn resume(&self) -> Result<()> {
        self.0.signal(Signal::CONT)
    }

    /// Ends it as a crash would; its queues, topics and tables are gone.
    pub fn kill9(&mut self) -> Result<()> {
        self.0.kill9()
    }

    /// Starts it again, empty, at the same address.
    pub fn restart(&mut self) -> Result<()> {
        self.0.launch()
    }

    /// The end of what it has logged.
    pub fn log_end(&self) -> String {
        self.0.log_end()
    }
}

impl Program for Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::LocalStack => "localstack",
            Kind::Moto => "moto",
        }
    }

    fn command(&self, dir: &Path, port: u16) -> Result<Command> {
        let addr = format!("127.0.0.1:{port}");
        let mut command = match self {
            Kind::LocalStack => {
                let python = tools::program("localstack", "python").context("no LocalStack")?;
                let mut command = Command::new(python);
                command.arg(tools::script("localstack_on_loopback.py"));
                command.env("FILESYSTEM_ROOT", dir.join("files"));
                command
            }
            Kind::Moto => {
                let mut command = Command::new(tools::program("moto", "moto_server").context("no moto")?);
                command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
                command
            }
        };
        // What LocalStack keeps beside its files goes with them.
        command.current_dir(dir).env("TMPDIR", dir);
        command.envs(environment(&format!("http://{addr}")));
        command.envs([
            ("GATEWAY_LISTEN", addr.as_str()),
            ("LOCALSTACK_HOST", addr.as_str()),
            ("SERVICES", "sqs,sns"),
            // Queues are named by paths of its own address, since no name of another would lead here.
            ("SQS_ENDPOINT_STRATEGY", "off"),
            ("DNS_ADDRESS", "0"),
            ("DISABLE_EVENTS", "1"),
            ("SKIP_SSL_CERT_DOWNLOAD", "1"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            // moto knows the policies that AWS itself offers only when it is told to.
            ("MOTO_IAM_LOAD_MANAGED_POLICIES", "true"),
        ]);
        Ok(command)
    }

    fn answers(&self, addr: SocketAddr) -> bool {
        let path = match self {
            Kind::LocalStack => "/_localstack/health",
            Kind::Moto => "/moto-api/data.json",
        };
        once(addr, &Request::new("GET", path)).is_ok_and(|answer| answer.status() == 200)
    }
}
