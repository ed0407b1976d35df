//! Whose a row is, and so where it lies.
//!
//! Every row has one *owner*: a user, a wide feed, a notification, a request; else the row itself. The owner says in
//! which cell the row lies, and under which stamp: whoever changes a row changes its owner's stamp, and whoever rests
//! on a row rests on that stamp.
//!
//! Invariant: the owner is a function of table and key alone, and never changes: it is part of what is stored. All
//! that a user's sessions read of the user's own feed (entries, floors, marks, attempts, stays) is the user's, and so
//! lies in one cell.
//!
//! Two owners may share a stamp; then they take each other's changes for their own, and do a little work again.

use super::links::{CELLS, Cell};
use crate::embedded::store::Table;
use postrider_model::{FeedId, FeedKind};
use xxhash_rust::xxh3::xxh3_64;

/// Stamps of one cell: 4 bytes each, in one string. Part of what is stored. With so many, two nodes that each write
/// 500 owners at once mistake each other about once in 16 times.
pub(super) const BUCKETS: u64 = 1 << 16;

/// Where the stamp of an owner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner {
    pub cell: Cell,
    pub bucket: u16,
}

/// The kinds of owner, as they are hashed. Never to be numbered anew.
#[derive(Clone, Copy)]
enum Kind {
    User = 1,
    WideFeed = 2,
    Notification = 3,
    Request = 4,
    Row = 5,
}

impl Owner {
    fn of(kind: Kind, name: &[u8]) -> Owner {
        Owner::hashed(&[&[kind as u8], name])
    }

    fn row(table: Table, key: &[u8]) -> Owner {
        Owner::hashed(&[&[Kind::Row as u8, table as u8], key])
    }

    /// The one of a feed given by its kind and name.
    fn feed(kind: FeedKind, name: &[u8]) -> Owner {
        match kind {
            FeedKind::User => Owner::of(Kind::User, name),
            FeedKind::All | FeedKind::Topic => Owner::hashed(&[&[Kind::WideFeed as u8, kind as u8], name]),
        }
    }

    fn hashed(parts: &[&[u8]]) -> Owner {
        let hash = xxh3_64(&parts.concat());
        Owner {
            cell: Cell((hash % u64::from(CELLS)) as u8),
            bucket: (hash / u64::from(CELLS) % BUCKETS) as u16,
        }
    }
}

/// How a table's keys name their owner.
enum Form {
    /// A feed, up to and with its closing zero.
    Feed,
    /// A user, closed by a zero.
    User,
    /// A notification's id, closed by a zero.
    Notification,
    /// The whole key is the name of one of these.
    Whole(Kind),
    /// A feed, then a user, whose it is.
    UserAfterFeed,
    /// A topic, closed by a zero, then a user, whose it is.
    UserAfterTopic,
    /// A time, a kind, a notification's id up to a zero or the end.
    Due,
    /// A stage, a time, and what grows old.
    Age,
    /// Nobody's: the row's own.
    Own,
}

fn form(table: Table) -> Form {
    match table {
        Table::Entries
        | Table::Feeds
        | Table::Dropped
        | Table::Collapse
        | Table::Firsts
        | Table::Past
        | Table::Sizes => Form::Feed,
        Table::Floors | Table::Marks | Table::Ranges | Table::Attempts | Table::Opens | Table::LettersOf => {
            Form::User
        }
        Table::Recipients | Table::LetterFor => Form::Notification,
        Table::Notifications => Form::Whole(Kind::Notification),
        Table::Users | Table::Memberships | Table::States => Form::Whole(Kind::User),
        Table::Requests => Form::Whole(Kind::Request),
        Table::Settlers => Form::UserAfterFeed,
        Table::Members => Form::UserAfterTopic,
        Table::Due => Form::Due,
        Table::Ages => Form::Age,
        Table::Meta | Table::Letters | Table::Erased | Table::Topics => Form::Own,
    }
}

/// Whose a row is. A key that has not the form of its table is its own.
pub(super) fn owner_of(table: Table, key: &[u8]) -> Owner {
    named(table, key).unwrap_or_else(|| Owner::row(table, key))
}

fn named(table: Table, key: &[u8]) -> Option<Owner> {
    Some(match form(table) {
        Form::Feed => feed(key)?.0,
        Form::User => Owner::of(Kind::User, closed(key)?.0),
        Form::Notification => Owner::of(Kind::Notification, closed(key)?.0),
        Form::Whole(kind) => Owner::of(kind, key),
        Form::UserAfterFeed => Owner::of(Kind::User, feed(key)?.1),
        Form::UserAfterTopic => Owner::of(Kind::User, closed(key)?.1),
        Form::Due => {
            let id = key.get(9..)?;
            Owner::of(Kind::Notification, closed(id).map_or(id, |(id, _)| id))
        }
        Form::Age => match (*key.first()?, key.get(9..)?) {
            (1 | 2, id) => Owner::of(Kind::Notification, id),
            (3, request) => Owner::of(Kind::Request, request),
            (4, of) => feed(of)?.0,
            _ => return None,
        },
        Form::Own => return None,
    })
}

