//! What sessions' questions are about to read, brought together: from a store that is far away opening a session is
//! two or three round trips then, and a page one; two where notifications were for several, whose bodies lie elsewhere.

use crate::embedded::StoreFault;
use crate::embedded::codec::{Record, key};
use crate::embedded::store::{Row, Table, View, Wanted};
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
        let most = page.limit.entries.max(1);
        first.push(Wanted::Scan(Table::Entries, from, end, most));
        // Where nothing was trimmed they are these.
        let (next, last) = (
            page.after.saturating_add(1),
            page.after.saturating_add(most as u64),
        );
        wants::of_word(&page.user, &page.feed, next, last, &mut first);
    }
    view.prefetch(&first)?;
    let mut then = Vec::new();
    for page in wanted {
        let (from, end) = entries(page);
        let mut rows = view.scan(Table::Entries, &from, &end, page.limit.entries.max(1))?;
        if let (Some((first, _)), Some((last, _))) = (rows.first(), rows.last()) {
            let (from, to) = (tables::offset(first)?, tables::offset(last)?);
            wants::of_word(&page.user, &page.feed, from, to, &mut then);
            rows.retain(|row| !stands_whole(&page.feed, row));
            then.extend(wants::of_bodies(&rows));
        }
    }
    view.prefetch(&then)
}

/// Whether nothing but this entry is needed to show it.
fn stands_whole(feed: &FeedId, (row, value): &Row) -> bool {
    let (FeedId::User(user), Ok(offset)) = (feed, tables::offset(row)) else {
        return false;
    };
    matches!(Record::of_entry(value, user, offset), Ok(Some(_)))
}

fn entries(page: &PageWanted) -> (Vec<u8>, Vec<u8>) {
    let from = key::entry(&page.feed, page.after.saturating_add(1));
    (from, key::after(&key::feed(&page.feed)))
}
