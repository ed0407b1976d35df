//! What is known of a user's topics, and what it comes to: where each stands for the user, and pages of it. What is not
//! simple is left to the store: a topic that the user left, a notification for several topics.

use super::known::{Known, Place};
use super::tail::Tail;
use super::{Asked, Hot, topics};
use crate::embedded::codec::key;
use crate::embedded::store::{Table, View};
use crate::embedded::tables::FLOOR_DELIVERED;
use crate::embedded::{StoreFault, people};
use crate::{MemberStart, ReadLimit, StartsWanted};
use postrider_model::{
    Cursor, FeedId, FeedStart, InboxPage, Membership, Position, Standing, Timestamp, Topic, UserId,
};

/// A membership and the user's place in the topic, without the stays.
const MEMBER_BYTES: usize = 160;
const STAY_BYTES: usize = 24;

/// A user's topics.
#[derive(Debug, Default)]
pub(super) struct Members {
    memberships: Vec<Membership>,
    /// The user's place in each.
    places: Vec<Place>,
}

impl Members {
    /// What a view says; `None` for a user who never was a member.
    pub fn read(view: &dyn View, user: &UserId) -> Result<Option<Box<Members>>, StoreFault> {
        let memberships = people::memberships(view, user)?;
        if memberships.is_empty() {
            return Ok(None);
        }
        let places = memberships.iter().map(|one| match one.is_current() {
            true => place(view, user, &FeedId::Topic(one.topic.clone())),
            // Those are left to the store.
            false => Ok(Place::default()),
        });
        let places = places.collect::<Result<_, _>>()?;
        Ok(Some(Box::new(Members { memberships, places })))
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let stays: usize = self.memberships.iter().map(|one| one.stays.len()).sum();
        self.memberships.len() * MEMBER_BYTES + stays * STAY_BYTES
    }

    fn at(&self, topic: &str) -> Option<usize> {
        let found = self
            .memberships
            .binary_search_by(|one| one.topic.as_str().cmp(topic));
        found.ok()
    }

    /// The user's place in a topic, to be moved along.
    pub fn place_mut(&mut self, topic: &str) -> Option<&mut Place> {
        let at = self.at(topic)?;
        self.places.get_mut(at)
    }

    /// The membership in a topic of which the user is a member now, with the place there, lifted over what is not the
    /// user's.
    pub fn current(&self, topic: &Topic) -> Option<(&Membership, Place)> {
        let (one, mut place) = self.as_written(topic)?;
        place.floor = one.floor(place.floor);
        Some((one, place))
    }

    /// The same, with the floor that is written.
    fn as_written(&self, topic: &Topic) -> Option<(&Membership, Place)> {
        let at = self.at(topic.as_str())?;
        let (one, place) = (self.memberships.get(at)?, *self.places.get(at)?);
        one.is_current().then_some((one, place))
    }
}

impl Hot {
    /// Where a user's topics stand, if all of it is here.
    pub(super) fn member_starts(&self, known: &Known, wanted: &StartsWanted) -> Option<Vec<MemberStart>> {
        let Some(members) = &known.members else {
            return Some(Vec::new());
        };
        let mut starts = Vec::with_capacity(members.memberships.len());
        for one in &members.memberships {
            if one.is_current() {
                starts.push(self.member_start(members, &one.topic, wanted.cursor.as_ref())?);
                continue;
            }
            let holds = || self.in_topic(&one.topic, |tail| Some(one.holds(tail.span().first)));
            if holds()? {
                return None;
            }
        }
        Some(starts)
    }

    fn member_start(&self, members: &Members, topic: &Topic, cursor: Option<&Cursor>) -> Option<MemberStart> {
        let (membership, stands) = members.current(topic)?;
        if stands.open {
            return None;
        }
        self.in_topic(topic, |tail| {
            let (place, held) = match cursor {
                None => (None, None),
                Some(cursor) => {
                    let place = cursor.get(&FeedId::Topic(topic.clone()));
                    let (place, held) = judge(tail, membership, place)?;
                    (Some(place), Some(held))
                }
            };
            let floor = stands.floor.min(tail.span().head.offset);
            Some(MemberStart {
                topic: topic.clone(),
                is_current: true,
                place,
                start: FeedStart {
                    span: tail.span(),
                    floor,
                    begins: floor,
                    held,
                },
            })
        })
    }

