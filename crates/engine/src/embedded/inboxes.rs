//! What sessions need of inboxes: from memory where it is there, else many at a time from one view of the store.

mod ahead;

use super::Embedded;
use super::hot::{Filling, Outline};
use super::people;
use super::reader::Reader;
use super::starts::{clipped, member_start};
use super::store::View;
use super::tables;
use crate::inbox::{share, stretch};
use crate::{
    EngineError, Feeds, Inboxes, MemberStart, Page, PageWanted, ReadLimit, Starts, StartsWanted, StoreFault,
};
use async_trait::async_trait;
use postrider_model::{FeedId, FeedSpan, FeedStart, InboxPage, Standing, Timestamp, Topic, UserId};
use std::collections::HashMap;
use std::sync::Arc;

#[async_trait]
impl Inboxes for Embedded {
    fn starts_now(&self, wanted: &StartsWanted) -> Option<Starts> {
        match wanted.state {
            true => None,
            false => self.hot.starts(wanted),
        }
    }

    async fn starts(&self, wanted: &[StartsWanted]) -> Vec<Result<Starts, EngineError>> {
        if self.store.is_shared() {
            return self.starts_of_one_moment(wanted);
        }
        // Before the view is taken, so that what changes after it is noticed.
        let fillings: Vec<_> = wanted
            .iter()
            .map(|wanted| self.hot.filling(&wanted.user))
            .collect();
        let version = self.hot.version_of_all().filter(|_| self.hot.lacks_all());
        let reader = match self.reader() {
            Ok(reader) => reader,
            Err(fault) => return vec![Err(fault.into()); wanted.len()],
        };
        if let Some(version) = version
            && let Ok(span) = tables::span(&*reader.view, &FeedId::All)
        {
            self.hot.fill_all(version, span, &[]);
        }
        let mut wide = HashMap::new();
        let answers = wanted.iter().zip(fillings);
        let answers = answers
            .map(|(wanted, filling)| Ok(start(&reader, &mut wide, wanted, filling)?))
            .collect();
        drop(reader);
        self.remember_topics(wide.keys());
        answers
    }

    fn page_now(
        &self,
        user: &UserId,
        feed: &FeedId,
        member: bool,
        after: u64,
        limit: ReadLimit,
        now: Timestamp,
    ) -> Option<InboxPage> {
        self.hot.page(user, feed, member, after, limit, now)
    }

    async fn pages(&self, wanted: &[PageWanted], now: Timestamp) -> Vec<Result<InboxPage, EngineError>> {
        let mut pages = self.pages_in_one_view(wanted, now);
        for (wanted, page) in wanted.iter().zip(&mut pages) {
            if page.is_err() {
                *page = self.page_alone(wanted, now).await;
            }
        }
        pages
    }
}

