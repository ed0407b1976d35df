//! Whether the node is stopping. Whoever serves something looks here and winds up.

use tokio::sync::watch;

/// Starts the drain.
#[derive(Debug)]
pub struct DrainSwitch(watch::Sender<bool>);

/// Sees the drain.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<bool>);

/// A switch, and what it switches.
pub fn drain_switch() -> (DrainSwitch, Drain) {
    let (sender, receiver) = watch::channel(false);
    (DrainSwitch(sender), Drain(receiver))
}

impl DrainSwitch {
    /// From now on the node drains. There is no way back.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Drain {
    /// Whether the node drains.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the node drains, or its switch is gone.
    pub async fn begun(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|draining| *draining).await.is_err() {
            tracing::debug!("the drain switch is gone");
        }
    }
}
