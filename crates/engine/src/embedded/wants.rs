//! What commands and chores are about to read, as far as that can be said before they begin: a store that is far
//! away brings it in one go. What is missing here costs time, never an answer: it is read when it is asked for.

use super::StoreFault;
use super::codec::{EntryKindRecord, EntryRecord, Record, key};
use super::job::Job;
use super::rules::Rules;
use super::store::{Table, View, Wanted};
use super::tables::{self, ALL_ROWS, FLOOR_DELIVERED, FLOOR_JOINED, FLOOR_READ, Stage};
use super::writer::Command;
use postrider_model::{
    Evidence, FeedId, Millis, NotificationId, Publication, SettleKind, SettleTarget, Settlement, Timestamp,
    Topic, UserId,
};

/// Entries of one feed that are brought for a settlement at most; more are read in the next step of it.
const MAX_AHEAD: u64 = 2048;
/// Entries above an acknowledged one that are brought: the floor may move over them.
const ABOVE: usize = 16;
/// After whatever becomes due at any time.
pub(super) const END_OF_DUE: [u8; 16] = [0xff; 16];
/// Settlements for which all is brought before.
const SETTLEMENTS_AHEAD: usize = 64;

/// What the first of these jobs read, as far as they go with so much room.
pub(super) fn of_jobs<'j>(jobs: impl Iterator<Item = &'j Job>, room: usize, rules: &Rules) -> Vec<Wanted> {
    let (mut wanted, mut used) = (Vec::new(), 0);
    for job in jobs {
        if used >= room || job.is_tick() {
            break;
        }
        used += of_command(job.command(), job.done_so_far(), room - used, rules, &mut wanted).max(1);
    }
    wanted
}

/// What a command reads first; returns how much of a transaction that is.
fn of_command(command: &Command, done: usize, room: usize, rules: &Rules, wanted: &mut Vec<Wanted>) -> usize {
    let mut used = 0;
    match command {
        Command::Publish(batch, _) => {
            for publication in batch.iter().skip(done) {
                if used >= room {
                    break;
                }
                used += publication.feeds.len().max(1);
                of_publication(publication, rules, wanted);
            }
        }
        Command::Settle(batch, ..) => {
            for settlement in batch.iter().skip(done).take(room) {
                used += 1;
                of_settlement(settlement, wanted);
            }
        }
        Command::Attempt(batch) => {
            for attempt in batch.iter().skip(done).take(room) {
                used += 1;
                let (user, feed, offset) = (&attempt.user, &attempt.feed, attempt.offset);
                get(wanted, Table::Attempts, key::range(user, feed, offset));
                of_place(user, feed, offset, offset, wanted);
            }
        }
        Command::Cancel(id, _) => {
            of_notification(id, wanted);
            prefix(wanted, Table::Recipients, key::recipients(id));
        }
        Command::ChangeState(user, ..) => of_state(user, wanted),
        Command::PutUsers(batch, _) => {
            for put in batch.iter().skip(done).take(room) {
                used += 1;
                of_user(&put.user, put.topics.as_deref().unwrap_or_default(), wanted);
            }
        }
        Command::ChangeMembers(batch, _) => {
            for change in batch.iter().skip(done).take(room) {
                used += 1;
                of_user(&change.user, std::slice::from_ref(&change.topic), wanted);
            }
        }
        _ => {}
    }
    used
}

fn of_publication(publication: &Publication, rules: &Rules, wanted: &mut Vec<Wanted>) {
    if let Some(request) = &publication.request {
        get(wanted, Table::Requests, request.key.as_bytes().to_vec());
    }
    let notification = &publication.notification;
    get(
        wanted,
        Table::Notifications,
        notification.id.as_str().as_bytes().to_vec(),
    );
    for feed in &publication.feeds {
        of_span(feed, wanted);
        if let Some(collapse_key) = &notification.collapse_key {
            get(wanted, Table::Collapse, key::collapse(feed, collapse_key));
        }
        if rules.bytes_per_feed > 0 {
            get(wanted, Table::Sizes, key::feed(feed));
        }
    }
}

fn of_settlement(settlement: &Settlement, wanted: &mut Vec<Wanted>) {
    let user = &settlement.user;
    match &settlement.target {
        SettleTarget::Ids(ids) => {
            for id in ids {
                of_notification(id, wanted);
                get(wanted, Table::Recipients, key::recipient(id, user));
            }
        }
        SettleTarget::Through(places) => {
            for (feed, position) in places {
                of_span(feed, wanted);
                get(wanted, Table::Entries, key::entry(feed, position.offset));
                of_floors(user, feed, wanted);
            }
            if settlement.evidence == Evidence::Client && settlement.kind == SettleKind::Delivered {
                prefix(wanted, Table::LettersOf, key::letters_of(user));
            }
        }
    }
}

