//! `GET /v1/inbox/history`: pages back through what an inbox still holds, newest first, with states.

use super::inbox::identify;
use super::openapi::shapes;
use super::refusal::{Refusal, sentence};
use super::{Api, query};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use postrider_engine::{Engine, EngineError, PageWanted, ReadLimit, Recipients, read_inbox};
use postrider_model::{
    Cursor, Entry, EntryKind, FeedId, FeedSpan, MarkKind, Membership, Position, Standing, Timestamp, UserId,
    json, state_of,
};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// Entries of a page, by default and at most.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MOST: usize = 1000;
/// A page ends early once it has so many bytes, or once so many entries were looked at.
const PAGE_BYTES: usize = 4 << 20;
const ENTRIES_SEEN: usize = 4000;
/// Entries read at once, of all feeds together, and of one at least.
const STRETCH: u64 = 64;
const STRETCH_LEAST: u64 = 2;

/// The query.
#[derive(Deserialize, JsonSchema)]
pub struct Wanted {
    /// Where to go on, back from the newest: the cursor of the page before.
    #[schemars(with = "Option<shapes::CursorOrNone>")]
    before: Option<String>,
    /// Most notifications of a page; 50 where it is not said.
    #[schemars(range(min = 1, max = LIMIT_MOST))]
    limit: Option<usize>,
}

/// One page. The cursor is null where nothing older is held.
pub async fn history(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Refusal> {
    let user = identify(&api, &headers)?.user;
    let wanted = query::query(wanted)?;
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_MOST {
        return Err(
            Problem::invalid_request(format!("The parameter limit must be 1 to {LIMIT_MOST}.")).into(),
        );
    }
    let before = match wanted.before.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Cursor::decode(text, &user).map_err(|e| Problem::invalid_cursor(sentence(&e)))?,
        None => Cursor::default(),
    };
    let mut ways = ways_back(&*api.engine, &user, &before).await?;
    let page = page(&*api.engine, &user, &mut ways, limit, crate::now()).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], page).into_response())
}

/// The feeds of an inbox that are kept for it: the user's own, the one for everyone, and those of topics that the user
/// is a member of, or was.
async fn ways_back(engine: &dyn Engine, user: &UserId, before: &Cursor) -> Result<Vec<WayBack>, EngineError> {
    let memberships = engine.memberships(user).await?;
    let mut feeds = vec![FeedId::User(user.clone()), FeedId::All];
    feeds.extend(memberships.iter().map(|one| FeedId::Topic(one.topic.clone())));
    let spans = engine.spans(&feeds).await?;
    let at_once = (STRETCH / feeds.len() as u64).max(STRETCH_LEAST);
    let memberships = [None, None].into_iter().chain(memberships.into_iter().map(Some));
    let ways = feeds.into_iter().zip(spans).zip(memberships);
    Ok(ways
        .map(|((feed, span), membership)| WayBack::new(feed, span, membership, before, at_once))
        .collect())
}

/// One feed, read backwards.
struct WayBack {
    feed: FeedId,
    /// Of a topic: what of it is the user's.
    membership: Option<Membership>,
    /// So many entries are read at once.
    at_once: u64,
    /// The oldest offset that is held.
    first: u64,
    /// Everything from here on has been read from the engine.
    unread: u64,
    /// Everything from here on has been looked at.
    next: Position,
    /// Read but not looked at, with whether it is this inbox's; the newest last.
    stretch: Vec<(Arc<Entry>, Arc<Standing>, bool)>,
}

impl WayBack {
    fn new(
        feed: FeedId,
        span: FeedSpan,
        membership: Option<Membership>,
        before: &Cursor,
        at_once: u64,
    ) -> WayBack {
        let end = Position {
            epoch: span.head.epoch,
            offset: span.head.offset + 1,
        };
        let place = before.get(&feed).filter(|place| place.offset <= end.offset);
        let next = place.unwrap_or(end);
        WayBack {
            feed,
            membership,
            at_once,
            first: span.first,
            unread: next.offset,
            next,
            stretch: Vec::new(),
        }
    }

    /// The newest of what was not read and is the user's.
    fn newest_unread(&self) -> Option<u64> {
        let to = self.unread.checked_sub(1)?;
        let newest = match &self.membership {
            None => Some(to),
            Some(membership) => membership.newest_at(to),
        };
        newest.filter(|newest| *newest >= self.first)
    }

    async fn fill(&mut self, engine: &dyn Engine, user: &UserId) -> Result<(), EngineError> {
        if !self.stretch.is_empty() {
            return Ok(());
        }
        let Some(to) = self.newest_unread() else {
            self.unread = self.unread.min(self.first);
            return Ok(());
        };
        let from = (to + 1).saturating_sub(self.at_once).max(self.first);
        let standing = Arc::new(engine.standing(user, &self.feed, from, to).await?);
        let mut after = from - 1;
        while after < to {
            let limit = ReadLimit {
                entries: usize::try_from(to - after).unwrap_or(usize::MAX),
                bytes: PAGE_BYTES,
            };
            let entries = self.read(engine, user, after, limit).await?;
            let Some((last, _)) = entries.last() else { break };
            after = last.position.offset;
            let within = entries
                .into_iter()
                .filter(|(entry, _)| entry.position.offset <= to);
            let standing = || standing.clone();
            self.stretch
                .extend(within.map(|(entry, shown)| (entry, standing(), shown)));
        }
        self.unread = from;
        Ok(())
    }

