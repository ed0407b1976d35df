//! How the links begin: what is needed is started, and then waited for.

use super::fault::LinkFault;
use super::library::Library;
use super::masters::Atlas;
use super::options::LinkOptions;
use super::shared::{Shared, now};
use super::topology::one_home;
use super::url::RedisKind;
use super::watching::Watcher;
use super::wire::{Dialer, not_sent};
use super::{Inner, MAX_CHANNELS};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout_at};

/// Between two looks at whether all is up, while the links open.
const LOOK: Duration = Duration::from_millis(20);

/// Errors of a server that no waiting mends.
const FINAL: &[&str] = &["NOAUTH", "WRONGPASS", "NOPERM", "ERR"];

/// A Cluster that answers and cannot serve all.
pub const NOT_EVERY_SLOT: &str = "not every slot has a server";

/// Starts the tasks. On the runtime of the caller.
pub fn start(options: LinkOptions, library: &'static str) -> Result<Inner, LinkFault> {
    let dialer = Dialer::new(&options)?;
    let library = Library::new(library)?;
    let url = &options.url;
    let runtime = Handle::current();
    let shared = Arc::new(Shared::new(
        dialer,
        url.kind().clone(),
        library,
        runtime,
        MAX_CHANNELS,
    ));
    let atlas = Arc::new(Atlas::new(Arc::clone(&shared)));
    let watcher = if *url.kind() == RedisKind::Single {
        atlas.take_over(one_home(&url.hosts()[0]));
        None
    } else {
        let watcher = Watcher::new(Arc::clone(&shared), Arc::clone(&atlas), url.hosts().to_vec());
        Some(shared.runtime.spawn(watcher.run()))
    };
    Ok(Inner {
        options,
        shared,
        atlas,
        watcher: Mutex::new(watcher),
        is_closed: AtomicBool::new(false),
    })
}

/// Returns when every master is connected; fails at once where waiting does not help, and else after the timeout.
pub async fn wait(inner: &Inner) -> Result<(), LinkFault> {
    let deadline = now() + inner.options.timeout;
    let mut last = not_sent("nobody said where the masters are");
    let up = async {
        loop {
            match fault(inner) {
                None => return Ok(()),
                Some(fault) if is_final(inner, &fault) => return Err(fault),
                Some(fault) => last = fault,
            }
            sleep(LOOK).await;
        }
    };
    match timeout_at(deadline, up).await {
        Ok(outcome) => outcome,
        Err(_) => Err(last),
    }
}

/// Why not all is up yet.
fn fault(inner: &Inner) -> Option<LinkFault> {
    let masters = inner.atlas.masters();
    if !masters.is_whole() {
        return Some(
            inner
                .shared
                .last_look()
                .unwrap_or_else(|| not_sent(NOT_EVERY_SLOT)),
        );
    }
    masters.servers.iter().find_map(|server| server.pipe().err())
}

fn is_final(inner: &Inner, fault: &LinkFault) -> bool {
    match fault {
        LinkFault::Refused { code, .. } => FINAL.contains(&code.as_str()),
        // Sentinels and a Cluster may name another master in a moment.
        LinkFault::Unfit(_) => *inner.options.url.kind() == RedisKind::Single,
        _ => false,
    }
}
