//! What the nodes that share a store tell one another, as bytes: entries, and who joined or left which topic, and
//! state maps. One [`News`] is about one feed, and goes to those who follow it.
//!
//! Invariant: what is read back is what was written, or an error; any bytes are either. Keeps nothing, sends nothing.

use super::StoreFault;
use super::apply::Told;
use super::codec::people::{decode_state, encode_state};
use super::codec::{Reader, Record, Writer};
use super::store::News;
use crate::{MemberWake, Wake};
use postrider_model::{
    Durability, Entry, EntryKind, Epoch, FeedId, Forms, Notification, NotificationId, Position, SessionId,
    Timestamp, Topic, UserId, WithdrawReason,
};
use std::sync::Arc;

/// Entries, or moves of members, in one piece of news: a listener has one turn for it.
const MAX_ENTRIES: usize = 256;
/// A piece of news takes no more entries once it has so many bytes.
const MAX_BYTES: usize = 64 << 10;
/// Once the news of one transaction have so many bytes, what else was appended is only named: whoever hears that
/// reads it.
const MAX_ALL_BYTES: usize = 512 << 10;

const APPENDED: u8 = 1;
const TRANSIENT: u8 = 2;
const MEMBERS: u8 = 3;
const STATE: u8 = 4;
const NAMED: u8 = 5;

/// What was heard.
#[derive(Debug, Clone)]
pub(crate) enum Heard {
    /// All of it is here.
    Wake(Wake),
    /// These were appended; read them.
    Named { feed: FeedId, from: u64, through: u64 },
}

/// The news of one transaction, in the order in which things came about.
pub(super) fn of_transaction(appended: &[Arc<Entry>], told: &[(usize, Told)]) -> Vec<News> {
    let mut news = Vec::new();
    let (mut done, mut bytes, mut rest) = (0, 0, told);
    while done < appended.len() || !rest.is_empty() {
        match rest.first() {
            Some((after, first)) if *after <= done => {
                let same = |(at, told): &&(usize, Told)| *at == *after && is_of(told, first);
                let count = match first {
                    Told::Member(_) => rest.iter().take_while(same).take(MAX_ENTRIES).count(),
                    Told::State(..) => 1,
                };
                let (now, later) = rest.split_at(count);
                rest = later;
                news.extend(aside(now));
            }
            next => {
                let end = next.map_or(appended.len(), |(after, _)| (*after).min(appended.len()));
                let end = end.max(done + 1);
                let run = run(&appended[done..end]);
                let one = entries(run, bytes >= MAX_ALL_BYTES);
                (done, bytes) = (done + run.len(), bytes + one.payload.len());
                news.push(one);
            }
        }
    }
    news
}

/// The first of these that stand in one feed, as far as one piece of news goes.
fn run(entries: &[Arc<Entry>]) -> &[Arc<Entry>] {
    let mut bytes = 0;
    let is_last = |entry: &Arc<Entry>| {
        bytes += data_bytes(entry);
        bytes > MAX_BYTES || entry.feed != entries[0].feed
    };
    let length = entries.iter().position(is_last).unwrap_or(entries.len());
    &entries[..length.clamp(1, MAX_ENTRIES)]
}

fn data_bytes(entry: &Entry) -> usize {
    entry.notification().map_or(64, |one| one.data.len() + 128)
}

fn is_of(told: &Told, first: &Told) -> bool {
    match (told, first) {
        (Told::Member(one), Told::Member(other)) => one.user == other.user,
        _ => false,
    }
}

fn entries(run: &[Arc<Entry>], only_named: bool) -> News {
    let feed = run[0].feed.clone();
    let out = match only_named {
        true => {
            let (from, through) = (run[0].position.offset, run[run.len() - 1].position.offset);
            let out = Writer::new().u8(NAMED).text(&feed.to_string());
            out.u64(from).u64(through)
        }
        false => {
            let out = Writer::new().u8(APPENDED).text(&feed.to_string());
            out.list(run, |out, entry| write_entry(out, entry))
        }
    };
    News {
        feed,
        payload: out.done(),
    }
}

/// How a transient notification is told on the channel of this feed: this, and its body.
pub(crate) fn transient_head(feed: &FeedId) -> Vec<u8> {
    Writer::new().u8(TRANSIENT).text(&feed.to_string()).done()
}

