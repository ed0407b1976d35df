//! How records are written. Every value begins with a version byte; what follows is fixed-width
//! little-endian numbers and length-prefixed bytes. Keys hold offsets and times big-endian, so that their
//! byte order is their order.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | meta | name | depends |
//! | notifications | id | [`Record`], or where it stands whole: user, position |
//! | entries | feed, offset | [`EntryRecord`]; a notification for one user stands in it whole, with its [`Record`] |
//! | feeds | feed | first held offset, head, epoch of the one before the first (written by trimming only) |
//! | recipients | id, 0, user | position, offset 0 while scheduled |
//! | floors | user, 0, feed, 1 (delivered), 2 (read) or 3 (joined) | offset |
//! | marks | user, 0, feed, offset, kind | [`encode_mark`] |
//! | ranges | user, 0, feed, last offset | kind, first offset …: what befell many entries at once |
//! | settlers | wide feed, user | nothing: this user has a floor or a mark in it |
//! | dropped | wide feed, offset | reason, time |
//! | collapse | feed, collapse key | offset of the newest |
//! | due | time, kind, id; to give up: also 0, user | nothing |
//! | requests | key | content digest, time |
//! | ages | stage, time, id (or request, or feed) | nothing: in this order things are forgotten |
//! | ages | stage 5, time to live, time, number | ids: a [`super::apply`] cohort, which grows old together |
//! | attempts | user, 0, feed, offset | how many, the time of the last |
//! | firsts | feed, offset | nothing: this one is for the first device that takes it |
//! | opens | user, 0, feed, offset | nothing: pending although the floor passed it |
//! | past | user's feed, offset | id of what stood there before it was trimmed |
//! | letters | dead letter | [`LetterRecord`] |
//! | letters_of | user, 0, dead letter | nothing |
//! | letter_for | id, 0, user | dead letter |
//! | erased | digest of a feed's key | the head that the feed had |
//! | erased | digest of a user's feed's key and `state` | the version at which the user's state map was erased |
//! | sizes | feed | bytes, first and head offset when they were counted (kept only where feeds are bounded by bytes) |
//! | users | user | when added, when changed, profile |
//! | memberships | user | by topic, its stays: the offset after which each began, and the last, if it ended |
//! | members | topic, 0, user | nothing: this user is a member now |
//! | topics | topic | how many members it has now |
//! | states | user | version, texts by name |
//!
//! Version 2 of a record has more than version 1: `kept_from` in notifications, `origin` in withdrawn entries.
//! Version 3 has the whole entries and the cohorts.
//! A value this version cannot read is an error that names the table; it is never skipped.

pub(super) mod people;

use super::StoreFault;
use bytes::Bytes;
use postrider_model::{
    Audience, DeadReason, Devices, Durability, Epoch, FeedId, Mark, MarkKind, Millis, Notification,
    NotificationId, Position, SessionId, Timestamp, Topic, Transport, UserId, WithdrawReason,
};
use std::sync::Arc;

/// The version byte that this code writes. It reads all versions up to this.
const VERSION: u8 = 3;

/// What is stored under a notification's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub notification: Arc<Notification>,
    pub content: u128,
    pub cancelled_at: Option<Timestamp>,
    /// Waiting for `deliver_at`; not in any feed yet.
    pub scheduled: bool,
    /// How many users it is for; `None` for a wide audience.
    pub recipients: Option<u64>,
    /// Where it stands in wide feeds.
    pub placements: Vec<(FeedId, Position)>,
    /// Since when it is kept: its age counts from here.
    pub kept_from: Timestamp,
    /// What was to be delivered is not kept any more, only what became of it.
    pub bodiless: bool,
    /// It was read from the entry in which it stands whole: whose, and where. Writing a record takes it out.
    pub home: Option<Home>,
}

/// The one recipient of a notification that stands whole in an entry, and where that is.
pub(super) type Home = (UserId, Position);

/// What stands under a notification's id.
#[derive(Debug)]
pub(super) enum Held {
    Record(Box<Record>),
    Home(Home),
}