impl Embedded {
    /// [`Inboxes::starts`] where nothing is in memory, and other nodes write.
    fn starts_of_one_moment(&self, wanted: &[StartsWanted]) -> Vec<Result<Starts, EngineError>> {
        let read = |reader: &Reader<'_>| {
            ahead::of_starts(&*reader.view, wanted)?;
            let mut wide = HashMap::new();
            each(wanted.iter().map(|wanted| start(reader, &mut wide, wanted, None)))
        };
        answers(
            self.look_for(read, |found| found.iter().all(Result::is_ok)),
            wanted.len(),
        )
    }

    /// A page that could not be read with others: by itself, so that what is damaged is given up here.
    async fn page_alone(&self, wanted: &PageWanted, now: Timestamp) -> Result<InboxPage, EngineError> {
        self.read(&wanted.feed, wanted.after, wanted.limit).await?;
        let page = self.pages_in_one_view(std::slice::from_ref(wanted), now).pop();
        page.unwrap_or(Err(EngineError::Closed))
    }

    /// Sees to it that it is in memory where these topics stand: those who come with their members will ask.
    fn remember_topics<'f>(&self, feeds: impl Iterator<Item = &'f FeedId>) {
        let lacking = feeds.filter_map(|feed| match feed {
            FeedId::Topic(topic) if !self.hot.has_topic(topic) => {
                Some((feed, topic, self.hot.version_of_topic(topic)?))
            }
            _ => None,
        });
        // All versions are taken before the view is.
        let lacking: Vec<_> = lacking.collect();
        let Some(Ok(reader)) = (!lacking.is_empty()).then(|| self.reader()) else {
            return;
        };
        for (feed, topic, version) in lacking {
            // Whoever needs one that cannot be read is told so by the store.
            if let Ok(span) = tables::span(&*reader.view, feed) {
                self.hot.fill_topic(topic, version, span, &[]);
            }
        }
    }

    fn pages_in_one_view(
        &self,
        wanted: &[PageWanted],
        now: Timestamp,
    ) -> Vec<Result<InboxPage, EngineError>> {
        let version = self.hot.version_of_all();
        let topics = wanted.iter().filter_map(|wanted| match &wanted.feed {
            FeedId::Topic(topic) => Some((topic, self.hot.version_of_topic(topic)?)),
            FeedId::All | FeedId::User(_) => None,
        });
        let topics: HashMap<_, _> = topics.collect();
        let read = |reader: &Reader<'_>| {
            if self.store.is_shared() {
                ahead::of_pages(&*reader.view, wanted)?;
            }
            each(wanted.iter().map(|wanted| {
                let page = self.read_for_all(reader, wanted, version, &topics)?;
                share_of(reader, wanted, page, now)
            }))
        };
        answers(
            self.look_for(read, |found| found.iter().all(Result::is_ok)),
            wanted.len(),
        )
    }

    /// What is the same for all who read there. Many do.
    fn read_for_all(
        &self,
        reader: &Reader<'_>,
        wanted: &PageWanted,
        version: Option<u64>,
        topics: &HashMap<&Topic, u64>,
    ) -> Result<Page, StoreFault> {
        let feed = &wanted.feed;
        let page = reader.read_page(feed, wanted.after, wanted.limit);
        let mut page = page.map_err(|unreadable| unreadable.fault)?;
        self.shared.unify(feed, &mut page);
        match (feed, version) {
            (FeedId::All, Some(version)) => self.hot.fill_all(version, page.span, &page.entries),
            (FeedId::Topic(topic), _) => {
                if let Some(version) = topics.get(topic) {
                    self.hot.fill_topic(topic, *version, page.span, &page.entries);
                }
            }
            (FeedId::All | FeedId::User(_), _) => {}
        }
        Ok(page)
    }
}

/// What each comes to. What another node changed meanwhile is not the trouble of one of them: all is read anew.
fn each<T>(
    found: impl Iterator<Item = Result<T, StoreFault>>,
) -> Result<Vec<Result<T, StoreFault>>, StoreFault> {
    let is_torn = |one: &Result<T, StoreFault>| matches!(one, Err(StoreFault::Conflict));
    found
        .map(|one| match is_torn(&one) {
            true => Err(StoreFault::Conflict),
            false => Ok(one),
        })
        .collect()
}

/// One answer for each that was asked.
fn answers<T>(
    found: Result<Vec<Result<T, StoreFault>>, StoreFault>,
    count: usize,
) -> Vec<Result<T, EngineError>> {
    match found {
        Ok(found) => found
            .into_iter()
            .map(|one| one.map_err(EngineError::from))
            .collect(),
        Err(fault) => (0..count).map(|_| Err(fault.clone().into())).collect(),
    }
}

/// A user's share of a page.
fn share_of(
    reader: &Reader<'_>,
    wanted: &PageWanted,
    page: Page,
    now: Timestamp,
) -> Result<InboxPage, StoreFault> {
    let PageWanted { user, feed, .. } = wanted;
    match feed {
        FeedId::Topic(topic) if wanted.member => member_share(reader, user, topic, page, now),
        FeedId::Topic(_) => asked_share(reader, user, page, now),
        FeedId::User(_) | FeedId::All => {
            let (from, to) = stretch(&page.entries);
            let standing = tables::standing_for_session(&*reader.view, user, feed, from, to)?;
            Ok(share(page.entries, page.span, &standing, now))
        }
    }
}

/// Where one session's feeds stand for its user.
fn start(
    reader: &Reader<'_>,
    wide: &mut HashMap<FeedId, FeedSpan>,
    wanted: &StartsWanted,
    filling: Option<Filling<'_>>,
) -> Result<Starts, StoreFault> {
    Ok(Starts {
        feeds: starts(reader, wide, wanted, filling)?,
        members: member_starts(reader, wide, wanted)?,
        state: match wanted.state {
            true => Some(Arc::new(people::state(&*reader.view, &wanted.user)?)),
            false => None,
        },
    })
}

