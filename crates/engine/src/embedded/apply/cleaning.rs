//! What users did with wide notifications that are forgotten: nothing leads from a broadcast, or a topic's entry, to the
//! users with a mark on it, so now and then all of the feed's users are visited, a few in each transaction. Of a topic
//! the stays go too of which nothing is known any more.

use super::Apply;
use crate::embedded::codec::{Reader, Record, Writer, key};
use crate::embedded::store::{Table, View, Wanted};
use crate::embedded::{StoreFault, people, tables};
use postrider_model::{FeedId, UserId};

/// Users visited in one transaction.
const MAX_USERS: usize = 64;
/// Rows of one user and table that one transaction removes.
const MAX_ROWS: usize = 512;
/// So many entries of a feed must have been forgotten before a round is worth it.
pub(super) const ROUND: u64 = 64;
/// Where the rounds of `all` stand; followed by its key, those of a topic.
const STATE: &[u8] = b"cleaning";
/// Followed by its key: a topic that needs a round.
const NEEDED: &[u8] = b"to-clean";

/// Where the rounds of one feed stand.
#[derive(Debug, Default)]
struct Cleaning {
    /// Everything up to this offset is forgotten.
    forgotten: u64,
    /// Up to here every user's rows are removed.
    cleaned: u64,
    /// What the round under way removes; 0 where none is.
    round: u64,
    /// Which user comes next in it.
    next: Vec<u8>,
}

/// What tells whether there is anything to do.
pub(super) fn wanted() -> [Wanted; 2] {
    let state = state_key(&FeedId::All);
    [
        Wanted::Get(Table::Meta, state),
        Wanted::Scan(Table::Meta, NEEDED.to_vec(), key::after(NEEDED), 1),
    ]
}