/// What a step of a command reads, by what was read of it so far.
pub(super) fn go_on(command: &Command, view: &dyn View) -> Result<(), StoreFault> {
    let Command::Settle(batch, ..) = command else {
        return Ok(());
    };
    // Where that cannot be read the step itself says so.
    let mut wanted = Vec::new();
    for settlement in batch.iter().take(SETTLEMENTS_AHEAD) {
        let user = &settlement.user;
        for (feed, from, to) in stretches(settlement, view).unwrap_or_default() {
            of_span(&feed, &mut wanted);
            of_floors(user, &feed, &mut wanted);
            of_place(user, &feed, from, to, &mut wanted);
            if let FeedId::Topic(_) = feed {
                get(&mut wanted, Table::Memberships, key::user(user));
            }
        }
    }
    view.prefetch(&wanted)?;
    let ids = bodies(batch, view).unwrap_or_default();
    let mut wanted = Vec::new();
    ids.iter().for_each(|id| of_notification(id, &mut wanted));
    view.prefetch(&wanted)
}

/// Which parts of which feeds a settlement walks over.
fn stretches(settlement: &Settlement, view: &dyn View) -> Result<Vec<(FeedId, u64, u64)>, StoreFault> {
    let user = &settlement.user;
    let kind = match settlement.kind {
        SettleKind::Read => FLOOR_READ,
        SettleKind::Delivered => FLOOR_DELIVERED,
    };
    let mut stretches = Vec::new();
    match &settlement.target {
        SettleTarget::Through(places) => {
            for (feed, position) in places {
                let floor = tables::floor(view, user, feed, kind)?;
                let to = position.offset.min(floor.saturating_add(MAX_AHEAD));
                if to > floor {
                    stretches.push((feed.clone(), floor + 1, to));
                }
            }
        }
        SettleTarget::Ids(ids) => {
            for id in ids {
                let own = FeedId::User(user.clone());
                let at = match tables::home(view, id)? {
                    Some((of, position)) => (of == *user).then_some((own, position.offset)),
                    None => place_of(view, id, user)?,
                };
                let stretch = at.map(|(feed, at)| (feed, at, at.saturating_add(ABOVE as u64)));
                stretches.extend(stretch);
            }
        }
    }
    Ok(stretches)
}

fn place_of(
    view: &dyn View,
    id: &NotificationId,
    user: &UserId,
) -> Result<Option<(FeedId, u64)>, StoreFault> {
    if let Some(position) = tables::recipient(view, id, user)? {
        return Ok(Some((FeedId::User(user.clone()), position.offset)));
    }
    let Some(value) = view.get(Table::Notifications, id.as_str().as_bytes())? else {
        return Ok(None);
    };
    let record = Record::decode(id, &value)?;
    let first = record.placements.first();
    Ok(first.map(|(feed, position)| (feed.clone(), position.offset)))
}

/// The notifications, among what a settlement walks over, that have rows of their own.
fn bodies(batch: &[Settlement], view: &dyn View) -> Result<Vec<NotificationId>, StoreFault> {
    let mut ids = Vec::new();
    for settlement in batch.iter().take(SETTLEMENTS_AHEAD) {
        for (feed, from, to) in stretches(settlement, view)? {
            let (from, end) = (key::entry(&feed, from), key::entry(&feed, to.saturating_add(1)));
            let rows = view.scan(Table::Entries, &from, &end, ALL_ROWS)?;
            ids.extend(rows.iter().filter_map(|(_, value)| id_of(value)));
        }
    }
    Ok(ids)
}

/// The notification that an entry names.
fn id_of(value: &[u8]) -> Option<NotificationId> {
    match EntryRecord::decode(value).ok()?.kind {
        EntryKindRecord::Notification { id, .. } => Some(id),
        EntryKindRecord::Read { .. } | EntryKindRecord::Withdrawn { .. } => None,
    }
}

/// What the notifications are that these entries name.
pub(super) fn of_bodies(rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for id in ids_of(rows) {
        of_notification(&id, &mut wanted);
    }
    wanted
}

/// The notifications that these entries name.
pub(super) fn ids_of(rows: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = NotificationId> + '_ {
    rows.iter().filter_map(|(_, value)| id_of(value))
}

/// What is due, so many rows of it, and what is next; and the oldest cohorts.
pub(super) fn of_chores(now: Timestamp, age: Millis, window: usize) -> Vec<Wanted> {
    let until = now.0.saturating_add(1).to_be_bytes();
    let mut wanted = vec![
        Wanted::Scan(Table::Due, Vec::new(), until.to_vec(), window),
        Wanted::Scan(Table::Due, until.to_vec(), END_OF_DUE.to_vec(), 1),
    ];
    wanted.extend(of_cohorts(age));
    wanted
}

