//! Reads the tables for callers other than the writer, each time from one consistent view.

use super::StoreFault;
use super::apply::REDRIVEN;
use super::codec::{EntryKindRecord, EntryRecord, LetterRecord, Record, key};
use super::people;
use super::store::{Table, View};
use super::tables::{self, ALL_ROWS, FLOOR_JOINED};
use crate::{Page, ReadLimit, RecipientState, Recipients};
use postrider_model::{
    Audience, DeadBody, DeadLetter, DeadLetterFilter, DeadLetterId, DeadLetterPage, Entry, EntryKind, Epoch,
    FeedId, FeedSpan, Forms, Mark, MarkKind, Membership, Notification, NotificationId, Position, State,
    Timestamp, UserId, WithdrawReason,
};
use std::collections::{BTreeSet, HashSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Dead letters looked at for one page.
const MAX_LETTERS: usize = 10_000;
/// Of them, as many as are read at once: each may hold a message of its own.
const LETTERS_STEP: usize = 128;
/// One page ends once its bodies have so many bytes.
const MAX_LETTER_BYTES: usize = 4 << 20;

/// Entries among which a damaged one is sought.
const MAX_SOUGHT: usize = 100_000;

/// Offsets have no holes, so where one is a row was lost.
pub(super) const MISSING: StoreFault = StoreFault::Corrupt {
    table: "entries",
    detail: "a row is missing",
};

/// A page that cannot be read.
pub(super) struct Unreadable {
    /// Where a damaged entry, or notification, stands, if that is why.
    pub offset: Option<u64>,
    pub fault: StoreFault,
}

impl Unreadable {
    fn at(offset: u64, fault: StoreFault) -> Unreadable {
        let damaged = matches!(fault, StoreFault::Corrupt { .. });
        Unreadable {
            offset: damaged.then_some(offset),
            fault,
        }
    }
}

impl From<StoreFault> for Unreadable {
    fn from(fault: StoreFault) -> Self {
        Unreadable { offset: None, fault }
    }
}

/// One look at the store.
pub(super) struct Reader<'s> {
    pub view: Box<dyn View + 's>,
    pub now: Timestamp,
}

