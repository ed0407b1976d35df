//! The topics of a session: those that its client asked for, and those its user is a member of. Members come and go
//! while the session is there.
//!
//! Invariant: nothing is sent of a topic that stands after the user left it. What a session is not sure to hear as the
//! engine has it, it reads from there.

use super::{ALL, AckMode, At, FeedStart, OWN, Outbox, Session};
use crate::session::progress::Progress;
use postrider_model::{Audience, Cursor, Entry, FeedId, MAX_CURSOR_FEEDS, Position, Topic};

/// Topics of one session, asked for or not: with the user's own feed and `all` they are what a cursor holds.
const MAX_TOPICS: usize = MAX_CURSOR_FEEDS - 2;

/// A topic that the user is, or was, a member of.
#[derive(Debug, Clone)]
pub struct MemberFeed {
    /// Which.
    pub topic: Topic,
    /// A member now. Otherwise the head is the last that is the user's.
    pub is_current: bool,
    /// From where the client goes on, as the engine judges it; `None` where the client named no place of anything.
    pub place: Option<Position>,
    /// Where it stands.
    pub start: FeedStart,
}

impl MemberFeed {
    fn ground(&self) -> Ground {
        let through = self.start.span.head.offset;
        match self.is_current {
            true => Ground::MEMBER,
            false => Ground::Left {
                asked_until: 0,
                through,
                goes_on: None,
            },
        }
    }
}

/// A topic in a session.
#[derive(Debug)]
pub(super) struct TopicPlace {
    pub topic: Topic,
    pub ground: Ground,
    /// The client asked for it when it connected.
    pub asked: bool,
    pub progress: Progress,
}

/// On what ground a session hears a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ground {
    /// The client asked for it: a session topic.
    Asked,
    /// The user is a member.
    Member {
        /// Up to here it was heard as a session topic.
        asked_until: u64,
        /// The topic's head when the user joined, if the session was not there before to hear it.
        since: u64,
        /// Whether that is certain, so that what is appended can be sent as it comes.
        live: bool,
    },
    /// The user was a member.
    Left {
        /// Up to here it was heard as a session topic.
        asked_until: u64,
        /// The last that is the user's.
        through: u64,
        /// The client asked for it as well: when it has all of that, it goes on after this as a session topic.
        goes_on: Option<u64>,
    },
}

impl Ground {
    pub const MEMBER: Ground = Ground::Member {
        asked_until: 0,
        since: 0,
        live: true,
    };

    /// Whether what is appended may be sent without asking the engine.
    pub fn is_live(self) -> bool {
        matches!(self, Ground::Asked | Ground::Member { live: true, .. })
    }

    pub fn is_member(self) -> bool {
        matches!(self, Ground::Member { .. })
    }

    /// The user left, with everything up to `through`; where `asked`, it goes on after that.
    fn left(self, through: u64, asked: bool) -> Ground {
        let asked_until = match self {
            Ground::Asked => through,
            Ground::Member { asked_until, .. } | Ground::Left { asked_until, .. } => asked_until,
        };
        let goes_on = match self {
            Ground::Left { goes_on, .. } => goes_on.map(|after| after.max(through)),
            _ => asked.then_some(through),
        };
        Ground::Left {
            asked_until,
            through,
            goes_on,
        }
    }
}

impl TopicPlace {
    /// Whether a page from after this offset is to be read as a member's.
    pub fn reads_as_member(&self, after: u64) -> bool {
        match self.ground {
            Ground::Asked => false,
            Ground::Member { asked_until, .. } | Ground::Left { asked_until, .. } => after >= asked_until,
        }
    }

    /// The last offset that a page from after this one may give, and the last that there is for this session.
    pub fn ends(&self, after: u64) -> (u64, u64) {
        match self.ground {
            Ground::Member { asked_until, .. } if after < asked_until => (asked_until, u64::MAX),
            Ground::Asked | Ground::Member { .. } => (u64::MAX, u64::MAX),
            Ground::Left {
                asked_until, through, ..
            } if after < asked_until => (asked_until, through),
            Ground::Left { through, .. } => (through, through),
        }
    }