/// What is the same on all channels.
pub(crate) fn transient_body(notification: &Arc<Notification>) -> Vec<u8> {
    let empty = Writer::new().done().len();
    write_notification(Writer::new(), notification)
        .done()
        .split_off(empty)
}

/// A transient notification, for those who follow this feed.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn transient(feed: &FeedId, notification: &Notification) -> News {
    News {
        feed: feed.clone(),
        payload: [
            transient_head(feed),
            transient_body(&Arc::new(notification.clone())),
        ]
        .concat(),
    }
}

/// News of one user beside entries.
fn aside(told: &[(usize, Told)]) -> Option<News> {
    let (user, payload) = match &told.first()?.1 {
        Told::State(user, state) => {
            let out = Writer::new().u8(STATE).text(user.as_str());
            (user, out.bytes(&encode_state(state)).done())
        }
        Told::Member(first) => {
            let out = Writer::new().u8(MEMBERS).text(first.user.as_str());
            let out = out.list(told, |out, (_, told)| match told {
                Told::Member(one) => out.text(one.topic.as_str()).u8(one.joins.into()).u64(one.at),
                Told::State(..) => out,
            });
            (&first.user, out.done())
        }
    };
    Some(News {
        feed: FeedId::User(user.clone()),
        payload,
    })
}

fn write_entry(out: Writer, entry: &Entry) -> Writer {
    let out = out.u32(entry.position.epoch.0).u64(entry.position.offset);
    let origin = |out: Writer, origin: &Option<SessionId>| {
        out.option(origin.as_ref(), |out, session| out.text(session.as_str()))
    };
    match &entry.kind {
        EntryKind::Notification(notification, withdrawn) => {
            let out = out.u8(1).u8(withdrawn.map_or(0, |reason| reason as u8));
            write_notification(out, notification)
        }
        EntryKind::Read { ids, origin: by } => {
            let out = origin(out.u8(2), by);
            out.list(ids, |out, id| out.text(id.as_str()))
        }
        EntryKind::Withdrawn {
            id,
            target,
            reason,
            origin: by,
        } => origin(out.u8(3).u8(*reason as u8).u64(*target).text(id.as_str()), by),
    }
}

/// Shared, as each of many recipients is told of the same one, which may name all of them.
fn write_notification(out: Writer, notification: &Arc<Notification>) -> Writer {
    let record = Record {
        notification: notification.clone(),
        content: 0,
        cancelled_at: None,
        scheduled: false,
        recipients: None,
        placements: Vec::new(),
        kept_from: Timestamp(0),
        bodiless: false,
        home: None,
    };
    out.text(notification.id.as_str()).bytes(&record.encode())
}

/// Reads what another node, or this one, said.
pub(crate) fn decode(payload: &[u8]) -> Result<Heard, StoreFault> {
    let mut r = Reader::new("news", payload)?;
    let heard = match r.u8()? {
        APPENDED => {
            let feed = r.id(FeedId::parse)?;
            let entries = r.list(|r| read_entry(r, &feed))?;
            let rises = |two: &[Arc<Entry>]| two[0].position.offset < two[1].position.offset;
            if entries.is_empty() || !entries.windows(2).all(rises) {
                return Err(r.corrupt("entries out of order"));
            }
            Heard::Wake(Wake::Appended(entries.into()))
        }
        TRANSIENT => {
            let feed = r.id(FeedId::parse)?;
            let mut notification = read_notification(&mut r)?;
            notification.durability = Durability::Transient;
            let kind = EntryKind::Notification(Arc::new(notification), None);
            let entry = entry(&feed, Position::START, kind);
            Heard::Wake(Wake::Transient([entry].into()))
        }
        MEMBERS => {
            let user = r.id(UserId::new)?;
            let moves = r.list(|r| read_move(r, &user))?;
            Heard::Wake(Wake::Members(moves.into()))
        }
        STATE => {
            let user = r.id(UserId::new)?;
            let state = decode_state(r.bytes()?)?;
            Heard::Wake(Wake::State(user, Arc::new(state)))
        }
        NAMED => {
            let (feed, from, through) = (r.id(FeedId::parse)?, r.u64()?, r.u64()?);
            if from == 0 || through < from {
                return Err(r.corrupt("no stretch of a feed"));
            }
            Heard::Named { feed, from, through }
        }
        _ => return Err(r.corrupt("unknown kind of news")),
    };
    r.end(heard)
}

