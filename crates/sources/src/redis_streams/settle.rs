//! What becomes of one entry of a stream.

use super::{Shared, consumer};
use crate::queue::{Receipt, SourceFault};
use async_trait::async_trait;
use postrider_model::Millis;
use redis::{Value, cmd, pipe};
use std::sync::Arc;

/// An entry that one of this node's consumers holds.
pub(super) struct Slip {
    pub source: Arc<Shared>,
    pub worker: usize,
    pub id: String,
}

impl Slip {
    /// Makes the entry look as if this consumer had been given it so long ago. Does not count as giving it out.
    async fn idle_since(&self, idle: Millis) -> Result<(), SourceFault> {
        let options = &self.source.options;
        let mut asking = cmd("XCLAIM");
        asking
            .arg(&options.stream)
            .arg(&options.group)
            .arg(consumer(&options.node, Some(self.worker)));
        asking.arg(0).arg(&self.id).arg("IDLE").arg(idle.0).arg("JUSTID");
        self.source.ask::<Value>(&asking).await.map(drop)
    }
}

#[async_trait]
impl Receipt for Slip {
    async fn ack(&self) -> Result<(), SourceFault> {
        let options = &self.source.options;
        let mut asking = pipe();
        asking
            .cmd("XACK")
            .arg(&options.stream)
            .arg(&options.group)
            .arg(&self.id);
        if options.delete {
            asking.cmd("XDEL").arg(&options.stream).arg(&self.id);
        }
        self.source.ask_all(&asking).await.map(drop)
    }

    async fn nack(&self, after: Millis) -> Result<(), SourceFault> {
        self.idle_since(Millis(self.source.options.claim_after.0.saturating_sub(after.0)))
            .await
    }

    async fn hold(&self) -> Result<(), SourceFault> {
        self.idle_since(Millis(0)).await
    }
}