    /// A user's place in a topic of which the user is a member, after a batch that is not yet committed.
    pub(super) fn member_place<'k>(
        &self,
        known: &'k Known,
        asked: Asked<'_>,
        topic: &Topic,
    ) -> Option<(&'k Membership, Place)> {
        let moves = asked.batch.table(Table::Memberships);
        if moves.get(asked.user.as_str().as_bytes()).is_some() {
            return None;
        }
        let (one, place) = known.members.as_ref()?.as_written(topic)?;
        let mut place = place.after(asked.batch, asked.user, &FeedId::Topic(topic.clone()))?;
        place.floor = one.floor(place.floor);
        Some((one, place))
    }

    /// Whether it is known that the user is a member of a topic, also after a batch that is not yet committed.
    pub fn is_member(&self, asked: Asked<'_>, topic: &Topic) -> bool {
        let is_member = self.with(asked.user, |known, _| {
            self.member_place(known, asked, topic).map(drop)
        });
        is_member.is_some()
    }

    /// A member's share of what comes after a place of a topic, if all of it is here.
    pub(super) fn member_page(
        &self,
        user: &UserId,
        topic: &Topic,
        after: u64,
        limit: ReadLimit,
        now: Timestamp,
    ) -> Option<InboxPage> {
        self.with(user, |known, _| {
            let (membership, stands) = known.members.as_ref()?.current(topic)?;
            let (span, entries) =
                self.in_topic(topic, |tail| Some((tail.span(), tail.page(after, limit)?)))?;
            let first = entries.first().map(|entry| entry.position.offset);
            let told = stands.marked.max(stands.attempted);
            if stands.open || first.is_some_and(|first| first <= told) {
                return None;
            }
            let standing = Standing {
                floor: stands.floor.min(span.head.offset),
                ..Standing::default()
            };
            let mut page = crate::inbox::share(entries, span, &standing, now);
            for one in &mut page.entries {
                one.shown = people::shows_simply(membership, user, &one.entry)?;
                if !one.shown {
                    one.state = None;
                }
            }
            Some(page)
        })
    }
}

/// A user's place in a topic, as a view says it, with the floor that is written.
fn place(view: &dyn View, user: &UserId, feed: &FeedId) -> Result<Place, StoreFault> {
    let mut place = Place::default();
    let floor = key::floor(user, feed, FLOOR_DELIVERED);
    if let Some(value) = view.get(Table::Floors, &floor)? {
        place.floor_written(&floor, &value)?;
    }
    let prefix = key::user_feed(user, feed);
    for table in [Table::Marks, Table::Attempts, Table::Opens] {
        if let Some((row, _)) = view.last(table, &prefix, &key::after(&prefix))? {
            place.noted(table, &row)?;
        }
    }
    Ok(place)
}

/// What a cursor's place in a topic comes to for a member, and whether it is held.
fn judge(tail: &Tail, membership: &Membership, place: Option<Position>) -> Option<(Position, bool)> {
    let oldest = tail.span().first.saturating_sub(1);
    let Some(place) = place else {
        let mut held = membership.stays.iter();
        let first = held.find(|stay| stay.through.is_none_or(|end| end > oldest))?;
        return Some((topics::position(tail, first.after.max(oldest))?, true));
    };
    if !tail.holds(place)? {
        // Whether retention took something of the user's only the store can tell.
        return (place.offset >= oldest).then_some((place, false));
    }
    let offset = membership.floor(place.offset).max(oldest);
    match offset == place.offset {
        true => Some((place, true)),
        false => Some((topics::position(tail, offset)?, true)),
    }
}