fn entry(feed: &FeedId, position: Position, kind: EntryKind) -> Arc<Entry> {
    Arc::new(Entry {
        feed: feed.clone(),
        position,
        kind,
        forms: Arc::<Forms>::default(),
    })
}

fn read_entry(r: &mut Reader<'_>, feed: &FeedId) -> Result<Arc<Entry>, StoreFault> {
    let position = Position {
        epoch: Epoch(r.u32()?),
        offset: r.u64()?,
    };
    let kind = match r.u8()? {
        1 => {
            let withdrawn = r.reason()?;
            EntryKind::Notification(Arc::new(read_notification(r)?), withdrawn)
        }
        2 => EntryKind::Read {
            origin: r.option(|r| r.id(SessionId::new))?,
            ids: r.list(|r| r.id(NotificationId::new))?,
        },
        3 => EntryKind::Withdrawn {
            reason: read_reason(r)?,
            target: r.u64()?,
            id: r.id(NotificationId::new)?,
            origin: r.option(|r| r.id(SessionId::new))?,
        },
        _ => return Err(r.corrupt("unknown kind of entry")),
    };
    Ok(entry(feed, position, kind))
}

fn read_reason(r: &mut Reader<'_>) -> Result<WithdrawReason, StoreFault> {
    r.reason()?.ok_or_else(|| r.corrupt("no reason"))
}

fn read_notification(r: &mut Reader<'_>) -> Result<Notification, StoreFault> {
    let id = r.id(NotificationId::new)?;
    let record = Record::decode(&id, r.bytes()?)?;
    Ok(Arc::unwrap_or_clone(record.notification))
}

fn read_move(r: &mut Reader<'_>, user: &UserId) -> Result<MemberWake, StoreFault> {
    Ok(MemberWake {
        topic: r.id(Topic::new)?,
        user: user.clone(),
        joins: match r.u8()? {
            0 => false,
            1 => true,
            _ => return Err(r.corrupt("neither joins nor leaves")),
        },
        at: r.u64()?,
    })
}