/// What is stored of a dead letter; a notification's body stays with the notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LetterRecord {
    pub notification: Option<NotificationId>,
    pub user: Option<UserId>,
    pub reason: DeadReason,
    pub source: String,
    pub attempts: u32,
    pub time: Timestamp,
    pub raw: Option<Bytes>,
}

/// What is stored at a position of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EntryRecord {
    pub epoch: Epoch,
    pub kind: EntryKindRecord,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKindRecord {
    Notification {
        id: NotificationId,
        withdrawn: Option<WithdrawReason>,
    },
    Read {
        ids: Vec<NotificationId>,
        origin: Option<SessionId>,
    },
    Withdrawn {
        id: NotificationId,
        target: u64,
        reason: WithdrawReason,
        origin: Option<SessionId>,
    },
}

/// Appends the parts of a value.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub fn new() -> Writer {
        Writer(vec![VERSION])
    }
    /// Room for about so many bytes.
    fn with_room(bytes: usize) -> Writer {
        let mut out = Vec::with_capacity(bytes);
        out.push(VERSION);
        Writer(out)
    }
    pub fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
    pub fn u64(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
    pub fn u128(mut self, n: u128) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }
    pub fn option<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => write(self.u8(1), value),
        }
    }
    pub fn list<T>(self, values: &[T], write: impl FnMut(Self, &T) -> Self) -> Self {
        values.iter().fold(self.u32(values.len() as u32), write)
    }
    fn mark(self, mark: &Mark) -> Self {
        self.u64(mark.from)
            .u64(mark.time.0)
            .u8(mark.transport.map_or(0, |transport| transport as u8))
            .option(mark.session.as_ref(), |out, session| out.text(session.as_str()))
            .text(&mark.why)
    }
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads the parts of a value back. Every length is checked against what is there.
pub(super) struct Reader<'a> {
    table: &'static str,
    version: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(table: &'static str, value: &'a [u8]) -> Result<Self, StoreFault> {
        match value {
            [version @ 1..=VERSION, rest @ ..] => Ok(Reader {
                table,
                version: *version,
                rest,
            }),
            [version, ..] if *version > VERSION => Err(StoreFault::Newer { what: table }),
            _ => Err(StoreFault::Corrupt {
                table,
                detail: "no version byte",
            }),
        }
    }
    pub fn corrupt(&self, detail: &'static str) -> StoreFault {
        StoreFault::Corrupt {
            table: self.table,
            detail,
        }
    }
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreFault> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.corrupt("cut short"))?;
        self.rest = rest;
        Ok(*head)
    }
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
    /// What was read, which has to be all: nothing was ever written behind it.
    pub fn end<T>(&self, value: T) -> Result<T, StoreFault> {
        match self.is_done() {
            true => Ok(value),
            false => Err(self.corrupt("more than a value")),
        }
    }
    pub fn u8(&mut self) -> Result<u8, StoreFault> {
        Ok(self.take::<1>()?[0])
    }
    pub fn u32(&mut self) -> Result<u32, StoreFault> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    pub fn u64(&mut self) -> Result<u64, StoreFault> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    pub fn u128(&mut self) -> Result<u128, StoreFault> {
        Ok(u128::from_le_bytes(self.take()?))
    }
    pub fn bytes(&mut self) -> Result<&'a [u8], StoreFault> {
        let length = self.u32()? as usize;
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| self.corrupt("cut short"))?;
        self.rest = rest;
        Ok(head)
    }
    pub fn text(&mut self) -> Result<&'a str, StoreFault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.corrupt("not UTF-8"))
    }
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StoreFault>,
    ) -> Result<Option<T>, StoreFault> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.corrupt("not an option")),
        }
    }
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, StoreFault>,
    ) -> Result<Vec<T>, StoreFault> {
        let length = self.u32()? as usize;
        let mut values = Vec::with_capacity(length.min(self.rest.len()));
        for _ in 0..length {
            values.push(read(self)?);
        }
        Ok(values)
    }
    pub fn id<T, E>(&mut self, make: impl FnOnce(&str) -> Result<T, E>) -> Result<T, StoreFault> {
        let text = self.text()?;
        make(text).map_err(|_| self.corrupt("not an id"))
    }
    pub fn position(&mut self) -> Result<Position, StoreFault> {
        Ok(Position {
            epoch: Epoch(self.u32()?),
            offset: self.u64()?,
        })
    }
    pub fn mark(&mut self, offset: u64, kind: MarkKind) -> Result<Mark, StoreFault> {
        Ok(Mark {
            offset,
            kind,
            from: self.u64()?,
            time: Timestamp(self.u64()?),
            transport: match self.u8()? {
                0 => None,
                byte => Some(Transport::from_byte(byte).ok_or_else(|| self.corrupt("unknown transport"))?),
            },
            session: self.option(|r| r.id(SessionId::new))?,
            why: self.text()?.to_owned(),
        })
    }
    pub fn reason(&mut self) -> Result<Option<WithdrawReason>, StoreFault> {
        match self.u8()? {
            0 => Ok(None),
            byte => WithdrawReason::from_byte(byte)
                .map(Some)
                .ok_or_else(|| self.corrupt("unknown reason")),
        }
    }
}

