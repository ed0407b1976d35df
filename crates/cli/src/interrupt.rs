//! Ctrl-C, and SIGTERM: the first ends a command in order, the second at once.

use anyhow::Context as _;
use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell sees of a command that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Watches from now on, on a thread of its own, and says so once by `tell`.
pub fn watch(tell: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        let watched: io::Result<_> =
            signal(SignalKind::interrupt()).and_then(|one| Ok((one, signal(SignalKind::terminate())?)));
        watched.context("signals cannot be watched")?
    };
    let wait = move || {
        let mut next = || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
        };
        next();
        tell();
        next();
        end_at_once();
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "who asks twice does not want to wait for what the first should have ended"
)]
fn end_at_once() {
    std::process::exit(INTERRUPTED);
}
