//! The directory: users come and go, join topics and leave them.
//!
//! Invariant: `members` holds who is a member now, as `memberships` says it, and `topics` counts them. What is done for
//! one user is read before anything of it is written, so that a row which cannot be read spoils nobody else's part. Where
//! other nodes write too the counts are not read but added to: many join one topic.

use super::{Apply, Told};
use crate::embedded::codec::people::{UserRecord, encode_memberships};
use crate::embedded::codec::{Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, people, tables};
use crate::{DirectoryError, MemberChange, MemberWake, Put, UserPut};
use postrider_model::{FeedId, Membership, Profile, Topic, UserId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stays of one user in one topic.
const MAX_STAYS: usize = 256;
/// Topics that are remembered of a user. With more, those that hold nothing any more are forgotten though what became
/// of their notifications is still known.
const MAX_REMEMBERED: usize = 1024;
/// Rows looked at in one step where an index is made good.
const STEP: usize = 1000;

/// What a user's joins and leaves come to.
struct Plan {
    memberships: Vec<Membership>,
    moves: Vec<MemberWake>,
    /// How many members these topics have then.
    counts: BTreeMap<Topic, Count>,
}

/// How many members a topic has after something.
#[derive(Clone, Copy)]
enum Count {
    Is(u64),
    /// So many more than whatever it had.
    Grows(i64),
}

impl Count {
    fn moved(self, joins: bool) -> Count {
        let change = if joins { 1 } else { -1 };
        match self {
            Count::Is(count) => Count::Is(count.saturating_add_signed(change)),
            Count::Grows(by) => Count::Grows(by + change),
        }
    }
}

impl Apply<'_> {
    /// Writes a user.
    pub fn put_user(&mut self, put: &UserPut) -> Result<Result<Put, DirectoryError>, StoreFault> {
        let before = people::user(&self.txn, &put.user)?;
        let plan = match self.moves_to(&put.user, put.topics.as_deref())? {
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error)),
        };
        let put_as = match &before {
            None => Put::Created,
            Some(before) if before.profile == put.profile && plan.moves.is_empty() => {
                return Ok(Ok(Put::Same));
            }
            Some(_) => Put::Changed,
        };
        self.put_record_of(&put.user, before, Some(&put.profile));
        self.move_user(&put.user, plan);
        Ok(Ok(put_as))
    }

    /// Joins, or leaves. Says whether that changed anything.
    pub fn change_member(
        &mut self,
        change: &MemberChange,
    ) -> Result<Result<bool, DirectoryError>, StoreFault> {
        let before = people::user(&self.txn, &change.user)?;
        let plan = match self.plan(&change.user, &[(change.topic.clone(), change.joins)])? {
            Ok(plan) if plan.moves.is_empty() => return Ok(Ok(false)),
            Ok(plan) => plan,
            Err(error) => return Ok(Err(error)),
        };
        if change.joins || before.is_some() {
            self.put_record_of(&change.user, before, None);
        }
        self.move_user(&change.user, plan);
        Ok(Ok(true))
    }

    /// Forgets what the directory says of a user, who leaves all topics. False where there was nothing.
    pub fn remove_user(&mut self, user: &UserId) -> Result<bool, StoreFault> {
        let was_known = self.txn.get(Table::Users, user.as_str().as_bytes())?.is_some();
        let none = self.moves_to(user, Some(&[]))?;
        // Nobody is refused to leave.
        let plan = none.unwrap_or(Plan {
            memberships: Vec::new(),
            moves: Vec::new(),
            counts: BTreeMap::new(),
        });
        let left = !plan.moves.is_empty();
        self.move_user(user, plan);
        self.txn.remove(Table::Users, key::user(user));
        Ok(was_known || left)
    }

    /// All that the directory holds of a user goes. True if there was something.
    pub(super) fn erase_from_directory(&mut self, user: &UserId) -> Result<bool, StoreFault> {
        let known = match self.remove_user(user) {
            Err(StoreFault::Corrupt { .. }) => {
                self.leave_by_index(user)?;
                self.txn.remove(Table::Users, key::user(user));
                true
            }
            known => known?,
        };
        let row = key::user(user);
        let was_member = match self.txn.get(Table::Memberships, &row) {
            Ok(row) => row.is_some(),
            Err(StoreFault::Corrupt { .. }) => true,
            Err(fault) => return Err(fault),
        };
        self.txn.remove(Table::Memberships, row);
        self.members = None;
        Ok(known || was_member)
    }

    /// A user whose row cannot be read leaves every topic that counts the user as a member.
    fn leave_by_index(&mut self, user: &UserId) -> Result<(), StoreFault> {
        let mut from = Vec::new();
        loop {
            let rows = self.txn.scan(Table::Topics, &from, &[0xff; 200], STEP)?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            from = [last.as_slice(), &[0]].concat();
            for (row, _) in rows {
                let topic = std::str::from_utf8(&row)
                    .ok()
                    .and_then(|name| Topic::new(name).ok());
                let topic = topic.ok_or(StoreFault::Corrupt {
                    table: "topics",
                    detail: "the key has no topic",
                })?;
                if self
                    .txn
                    .get(Table::Members, &key::member(&topic, user))?
                    .is_some()
                {
                    let at = self.span(&FeedId::Topic(topic.clone()))?.head.offset;
                    let count = self.members_of(&topic)?.moved(false);
                    self.move_member(MemberWake {
                        topic: topic.clone(),
                        user: user.clone(),
                        joins: false,
                        at,
                    });
                    self.put_count(&topic, count);
                }
            }
        }
    }

    /// What makes the user a member of these topics, and of no others; of `None`, nothing.
    fn moves_to(
        &mut self,
        user: &UserId,
        topics: Option<&[Topic]>,
    ) -> Result<Result<Plan, DirectoryError>, StoreFault> {
        let mut changes = Vec::new();
        if let Some(topics) = topics {
            let memberships = people::memberships(&self.txn, user)?;
            let current = memberships.iter().filter(|one| one.is_current());
            let left = current.filter(|one| !topics.contains(&one.topic));
            changes.extend(left.map(|one| (one.topic.clone(), false)));
            changes.extend(topics.iter().map(|topic| (topic.clone(), true)));
        }
        self.plan(user, &changes)
    }

    fn plan(
        &mut self,
        user: &UserId,
        changes: &[(Topic, bool)],
    ) -> Result<Result<Plan, DirectoryError>, StoreFault> {
        let mut plan = Plan {
            memberships: match changes {
                [] => Vec::new(),
                _ => people::memberships(&self.txn, user)?,
            },
            moves: Vec::new(),
            counts: BTreeMap::new(),
        };
        for (topic, joins) in changes {
            let at = plan.memberships.binary_search_by(|one| one.topic.cmp(topic));
            let at = match at {
                Ok(at) => at,
                Err(_) if !joins => continue,
                Err(at) => {
                    plan.memberships.insert(at, Membership::new(topic.clone()));
                    at
                }
            };
            let feed = FeedId::Topic(topic.clone());
            let span = *self.span(&feed)?;
            let membership = &mut plan.memberships[at];
            if !membership.stays.is_empty() && *joins {
                membership.forget_before(self.forgotten(&feed)?.saturating_add(1));
            }
            if *joins && membership.stays.len() >= MAX_STAYS {
                membership.forget_before(span.first);
            }
            let at = span.head.offset;
            let moved = match joins {
                true => membership.join(at),
                false => membership.leave(at),
            };
            if membership.stays.len() > MAX_STAYS {
                let topic = topic.clone();
                return Ok(Err(DirectoryError::TooManyStays { topic }));
            }
            if moved {
                let count = match plan.counts.get(topic) {
                    Some(count) => *count,
                    None => self.members_of(topic)?,
                };
                plan.counts.insert(topic.clone(), count.moved(*joins));
                let (topic, user, joins) = (topic.clone(), user.clone(), *joins);
                plan.moves.push(MemberWake {
                    topic,
                    user,
                    joins,
                    at,
                });
            }
        }
        plan.memberships.retain(|one| !one.stays.is_empty());
        self.bound_topics(plan)
    }

    /// Keeps a user's topics within bounds, or refuses to join more.
    fn bound_topics(&mut self, mut plan: Plan) -> Result<Result<Plan, DirectoryError>, StoreFault> {
        let most = self.rules.topics_per_user;
        if plan.memberships.len() <= most {
            return Ok(Ok(plan));
        }
        let mut held = Vec::with_capacity(plan.memberships.len());
        for one in &plan.memberships {
            let first = self.span(&FeedId::Topic(one.topic.clone()))?.first;
            held.push(one.holds(first));
        }
        let joins = plan.moves.iter().any(|one| one.joins);
        if joins && held.iter().filter(|held| **held).count() > most {
            return Ok(Err(DirectoryError::TooManyTopics { most }));
        }
        let mut held = held.into_iter();
        let mut spare = plan.memberships.len().saturating_sub(MAX_REMEMBERED);
        plan.memberships.retain(|_| {
            let goes = spare > 0 && held.next() == Some(false);
            spare -= usize::from(goes);
            !goes
        });
        Ok(Ok(plan))
    }

    /// How many members a topic has; where that cannot be read they are counted.
    fn members_of(&self, topic: &Topic) -> Result<Count, StoreFault> {
        if self.is_shared {
            return Ok(Count::Grows(0));
        }
        let count = match people::count(&self.txn, topic) {
            Err(fault @ StoreFault::Corrupt { .. }) => {
                tracing::error!(%topic, %fault, "the members of a topic are counted anew");
                let (mut from, mut count) = (key::members(topic), 0);
                let end = key::after(&from);
                loop {
                    let rows = self.txn.scan(Table::Members, &from, &end, STEP)?;
                    count += rows.len() as u64;
                    match rows.last() {
                        Some((last, _)) => from = [last.as_slice(), &[0]].concat(),
                        None => break Ok(count),
                    }
                }
            }
            count => count,
        };
        count.map(Count::Is)
    }

    /// Something of a user changed.
    fn put_record_of(&mut self, user: &UserId, before: Option<UserRecord>, profile: Option<&Profile>) {
        let mut record = before.unwrap_or(UserRecord {
            profile: Profile::default(),
            created_at: self.now,
            changed_at: self.now,
        });
        record.changed_at = self.now;
        if let Some(profile) = profile {
            record.profile = profile.clone();
        }
        self.txn.put(Table::Users, key::user(user), record.encode());
    }

    fn move_user(&mut self, user: &UserId, plan: Plan) {
        if plan.moves.is_empty() {
            return;
        }
        self.put_memberships(user, &plan.memberships);
        plan.moves.into_iter().for_each(|one| self.move_member(one));
        for (topic, count) in &plan.counts {
            self.put_count(topic, *count);
        }
    }

    pub(super) fn put_memberships(&mut self, user: &UserId, memberships: &[Membership]) {
        let row = key::user(user);
        match memberships {
            [] => self.txn.remove(Table::Memberships, row),
            some => self.txn.put(Table::Memberships, row, encode_memberships(some)),
        }
        self.members = None;
    }

    fn move_member(&mut self, one: MemberWake) {
        let row = key::member(&one.topic, &one.user);
        match one.joins {
            true => self.txn.put(Table::Members, row, Writer::new().done()),
            false => self.txn.remove(Table::Members, row),
        }
        self.told.push((self.appended.len(), Told::Member(one)));
    }

    fn put_count(&mut self, topic: &Topic, count: Count) {
        let row = topic.as_str().as_bytes().to_vec();
        match count {
            Count::Is(0) => self.txn.remove(Table::Topics, row),
            Count::Is(count) => self.txn.put(Table::Topics, row, Writer::new().u64(count).done()),
            Count::Grows(by) => *self.joined.entry(topic.clone()).or_default() += by,
        }
    }

    /// A user's memberships. One user's are remembered: much is asked about the same one.
    pub(super) fn memberships(&mut self, user: &UserId) -> Result<Arc<[Membership]>, StoreFault> {
        if let Some((of, memberships)) = &self.members
            && of == user
        {
            return Ok(memberships.clone());
        }
        let memberships: Arc<[Membership]> = people::memberships(&self.txn, user)?.into();
        self.members = Some((user.clone(), memberships.clone()));
        Ok(memberships)
    }

    /// A user's membership in the topic of this feed.
    pub(super) fn membership(
        &mut self,
        user: &UserId,
        feed: &FeedId,
    ) -> Result<Option<Membership>, StoreFault> {
        match feed {
            FeedId::Topic(topic) => Ok(people::in_topic(&self.memberships(user)?, topic).cloned()),
            FeedId::All | FeedId::User(_) => Ok(None),
        }
    }

    /// A user's floor in a feed, over what is none of the user's.
    pub(super) fn floor(&mut self, user: &UserId, feed: &FeedId, kind: u8) -> Result<u64, StoreFault> {
        let floor = tables::floor(&self.txn, user, feed, kind)?;
        Ok(match feed {
            FeedId::User(_) => floor,
            FeedId::All => floor.max(tables::floor(&self.txn, user, feed, tables::FLOOR_JOINED)?),
            FeedId::Topic(_) => self.membership(user, feed)?.map_or(floor, |one| one.floor(floor)),
        })
    }
}
