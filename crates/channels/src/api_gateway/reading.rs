//! Reading the table: from those whom a push is for to their connections, a page at a time.

use super::{ApiGateway, Connection, Half, Page, Segment, TableFault, room};
use crate::Whom;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use postrider_model::{Millis, Pauses};

/// Between two tries to read a page.
const PAUSES: Pauses = Pauses {
    first: Millis(50),
    most: Millis(10_000),
};
/// After so many failures in a row the table counts as away.
const AWAY_AFTER: u32 = 3;
/// After so many more it is logged again.
const LOG_EVERY: u32 = 16;

/// What is read.
#[derive(Clone, Copy)]
enum Part<'a> {
    User(&'a str),
    Segment(Segment),
}

impl ApiGateway {
    /// The connections of those whom it is for.
    pub(super) fn connections<'a>(&'a self, whom: &'a Whom) -> BoxStream<'a, Connection> {
        match whom {
            Whom::Users(users) => stream::iter(users)
                .map(|user| self.pages(Part::User(user.as_str())))
                .flatten_unordered(self.options.lookups.max(1))
                .flat_map(stream::iter)
                .boxed(),
            Whom::EveryoneBut(_) => {
                let of = self.options.segments.max(1);
                stream::iter(0..of)
                    .map(move |number| self.pages(Part::Segment(Segment { number, of })))
                    .flatten_unordered(of)
                    .flat_map(stream::iter)
                    .filter(move |connection| std::future::ready(whom.has(&connection.user)))
                    .boxed()
            }
        }
    }

    /// The pages of one part, each read when the one before was taken.
    fn pages<'a>(&'a self, part: Part<'a>) -> BoxStream<'a, Vec<Connection>> {
        let from_start = Some(None);
        stream::unfold(from_start, move |after: Option<Option<Connection>>| async move {
            let page = self.page(part, after?.as_ref()).await;
            Some((page.connections, page.after.map(Some)))
        })
        .boxed()
    }

    /// One page, as soon as the table gives it.
    async fn page(&self, part: Part<'_>, after: Option<&Connection>) -> Page {
        let mut failures = 0;
        loop {
            let fault = match self.try_page(part, after).await {
                Ok(page) => {
                    self.standing.set(Half::Table, true);
                    return page;
                }
                Err(fault) => fault,
            };
            let is_throttled = matches!(fault, TableFault::Throttled(_));
            if !is_throttled && failures + 1 >= AWAY_AFTER {
                self.standing.set(Half::Table, false);
            }
            if failures % LOG_EVERY == AWAY_AFTER - 1 {
                tracing::warn!(%fault, "connections cannot be looked up; it is tried again");
            }
            let pause = PAUSES.nth(failures, (self.options.random)());
            tokio::time::sleep(pause.as_duration()).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn try_page(&self, part: Part<'_>, after: Option<&Connection>) -> Result<Page, TableFault> {
        match part {
            Part::User(user) => {
                let _permit = room(&self.lookups).await;
                self.table.of_user(user, after).await
            }
            // Their number is bounded by that of the scans.
            Part::Segment(segment) => self.table.of_segment(segment, after).await,
        }
    }
}