    /// Entries, each with whether it is this inbox's.
    async fn read(
        &self,
        engine: &dyn Engine,
        user: &UserId,
        after: u64,
        limit: ReadLimit,
    ) -> Result<Vec<(Arc<Entry>, bool)>, EngineError> {
        if self.membership.is_none() {
            let page = engine.read(&self.feed, after, limit).await?;
            let shown = |entry: Arc<Entry>| {
                let holds = |feed: &FeedId| *feed == entry.feed;
                let shown = entry.is_for(user, holds);
                (entry, shown)
            };
            return Ok(page.entries.into_iter().map(shown).collect());
        }
        let wanted = PageWanted {
            user: user.clone(),
            feed: self.feed.clone(),
            member: true,
            after,
            limit,
        };
        let page = read_inbox(engine, wanted, crate::now()).await?;
        Ok(page
            .entries
            .into_iter()
            .map(|one| (one.entry, one.shown))
            .collect())
    }

    fn newest(&self) -> Option<Timestamp> {
        let (entry, ..) = self.stretch.last()?;
        // A mark is passed over at once.
        Some(
            entry
                .notification()
                .map_or(Timestamp::MAX, |notification| notification.time),
        )
    }
}

async fn page(
    engine: &dyn Engine,
    user: &UserId,
    ways: &mut [WayBack],
    limit: usize,
    now: Timestamp,
) -> Result<Vec<u8>, EngineError> {
    let mut out = br#"{"notifications":["#.to_vec();
    let (mut shown, mut seen) = (0, 0);
    let mut more = true;
    while shown < limit && seen < ENTRIES_SEEN && out.len() < PAGE_BYTES {
        for way in ways.iter_mut() {
            way.fill(engine, user).await?;
        }
        let Some(way) = ways
            .iter_mut()
            .filter(|way| way.newest().is_some())
            .max_by_key(|way| way.newest())
        else {
            more = false;
            break;
        };
        let Some((entry, standing, is_shown)) = way.stretch.pop() else {
            break;
        };
        way.next = entry.position;
        seen += 1;
        if let Some(mut object) = object(&entry, &standing, now).filter(|_| is_shown) {
            if let Some(time) = delivered_in_passing(engine, &entry, &standing, user).await? {
                object.pop();
                object.extend_from_slice(format!(r#","delivered_at":"{time}"}}"#).as_bytes());
            }
            if shown > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&object);
            shown += 1;
        }
    }
    out.extend_from_slice(b"],\"cursor\":");
    if more {
        let cursor = Cursor::new(ways.iter().map(|way| (&way.feed, way.next)));
        json::push_string(&mut out, &cursor.encode(user));
    } else {
        out.extend_from_slice(b"null");
    }
    out.push(b'}');
    Ok(out)
}

/// When a floor that passed it delivered it: such a time is kept for stretches of a user's own feed.
async fn delivered_in_passing(
    engine: &dyn Engine,
    entry: &Entry,
    standing: &Standing,
    user: &UserId,
) -> Result<Option<Timestamp>, EngineError> {
    let offset = entry.position.offset;
    let own = matches!(entry.feed, FeedId::User(_));
    let Some(notification) = entry.notification().filter(|_| own) else {
        return Ok(None);
    };
    if !standing.covers(offset) || standing.has(offset, MarkKind::Delivered) {
        return Ok(None);
    }
    let which = Recipients::One(user.clone());
    let states = engine.recipients(&notification.id, which).await?;
    let mut marks = states.iter().flat_map(|one| &one.marks);
    Ok(marks
        .find(|mark| mark.kind == MarkKind::Delivered)
        .map(|mark| mark.time))
}

/// A notification with its state; `None` for what this inbox does not show.
fn object(entry: &Entry, standing: &Standing, now: Timestamp) -> Option<Vec<u8>> {
    let EntryKind::Notification(notification, withdrawn) = &entry.kind else {
        return None;
    };
    let offset = entry.position.offset;
    // Given up and put into the user's feed anew: there it is shown.
    let moved = standing.has(offset, MarkKind::Dead) && standing.has(offset, MarkKind::Dismissed);
    if moved || offset <= standing.joined {
        return None;
    }
    let state = state_of(notification, *withdrawn, offset, standing, now);
    let mut out = entry.json().to_vec();
    out.pop();
    out.extend_from_slice(format!(r#","state":"{}""#, state.as_str()).as_bytes());
    for (name, kind) in [("delivered_at", MarkKind::Delivered), ("read_at", MarkKind::Read)] {
        if let Some(mark) = standing.at(offset).find(|mark| mark.kind == kind) {
            out.extend_from_slice(format!(r#","{name}":"{}""#, mark.time).as_bytes());
        }
    }
    out.push(b'}');
    Some(out)
}
