//! What sessions ask the engine: where their feeds stand when they open, and pages. What is in memory is answered at
//! once, in the loop. The rest is read many at a time, by few tasks, which post back: a reconnect storm costs a
//! handful of them.
//!
//! Invariant: each question is answered once. Those that wait are no more than connections, and feeds of sessions;
//! what is read and not yet taken is bounded by the number of tasks.

use super::*;
use crate::mailbox::PageWanted;
use postrider_delivery::Reading;
use postrider_engine::{EngineError, Starts, StartsWanted};
use postrider_model::{FeedSpan, InboxPage};

/// Sessions that one task opens, and such tasks of one loop at a time.
const OPENED_AT_ONCE: usize = 256;
const OPENING_TASKS: usize = 2;
/// Where the engine takes note of each user first, a task waits for the disk: one for each, and so many of a loop.
const ARRIVING_TASKS: usize = 256;
/// Pages that one task reads, and such tasks of one loop at a time.
const PAGES_AT_ONCE: usize = 16;
const PAGING_TASKS: usize = 2;
/// How often in a row a turn looks for more that is in memory.
const ROUNDS: usize = 4;

/// What waits to be asked.
#[derive(Default)]
pub(super) struct Questions {
    openings: VecDeque<(Key, StartsWanted)>,
    pages: VecDeque<PageWanted>,
    /// Tasks under way.
    opening: usize,
    paging: usize,
}

impl Shard {
    /// Where the feeds of a session that is opening stand, if that is in memory; else it is asked.
    pub(super) fn starts_at_once(
        &self,
        asked: &postrider_delivery::Opening,
        state: bool,
    ) -> Result<Starts, StartsWanted> {
        let place = |feed: FeedId| {
            let place = asked
                .cursor
                .as_ref()
                .and_then(|cursor: &Cursor| cursor.get(&feed));
            (feed, place)
        };
        let places: Vec<_> = asked.feeds().into_iter().map(place).collect();
        let wanted = StartsWanted {
            user: asked.user.clone(),
            places,
            cursor: asked.cursor.clone(),
            state,
        };
        // The engine may have to take note of the user first.
        let now = (!self.shared.arrivals).then(|| self.shared.engine.starts_now(&wanted));
        now.flatten().ok_or(wanted)
    }

    /// Asks where they stand, with those of others.
    pub(super) fn ask_starts(&mut self, key: Key, wanted: StartsWanted) {
        self.questions.openings.push_back((key, wanted));
    }

    /// The engine said where these stand.
    pub(super) fn opened_together(&mut self, opened: Vec<(Key, Result<Starts, EngineError>)>) {
        self.questions.opening = self.questions.opening.saturating_sub(1);
        for (key, starts) in opened {
            self.opened(key, starts);
        }
    }

    /// Answers what can be answered at once of the pages that this turn wants. Says whether a session got one.
    pub(super) fn read_from_memory(&mut self) -> bool {
        let mut any = false;
        for _ in 0..ROUNDS {
            if self.turn.reads.is_empty() {
                return any;
            }
            for wanted in std::mem::take(&mut self.turn.reads) {
                let Reading::Forward { after } = wanted.reading else {
                    self.read_again(wanted);
                    continue;
                };
                let (user, feed) = (&wanted.user, &wanted.feed);
                match self
                    .shared
                    .engine
                    .page_now(user, feed, wanted.member, after, PAGE, self.turn.wall)
                {
                    None => self.questions.pages.push_back(wanted),
                    Some(page) => {
                        any = true;
                        self.page_came(&wanted, Ok(page));
                    }
                }
            }
        }
        self.questions.pages.extend(self.turn.reads.drain(..));
        any
    }

    /// Hands what waits to tasks, as far as there may be more of them.
    pub(super) fn start_reads(&mut self) {
        let (tasks, at_once) = match self.shared.arrivals {
            true => (ARRIVING_TASKS, 1),
            false => (OPENING_TASKS, OPENED_AT_ONCE),
        };
        while self.questions.opening < tasks && !self.questions.openings.is_empty() {
            self.questions.opening += 1;
            let many = self.questions.openings.len().min(at_once);
            let (keys, wanted): (Vec<_>, Vec<_>) = self.questions.openings.drain(..many).unzip();
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let starts = starts(&shared, &wanted).await;
                mailbox.post(Post::Opened(keys.into_iter().zip(starts).collect()));
            });
        }
        while self.questions.paging < PAGING_TASKS && !self.questions.pages.is_empty() {
            self.questions.paging += 1;
            let many = self.questions.pages.len().min(PAGES_AT_ONCE);
            let wanted: Vec<_> = self.questions.pages.drain(..many).collect();
            let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let pages = read_pages(&shared, &wanted).await;
                mailbox.post(Post::Pages(wanted.into_iter().zip(pages).collect()));
            });
        }
    }

    /// Pages that were read together.
    pub(super) fn pages_came(&mut self, pages: Vec<(PageWanted, Result<InboxPage, EngineError>)>) {
        self.questions.paging = self.questions.paging.saturating_sub(1);
        for (wanted, page) in pages {
            match page {
                Ok(page) => self.page_came(&wanted, Ok(page)),
                Err(_) => self.read_later(wanted),
            }
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
                if let Some(unsaid) = self.turn.complaints.page.due(self.turn.now) {
                    tracing::warn!(%error, feed = %wanted.feed, unsaid, "a page could not be read");
                }
                self.apply(slot, Effect::PageFailed(&wanted.feed, wanted.reading));
            }
        }
    }

    /// Reads what may be sent again, beside what comes next.
    fn read_again(&self, wanted: PageWanted) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            let permit = shared.reading_again.clone().acquire_owned().await.ok();
            let mut page = read_page(&shared, &wanted).await;
            if page.is_err() {
                tokio::time::sleep(SETTLE_PAUSE * 10).await;
                page = read_page(&shared, &wanted).await;
            }
            mailbox.post(Post::Page(wanted, page, permit));
        });
    }

    /// A page could not be read: the session asks again as soon as it hears, so not before the store had a moment.
    fn read_later(&self, wanted: PageWanted) {
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            tokio::time::sleep(SETTLE_PAUSE * 10).await;
            let permit = shared.reading.clone().acquire_owned().await.ok();
            let page = read_page(&shared, &wanted).await;
            mailbox.post(Post::Page(wanted, page, permit));
        });
    }
}

/// Where the feeds of each stand.
pub(super) async fn starts(shared: &Shared, wanted: &[StartsWanted]) -> Vec<Result<Starts, EngineError>> {
    if shared.arrivals {
        for user in wanted.iter().map(|wanted| &wanted.user) {
            if let Err(error) = shared.engine.arrive(user).await {
                return vec![Err(error); wanted.len()];
            }
        }
    }
    shared.engine.starts(wanted).await
}

async fn read_pages(shared: &Shared, wanted: &[PageWanted]) -> Vec<Result<InboxPage, EngineError>> {
    let pages: Vec<_> = wanted
        .iter()
        .map(|wanted| postrider_engine::PageWanted {
            user: wanted.user.clone(),
            feed: wanted.feed.clone(),
            member: wanted.member,
            after: match wanted.reading {
                Reading::Forward { after } => after,
                Reading::Again { first, .. } => first.saturating_sub(1),
            },
            limit: PAGE,
        })
        .collect();
    shared.engine.pages(&pages, (shared.clock)()).await
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
    let wanted = postrider_engine::PageWanted {
        user: user.clone(),
        feed: feed.clone(),
        member: wanted.member,
        after,
        limit,
    };
    read_inbox(engine, wanted, (shared.clock)()).await
}