/// What a session has of a topic that it asked for: all, without a delivery state, but for what its user is shown elsewhere
/// as a member.
fn asked_share(
    reader: &Reader<'_>,
    user: &UserId,
    page: Page,
    now: Timestamp,
) -> Result<InboxPage, StoreFault> {
    let view = &*reader.view;
    let mut share = share(page.entries, page.span, &Standing::default(), now);
    if !share.entries.iter().any(|one| one.entry.is_for_several()) {
        return Ok(share);
    }
    let memberships = people::memberships(view, user)?;
    for one in share.entries.iter_mut().filter(|one| one.entry.is_for_several()) {
        if let Some(notification) = one.entry.notification() {
            let record = tables::body(view, &notification.id)?;
            one.shown = people::place(&record, &memberships).is_none();
        }
    }
    Ok(share)
}

/// A member's share of a topic.
fn member_share(
    reader: &Reader<'_>,
    user: &UserId,
    topic: &Topic,
    mut page: Page,
    now: Timestamp,
) -> Result<InboxPage, StoreFault> {
    let (view, feed) = (&*reader.view, FeedId::Topic(topic.clone()));
    let memberships = people::memberships(view, user)?;
    if let Some(membership) = people::in_topic(&memberships, topic) {
        page.span = clipped(reader, &feed, membership, page.span)?;
    }
    let head = page.span.head.offset;
    page.entries.retain(|entry| entry.position.offset <= head);
    let (from, to) = stretch(&page.entries);
    let standing = tables::standing_for_session(view, user, &feed, from, to)?;
    let mut share = share(page.entries, page.span, &standing, now);
    share.floor = share.floor.min(head);
    for one in &mut share.entries {
        one.shown = people::shows(view, &memberships, topic, user, &one.entry)?;
        if !one.shown {
            (one.state, one.attempts) = (None, 0);
        }
    }
    Ok(share)
}

/// Where the topics stand of which the user is, or was, a member. Spans of wide feeds are read once.
fn member_starts(
    reader: &Reader<'_>,
    wide: &mut HashMap<FeedId, FeedSpan>,
    wanted: &StartsWanted,
) -> Result<Vec<MemberStart>, StoreFault> {
    let mut starts = Vec::new();
    for membership in people::memberships(&*reader.view, &wanted.user)? {
        let feed = FeedId::Topic(membership.topic.clone());
        let span = match wide.get(&feed) {
            Some(span) => *span,
            None => tables::span(&*reader.view, &feed)?,
        };
        wide.insert(feed, span);
        let cursor = wanted.cursor.as_ref();
        starts.extend(member_start(reader, &wanted.user, &membership, span, cursor)?);
    }
    Ok(starts)
}

/// Where a session's feeds stand in one view. Spans of wide feeds are read once.
fn starts(
    reader: &Reader<'_>,
    wide: &mut HashMap<FeedId, FeedSpan>,
    wanted: &StartsWanted,
    filling: Option<Filling<'_>>,
) -> Result<Vec<FeedStart>, StoreFault> {
    let view = &*reader.view;
    // What cannot be remembered is looked up below, row by row: a damaged old row locks nobody out.
    let outline = filling.and_then(|filling| {
        let filled = filling.fill(view);
        filled
            .inspect_err(|fault| tracing::warn!(%fault, "where a user stands cannot be held in memory"))
            .ok()
    });
    let mut starts = Vec::with_capacity(wanted.places.len());
    for (feed, place) in &wanted.places {
        let known = outline.filter(|_| *feed == FeedId::User(wanted.user.clone()));
        let span = match (known, wide.get(feed)) {
            (Some(outline), _) => outline.span,
            (None, Some(span)) => *span,
            (None, None) => tables::span(view, feed)?,
        };
        if feed.is_wide() {
            wide.insert(feed.clone(), span);
        }
        let (floor, begins) = stands(view, &wanted.user, feed, outline)?;
        let held = place
            .map(|place| reader.is_place(feed, span, place))
            .transpose()?;
        starts.push(FeedStart {
            span,
            floor,
            begins,
            held,
        });
    }
    Ok(starts)
}

/// A user's floor in a feed, and where a session without a cursor begins.
fn stands(
    view: &dyn View,
    user: &UserId,
    feed: &FeedId,
    outline: Option<Outline>,
) -> Result<(u64, u64), StoreFault> {
    let place = match feed {
        FeedId::Topic(_) => return Ok((0, 0)),
        FeedId::User(of) if of == user => outline.map(|outline| outline.own),
        FeedId::User(_) => None,
        FeedId::All => outline.map(|outline| outline.all),
    };
    match place {
        Some(place) if !place.open => Ok((place.floor, place.floor)),
        _ => {
            let standing = tables::standing_for_session(view, user, feed, 1, 0)?;
            Ok((standing.floor, standing.start()))
        }
    }
}