/// The bits of a record's first byte.
const SCHEDULED: u8 = 1;
const FIRST_DEVICE: u8 = 2;
const BODILESS: u8 = 4;
/// In place of a record: where it stands whole.
const AT_HOME: u8 = 0x80;
/// The kind of an entry in which a notification stands whole.
const WHOLE: u8 = 4;

impl Held {
    pub fn encode_home((user, position): &Home) -> Vec<u8> {
        Writer::with_room(48)
            .u8(AT_HOME)
            .text(user.as_str())
            .u32(position.epoch.0)
            .u64(position.offset)
            .done()
    }

    pub fn decode(id: &NotificationId, value: &[u8]) -> Result<Held, StoreFault> {
        Ok(match Held::home(value)? {
            Some(home) => Held::Home(home),
            None => Held::Record(Box::new(Record::decode(id, value)?)),
        })
    }

    /// Where it stands whole, if it does.
    pub fn home(value: &[u8]) -> Result<Option<Home>, StoreFault> {
        let mut r = Reader::new("notifications", value)?;
        match r.u8()? {
            AT_HOME => {
                let home = (r.id(UserId::new)?, r.position()?);
                r.end(Some(home))
            }
            _ => Ok(None),
        }
    }
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let out = Writer::with_room(self.notification.data.len() + 160);
        self.write(out).done()
    }

    /// An entry in which it stands whole.
    pub fn encode_entry(&self, epoch: Epoch) -> Vec<u8> {
        let out = Writer::with_room(self.notification.data.len() + 200);
        let out = out.u32(epoch.0).u8(WHOLE);
        self.write(out.text(self.notification.id.as_str())).done()
    }

    /// The record that stands whole in an entry, with its place.
    pub fn of_entry(value: &[u8], user: &UserId, offset: u64) -> Result<Option<Record>, StoreFault> {
        let mut r = Reader::new("entries", value)?;
        let epoch = Epoch(r.u32()?);
        if r.u8()? != WHOLE {
            return Ok(None);
        }
        let id = r.id(NotificationId::new)?;
        let record = Record::read(&id, &mut r)?;
        let home = Some((user.clone(), Position { epoch, offset }));
        r.end(Some(Record { home, ..record }))
    }

    fn write(&self, out: Writer) -> Writer {
        let n = &self.notification;
        let bit = |set, bit| if set { bit } else { 0 };
        let flags = bit(self.scheduled, SCHEDULED)
            | bit(n.devices == Devices::First, FIRST_DEVICE)
            | bit(self.bodiless, BODILESS);
        let out = out
            .u8(flags)
            .u128(self.content)
            .u64(n.time.0)
            .u64(self.kept_from.0)
            .option(self.cancelled_at, |out, at| out.u64(at.0))
            .option(n.expires_at, |out, at| out.u64(at.0))
            .option(n.deliver_at, |out, at| out.u64(at.0))
            .option(n.subject.as_deref(), Writer::text)
            .option(n.collapse_key.as_deref(), Writer::text)
            .option(n.policy.as_deref(), Writer::text)
            .text(&n.publisher)
            .list(&n.exclude, |out, user| out.text(user.as_str()))
            .option(self.recipients, Writer::u64)
            .list(&self.placements, |out, (feed, position)| {
                out.text(&feed.to_string())
                    .u32(position.epoch.0)
                    .u64(position.offset)
            });
        let out = match &n.audience {
            Audience::Users(_) => out.u8(1),
            Audience::Topics(topics) => out.u8(2).list(topics, |out, topic| out.text(topic.as_str())),
            Audience::Everyone => out.u8(3),
        };
        out.bytes(&n.data)
    }

    pub fn decode(id: &NotificationId, value: &[u8]) -> Result<Record, StoreFault> {
        let mut r = Reader::new("notifications", value)?;
        let record = Record::read(id, &mut r)?;
        r.end(record)
    }

    fn read(id: &NotificationId, r: &mut Reader<'_>) -> Result<Record, StoreFault> {
        let flags = r.u8()?;
        if flags & AT_HOME != 0 {
            return Err(r.corrupt("no record"));
        }
        let content = r.u128()?;
        let stamp = |r: &mut Reader<'_>| r.u64().map(Timestamp);
        let time = stamp(r)?;
        let kept_from = if r.version < 2 { None } else { Some(stamp(r)?) };
        let cancelled_at = r.option(stamp)?;
        let expires_at = r.option(stamp)?;
        let deliver_at = r.option(stamp)?;
        let owned = |r: &mut Reader<'_>| r.text().map(str::to_owned);
        let subject = r.option(owned)?;
        let collapse_key = r.option(owned)?;
        let policy = r.option(owned)?;
        let publisher = r.text()?.to_owned();
        let exclude = r.list(|r| r.id(UserId::new))?;
        let recipients = r.option(|r| r.u64())?;
        let placements = r.list(|r| Ok((r.id(FeedId::parse)?, r.position()?)))?;
        let audience = match r.u8()? {
            1 => Audience::Users(Vec::new()),
            2 => Audience::Topics(r.list(|r| r.id(Topic::new))?),
            3 => Audience::Everyone,
            _ => return Err(r.corrupt("unknown audience")),
        };
        let data = Bytes::copy_from_slice(r.bytes()?);
        let notification = Notification {
            id: id.clone(),
            time,
            subject,
            data,
            audience,
            exclude,
            durability: Durability::Stored,
            expires_at,
            deliver_at,
            collapse_key,
            policy,
            devices: match flags & FIRST_DEVICE {
                0 => Devices::All,
                _ => Devices::First,
            },
            publisher,
        };
        Ok(Record {
            notification: Arc::new(notification),
            content,
            cancelled_at,
            scheduled: flags & SCHEDULED != 0,
            recipients,
            placements,
            kept_from: kept_from.unwrap_or(time.max(deliver_at.unwrap_or(time))),
            bodiless: flags & BODILESS != 0,
            home: None,
        })
    }
}

