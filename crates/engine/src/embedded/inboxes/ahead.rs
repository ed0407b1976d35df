//! What sessions' questions are about to read, brought together: from a store that is far away opening a session is
//! two or three round trips then, and a page two.

use crate::embedded::StoreFault;
use crate::embedded::codec::key;
use crate::embedded::store::{Table, View, Wanted};
use crate::embedded::{people, tables, wants};
use crate::{PageWanted, StartsWanted};
use postrider_model::FeedId;

/// What [`Inboxes::starts`](crate::Inboxes::starts) reads.
pub(super) fn of_starts(view: &dyn View, wanted: &[StartsWanted]) -> Result<(), StoreFault> {
    let mut first = Vec::new();
    for StartsWanted {
        user, places, state, ..
    } in wanted
    {
        for (feed, place) in places {
            wants::of_standing(user, feed, &mut first);
            if let Some(place) = place {
                wants::get(&mut first, Table::Entries, key::entry(feed, place.offset));
            }
        }
        wants::get(&mut first, Table::Memberships, key::user(user));
        if *state {
            wants::of_state(user, &mut first);
        }
    }
    view.prefetch(&first)?;
    let mut then = Vec::new();
    for StartsWanted { user, cursor, .. } in wanted {
        // Where that cannot be read whoever asked is told so.
        for one in people::memberships(view, user).unwrap_or_default() {
            let feed = FeedId::Topic(one.topic);
            wants::of_standing(user, &feed, &mut then);
            if let Some(place) = cursor.as_ref().and_then(|cursor| cursor.get(&feed)) {
                wants::get(&mut then, Table::Entries, key::entry(&feed, place.offset));
            }
        }
    }
    view.prefetch(&then)
}

/// What [`Inboxes::pages`](crate::Inboxes::pages) reads.
pub(super) fn of_pages(view: &dyn View, wanted: &[PageWanted]) -> Result<(), StoreFault> {
    let mut first = Vec::new();
    for page in wanted {
        wants::of_standing(&page.user, &page.feed, &mut first);
        if let FeedId::Topic(_) = page.feed {
            wants::get(&mut first, Table::Memberships, key::user(&page.user));
        }
        let (from, end) = entries(page);
        first.push(Wanted::Scan(Table::Entries, from, end, page.limit.entries.max(1)));
    }
    view.prefetch(&first)?;
    let mut then = Vec::new();
    for page in wanted {
        let (from, end) = entries(page);
        let rows = view.scan(Table::Entries, &from, &end, page.limit.entries.max(1))?;
        if let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) {
            let (from, to) = (tables::offset(first)?, tables::offset(last)?);
            wants::of_place(&page.user, &page.feed, from, to, &mut then);
            then.extend(wants::of_bodies(&rows));
        }
    }
    view.prefetch(&then)
}

fn entries(page: &PageWanted) -> (Vec<u8>, Vec<u8>) {
    let from = key::entry(&page.feed, page.after.saturating_add(1));
    (from, key::after(&key::feed(&page.feed)))
}
