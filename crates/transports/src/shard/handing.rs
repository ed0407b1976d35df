//! What a turn hands to the engine when it ends: pages to read, settlements by evidence, attempts to count. The loop
//! waits for none of it; answers come back as posts.

use super::*;
use crate::mailbox::PageWanted;
use postrider_delivery::Reading;
use postrider_engine::EngineError;
use postrider_model::{FeedSpan, InboxPage};

impl Shard {
    pub(super) fn start_reads(&mut self) {
        for wanted in self.turn.reads.drain(..) {
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let turns = match wanted.reading {
                    Reading::Forward { .. } => &shared.reading,
                    Reading::Again { .. } => &shared.reading_again,
                };
                let permit = turns.clone().acquire_owned().await.ok();
                let mut page = read_page(&shared, &wanted).await;
                if page.is_err() {
                    // The session asks again as soon as it hears: not before the store had a moment.
                    tokio::time::sleep(SETTLE_PAUSE * 10).await;
                    page = read_page(&shared, &wanted).await;
                }
                mailbox.post(Post::Page(wanted, page, permit));
            });
        }
    }

    /// A page came: to the session that asked for it, if it is still there.
    pub(super) fn page_came(&mut self, wanted: &PageWanted, page: Result<InboxPage, EngineError>) {
        let slot = wanted.key.slot;
        if !self.is_current(wanted.key) || !self.is_session(slot, &wanted.session) {
            return;
        }
        match page {
            Ok(page) => self.apply(slot, Effect::Page(&wanted.feed, wanted.reading, &page)),
            Err(error) => {
                tracing::warn!(%error, feed = %wanted.feed, "a page could not be read");
                self.apply(slot, Effect::PageFailed(&wanted.feed, wanted.reading));
            }
        }
    }

    /// Hands settlements by evidence to the engine, all of an interval at once.
    pub(super) fn flush_settlements(&mut self, at_once: bool) {
        let now = self.turn.now;
        if self.turn.settlements.is_empty() {
            self.flush_at = None;
            return;
        }
        let due = *self.flush_at.get_or_insert(now.plus(self.shared.ack_flush));
        // Evidence that came in time must not lose to an expiry that comes before the flush.
        let expiring = self
            .turn
            .soonest_expiry
            .is_some_and(|at| at <= self.turn.wall.plus(self.shared.ack_flush));
        self.turn.soonest_expiry.take_if(|at| *at <= self.turn.wall);
        if due > now && !at_once && !expiring && !self.turn.draining {
            return;
        }
        self.flush_at = None;
        let batch = std::mem::take(&mut self.turn.settlements);
        self.turn.stats.add_settled(batch.len() as u64);
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        let settle = async move {
            if let Err(error) = shared.engine.settle(batch.clone(), Sync::Lazy).await {
                tracing::debug!(%error, "settlements will be tried again");
                mailbox.post(Post::Unsettled(batch));
            }
        };
        if at_once {
            // The engine closes next: what is known must reach it before.
            self.shared.block_on(settle);
        } else {
            self.shared.spawn(settle);
        }
    }

    /// Hands the attempts of this turn to the engine. One batch at a time, so that a slow store gathers them here
    /// and not in tasks.
    pub(super) fn flush_attempts(&mut self) {
        if self.counting || self.turn.attempts.is_empty() {
            return;
        }
        self.counting = true;
        let batch = std::mem::take(&mut self.turn.attempts);
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            let left = match shared.engine.attempt(batch.clone()).await {
                Ok(()) => Vec::new(),
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "attempts will be counted later");
                    tokio::time::sleep(SETTLE_PAUSE).await;
                    batch
                }
                Err(error) => {
                    tracing::warn!(%error, "attempts could not be counted");
                    Vec::new()
                }
            };
            mailbox.post(Post::Attempted(left));
        });
    }

    /// The engine closes next: what was attempted should reach it before.
    pub(super) fn flush_last_attempts(&mut self) {
        let batch = std::mem::take(&mut self.turn.attempts);
        if batch.is_empty() {
            return;
        }
        if let Err(error) = self.shared.block_on(self.shared.engine.attempt(batch)) {
            tracing::debug!(%error, "the last attempts were not counted");
        }
    }
}

/// Reads a page. Of what may be sent again nothing at or below the floor is read, which in most cases is all.
async fn read_page(shared: &Shared, wanted: &PageWanted) -> Result<InboxPage, EngineError> {
    let engine = &*shared.engine;
    let (user, feed) = (&wanted.user, &wanted.feed);
    let (after, limit) = match wanted.reading {
        Reading::Forward { after } => (after, PAGE),
        Reading::Again { first, last } => {
            let standing = engine.standing(user, feed, 1, 0).await?;
            let after = standing.start().max(first.saturating_sub(1));
            if after >= last {
                return Ok(InboxPage {
                    entries: Vec::new(),
                    span: FeedSpan::EMPTY,
                    floor: standing.floor,
                });
            }
            let entries = usize::try_from(last - after).map_or(PAGE.entries, |left| left.min(PAGE.entries));
            (after, ReadLimit { entries, ..PAGE })
        }
    };
    read_inbox(engine, user, feed, after, limit, (shared.clock)()).await
}