impl EntryRecord {
    pub fn encode(&self) -> Vec<u8> {
        let out = Writer::new().u32(self.epoch.0);
        match &self.kind {
            EntryKindRecord::Notification { id, withdrawn } => out
                .u8(1)
                .u8(withdrawn.map_or(0, |reason| reason as u8))
                .text(id.as_str()),
            EntryKindRecord::Read { ids, origin } => out
                .u8(2)
                .option(origin.as_ref(), |out, session| out.text(session.as_str()))
                .list(ids, |out, id| out.text(id.as_str())),
            EntryKindRecord::Withdrawn {
                id,
                target,
                reason,
                origin,
            } => out
                .u8(3)
                .u8(*reason as u8)
                .u64(*target)
                .text(id.as_str())
                .option(origin.as_ref(), |out, session| out.text(session.as_str())),
        }
        .done()
    }

    pub fn decode(value: &[u8]) -> Result<EntryRecord, StoreFault> {
        let mut r = Reader::new("entries", value)?;
        let epoch = Epoch(r.u32()?);
        let kind = match r.u8()? {
            1 => EntryKindRecord::Notification {
                withdrawn: r.reason()?,
                id: r.id(NotificationId::new)?,
            },
            2 => EntryKindRecord::Read {
                origin: r.option(|r| r.id(SessionId::new))?,
                ids: r.list(|r| r.id(NotificationId::new))?,
            },
            3 => {
                let reason = r.reason()?.ok_or_else(|| r.corrupt("no reason"))?;
                EntryKindRecord::Withdrawn {
                    reason,
                    target: r.u64()?,
                    id: r.id(NotificationId::new)?,
                    origin: match r.version {
                        1 => None,
                        _ => r.option(|r| r.id(SessionId::new))?,
                    },
                }
            }
            // Whatever else stands in it, it stands for this.
            WHOLE => {
                let id = r.id(NotificationId::new)?;
                let kind = EntryKindRecord::Notification { id, withdrawn: None };
                return Ok(EntryRecord { epoch, kind });
            }
            _ => return Err(r.corrupt("unknown kind of entry")),
        };
        r.end(EntryRecord { epoch, kind })
    }
}

