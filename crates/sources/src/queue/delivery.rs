//! A message in the hands of whoever has to settle it.
//!
//! Invariant: a delivery is settled at most once, since to settle takes it away; one that is dropped unsettled is
//! noticed: it is logged and counted, and its source gives the message again when it finds out.

use super::{Message, SourceFault};
use async_trait::async_trait;
use postrider_model::Millis;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a source is told what became of one message. To be written for each source; used through [`Delivery`] alone.
#[async_trait]
pub trait Receipt: Send + Sync {
    /// The message is done with: it does not come again.
    /// May be said again after an error.
    async fn ack(&self) -> Result<(), SourceFault>;

    /// It comes again, to anyone, in about so long; sooner or later where the source cannot time it so.
    async fn nack(&self, after: Millis) -> Result<(), SourceFault>;

    /// It is still being worked on, and is nobody else's until the source's own time has passed once more.
    async fn hold(&self) -> Result<(), SourceFault>;
}

/// A message, and the duty to settle it.
#[must_use = "a delivery has to be settled: ack or nack"]
pub struct Delivery {
    message: Message,
    receipt: Option<Box<dyn Receipt>>,
}

impl Delivery {
    /// One of a source whose messages have to be settled.
    pub fn new(message: Message, receipt: Box<dyn Receipt>) -> Delivery {
        let receipt = Some(receipt);
        Delivery { message, receipt }
    }

    /// One of a source that forgets what it gave.
    pub fn unsettled(message: Message) -> Delivery {
        let receipt = None;
        Delivery { message, receipt }
    }

    /// What came.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Lets go of the message's payload and fields: who waits to settle it needs neither.
    pub fn forget_payload(&mut self) {
        self.message.body = None;
        self.message.fields = Vec::new();
    }

    /// The message is done with. After an error it may come again.
    pub async fn ack(mut self) -> Result<(), SourceFault> {
        match self.receipt.take() {
            Some(receipt) => receipt.ack().await,
            None => Ok(()),
        }
    }

    /// As [`Delivery::ack`], but after an error it is still to be settled.
    ///
    /// # Errors
    /// The source was not told.
    pub async fn try_ack(&mut self) -> Result<(), SourceFault> {
        if let Some(receipt) = &self.receipt {
            receipt.ack().await?;
            self.receipt = None;
        }
        Ok(())
    }

    /// The message is to come again, in about so long. After an error it does so when its source finds out.
    pub async fn nack(mut self, after: Millis) -> Result<(), SourceFault> {
        match self.receipt.take() {
            Some(receipt) => receipt.nack(after).await,
            None => Ok(()),
        }
    }

    /// Says that the message is still being worked on.
    pub async fn hold(&self) -> Result<(), SourceFault> {
        match &self.receipt {
            Some(receipt) => receipt.hold().await,
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of the payload.
        write!(f, "Delivery({:?})", self.message.name)
    }
}

static FORGOTTEN: AtomicU64 = AtomicU64::new(0);

/// Deliveries that this process dropped without settling them. More than none is a fault of the program.
pub fn forgotten() -> u64 {
    FORGOTTEN.load(Ordering::Relaxed)
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.receipt.is_some() {
            FORGOTTEN.fetch_add(1, Ordering::Relaxed);
            tracing::error!(message = ?self.message.name, "a delivery was dropped unsettled; its message comes again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Default)]
    struct Counting(Arc<AtomicU64>);

    #[async_trait]
    impl Receipt for Counting {
        async fn ack(&self) -> Result<(), SourceFault> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        async fn nack(&self, _after: Millis) -> Result<(), SourceFault> {
            self.0.fetch_add(100, Ordering::Relaxed);
            Ok(())
        }
        async fn hold(&self) -> Result<(), SourceFault> {
            Err(SourceFault::Away("gone".into()))
        }
    }

    #[tokio::test]
    async fn settled_once_or_noticed() {
        let told = Arc::<AtomicU64>::default();
        let one = || Delivery::new(Message::default(), Box::new(Counting(told.clone())));
        let before = forgotten();
        one().ack().await.unwrap();
        one().nack(Millis(5)).await.unwrap();
        assert_eq!((told.load(Ordering::Relaxed), forgotten()), (101, before));
        let mut tried = one();
        tried.try_ack().await.unwrap();
        tried.try_ack().await.unwrap();
        drop(tried);
        assert_eq!((told.load(Ordering::Relaxed), forgotten()), (102, before));
        let mut held = Delivery::new(
            Message {
                name: Some("m".into()),
                body: Some("x".into()),
                deliveries: 3,
                ..Message::default()
            },
            Box::new(Counting(told.clone())),
        );
        held.forget_payload();
        let kept = held.message();
        assert_eq!(
            (kept.name.as_deref(), &kept.body, kept.deliveries),
            (Some("m"), &None, 3)
        );
        assert!(held.hold().await.is_err());
        drop(held);
        drop(Delivery::unsettled(Message::default()));
        assert_eq!((told.load(Ordering::Relaxed), forgotten()), (102, before + 1));
    }
}