/// The oldest cohorts.
pub(super) fn of_cohorts(age: Millis) -> Vec<Wanted> {
    let cohort = Stage::Cohort as u8;
    let mut wanted = vec![Wanted::Scan(Table::Ages, vec![cohort], vec![cohort + 1], 1)];
    // Cohorts have one of these times to live, but where `age` was changed.
    for span in [age.0, u64::MAX] {
        let span = [&[cohort], &span.to_be_bytes()[..]].concat();
        wanted.push(Wanted::Scan(Table::Ages, key::after(&span), vec![cohort + 1], 1));
    }
    wanted
}

/// What is known of these notifications, and so many recipients of each.
pub(super) fn of_records(ids: &[NotificationId], recipients: usize) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for id in ids {
        of_notification(id, &mut wanted);
        let prefix = key::recipients(id);
        let end = key::after(&prefix);
        for table in [Table::Recipients, Table::LetterFor] {
            wanted.push(Wanted::Scan(table, prefix.clone(), end.clone(), recipients));
        }
    }
    wanted
}

/// Where a feed stands.
pub(super) fn of_span(feed: &FeedId, wanted: &mut Vec<Wanted>) {
    let from = key::feed(feed);
    let end = key::after(&from);
    get(wanted, Table::Feeds, from.clone());
    get(wanted, Table::Erased, key::erased(feed));
    wanted.push(Wanted::Last(Table::Entries, from, end));
}

/// Where a user stands in a feed.
pub(super) fn of_standing(user: &UserId, feed: &FeedId, wanted: &mut Vec<Wanted>) {
    of_span(feed, wanted);
    of_floors(user, feed, wanted);
    let end = key::after(&key::user_feed(user, feed));
    wanted.push(Wanted::Scan(Table::Opens, key::range(user, feed, 0), end, 1));
}

fn of_floors(user: &UserId, feed: &FeedId, wanted: &mut Vec<Wanted>) {
    for kind in [FLOOR_DELIVERED, FLOOR_READ, FLOOR_JOINED] {
        get(wanted, Table::Floors, key::floor(user, feed, kind));
    }
    if feed.is_wide() {
        get(wanted, Table::Settlers, key::settler(feed, user));
    }
}

/// What stands at `from..=to` of a feed, and what is recorded for a user there.
pub(super) fn of_place(user: &UserId, feed: &FeedId, from: u64, to: u64, wanted: &mut Vec<Wanted>) {
    let entries = (key::entry(feed, from), key::entry(feed, to.saturating_add(1)));
    wanted.push(Wanted::Scan(Table::Entries, entries.0, entries.1, ALL_ROWS));
    of_word(user, feed, from, to, wanted);
}

/// What is recorded of what stands there.
pub(super) fn of_word(user: &UserId, feed: &FeedId, from: u64, to: u64, wanted: &mut Vec<Wanted>) {
    let next = to.saturating_add(1);
    let entries = (key::entry(feed, from), key::entry(feed, next));
    for table in [Table::Dropped, Table::Firsts] {
        wanted.push(Wanted::Scan(
            table,
            entries.0.clone(),
            entries.1.clone(),
            ALL_ROWS,
        ));
    }
    let marks = (key::mark(user, feed, from, 0), key::mark(user, feed, next, 0));
    wanted.push(Wanted::Scan(Table::Marks, marks.0, marks.1, ALL_ROWS));
    let own = (key::range(user, feed, from), key::range(user, feed, next));
    for table in [Table::Opens, Table::Attempts] {
        wanted.push(Wanted::Scan(table, own.0.clone(), own.1.clone(), ALL_ROWS));
    }
}

pub(super) fn of_state(user: &UserId, wanted: &mut Vec<Wanted>) {
    get(wanted, Table::States, key::user(user));
    get(wanted, Table::Erased, key::erased_state(user));
}

fn of_user(user: &UserId, topics: &[Topic], wanted: &mut Vec<Wanted>) {
    get(wanted, Table::Users, key::user(user));
    get(wanted, Table::Memberships, key::user(user));
    for topic in topics {
        of_span(&FeedId::Topic(topic.clone()), wanted);
    }
}

pub(super) fn of_notification(id: &NotificationId, wanted: &mut Vec<Wanted>) {
    get(wanted, Table::Notifications, id.as_str().as_bytes().to_vec());
}

pub(super) fn get(wanted: &mut Vec<Wanted>, table: Table, key: Vec<u8>) {
    wanted.push(Wanted::Get(table, key));
}

fn prefix(wanted: &mut Vec<Wanted>, table: Table, prefix: Vec<u8>) {
    let end = key::after(&prefix);
    wanted.push(Wanted::Scan(table, prefix, end, ALL_ROWS));
}
