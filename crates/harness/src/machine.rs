//! What some tests need of the machine beside the binary, and what is said where it is missing.
//!
//! Invariant: a test whose needs are not met says so, in one line that `cargo xtask test` counts as not run:
//! `NOT RUN <test>: needs <what>`. It never passes in silence.
//!
//! It does not install anything.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Debian's package of it.
const REDIS: &str = "redis-server";

/// One thing that a test cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be the superuser, with loop devices: to mount file systems of its own.
    LoopMounts,
    /// To attach `strace` to the node.
    Strace,
    /// `xfs_io`, which shuts a file system down.
    XfsIo,
    /// A C compiler, which whoever builds Rust has as a linker.
    CCompiler,
    /// `redis-server`. With `POSTRIDER_TEST_REDIS=required` a test fails where it is missing.
    Redis,
    /// `haproxy`, a load balancer.
    HaProxy,
    /// To be the superuser, and to make networks: namespaces, virtual cards, rules of `iptables` and `tc`.
    Network,
    /// LocalStack, an emulator of SQS and SNS.
    LocalStack,
    /// moto, an emulator of SQS and DynamoDB, and boto3 beside it.
    Moto,
    /// PostgreSQL.
    Postgres,
    /// Terraform, with a mirror of the AWS provider on this machine.
    Terraform,
}

impl Need {
    /// Why it is not there.
    fn missing(self) -> Option<&'static str> {
        match self {
            Need::LoopMounts if !rustix::process::geteuid().is_root() => Some("root"),
            Need::LoopMounts if !std::path::Path::new("/dev/loop-control").exists() => Some("loop devices"),
            Need::LoopMounts if !runs("mkfs.ext4", "-V") => Some("e2fsprogs"),
            Need::Strace if !runs("strace", "-V") => Some("strace"),
            Need::Strace if !may_trace() => Some("ptrace"),
            Need::XfsIo if !runs("xfs_io", "-V") => Some("xfsprogs"),
            Need::CCompiler if !runs("cc", "--version") => Some("cc"),
            Need::Redis if !runs("redis-server", "--version") => Some(REDIS),
            Need::HaProxy if !runs("haproxy", "-v") => Some("haproxy"),
            Need::Network if !rustix::process::geteuid().is_root() => Some("root"),
            Need::Network if !runs("ip", "-V") || !runs("tc", "-V") => Some("iproute2"),
            Need::Network if !runs("iptables", "-V") => Some("iptables"),
            Need::Network if !may_make_networks() => Some("network namespaces"),
            Need::LocalStack => crate::aws::missing_localstack(),
            Need::Moto => crate::aws::missing_moto(),
            Need::Postgres => crate::aws::missing_postgres(),
            Need::Terraform if !runs("terraform", "version") => Some("terraform"),
            Need::Terraform => crate::aws::missing_provider(),
            _ => None,
        }
    }
}

/// Runs a test that has needs; says so where one is not met.
pub fn run(test: &str, needs: &[Need], body: impl FnOnce() -> Result<()>) -> Result<()> {
    let missing: Vec<&str> = needs.iter().filter_map(|need| need.missing()).collect();
    if missing.is_empty() {
        return body();
    }
    let is_required = std::env::var("POSTRIDER_TEST_REDIS").is_ok_and(|value| value == "required");
    ensure!(!(is_required && missing.contains(&REDIS)), "{test} needs {REDIS}");
    // Not by `println`, which a passing test keeps to itself; and on a line of its own.
    let line = format!("\nNOT RUN {test}: needs {}\n", missing.join(", "));
    std::io::stderr().write_all(line.as_bytes())?;
    Ok(())
}

/// Runs a program to its end; what it says is in the error where it fails.
pub fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{program} {arguments:?}: {}: {}", output.status, said.trim());
    }
    Ok(())
}

fn runs(program: &str, version: &str) -> bool {
    command(program, &[version]).is_ok()
}

/// Containers often forbid it.
fn may_make_networks() -> bool {
    crate::network::Network::new(1).is_ok_and(|network| network.clear().is_ok())
}

/// Containers often forbid it.
fn may_trace() -> bool {
    command("strace", &["-qq", "-o", "/dev/null", "true"]).is_ok()
}