    /// The user left and has everything, as far as that can be said without evidence.
    fn is_over(&self, ack: AckMode) -> bool {
        let progress = &self.progress;
        let is_waiting = match ack {
            AckMode::Auto => progress.unsettled().is_some(),
            AckMode::Explicit => progress.redelivery.as_ref().is_some_and(|sent| !sent.is_empty()),
            AckMode::None => false,
        };
        let is_left = matches!(self.ground, Ground::Left { .. });
        is_left && !progress.reading && !progress.is_behind() && !is_waiting
    }

    /// The client has all of what was its user's, and goes on with a session topic.
    fn go_on(&mut self) {
        let progress = &mut self.progress;
        if let Ground::Left {
            through,
            goes_on: Some(after),
            ..
        } = self.ground
            && progress.sent() >= through
            && !progress.reading
            && !progress.gap
        {
            self.ground = Ground::Asked;
            progress.counts = false;
            if progress.sent() < after {
                progress.pass(after);
                progress.forget_place();
            }
            progress.head = progress.head.max(after);
            progress.suspect = true;
        }
    }
}

impl Session {
    /// The topics that a session begins with: those asked for first, in the order in which they were.
    pub(super) fn open_topics(
        asked: &[Topic],
        starts: &[FeedStart],
        members: &[MemberFeed],
        cursor: Option<&Cursor>,
        open: impl Fn(bool, FeedStart, Option<Position>) -> Progress,
    ) -> Box<[TopicPlace]> {
        let heard = |topic: &Topic, ground: Ground, asked, progress| TopicPlace {
            topic: topic.clone(),
            ground,
            asked,
            progress,
        };
        let member = |member: &MemberFeed, asked| {
            let progress = open(true, member.start, member.place);
            heard(&member.topic, member.ground(), asked, progress)
        };
        let first = asked.iter().enumerate().map(|(nth, topic)| {
            // A feed that the engine said nothing of has nothing.
            let start = starts.get(ALL + 1 + nth).copied().unwrap_or(FeedStart::EMPTY);
            let place = cursor.and_then(|cursor| cursor.get(&FeedId::Topic(topic.clone())));
            let Some(found) = members.iter().find(|member| member.topic == *topic) else {
                return heard(topic, Ground::Asked, true, open(false, start, place));
            };
            let mut found = member(found, true);
            if let Ground::Left { goes_on, .. } = &mut found.ground {
                let had = place.filter(|_| start.held == Some(true));
                *goes_on = Some(had.map_or(start.span.head.offset, |place| place.offset));
            }
            found
        });
        let others = members.iter().filter(|member| !asked.contains(&member.topic));
        first
            .chain(others.map(|found| member(found, false)))
            .take(MAX_TOPICS)
            .collect()
    }