impl Reader<'_> {
    pub fn read_page(&self, feed: &FeedId, after: u64, limit: ReadLimit) -> Result<Page, Unreadable> {
        let span = tables::span(&*self.view, feed)?;
        let first = after.saturating_add(1).max(span.first);
        let (from, to) = (key::entry(feed, first), key::entry(feed, span.head.offset + 1));
        let rows = self
            .view
            .scan(Table::Entries, &from, &to, limit.entries.max(1))
            .map_err(|fault| self.place_of(feed, first..=span.head.offset, fault))?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (n, (row, value)) in rows.iter().enumerate() {
            let next = first.saturating_add(n as u64);
            let offset = tables::offset(row)?;
            if offset != next {
                return Err(Unreadable::at(next, MISSING));
            }
            let at = |fault| Unreadable::at(offset, fault);
            let (entry, data) = self.whole_entry(feed, offset, value).map_err(at)?;
            bytes += data;
            entries.push(Arc::new(entry));
            if bytes >= limit.bytes {
                break;
            }
        }
        if rows.is_empty() && first <= span.head.offset {
            return Err(Unreadable::at(first, MISSING));
        }
        Ok(Page { entries, span })
    }

    /// An entry with what it stands for, and the bytes of its data.
    fn whole_entry(&self, feed: &FeedId, offset: u64, value: &[u8]) -> Result<(Entry, usize), StoreFault> {
        let (epoch, kind) = match self.whole_notification(feed, offset, value)? {
            Some((epoch, notification)) => (epoch, EntryKind::Notification(notification, None)),
            None => {
                let record = EntryRecord::decode(value)?;
                (record.epoch, self.kind_of(feed, record.kind)?)
            }
        };
        let bytes = match &kind {
            EntryKind::Notification(notification, _) => notification.data.len(),
            EntryKind::Read { .. } | EntryKind::Withdrawn { .. } => 0,
        };
        let entry = Entry {
            feed: feed.clone(),
            position: Position { epoch, offset },
            kind,
            forms: Arc::<Forms>::default(),
        };
        Ok((entry, bytes))
    }

    /// The notification that stands whole in an entry, if one does, and the entry's epoch.
    fn whole_notification(
        &self,
        feed: &FeedId,
        offset: u64,
        value: &[u8],
    ) -> Result<Option<(Epoch, Arc<Notification>)>, StoreFault> {
        let FeedId::User(user) = feed else {
            return Ok(None);
        };
        let record = Record::of_entry(value, user, offset)?;
        Ok(record.and_then(|record| Some((record.home?.1.epoch, record.notification))))
    }

    fn kind_of(&self, feed: &FeedId, record: EntryKindRecord) -> Result<EntryKind, StoreFault> {
        Ok(match record {
            EntryKindRecord::Notification { id, withdrawn } => {
                let record = tables::body(&*self.view, &id)?;
                if record.bodiless && tables::is_stray(&*self.view, &id, feed)? {
                    return Err(tables::NO_BODY);
                }
                // What was given up is never shown, whatever its reader knows of the marks so far.
                let lost = record.bodiless.then_some(WithdrawReason::Cancelled);
                EntryKind::Notification(record.notification, withdrawn.or(lost))
            }
            EntryKindRecord::Read { ids, origin } => EntryKind::Read { ids, origin },
            EntryKindRecord::Withdrawn {
                id,
                target,
                reason,
                origin,
            } => EntryKind::Withdrawn {
                id,
                target,
                reason,
                origin,
            },
        })
    }

    /// Which of these entries is damaged, where a scan over them is.
    fn place_of(&self, feed: &FeedId, among: RangeInclusive<u64>, fault: StoreFault) -> Unreadable {
        let offset = match &fault {
            StoreFault::Corrupt { .. } => among.take(MAX_SOUGHT).find(|offset| {
                let entry = tables::entry(&*self.view, feed, *offset);
                matches!(entry, Err(StoreFault::Corrupt { .. }))
            }),
            _ => None,
        };
        Unreadable { offset, fault }
    }

    pub fn is_held(&self, feed: &FeedId, place: Position) -> Result<bool, StoreFault> {
        self.is_place(feed, tables::span(&*self.view, feed)?, place)
    }

    /// The same, of a feed whose span is known.
    pub fn is_place(&self, feed: &FeedId, span: FeedSpan, place: Position) -> Result<bool, StoreFault> {
        if place.offset == 0 {
            return Ok(span.first <= 1);
        }
        if place == span.head {
            return Ok(true);
        }
        if place.offset < span.first {
            let trimmed = tables::trimmed(&*self.view, feed)?;
            return Ok(trimmed.is_some_and(|(_, before)| before == place));
        }
        let entry = tables::entry(&*self.view, feed, place.offset)?;
        Ok(entry.is_some_and(|entry| entry.epoch == place.epoch))
    }

    pub fn recipient_states(
        &self,
        id: &NotificationId,
        which: Recipients,
    ) -> Result<Vec<RecipientState>, StoreFault> {
        let Some(record) = tables::record(&*self.view, id)? else {
            return Ok(Vec::new());
        };
        let named = self.named_recipients(id, &which)?;
        let known: HashSet<_> = named.iter().map(|(user, _)| user.clone()).collect();
        let mut states = Vec::with_capacity(named.len());
        for (user, position) in named {
            let feed = FeedId::User(user.clone());
            states.push(self.recipient_state(&record, user, &feed, position)?.0);
        }
        if record.recipients.is_none() {
            let (users, every) = match which {
                Recipients::One(user) => (BTreeSet::from([user]), false),
                Recipients::All => (self.settlers(&record)?, true),
            };
            for user in users {
                // One for whom it was redriven has it in the own feed now.
                let passed = record.notification.excludes(&user) || known.contains(&user);
                let place = self.wide_place(&record, &user)?.filter(|_| !passed);
                if let Some((feed, position)) = place {
                    let (state, has_word) = self.recipient_state(&record, user, &feed, position)?;
                    states.extend((has_word || !every).then_some(state));
                }
            }
            states.sort_by(|a, b| a.user.cmp(&b.user));
        }
        Ok(states)
    }

    /// Where a notification for everyone, or for topics, stands in a user's inbox; at offset 0 where it waits for its
    /// time. Nowhere for one who is no recipient.
    fn wide_place(&self, record: &Record, user: &UserId) -> Result<Option<(FeedId, Position)>, StoreFault> {
        let waits = record
            .placements
            .iter()
            .find(|(_, position)| position.offset == 0);
        if let Audience::Topics(_) = &record.notification.audience {
            let memberships = people::memberships(&*self.view, user)?;
            let is_member = |feed: &FeedId| match feed {
                FeedId::Topic(topic) => {
                    people::in_topic(&memberships, topic).is_some_and(Membership::is_current)
                }
                FeedId::All | FeedId::User(_) => false,
            };
            // What waits will be for those who are members then.
            let prospect = record.placements.iter().find(|(feed, _)| is_member(feed));
            let place = match waits {
                Some(_) => prospect,
                None => people::place(record, &memberships),
            };
            return Ok(place.cloned());
        }
        let Some((feed, position)) = record.placements.first() else {
            return Ok(None);
        };
        let joined = tables::floor(&*self.view, user, feed, FLOOR_JOINED)?;
        let is_for = position.offset == 0 || position.offset > joined;
        Ok(is_for.then(|| (feed.clone(), *position)))
    }

    fn named_recipients(
        &self,
        id: &NotificationId,
        which: &Recipients,
    ) -> Result<Vec<(UserId, Position)>, StoreFault> {
        Ok(match which {
            Recipients::All => tables::recipients(&*self.view, id)?,
            Recipients::One(user) => {
                let position = tables::recipient(&*self.view, id, user)?;
                let one = position.map(|position| (user.clone(), position));
                one.into_iter().collect()
            }
        })
    }

    /// The state, and whether anything is recorded for this user.
    fn recipient_state(
        &self,
        record: &Record,
        user: UserId,
        feed: &FeedId,
        position: Position,
    ) -> Result<(RecipientState, bool), StoreFault> {
        let (offset, notification) = (position.offset, &record.notification);
        if offset == 0 {
            let state = self.unplaced_state(record);
            let marks = Vec::new();
            return Ok((RecipientState { user, state, marks }, false));
        }
        let (state, standing) = tables::state(&*self.view, &user, feed, offset, notification, self.now)?;
        let below_floor = standing.covers(offset);
        let mut marks = standing.marks;
        let has_word = below_floor || !marks.is_empty();
        let single = marks.iter().any(|mark| mark.kind == MarkKind::Delivered);
        if below_floor && !single {
            let read_at = marks
                .iter()
                .find(|mark| mark.kind == MarkKind::Read)
                .map(|m| m.time);
            let range = tables::range_at(&*self.view, &user, feed, offset)?;
            marks.extend(range.filter(|range| match state {
                State::Delivered => range.kind == MarkKind::Delivered,
                State::Read => range.kind == MarkKind::Delivered && read_at.is_none_or(|at| range.time <= at),
                State::Expired => range.kind == MarkKind::Expired && marks.is_empty(),
                _ => false,
            }));
        }
        self.add_story_before(&user, &mut marks)?;
        marks.sort_by_key(|mark| (mark.time, mark.kind));
        Ok((RecipientState { user, state, marks }, has_word))
    }

    /// What is recorded at the places that a redriven notification had before.
    fn add_story_before(&self, user: &UserId, marks: &mut Vec<Mark>) -> Result<(), StoreFault> {
        let mut at = 0;
        while let Some(mark) = marks.get_mut(at) {
            at += 1;
            if mark.kind == MarkKind::Redriven
                && let Some((feed, offset)) = tables::place_before(&std::mem::take(&mut mark.why))
            {
                let before = tables::standing(&*self.view, user, &feed, offset, offset)?;
                let told = before.marks.into_iter().filter(|mark| mark.why != REDRIVEN);
                marks.extend(told);
            }
        }
        Ok(())
    }

    /// The state of what was never put into a feed: still scheduled, cancelled, or expired before its time.
    fn unplaced_state(&self, record: &Record) -> State {
        let expires_at = record.notification.expires_at;
        match record.cancelled_at {
            Some(at) if expires_at.is_none_or(|end| end > at) => State::Cancelled,
            Some(_) => State::Expired,
            None if expires_at.is_some_and(|end| end <= self.now) => State::Expired,
            None => State::Pending,
        }
    }

    /// Every user with anything recorded in the wide feeds where this stands.
    fn settlers(&self, record: &Record) -> Result<BTreeSet<UserId>, StoreFault> {
        let mut users = BTreeSet::new();
        for (feed, _) in &record.placements {
            let prefix = key::feed(feed);
            let end = key::after(&prefix);
            for (row, _) in self.view.scan(Table::Settlers, &prefix, &end, ALL_ROWS)? {
                users.insert(tables::user_at_end("settlers", prefix.len(), &row)?);
            }
        }
        Ok(users)
    }

    /// Dead letters after `after`, oldest first.
    pub fn letters(
        &self,
        filter: &DeadLetterFilter,
        after: DeadLetterId,
        limit: usize,
    ) -> Result<DeadLetterPage, StoreFault> {
        let (mut page, mut bytes, mut seen) = (DeadLetterPage::default(), 0, 0);
        let mut next = after.0.saturating_add(1);
        while seen < MAX_LETTERS {
            let rows = match &filter.user {
                Some(user) => {
                    let end = key::after(&key::letters_of(user));
                    let from = key::letter_of(user, next);
                    self.view.scan(Table::LettersOf, &from, &end, LETTERS_STEP)?
                }
                None => self
                    .view
                    .scan(Table::Letters, &next.to_be_bytes(), &[0xff; 9], LETTERS_STEP)?,
            };
            let ended = rows.len() < LETTERS_STEP;
            for (row, value) in rows {
                let id = DeadLetterId(tables::offset(&row)?);
                if page.letters.len() == limit || bytes >= MAX_LETTER_BYTES {
                    return Ok(page);
                }
                let record = match filter.user {
                    Some(_) => tables::letter(&*self.view, id.0)?,
                    None => Some(LetterRecord::decode(&value)?),
                };
                seen += 1;
                next = id.0.saturating_add(1);
                page.after = Some(id);
                if let Some(record) = record.filter(|record| fits(record, filter)) {
                    let letter = self.whole_letter(id, record, filter.bare)?;
                    bytes += letter.body.len();
                    page.letters.push(letter);
                }
            }
            if ended {
                page.after = None;
                return Ok(page);
            }
        }
        Ok(page)
    }

    pub fn letter(&self, id: DeadLetterId) -> Result<Option<DeadLetter>, StoreFault> {
        tables::letter(&*self.view, id.0)?
            .map(|record| self.whole_letter(id, record, false))
            .transpose()
    }

    fn whole_letter(
        &self,
        id: DeadLetterId,
        record: LetterRecord,
        bare: bool,
    ) -> Result<DeadLetter, StoreFault> {
        let mut subject = None;
        let body = match (record.raw, &record.notification) {
            _ if bare => DeadBody::Missing,
            (Some(raw), _) => DeadBody::Raw(raw),
            (None, None) => DeadBody::Missing,
            (None, Some(notification)) => match tables::record(&*self.view, notification)? {
                Some(record) if !record.bodiless => {
                    subject = record.notification.subject.clone();
                    DeadBody::Data(record.notification.data.clone())
                }
                _ => DeadBody::Missing,
            },
        };
        Ok(DeadLetter {
            id,
            notification: record.notification,
            user: record.user,
            reason: record.reason,
            detail: record.detail,
            source: record.source,
            attempts: record.attempts,
            time: record.time,
            subject,
            body,
        })
    }
}

fn fits(record: &LetterRecord, filter: &DeadLetterFilter) -> bool {
    filter.reason.is_none_or(|reason| reason == record.reason)
        && filter
            .source
            .as_ref()
            .is_none_or(|source| *source == record.source)
}