/// What was heard, as it is said: for those who check that both agree.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn encode(heard: &Heard) -> Vec<u8> {
    match heard {
        Heard::Named { feed, from, through } => {
            let out = Writer::new().u8(NAMED).text(&feed.to_string());
            out.u64(*from).u64(*through).done()
        }
        Heard::Wake(Wake::Appended(run)) => entries(run, false).payload,
        Heard::Wake(Wake::Transient(one)) => {
            let notification = one
                .first()
                .and_then(|entry| Some((&entry.feed, entry.notification()?)));
            notification.map_or(Vec::new(), |(feed, notification)| {
                transient(feed, notification).payload
            })
        }
        Heard::Wake(Wake::Members(moves)) => {
            let told = moves.iter().map(|one| (0, Told::Member(one.clone())));
            let told: Vec<_> = told.collect();
            aside(&told).map_or(Vec::new(), |news| news.payload)
        }
        Heard::Wake(Wake::State(user, state)) => {
            let told = [(0, Told::State(user.clone(), state.clone()))];
            aside(&told).map_or(Vec::new(), |news| news.payload)
        }
        Heard::Wake(Wake::Missed) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Make;
    use postrider_model::UserState;
    use std::collections::BTreeMap;

    fn notified(feed: &FeedId, offset: u64, data: &str) -> Arc<Entry> {
        let publication = Make::new(format!("n-{offset}"))
            .data(data)
            .ttl(postrider_model::Millis(5));
        let notification = publication.publication(Timestamp(7)).notification;
        let epoch = Epoch(3);
        entry(
            feed,
            Position { epoch, offset },
            EntryKind::Notification(notification, None),
        )
    }

    fn member(user: &UserId, topic: &str, at: u64) -> Told {
        Told::Member(MemberWake {
            topic: Topic::new(topic).unwrap(),
            user: user.clone(),
            joins: at > 1,
            at,
        })
    }

    /// As short texts: what a listener of all feeds hears of it.
    fn heard(news: &[News]) -> Vec<String> {
        let heard = news.iter().map(|one| {
            let heard = decode(&one.payload).unwrap();
            assert_eq!(encode(&heard), one.payload);
            match heard {
                Heard::Wake(Wake::Appended(entries)) => {
                    let places = entries.iter().map(|entry| entry.position.offset.to_string());
                    format!("{} {}", one.feed, places.collect::<Vec<_>>().join(" "))
                }
                Heard::Wake(Wake::Members(moves)) => format!("{} moves {}", one.feed, moves.len()),
                Heard::Wake(Wake::State(user, state)) => format!("{user} {}", state.version()),
                Heard::Wake(wake) => panic!("{wake:?}"),
                Heard::Named { feed, from, through } => format!("{feed} from {from} through {through}"),
            }
        });
        heard.collect()
    }

    #[test]
    fn everything_is_told_once_and_in_order() {
        let user = UserId::new("ada").unwrap();
        let (own, all) = (FeedId::User(user.clone()), FeedId::All);
        let mark = EntryKind::Read {
            ids: vec![NotificationId::new("n-1").unwrap()],
            origin: SessionId::new("s").ok(),
        };
        let gone = EntryKind::Withdrawn {
            id: NotificationId::new("n-1").unwrap(),
            target: 1,
            reason: WithdrawReason::Cancelled,
            origin: None,
        };
        let at = |offset| Position {
            epoch: Epoch(3),
            offset,
        };
        let appended = [
            notified(&own, 1, "{}"),
            entry(&own, at(2), mark),
            notified(&all, 1, "1"),
            entry(&all, at(2), gone),
            notified(&own, 3, "\"x\""),
        ];
        let state = Arc::new(UserState::new(9, BTreeMap::from([("a".into(), "b".into())])));
        let told = [
            (0, member(&user, "a", 1)),
            (0, member(&user, "b", 2)),
            (2, Told::State(user.clone(), state)),
            (2, member(&user, "b", 3)),
            (5, member(&user, "c", 4)),
        ];
        let news = of_transaction(&appended, &told);
        let wanted = [
            "user/ada moves 2",
            "user/ada 1 2",
            "ada 9",
            "user/ada moves 1",
            "all 1 2",
            "user/ada 3",
            "user/ada moves 1",
        ];
        assert_eq!(heard(&news), wanted);
        assert_eq!(of_transaction(&[], &[]), []);
    }

    #[test]
    fn what_is_much_is_cut_and_what_is_too_much_is_only_named() {
        let feed = FeedId::All;
        let many: Vec<_> = (1..=600).map(|n| notified(&feed, n, "{}")).collect();
        let cut = heard(&of_transaction(&many, &[]));
        assert_eq!(cut.len(), 3, "{} at most in one", MAX_ENTRIES);
        let large = "7".repeat(MAX_BYTES);
        let many: Vec<_> = (1..=20).map(|n| notified(&feed, n, &large)).collect();
        let news = of_transaction(&many, &[]);
        let bytes: usize = news.iter().map(|one| one.payload.len()).sum();
        assert!(bytes < MAX_ALL_BYTES + 2 * MAX_BYTES, "{bytes}");
        let told = heard(&news);
        assert_eq!(told[0], "all 1");
        assert_eq!(told.last().unwrap(), "all from 20 through 20");
    }

    #[test]
    fn the_kept_inputs_are_of_every_kind() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/news");
        let kind = |name: &str| match decode(&std::fs::read(format!("{folder}/{name}")).unwrap()) {
            Ok(Heard::Named { .. }) => "named",
            Ok(Heard::Wake(Wake::Appended(entries))) => match entries[0].kind {
                EntryKind::Notification(..) => "appended",
                EntryKind::Read { .. } => "read",
                EntryKind::Withdrawn { .. } => "withdrawn",
            },
            Ok(Heard::Wake(Wake::Transient(_))) => "transient",
            Ok(Heard::Wake(Wake::Members(_))) => "members",
            Ok(Heard::Wake(Wake::State(..))) => "state",
            Ok(Heard::Wake(Wake::Missed)) => "missed",
            Err(_) => "out-of-order",
        };
        for name in [
            "named",
            "appended",
            "read",
            "withdrawn",
            "transient",
            "members",
            "state",
            "out-of-order",
        ] {
            assert_eq!(kind(name), name);
        }
    }

    #[test]
    fn a_transient_one_has_no_place() {
        let make = Make::new("n")
            .users(["ada"])
            .transient()
            .publication(Timestamp(1));
        let said = transient(&make.feeds[0], &make.notification);
        let Heard::Wake(Wake::Transient(heard)) = decode(&said.payload).unwrap() else {
            panic!("something else");
        };
        assert_eq!(heard[0].position, Position::START);
        assert_eq!(heard[0].notification().unwrap().durability, Durability::Transient);
    }
}