/// The owner of every row of `from..to`, if they have one in common.
pub(super) fn owner_of_range(table: Table, from: &[u8], to: &[u8]) -> Option<Owner> {
    if is_one_key(from, to) {
        return Some(owner_of(table, from));
    }
    let (owner, prefix) = match form(table) {
        Form::Feed => {
            let (owner, rest) = feed(from)?;
            (owner, from.len() - rest.len())
        }
        Form::User => (owner_of(table, from), closed(from)?.0.len() + 1),
        Form::Notification => (owner_of(table, from), closed(from)?.0.len() + 1),
        _ => return None,
    };
    // The prefix ends in a zero: the first key after all that begin with it ends in a one there.
    let mut end = from[..prefix].to_vec();
    *end.last_mut()? = 1;
    (to <= end.as_slice()).then_some(owner)
}

/// Whether `from..to` holds no key but `from`.
pub(super) fn is_one_key(from: &[u8], to: &[u8]) -> bool {
    to.split_last() == Some((&0, from))
}

/// The sharded channel on which news of a feed is told: in the cell of the feed's rows.
pub(super) fn channel(of: &FeedId) -> (Cell, Vec<u8>) {
    let mut key = Vec::with_capacity(64);
    of.write_key(&mut key);
    let cell = owner_of(Table::Feeds, &key).cell;
    (cell, cell.key(&format!("feed:{of}")))
}

/// A feed's owner, and what follows the feed.
fn feed(key: &[u8]) -> Option<(Owner, &[u8])> {
    let (kind, name, rest) = FeedId::split_key(key)?;
    Some((Owner::feed(kind, name.as_bytes()), rest))
}

