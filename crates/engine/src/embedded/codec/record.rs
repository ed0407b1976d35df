//! A notification as it is stored: under its id, or whole in the entry of its one recipient.

use super::{Reader, Writer};
use crate::embedded::StoreFault;
use bytes::Bytes;
use postrider_model::{
    Audience, Devices, Durability, Epoch, FeedId, Notification, NotificationId, Position, Timestamp, Topic,
    UserId,
};
use std::sync::Arc;

/// The bits of a record's first byte.
const SCHEDULED: u8 = 1;
const FIRST_DEVICE: u8 = 2;
const BODILESS: u8 = 4;
/// In place of a record: where it stands whole.
const AT_HOME: u8 = 0x80;
/// The kind of an entry in which a notification stands whole.
pub(super) const WHOLE: u8 = 4;

/// What is stored under a notification's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct Record {
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
pub(in crate::embedded) type Home = (UserId, Position);

/// What stands under a notification's id.
#[derive(Debug)]
pub(in crate::embedded) enum Held {
    Record(Box<Record>),
    Home(Home),
}

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
        let kept_from = if r.version() < 2 { None } else { Some(stamp(r)?) };
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
