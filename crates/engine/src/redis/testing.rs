//! Redis servers of a test's own: started on free ports in a private directory, ended by their process id on drop.
//!
//! Where `redis-server` is not installed a test prints `NOT RUN …` and passes, unless `POSTRIDER_TEST_REDIS=required`.

#![allow(
    clippy::disallowed_methods,
    reason = "tests start real servers and wait for them, with a deadline"
)]

mod cluster;
mod own_time;
mod port;
mod proxy;
mod sentinel;
mod server;

pub(crate) use cluster::Cluster;
pub(crate) use own_time::OwnTime;
pub(crate) use port::free as free_port;
pub(crate) use proxy::Proxy;
pub(crate) use sentinel::Watched;
pub(crate) use server::Server;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to do what a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// True where `redis-server` is installed. Else says that the suite does not run, or fails where it must.
pub(crate) fn has_redis(suite: &str) -> bool {
    let mut version = Command::new("redis-server");
    version
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let found = version.status().is_ok_and(|status| status.success());
    if !found {
        assert!(
            std::env::var("POSTRIDER_TEST_REDIS").as_deref() != Ok("required"),
            "{suite} needs redis-server, and POSTRIDER_TEST_REDIS=required"
        );
        println!("NOT RUN {suite}: needs redis-server");
    }
    found
}

/// Waits until it is so, and fails loudly where it does not become so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