impl Apply<'_> {
    /// What stands in a wide feed up to this offset is forgotten.
    pub(super) fn clean_up_to(&mut self, feed: &FeedId, offset: u64) -> Result<(), StoreFault> {
        let mut state = self.cleaning(feed)?;
        if offset > state.forgotten {
            state.forgotten = offset;
            self.put_cleaning(feed, &state);
            if *feed != FeedId::All && offset >= state.cleaned + ROUND {
                self.txn
                    .put(Table::Meta, of_feed(NEEDED, feed), Writer::new().done());
            }
        }
        Ok(())
    }

    /// Up to here nothing is known of a wide feed any more.
    pub(super) fn forgotten(&self, feed: &FeedId) -> Result<u64, StoreFault> {
        self.before_renewed(feed, self.cleaning(feed)?.forgotten)
    }

    /// This offset, or the last before what was redriven and is still known.
    fn before_renewed(&self, feed: &FeedId, offset: u64) -> Result<u64, StoreFault> {
        let oldest = self.oldest_renewed(feed)?;
        Ok(oldest.map_or(offset, |renewed| offset.min(renewed.saturating_sub(1))))
    }

    /// A wide notification was redriven: it outlives its neighbours, and what users did with it must too.
    pub(super) fn note_renewed(&mut self, record: &Record) {
        for (feed, position) in &record.placements {
            let row = renewed(feed, position.offset);
            self.txn.put(Table::Meta, row, Writer::new().done());
        }
    }

    /// It is forgotten.
    pub(super) fn forget_renewed(&mut self, record: &Record) {
        for (feed, position) in &record.placements {
            self.txn.remove(Table::Meta, renewed(feed, position.offset));
        }
    }

    fn oldest_renewed(&self, feed: &FeedId) -> Result<Option<u64>, StoreFault> {
        let (from, to) = (renewed(feed, 0), renewed(feed, u64::MAX));
        let rows = self.txn.scan(Table::Meta, &from, &to, 1)?;
        rows.first().map(|(row, _)| tables::offset(row)).transpose()
    }

    /// Goes on with a round, or begins one. True if there is more to do.
    pub(super) fn clean(&mut self) -> Result<bool, StoreFault> {
        if self.try_clean(&FeedId::All)? {
            return Ok(true);
        }
        let needed = self.txn.scan(Table::Meta, NEEDED, &key::after(NEEDED), 1)?;
        let Some((row, _)) = needed.first() else {
            return Ok(false);
        };
        let feed = row.get(NEEDED.len()..).and_then(FeedId::read_key);
        let more = match feed {
            Some((feed, _)) => self.try_clean(&feed)?,
            None => false,
        };
        if !more {
            self.txn.remove(Table::Meta, row.clone());
        }
        Ok(true)
    }

    /// What cannot be read in one feed keeps none of the others from being cleaned.
    fn try_clean(&mut self, feed: &FeedId) -> Result<bool, StoreFault> {
        match self.clean_feed(feed) {
            Err(fault @ StoreFault::Corrupt { .. }) => {
                tracing::error!(%feed, %fault, "what users did with a feed cannot be cleaned up");
                Ok(false)
            }
            more => more,
        }
    }

    fn clean_feed(&mut self, feed: &FeedId) -> Result<bool, StoreFault> {
        let mut state = self.cleaning(feed)?;
        let prefix = key::feed(feed);
        if state.round == 0 {
            if state.forgotten < state.cleaned + ROUND {
                return Ok(false);
            }
            state.round = self.before_renewed(feed, state.forgotten)?;
            if state.round < state.cleaned + ROUND {
                return Ok(false);
            }
            state.next.clone_from(&prefix);
        }
        let rows = self
            .txn
            .scan(Table::Settlers, &state.next, &key::after(&prefix), MAX_USERS)?;
        let ended = rows.len() < MAX_USERS;
        for (row, _) in rows {
            let user = tables::user_at_end("settlers", prefix.len(), &row)?;
            if !self.clean_user(&user, feed, state.round)? {
                state.next = row;
                self.put_cleaning(feed, &state);
                return Ok(true);
            }
            state.next = [row.as_slice(), &[0]].concat();
        }
        if ended {
            state.cleaned = std::mem::take(&mut state.round);
            state.next = Vec::new();
        }
        self.put_cleaning(feed, &state);
        Ok(!ended)
    }

    /// Removes what one user did with a feed up to here. False if more is left.
    fn clean_user(&mut self, user: &UserId, feed: &FeedId, through: u64) -> Result<bool, StoreFault> {
        let from = key::user_feed(user, feed);
        let to = key::range(user, feed, through.saturating_add(1));
        for table in [Table::Marks, Table::Ranges, Table::Attempts, Table::Opens] {
            let old = self.txn.scan(table, &from, &to, MAX_ROWS)?;
            let left = old.len() == MAX_ROWS;
            for (old, _) in old {
                self.txn.remove(table, old);
            }
            if left {
                return Ok(false);
            }
        }
        if let FeedId::Topic(topic) = feed {
            let before = match people::memberships(&self.txn, user) {
                // That is this user's trouble alone.
                Err(StoreFault::Corrupt { .. }) => return Ok(true),
                memberships => memberships?,
            };
            let mut memberships = before.clone();
            if let Some(one) = memberships.iter_mut().find(|one| one.topic == *topic) {
                one.forget_before(through.saturating_add(1));
            }
            memberships.retain(|one| !one.stays.is_empty());
            if people::in_topic(&memberships, topic).is_none() {
                for kind in [tables::FLOOR_DELIVERED, tables::FLOOR_READ] {
                    self.txn.remove(Table::Floors, key::floor(user, feed, kind));
                }
                self.txn.remove(Table::Settlers, key::settler(feed, user));
            }
            if memberships != before {
                self.put_memberships(user, &memberships);
            }
        }
        Ok(true)
    }

    /// Where the rounds of a feed stand; where that cannot be read they begin anew, with what is forgotten next.
    fn cleaning(&self, feed: &FeedId) -> Result<Cleaning, StoreFault> {
        match self.read_cleaning(feed) {
            Err(fault @ StoreFault::Corrupt { .. }) => {
                tracing::error!(%feed, %fault, "the rounds of cleaning up begin anew");
                Ok(Cleaning::default())
            }
            state => state,
        }
    }

    fn read_cleaning(&self, feed: &FeedId) -> Result<Cleaning, StoreFault> {
        let Some(value) = self.txn.get(Table::Meta, &state_key(feed))? else {
            return Ok(Cleaning::default());
        };
        let mut r = Reader::new("meta", &value)?;
        Ok(Cleaning {
            forgotten: r.u64()?,
            cleaned: r.u64()?,
            round: r.u64()?,
            next: r.bytes()?.to_vec(),
        })
    }

    fn put_cleaning(&mut self, feed: &FeedId, state: &Cleaning) {
        let value = Writer::new()
            .u64(state.forgotten)
            .u64(state.cleaned)
            .u64(state.round)
            .bytes(&state.next);
        self.txn.put(Table::Meta, state_key(feed), value.done());
    }
}

fn of_feed(what: &[u8], feed: &FeedId) -> Vec<u8> {
    [what, &key::feed(feed)].concat()
}

fn state_key(feed: &FeedId) -> Vec<u8> {
    match feed {
        FeedId::All => STATE.to_vec(),
        FeedId::Topic(_) | FeedId::User(_) => of_feed(STATE, feed),
    }
}

fn renewed(feed: &FeedId, offset: u64) -> Vec<u8> {
    let of = match feed {
        FeedId::All => b"renewed".to_vec(),
        FeedId::Topic(_) | FeedId::User(_) => of_feed(b"topic-renewed", feed),
    };
    [of, offset.to_be_bytes().to_vec()].concat()
}