    /// The session topics that its client asked for.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        let asked = self.topics.iter().filter(|place| place.asked);
        asked.map(|place| &place.topic)
    }

    /// The topics of which what is appended is to be given to it.
    pub fn heard_topics(&self) -> impl Iterator<Item = &Topic> {
        let heard = self.topics.iter();
        let heard = heard.filter(|place| !matches!(place.ground, Ground::Left { goes_on: None, .. }));
        heard.map(|place| &place.topic)
    }

    pub(super) fn topic(&self, at: At) -> Option<&TopicPlace> {
        self.topics.get(at.checked_sub(ALL + 1)?)
    }

    fn place_of(&mut self, topic: &Topic) -> Option<(At, &mut TopicPlace)> {
        let mut places = self.topics.iter_mut().enumerate();
        let (nth, place) = places.find(|(_, place)| place.topic == *topic)?;
        Some((ALL + 1 + nth, place))
    }

    /// Whether what is appended to this feed may be sent as it comes.
    pub(super) fn is_live(&self, at: At) -> bool {
        self.topic(at).is_none_or(|place| place.ground.is_live())
    }

    /// Whether the user left this topic before this offset.
    pub(super) fn has_ended(&self, at: At, offset: u64) -> bool {
        self.topic(at)
            .is_some_and(|place| offset > place.ends(u64::MAX).1)
    }

    /// Whether this entry of a topic, as it comes or of a session topic's page, is for this session here: where it stands in
    /// none of the user's as a member, in the first of those asked for.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        if let FeedId::Topic(here) = &entry.feed
            && let Some(Ground::Member { asked_until, .. }) = self.ground(here)
            && entry.position.offset > asked_until
        {
            return entry.is_for(&self.user, |feed| *feed == entry.feed);
        }
        entry.is_for(&self.user, |feed| match feed {
            FeedId::Topic(topic) => self.ground(topic) == Some(Ground::Asked),
            _ => true,
        })
    }

    /// Whether this transient notification is for this session here: it is shown once, where its user is a member if
    /// that is anywhere.
    pub(super) fn takes_now(&self, entry: &Entry) -> bool {
        let is_member = |topic: &Topic| self.ground(topic).is_some_and(Ground::is_member);
        let topics = topics_of(entry);
        if !topics.iter().any(is_member) {
            return self.takes(entry);
        }
        entry.is_for(
            &self.user,
            |feed| matches!(feed, FeedId::Topic(topic) if is_member(topic)),
        )
    }

    /// Whether this entry of a topic may be shown to its user in another, as a member: which it is depends on who was a
    /// member when it came, and that the engine knows.
    pub(super) fn may_be_elsewhere(&self, entry: &Entry) -> bool {
        let topics = topics_of(entry);
        let others = topics
            .iter()
            .filter(|topic| !matches!(&entry.feed, FeedId::Topic(here) if here == *topic));
        topics.len() > 1
            && others
                .filter_map(|topic| self.ground(topic))
                .any(|ground| ground != Ground::Asked)
    }

    /// Whether a mark about the entry at `target` of a topic speaks of what its user may have been shown there.
    pub(super) fn may_have_had(&self, at: At, target: u64) -> bool {
        self.topic(at)
            .is_none_or(|place| !matches!(place.ground, Ground::Member { since, .. } if target <= since))
    }

    /// What is left of a topic's time as a member's may be over.
    pub(super) fn go_on(&mut self, at: At) {
        if let Some(place) = at.checked_sub(ALL + 1).and_then(|nth| self.topics.get_mut(nth)) {
            place.go_on();
        }
    }

    fn ground(&self, topic: &Topic) -> Option<Ground> {
        let place = self.topics.iter().find(|place| place.topic == *topic)?;
        Some(place.ground)
    }

    /// The user joined this topic where its head was `head`: what comes after it is the user's. Where that is known, or
    /// too long ago to matter, nothing happens; in doubt, what [`Session::members_are`] brings will hold it.
    pub fn join(&mut self, topic: &Topic, head: u64, outbox: &mut impl Outbox) {
        if !self.members_in_doubt {
            self.hear(topic, head, outbox);
        }
    }

    fn hear(&mut self, topic: &Topic, head: u64, outbox: &mut impl Outbox) {
        let Some((at, place)) = self.place_of(topic) else {
            let own = &self.main[OWN];
            let progress = Progress::joining(head, self.ack, own.redelivery_rules());
            let ground = Ground::Member {
                asked_until: 0,
                since: head,
                live: true,
            };
            return self.add_topic(topic, ground, progress, outbox);
        };
        let progress = &mut place.progress;
        match place.ground {
            Ground::Member { .. } => return,
            Ground::Left { through, .. } if head < through => return,
            Ground::Left { through, .. } => {
                place.ground = Ground::MEMBER;
                if progress.sent() >= through && !progress.reading && !progress.gap {
                    // What came between the two stays is nobody's business here.
                    progress.pass(progress.sent().max(head));
                }
                progress.head = progress.head.max(head);
            }
            Ground::Asked => {
                place.ground = Ground::Member {
                    asked_until: head,
                    since: 0,
                    live: true,
                };
                let own = &self.main[OWN];
                let (counts, rules) = (own.counts, own.redelivery_rules());
                self.progress_mut(at).begin_to_settle(head, counts, rules);
            }
        }
        self.doubt(at, outbox);
    }

    /// One look tells what was appended since, and the head's place for the cursor.
    fn add_topic(&mut self, topic: &Topic, ground: Ground, progress: Progress, outbox: &mut impl Outbox) {
        let mut topics = std::mem::take(&mut self.topics).into_vec();
        if topics.len() >= MAX_TOPICS {
            topics.retain(|place| place.asked || !place.is_over(self.ack));
        }
        let has_room = topics.len() < MAX_TOPICS;
        if has_room {
            topics.push(TopicPlace {
                topic: topic.clone(),
                ground,
                asked: false,
                progress,
            });
        }
        self.topics = topics.into();
        if has_room {
            self.doubt(ALL + self.topics.len(), outbox);
        }
    }

    /// The user left this topic where its head was `head`: what comes after it is not sent, what stands before it and
    /// was not sent yet is read from the engine.
    pub fn leave(&mut self, topic: &Topic, head: u64, outbox: &mut impl Outbox) {
        if let Some((at, place)) = self.place_of(topic).filter(|(_, place)| place.ground.is_member()) {
            place.ground = place.ground.left(head, place.asked);
            place.progress.end_at(head);
            self.ask(at, outbox);
        }
    }

    /// News of memberships may have been lost: until [`Session::members_are`] nothing of a member's topic is sent
    /// unless the engine says that it is the user's.
    pub fn doubt_members(&mut self) {
        self.members_in_doubt = true;
        for place in &mut self.topics {
            if let Ground::Member { live, .. } = &mut place.ground {
                *live = false;
            }
        }
    }

    /// These are the user's topics, as the engine says.
    pub fn members_are(&mut self, members: &[MemberFeed], outbox: &mut impl Outbox) {
        self.members_in_doubt = false;
        for nth in 0..self.topics.len() {
            let place = &mut self.topics[nth];
            let found = members.iter().find(|member| member.topic == place.topic);
            match (place.ground, found) {
                (Ground::Member { .. }, None) => {
                    // Nothing that it holds is unread.
                    let through = place.progress.sent();
                    place.ground = place.ground.left(through, place.asked);
                    place.progress.end_at(through);
                }
                (Ground::Member { .. }, Some(found)) if !found.is_current => {
                    let through = found.start.span.head.offset;
                    place.ground = place.ground.left(through, place.asked);
                    place.progress.end_at(through);
                    self.ask(ALL + 1 + nth, outbox);
                }
                (
                    Ground::Member {
                        asked_until, since, ..
                    },
                    Some(_),
                ) => {
                    let live = true;
                    place.ground = Ground::Member {
                        asked_until,
                        since,
                        live,
                    };
                    self.doubt(ALL + 1 + nth, outbox);
                }
                (Ground::Left { .. }, Some(found)) if found.is_current => {
                    place.ground = Ground::MEMBER;
                    self.doubt(ALL + 1 + nth, outbox);
                }
                (Ground::Asked, Some(found)) if found.is_current => {
                    let (topic, head) = (found.topic.clone(), found.start.floor);
                    self.hear(&topic, head, outbox);
                }
                (Ground::Left { .. }, Some(found)) => {
                    // Perhaps of a stay that this session was not told of.
                    let through = found.start.span.head.offset;
                    place.ground = place.ground.left(through, place.asked);
                    place.progress.end_at(through);
                    self.ask(ALL + 1 + nth, outbox);
                }
                (Ground::Left { .. } | Ground::Asked, _) => {}
            }
        }
        for member in members {
            if self.ground(&member.topic).is_none() {
                let rules = self.main[OWN].redelivery_rules();
                let progress = Progress::open(true, member.start, self.ack, rules, member.place);
                self.add_topic(&member.topic, member.ground(), progress, outbox);
            }
        }
    }

    /// Looks once more at the topics that its user is a member of.
    pub fn suspect_members(&mut self, outbox: &mut impl Outbox) {
        for nth in 0..self.topics.len() {
            if self.topics[nth].ground.is_member() {
                self.doubt(ALL + 1 + nth, outbox);
            }
        }
    }
}

/// The topics that a notification is for.
fn topics_of(entry: &Entry) -> &[Topic] {
    match entry.notification().map(|notification| &notification.audience) {
        Some(Audience::Topics(topics)) => topics,
        _ => &[],
    }
}