impl LetterRecord {
    pub fn encode(&self) -> Vec<u8> {
        Writer::new()
            .option(self.notification.as_ref(), |out, id| out.text(id.as_str()))
            .option(self.user.as_ref(), |out, user| out.text(user.as_str()))
            .u8(self.reason as u8)
            .text(&self.source)
            .u32(self.attempts)
            .u64(self.time.0)
            .option(self.raw.as_ref(), |out, raw| out.bytes(raw))
            .done()
    }

    pub fn decode(value: &[u8]) -> Result<LetterRecord, StoreFault> {
        let mut r = Reader::new("letters", value)?;
        let letter = LetterRecord {
            notification: r.option(|r| r.id(NotificationId::new))?,
            user: r.option(|r| r.id(UserId::new))?,
            reason: DeadReason::from_byte(r.u8()?).ok_or_else(|| r.corrupt("unknown reason"))?,
            source: r.text()?.to_owned(),
            attempts: r.u32()?,
            time: Timestamp(r.u64()?),
            raw: r.option(|r| r.bytes().map(Bytes::copy_from_slice))?,
        };
        r.end(letter)
    }
}

pub(super) fn encode_mark(mark: &Mark) -> Vec<u8> {
    Writer::new().mark(mark).done()
}

/// A mark in `ranges`, whose key holds no kind.
pub(super) fn encode_range(mark: &Mark) -> Vec<u8> {
    Writer::new().u8(mark.kind as u8).mark(mark).done()
}

pub(super) fn decode_mark(offset: u64, kind: MarkKind, value: &[u8]) -> Result<Mark, StoreFault> {
    let mut r = Reader::new("marks", value)?;
    let mark = r.mark(offset, kind)?;
    r.end(mark)
}

/// Keys. Each function builds one table's key, or the prefix that its rows share.
pub(crate) mod key {
    use super::*;

