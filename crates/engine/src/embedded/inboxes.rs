//! What sessions need of inboxes: from memory where it is there, else many at a time from one view of the store.

use super::Embedded;
use super::hot::{Filling, Outline};
use super::reader::Reader;
use super::store::View;
use super::tables;
use crate::inbox::{share, stretch};
use crate::{EngineError, Inboxes, PageWanted, ReadLimit, StartsWanted, StoreFault, read_inbox};
use async_trait::async_trait;
use postrider_model::{FeedId, FeedSpan, FeedStart, InboxPage, Position, Timestamp, UserId};
use std::collections::HashMap;

#[async_trait]
impl Inboxes for Embedded {
    fn starts_now(&self, user: &UserId, places: &[(FeedId, Option<Position>)]) -> Option<Vec<FeedStart>> {
        self.hot.starts(user, places)
    }

    async fn starts(&self, wanted: &[StartsWanted]) -> Vec<Result<Vec<FeedStart>, EngineError>> {
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
        answers
            .map(|(wanted, filling)| Ok(starts(&reader, &mut wide, wanted, filling)?))
            .collect()
    }

    fn page_now(
        &self,
        user: &UserId,
        feed: &FeedId,
        after: u64,
        limit: ReadLimit,
        now: Timestamp,
    ) -> Option<InboxPage> {
        self.hot.page(user, feed, after, limit, now)
    }

    async fn pages(&self, wanted: &[PageWanted], now: Timestamp) -> Vec<Result<InboxPage, EngineError>> {
        let mut pages = self.pages_in_one_view(wanted, now);
        for (wanted, page) in wanted.iter().zip(&mut pages) {
            if page.is_err() {
                // Alone, so that what is damaged is given up there.
                *page = read_inbox(self, &wanted.user, &wanted.feed, wanted.after, wanted.limit, now).await;
            }
        }
        pages
    }
}

impl Embedded {
    fn pages_in_one_view(
        &self,
        wanted: &[PageWanted],
        now: Timestamp,
    ) -> Vec<Result<InboxPage, EngineError>> {
        let version = self.hot.version_of_all();
        let reader = match self.reader() {
            Ok(reader) => reader,
            Err(fault) => return vec![Err(fault.into()); wanted.len()],
        };
        let read = |wanted: &PageWanted| {
            let PageWanted { user, feed, .. } = wanted;
            let page = reader.read_page(feed, wanted.after, wanted.limit);
            let mut page = page.map_err(|unreadable| unreadable.fault)?;
            self.shared.unify(feed, &mut page);
            if let (FeedId::All, Some(version)) = (feed, version) {
                // Many read the same.
                self.hot.fill_all(version, page.span, &page.entries);
            }
            let (from, to) = stretch(&page.entries);
            let standing = tables::standing_for_session(&*reader.view, user, feed, from, to)?;
            Ok(share(page.entries, page.span, &standing, now))
        };
        wanted
            .iter()
            .map(|wanted| read(wanted).map_err(|fault: StoreFault| fault.into()))
            .collect()
    }
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
