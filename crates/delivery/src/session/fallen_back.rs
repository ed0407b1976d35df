//! An engine that nodes share can fall back while sessions are there: another server takes over that lacks the newest
//! entries, and numbers others by the same offsets, in a new epoch. Whoever stood among the lost ones is told of a gap
//! and begins again, as if its client had come back with its place.
//!
//! A session doubts its place where it is told of an entry of another epoch than its place's, and where wakes may have
//! been lost. One page that begins with the entry at the place tells whether it is held.
//!
//! Invariant: nothing is sent after a place that is in doubt. What one epoch numbered is lost from its end only, so
//! where anything of the place's epoch stands at the place or after it, the place is held.

use super::{At, FeedStart, Outbox, Session};
use crate::session::progress::Progress;
use postrider_model::{InboxPage, Position};

/// What a page says of the place of whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judged {
    /// It is held.
    Held,
    /// It cannot be seen from there.
    Unsure,
    /// It is not: what was sent up to there is not what the engine has there.
    Lost,
}

impl Session {
    /// The engine may fall back while the session is there. To be said when it opens; without it epochs are not looked
    /// at, as those of an engine that no one shares do not change while it runs.
    pub fn expect_fall_back(&mut self) {
        self.may_fall_back = true;
    }

    /// Whether this page, read from after `after` in a feed that ends for the session at `ends`, continues what was sent.
    /// Where not, the session looks at its place, or begins again.
    pub(super) fn stands(
        &mut self,
        at: At,
        after: u64,
        ends: u64,
        page: &InboxPage,
        outbox: &mut impl Outbox,
    ) -> bool {
        let judged = self.judge(at, after, page);
        let progress = self.progress_mut(at);
        match judged {
            Judged::Held => {
                let head = page.span.head.offset.min(ends);
                let has_news = page
                    .entries
                    .last()
                    .is_some_and(|last| last.entry.position.offset > progress.sent());
                if head < progress.head && !has_news {
                    // What was told of is lost; or the page is older than a wake, and the next one is not.
                    progress.head = head.max(progress.sent());
                    progress.suspect = true;
                }
            }
            Judged::Unsure => progress.check = true,
            Judged::Lost => {
                outbox.take_back(&self.feed(at));
                self.begin_again(at, page);
            }
        }
        judged == Judged::Held
    }

    fn judge(&self, at: At, after: u64, page: &InboxPage) -> Judged {
        let (progress, head) = (self.progress(at), page.span.head);
        let known = progress.known_place();
        let stood = known.map_or(0, |place| place.offset).max(progress.sent());
        if head.offset < stood {
            // Of a topic that its user has left, or may have, the page ends where the stay does.
            return if self.is_live(at) {
                Judged::Lost
            } else {
                Judged::Held
            };
        }
        let Some(place) = known else {
            return Judged::Held;
        };
        let entries = page.entries.iter().map(|read| read.entry.position);
        let mut behind = entries.filter(|position| position.offset >= place.offset);
        let first = behind.clone().next();
        if head.epoch == place.epoch || behind.any(|position| position.epoch == place.epoch) {
            return Judged::Held;
        }
        let begins_there = after + 1 == place.offset;
        match first {
            _ if head.offset == place.offset || begins_there => Judged::Lost,
            Some(first) if first.offset == place.offset || after < place.offset => Judged::Lost,
            // It has not got there yet.
            None if after < place.offset => Judged::Held,
            _ => Judged::Unsure,
        }
    }

    /// As one who comes back with a place that is not held.
    fn begin_again(&mut self, at: At, page: &InboxPage) {
        let progress = self.progress(at);
        let unknown = Position {
            offset: progress.sent(),
            ..Position::START
        };
        let start = FeedStart {
            span: page.span,
            floor: page.floor,
            begins: 0,
            held: Some(false),
        };
        let (settles, rules) = (progress.settles, progress.redelivery_rules());
        let place = progress.place().unwrap_or(unknown);
        *self.progress_mut(at) = Progress::open(settles, start, self.ack, rules, Some(place));
    }
}