    pub fn feed(feed: &FeedId) -> Vec<u8> {
        let mut key = Vec::with_capacity(32);
        feed.write_key(&mut key);
        key
    }
    pub fn entry(of: &FeedId, offset: u64) -> Vec<u8> {
        let mut key = feed(of);
        key.extend_from_slice(&offset.to_be_bytes());
        key
    }
    /// Among the past entries of a feed, for what never was one: beyond all offsets that are given.
    pub fn unplaced(of: &FeedId, id: &NotificationId) -> Vec<u8> {
        entry(of, 1 << 63 | xxhash_rust::xxh3::xxh3_64(id.as_str().as_bytes()))
    }
    pub fn offset_of(key: &[u8]) -> Option<u64> {
        key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
    }
    pub fn recipients(id: &NotificationId) -> Vec<u8> {
        let mut key = id.as_str().as_bytes().to_vec();
        key.push(0);
        key
    }
    pub fn recipient(id: &NotificationId, user: &UserId) -> Vec<u8> {
        let mut key = recipients(id);
        key.extend_from_slice(user.as_str().as_bytes());
        key
    }
    pub fn user_feed(user: &UserId, of: &FeedId) -> Vec<u8> {
        let mut key = user.as_str().as_bytes().to_vec();
        key.push(0);
        of.write_key(&mut key);
        key
    }
    pub fn floor(user: &UserId, of: &FeedId, kind: u8) -> Vec<u8> {
        let mut key = user_feed(user, of);
        key.push(kind);
        key
    }
    pub fn mark(user: &UserId, of: &FeedId, offset: u64, kind: u8) -> Vec<u8> {
        let mut key = user_feed(user, of);
        key.extend_from_slice(&offset.to_be_bytes());
        key.push(kind);
        key
    }
    pub fn range(user: &UserId, of: &FeedId, last: u64) -> Vec<u8> {
        let mut key = user_feed(user, of);
        key.extend_from_slice(&last.to_be_bytes());
        key
    }
    pub fn settler(of: &FeedId, user: &UserId) -> Vec<u8> {
        let mut key = feed(of);
        key.extend_from_slice(user.as_str().as_bytes());
        key
    }
    pub fn collapse(of: &FeedId, collapse_key: &str) -> Vec<u8> {
        let mut key = feed(of);
        key.extend_from_slice(collapse_key.as_bytes());
        key
    }
    pub fn due(at: Timestamp, kind: u8, id: &NotificationId) -> Vec<u8> {
        let mut key = at.0.to_be_bytes().to_vec();
        key.push(kind);
        key.extend_from_slice(id.as_str().as_bytes());
        key
    }
    pub fn give_up(at: Timestamp, kind: u8, id: &NotificationId, user: &UserId) -> Vec<u8> {
        let mut key = due(at, kind, id);
        key.push(0);
        key.extend_from_slice(user.as_str().as_bytes());
        key
    }
    pub fn age(stage: u8, at: Timestamp, what: &[u8]) -> Vec<u8> {
        let mut key = vec![stage];
        key.extend_from_slice(&at.0.to_be_bytes());
        key.extend_from_slice(what);
        key
    }
    /// A cohort: what was accepted at a time, to live so long; and a number, as there may be several.
    pub fn cohort(stage: u8, span: Millis, at: Timestamp, number: u64) -> Vec<u8> {
        let mut key = vec![stage];
        for part in [span.0, at.0, number] {
            key.extend_from_slice(&part.to_be_bytes());
        }
        key
    }
    /// The time to live and the time of a cohort.
    pub fn cohort_parts(key: &[u8]) -> Option<(Millis, Timestamp)> {
        let (span, rest) = key.get(1..)?.split_first_chunk::<8>()?;
        let at = rest.first_chunk::<8>()?;
        Some((
            Millis(u64::from_be_bytes(*span)),
            Timestamp(u64::from_be_bytes(*at)),
        ))
    }
    /// The time and the subject of a row of ages.
    pub fn age_parts(key: &[u8]) -> Option<(Timestamp, &[u8])> {
        let (at, what) = key.get(1..)?.split_first_chunk::<8>()?;
        Some((Timestamp(u64::from_be_bytes(*at)), what))
    }
    pub fn letters_of(user: &UserId) -> Vec<u8> {
        let mut key = user.as_str().as_bytes().to_vec();
        key.push(0);
        key
    }
    pub fn letter_of(user: &UserId, letter: u64) -> Vec<u8> {
        let mut key = letters_of(user);
        key.extend_from_slice(&letter.to_be_bytes());
        key
    }
    pub fn members(of: &Topic) -> Vec<u8> {
        let mut key = of.as_str().as_bytes().to_vec();
        key.push(0);
        key
    }
    pub fn member(of: &Topic, user: &UserId) -> Vec<u8> {
        let mut key = members(of);
        key.extend_from_slice(user.as_str().as_bytes());
        key
    }
    /// In tables that have one row for each user.
    pub fn user(user: &UserId) -> Vec<u8> {
        user.as_str().as_bytes().to_vec()
    }
    /// Names a user's state map without saying whose it is.
    pub fn erased_state(of: &UserId) -> Vec<u8> {
        let mut key = feed(&FeedId::User(of.clone()));
        key.extend_from_slice(b"state");
        xxhash_rust::xxh3::xxh3_128(&key).to_be_bytes().to_vec()
    }
    /// Names a feed without saying whose it is.
    pub fn erased(of: &FeedId) -> Vec<u8> {
        xxhash_rust::xxh3::xxh3_128(&feed(of)).to_be_bytes().to_vec()
    }
    /// The first key after every key that begins with `prefix`.
    pub fn after(prefix: &[u8]) -> Vec<u8> {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return end;
            }
        }
        vec![0xff; 300]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        Record {
            notification: Arc::new(Notification {
                id: NotificationId::new("n-1").unwrap(),
                time: Timestamp(5),
                subject: Some("s".into()),
                data: Bytes::from_static(b"{}"),
                audience: Audience::Topics(vec![Topic::new("t").unwrap()]),
                exclude: vec![UserId::new("eve").unwrap()],
                durability: Durability::Stored,
                expires_at: Some(Timestamp(9)),
                deliver_at: None,
                collapse_key: Some("k".into()),
                policy: None,
                devices: Devices::First,
                publisher: "test".into(),
            }),
            content: 7,
            cancelled_at: Some(Timestamp(8)),
            kept_from: Timestamp(6),
            bodiless: true,
            home: None,
            scheduled: true,
            recipients: None,
            placements: vec![(
                FeedId::Topic(Topic::new("t").unwrap()),
                Position {
                    epoch: Epoch(1),
                    offset: 2,
                },
            )],
        }
    }

    #[test]
    fn records_read_back_and_any_cut_is_an_error() {
        let record = sample();
        let bytes = record.encode();
        let id = &record.notification.id;
        assert_eq!(Record::decode(id, &bytes).unwrap(), record);
        for cut in 0..bytes.len() {
            assert!(Record::decode(id, &bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes;
        newer[0] = VERSION + 1;
        assert!(matches!(
            Record::decode(id, &newer),
            Err(StoreFault::Newer { .. })
        ));
    }

    #[test]
    fn what_stands_whole_in_an_entry_reads_back_and_any_cut_is_an_error() {
        let (user, epoch, offset) = (UserId::new("ada").unwrap(), Epoch(3), 9);
        let home = (user.clone(), Position { epoch, offset });
        let record = Record {
            home: Some(home.clone()),
            ..sample()
        };
        let bytes = record.encode_entry(epoch);
        assert_eq!(
            Record::of_entry(&bytes, &user, offset).unwrap(),
            Some(record.clone())
        );
        let entry = EntryRecord::decode(&bytes).unwrap();
        let id = record.notification.id.clone();
        let kind = EntryKindRecord::Notification { id, withdrawn: None };
        assert_eq!(entry, EntryRecord { epoch, kind });
        assert_eq!(Record::of_entry(&entry.encode(), &user, offset).unwrap(), None);
        for cut in 0..bytes.len() {
            assert!(
                Record::of_entry(&bytes[..cut], &user, offset).is_err(),
                "cut at {cut}"
            );
        }
        let bytes = Held::encode_home(&home);
        assert_eq!(Held::home(&bytes).unwrap(), Some(home));
        assert_eq!(Held::home(&record.encode()).unwrap(), None);
        for cut in 0..bytes.len() {
            assert!(Held::home(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_follows_a_value_is_damage() {
        let longer = |bytes: Vec<u8>| [&bytes[..], b"\0"].concat();
        let record = sample();
        let id = record.notification.id.clone();
        let user = UserId::new("ada").unwrap();
        let kind = EntryKindRecord::Notification {
            id: id.clone(),
            withdrawn: None,
        };
        let entry = EntryRecord {
            epoch: Epoch(3),
            kind,
        };
        let letter = LetterRecord {
            notification: Some(id.clone()),
            user: None,
            reason: DeadReason::Overflow,
            source: "test".into(),
            attempts: 4,
            time: Timestamp(3),
            raw: None,
        };
        let mark = Mark {
            offset: 9,
            from: 3,
            kind: MarkKind::Delivered,
            time: Timestamp(1),
            session: None,
            transport: None,
            why: String::new(),
        };
        assert!(Record::decode(&id, &longer(record.encode())).is_err());
        assert!(Record::of_entry(&longer(record.encode_entry(Epoch(3))), &user, 9).is_err());
        assert!(EntryRecord::decode(&longer(entry.encode())).is_err());
        assert!(LetterRecord::decode(&longer(letter.encode())).is_err());
        assert!(decode_mark(9, mark.kind, &longer(encode_mark(&mark))).is_err());
        assert!(Held::decode(&id, &longer(Held::encode_home(&(user, Position::START)))).is_err());
    }

    #[test]
    fn keys_of_a_prefix_end_before_after() {
        assert_eq!(key::after(b"ab"), b"ac");
        assert_eq!(key::after(&[1, 0xff]), [2]);
        let all = key::recipients(&NotificationId::new("a").unwrap());
        let other = key::recipients(&NotificationId::new("a.b").unwrap());
        assert!(!other.starts_with(&all));
    }

    proptest::proptest! {
        /// Whatever a disk makes of a value, reading it is an answer or an error.
        #[test]
        fn damage_never_panics(cut in 0usize..400, flips in proptest::collection::vec((0usize..400, 0u8..8), 0..6)) {
            let record = sample();
            let id = record.notification.id.clone();
            let ids = vec![id.clone(), NotificationId::new("n-2").unwrap()];
            let origin = Some(SessionId::new("s").unwrap());
            let kinds = [
                EntryKindRecord::Notification { id: id.clone(), withdrawn: Some(WithdrawReason::Taken) },
                EntryKindRecord::Read { ids, origin: origin.clone() },
                EntryKindRecord::Withdrawn { id: id.clone(), target: 4, reason: WithdrawReason::Expired, origin: origin.clone() },
            ];
            let mark = Mark {
                offset: 9,
                from: 3,
                kind: MarkKind::Delivered,
                time: Timestamp(1),
                session: origin,
                transport: Some(Transport::Sse),
                why: "pong".into(),
            };
            proptest::prop_assert_eq!(&decode_mark(9, mark.kind, &encode_mark(&mark)).unwrap(), &mark);
            let mut values = vec![record.encode(), encode_mark(&mark), encode_range(&mark)];
            for kind in kinds {
                let entry = EntryRecord { epoch: Epoch(3), kind };
                proptest::prop_assert_eq!(&EntryRecord::decode(&entry.encode()).unwrap(), &entry);
                values.push(entry.encode());
            }
            let letter = LetterRecord {
                notification: Some(id.clone()),
                user: Some(UserId::new("ada").unwrap()),
                reason: DeadReason::Overflow,
                source: "test".into(),
                attempts: 4,
                time: Timestamp(3),
                raw: Some(Bytes::from_static(b"raw")),
            };
            proptest::prop_assert_eq!(&LetterRecord::decode(&letter.encode()).unwrap(), &letter);
            values.push(letter.encode());
            values.push(record.encode_entry(Epoch(3)));
            let ada = UserId::new("ada").unwrap();
            values.push(Held::encode_home(&(ada.clone(), Position::START)));
            for mut value in values {
                value.truncate(cut);
                for (at, bit) in &flips {
                    if let Some(byte) = value.get_mut(*at) {
                        *byte ^= 1 << bit;
                    }
                }
                drop(Record::decode(&id, &value));
                drop(EntryRecord::decode(&value));
                drop(Record::of_entry(&value, &ada, 1));
                drop(Held::decode(&id, &value));
                drop(LetterRecord::decode(&value));
                drop(decode_mark(1, MarkKind::Read, &value));
                drop(FeedId::read_key(&value));
            }
        }
    }
}