/// What stands before the first zero, and what follows it.
fn closed(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = key.iter().position(|byte| *byte == 0)?;
    Some((&key[..at], &key[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::codec::key;
    use postrider_model::{Millis, NotificationId, Timestamp, Topic, UserId};
    use proptest::prelude::*;

    const AT: Timestamp = Timestamp(0x0100_00ff);

    fn ada() -> UserId {
        UserId::new("ada").unwrap()
    }

    /// Every form of key that there is, with its owner.
    fn forms(user: &UserId, topic: &Topic, id: &NotificationId, offset: u64) -> Vec<(Table, Vec<u8>, Owner)> {
        let own = FeedId::User(user.clone());
        let (wide, all) = (FeedId::Topic(topic.clone()), FeedId::All);
        let of_user = Owner::of(Kind::User, user.as_str().as_bytes());
        let of_id = Owner::of(Kind::Notification, id.as_str().as_bytes());
        let of_topic = Owner::hashed(&[&[2, 2], topic.as_str().as_bytes()]);
        let of_all = Owner::hashed(&[&[2, 1]]);
        let id_key = id.as_str().as_bytes().to_vec();
        let mut forms = Vec::new();
        for (feed, owner) in [(&own, of_user), (&wide, of_topic), (&all, of_all)] {
            forms.extend([
                (Table::Entries, key::entry(feed, offset), owner),
                (Table::Feeds, key::feed(feed), owner),
                (Table::Dropped, key::entry(feed, offset), owner),
                (Table::Collapse, key::collapse(feed, "k"), owner),
                (Table::Firsts, key::entry(feed, offset), owner),
                (Table::Past, key::entry(feed, offset), owner),
                (Table::Past, key::unplaced(feed, id), owner),
                (Table::Sizes, key::feed(feed), owner),
                (Table::Ages, key::age(4, AT, &key::feed(feed)), owner),
                (Table::Floors, key::floor(user, feed, 1), of_user),
                (Table::Marks, key::mark(user, feed, offset, 2), of_user),
                (Table::Ranges, key::range(user, feed, offset), of_user),
                (Table::Attempts, key::range(user, feed, offset), of_user),
                (Table::Opens, key::range(user, feed, offset), of_user),
                (Table::Settlers, key::settler(feed, user), of_user),
            ]);
        }
        forms.extend([
            (Table::LettersOf, key::letter_of(user, offset), of_user),
            (Table::Users, key::user(user), of_user),
            (Table::Memberships, key::user(user), of_user),
            (Table::States, key::user(user), of_user),
            (Table::Members, key::member(topic, user), of_user),
            (Table::Notifications, id_key.clone(), of_id),
            (Table::Recipients, key::recipient(id, user), of_id),
            (Table::LetterFor, key::recipient(id, user), of_id),
            (Table::Due, key::due(AT, 2, id), of_id),
            (Table::Due, key::give_up(AT, 3, id, user), of_id),
            (Table::Ages, key::age(1, AT, &id_key), of_id),
            (Table::Ages, key::age(2, AT, &id_key), of_id),
            (Table::Requests, b"r".to_vec(), Owner::of(Kind::Request, b"r")),
            (Table::Ages, key::age(3, AT, b"r"), Owner::of(Kind::Request, b"r")),
        ]);
        let cohort = key::cohort(5, Millis(9), AT, offset);
        for (table, key) in [
            (Table::Ages, cohort),
            (Table::Letters, offset.to_be_bytes().to_vec()),
            (Table::Erased, key::erased(&own)),
            (Table::Topics, topic.as_str().as_bytes().to_vec()),
            (Table::Meta, b"counts".to_vec()),
        ] {
            let owner = Owner::row(table, &key);
            forms.push((table, key, owner));
        }
        forms
    }

    #[test]
    fn every_form_of_key_has_its_owner() {
        let (topic, id) = (Topic::new("t").unwrap(), NotificationId::new("n-1").unwrap());
        let forms = forms(&ada(), &topic, &id, 0x0100);
        for (table, key, owner) in &forms {
            assert_eq!(owner_of(*table, key), *owner, "{} {key:?}", table.name());
        }
        for table in Table::ALL {
            assert!(forms.iter().any(|(one, ..)| one == table), "{}", table.name());
        }
    }

    #[test]
    fn where_owners_lie_never_changes() {
        let place = |table, key: &[u8]| {
            let owner = owner_of(table, key);
            (owner.cell.0, owner.bucket)
        };
        let feed = key::feed(&FeedId::User(ada()));
        assert_eq!(place(Table::Users, b"ada"), place(Table::Feeds, &feed));
        let places = [
            place(Table::Users, b"ada"),
            place(Table::Notifications, b"n-1"),
            place(Table::Feeds, &key::feed(&FeedId::All)),
            place(Table::Requests, b"r"),
            place(Table::Meta, b"counts"),
        ];
        assert_eq!(places, PLACES);
        let (cell, channel) = channel(&FeedId::User(ada()));
        assert_eq!(cell.0, PLACES[0].0);
        assert_eq!(channel, format!("{}:feed:user/ada", cell.tag()).into_bytes());
    }

    const PLACES: [(u8, u16); 5] = [(37, 41089), (3, 50573), (56, 20413), (35, 35749), (21, 55841)];

    #[test]
    fn a_range_of_one_owner_is_known_as_such() {
        let (own, topic) = (FeedId::User(ada()), Topic::new("t").unwrap());
        let id = NotificationId::new("n-1").unwrap();
        let of = |table, prefix: &[u8]| owner_of_range(table, prefix, &key::after(prefix));
        let ada = Some(Owner::of(Kind::User, b"ada"));
        assert_eq!(of(Table::Entries, &key::feed(&own)), ada);
        assert_eq!(of(Table::Marks, &key::user_feed(&self::ada(), &FeedId::All)), ada);
        assert_eq!(of(Table::Marks, b"ada\0"), ada);
        assert_eq!(
            owner_of_range(Table::Entries, &key::entry(&own, 3), &key::entry(&own, 9)),
            ada
        );
        let of_id = Some(Owner::of(Kind::Notification, b"n-1"));
        assert_eq!(of(Table::Recipients, &key::recipients(&id)), of_id);
        // One key, whatever the table.
        assert_eq!(owner_of_range(Table::Members, b"t\0ada", b"t\0ada\0"), ada);
        // More than one owner, or perhaps.
        assert_eq!(of(Table::Members, &key::members(&topic)), None);
        assert_eq!(of(Table::Settlers, &key::feed(&FeedId::All)), None);
        assert_eq!(owner_of_range(Table::Due, &[], &[0xff; 16]), None);
        assert_eq!(
            owner_of_range(Table::Entries, &key::feed(&own), &[0xff; 300]),
            None
        );
        assert_eq!(of(Table::Marks, b"ada"), None);
        assert_eq!(owner_of_range(Table::Notifications, b"n", b"o"), None);
    }

    proptest! {
        /// All that is a user's own lies in one cell, under one stamp.
        #[test]
        fn what_is_a_users_lies_together(name in "[a-z0-9._-]{1,20}", offset in any::<u64>()) {
            let user = UserId::new(&name).unwrap();
            let (topic, id) = (Topic::new("t").unwrap(), NotificationId::new("n").unwrap());
            let of_user = Owner::of(Kind::User, name.as_bytes());
            for (table, key, owner) in forms(&user, &topic, &id, offset) {
                prop_assert_eq!(owner_of(table, &key), owner);
                let is_users = matches!(
                    table,
                    Table::Floors | Table::Marks | Table::Ranges | Table::Attempts | Table::Opens | Table::Settlers
                        | Table::LettersOf | Table::Users | Table::Memberships | Table::States | Table::Members
                );
                if is_users {
                    prop_assert_eq!(owner, of_user);
                }
            }
        }

        /// Whatever the range says of its owner is true of every key in it.
        #[test]
        fn a_range_of_one_owner_has_no_other(
            table in 0..Table::ALL.len(),
            keys in proptest::collection::vec(proptest::collection::vec(prop_oneof![
                Just(0u8), Just(1), Just(2), Just(3), Just(b'a'), Just(b'b'), Just(0xff)
            ], 0..12), 3),
        ) {
            let table = Table::ALL[table];
            let (from, to, key) = (&keys[0], &keys[1], &keys[2]);
            if let Some(owner) = owner_of_range(table, from, to) && key >= from && key < to {
                prop_assert_eq!(owner_of(table, key), owner);
            }
        }
    }
}
