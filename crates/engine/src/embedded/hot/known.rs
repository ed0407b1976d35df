//! What is known of one user: where the own feed stands, and the user's floors. Pure: built from one look at the
//! store, and moved along by what a commit writes.

use super::members::Members;
use super::slots::{Cost, Fate};
use super::tail::{Lost, Tail};
use crate::embedded::StoreFault;
use crate::embedded::codec::{EntryKindRecord, EntryRecord, key};
use crate::embedded::store::{Batch, Table, View};
use crate::embedded::tables::{self, FLOOR_DELIVERED, FLOOR_JOINED};
use postrider_model::{FeedId, FeedKind, FeedSpan, Position, UserId};

/// A slot, and what it holds beside the own feed's entries.
const SLOT_BYTES: usize = 24;
const KNOWN_BYTES: usize = 192;
/// Rows of a user that are looked at to see whether there are many: floors are at most three for each feed.
const FEW_FLOORS: usize = 8;

/// One user's slot.
#[derive(Debug)]
pub(super) enum Slot {
    /// Somebody reads the store to fill it; the number says who.
    Filling(u64),
    /// What is known; while a commit that changes it is under way it is not looked at.
    Filled {
        /// Such a commit is under way.
        moving: bool,
        /// `None`: the store has nothing of this user.
        known: Option<Box<Known>>,
    },
}

/// What the store says of a user.
#[derive(Debug)]
pub(super) struct Known {
    /// The user's own feed.
    pub tail: Tail,
    /// In the own feed.
    pub own: Place,
    /// In `all`.
    pub all: Place,
    /// The topics of which the user is, or was, a member.
    pub members: Option<Box<Members>>,
}

/// What is known of a user, but for entries.
#[derive(Debug, Clone, Copy)]
pub(in crate::embedded) struct Outline {
    /// What the own feed holds.
    pub span: FeedSpan,
    /// In the own feed.
    pub own: Place,
    /// In `all`.
    pub all: Place,
}

impl Default for Outline {
    fn default() -> Self {
        Known::nothing().outline()
    }
}

/// A user's place in a feed, where it is simple enough.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) struct Place {
    /// What is delivered, or lies before the user joined.
    pub floor: u64,
    /// No entry above it has a mark.
    pub marked: u64,
    /// No entry above it was attempted.
    pub attempted: u64,
    /// Something is pending although the floor may have passed it.
    pub open: bool,
    /// The user has a floor of what is delivered: in a wide feed, such users are noted.
    pub has_floor: bool,
}

/// Whose a row is: of a feed by its kind, or of a place in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'k> {
    User(&'k str),
    Topic(&'k str),
    All,
}

impl Cost for Slot {
    fn cost(&self) -> usize {
        match self {
            Slot::Filled {
                known: Some(known), ..
            } => {
                let members = known.members.as_ref().map_or(0, |members| members.bytes());
                SLOT_BYTES + KNOWN_BYTES + known.tail.bytes() + members
            }
            Slot::Filled { known: None, .. } | Slot::Filling(_) => SLOT_BYTES,
        }
    }
}

impl Known {
    pub fn nothing() -> Known {
        Known {
            tail: Tail::new(FeedSpan::EMPTY),
            own: Place::default(),
            all: Place::default(),
            members: None,
        }
    }

    pub fn outline(&self) -> Outline {
        Outline {
            span: self.tail.span(),
            own: self.own,
            all: self.all,
        }
    }

    /// What a view says, but for entries; `None` for nothing at all.
    pub fn read(view: &dyn View, user: &UserId) -> Result<Option<Box<Known>>, StoreFault> {
        let feed = FeedId::User(user.clone());
        let mut known = Known::nothing();
        known.tail = Tail::new(tables::span(view, &feed)?);
        let prefix = user_prefix(user.as_str());
        let end = key::after(&prefix);
        let floors = view.scan(Table::Floors, &prefix, &end, FEW_FLOORS)?;
        for (row, value) in &floors {
            known.floor_written(user.as_str(), row, value)?;
        }
        if floors.len() == FEW_FLOORS {
            known.own.floor = tables::floor(view, user, &feed, FLOOR_DELIVERED)?;
            let floor = |kind| tables::floor(view, user, &FeedId::All, kind);
            let delivered = floor(FLOOR_DELIVERED)?;
            known.all.floor = delivered.max(floor(FLOOR_JOINED)?);
            known.all.has_floor = delivered > 0;
        }
        for table in [Table::Marks, Table::Attempts, Table::Opens] {
            if view.scan(table, &prefix, &end, 1)?.is_empty() {
                continue;
            }
            for (feed, place) in [(&feed, &mut known.own), (&FeedId::All, &mut known.all)] {
                let prefix = key::user_feed(user, feed);
                if let Some((row, _)) = view.last(table, &prefix, &key::after(&prefix))? {
                    place.noted(table, &row)?;
                }
            }
        }
        known.members = Members::read(view, user)?;
        let nothing = known.members.is_none()
            && known.tail.is_nothing()
            && [known.own, known.all] == [Place::default(); 2];
        Ok((!nothing).then(|| Box::new(known)))
    }

    /// Follows what a commit wrote about this user. Where it cannot, nothing is known any more.
    pub fn follow(&mut self, user: &str, batch: &Batch) -> Result<(), Lost> {
        if batch.table(Table::Memberships).get(user.as_bytes()).is_some() {
            return Err(Lost);
        }
        let mut feed = Vec::with_capacity(user.len() + 3);
        FeedId::join_key(FeedKind::User, user, &mut feed);
        follow_feed(&mut self.tail, &feed, batch)?;
        let prefix = user_prefix(user);
        for (row, value) in rows(batch, Table::Floors, &prefix) {
            let value = value.as_ref().ok_or(Lost)?;
            self.floor_written(user, row, value).map_err(|_| Lost)?;
        }
        self.tail.settled(self.own.floor);
        for table in [Table::Marks, Table::Attempts, Table::Opens] {
            for (row, value) in rows(batch, table, &prefix) {
                let Some(place) = self.place_mut(user, row) else {
                    continue;
                };
                // Of what is taken away there may be more: what was noted stays.
                if value.is_some() {
                    place.noted(table, row).map_err(|_| Lost)?;
                } else if table == Table::Opens {
                    return Err(Lost);
                }
            }
        }
        Ok(())
    }

    fn floor_written(&mut self, user: &str, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
        let place = self.place_mut(user, row);
        place.map_or(Ok(()), |place| place.floor_written(row, value))
    }

    /// The user's place in the feed that one of the user's rows is about.
    fn place_mut(&mut self, user: &str, row: &[u8]) -> Option<&mut Place> {
        match owner(row.get(user.len() + 1..).unwrap_or_default())? {
            Owner::User(name) => (name == user).then_some(&mut self.own),
            Owner::Topic(name) => self.members.as_mut()?.place_mut(name),
            Owner::All => Some(&mut self.all),
        }
    }
}

/// A user was erased and has acknowledged something since, in one transaction.
const WENT_BACK: StoreFault = StoreFault::Corrupt {
    table: "floors",
    detail: "a floor went back",
};

impl Place {
    /// The same, after what a batch that is not yet committed changes in this feed; nothing where that cannot be told.
    pub fn after(mut self, batch: &Batch, user: &UserId, feed: &FeedId) -> Option<Place> {
        let prefix = key::user_feed(user, feed);
        for table in [Table::Floors, Table::Marks, Table::Attempts, Table::Opens] {
            for (row, value) in rows(batch, table, &prefix) {
                match (table, value) {
                    (Table::Floors, Some(value)) => self.floor_written(row, value).ok()?,
                    (_, Some(_)) => self.noted(table, row).ok()?,
                    (_, None) => return None,
                }
            }
        }
        Some(self)
    }

    pub(super) fn floor_written(&mut self, row: &[u8], value: &[u8]) -> Result<(), StoreFault> {
        let kind = row.last();
        if let Some(&FLOOR_DELIVERED | &FLOOR_JOINED) = kind {
            let floor = tables::one_u64("floors", value)?;
            if kind == Some(&FLOOR_DELIVERED) && self.has_floor && floor < self.floor {
                return Err(WENT_BACK);
            }
            self.floor = self.floor.max(floor);
            self.has_floor |= kind == Some(&FLOOR_DELIVERED);
        }
        Ok(())
    }

    pub(super) fn noted(&mut self, table: Table, row: &[u8]) -> Result<(), StoreFault> {
        // A mark's key ends in its kind.
        let row = match table {
            Table::Marks => row.split_last().map_or(row, |(_, row)| row),
            _ => row,
        };
        match table {
            Table::Opens => self.open = true,
            Table::Attempts => self.attempted = self.attempted.max(tables::offset(row)?),
            _ => self.marked = self.marked.max(tables::offset(row)?),
        }
        Ok(())
    }
}

impl Slot {
    /// What is known, and can be looked at.
    pub fn known(&self) -> Option<Option<&Known>> {
        match self {
            Slot::Filled { moving: false, known } => Some(known.as_deref()),
            Slot::Filled { .. } | Slot::Filling(_) => None,
        }
    }

    /// A commit that changes it begins.
    pub fn begin(&mut self) -> Fate {
        match self {
            // Whoever fills it may read what was before.
            Slot::Filling(_) => Fate::Drop,
            Slot::Filled { moving, .. } => {
                *moving = true;
                Fate::Keep
            }
        }
    }

    /// The commit ended, and this is what it did.
    pub fn end(&mut self, user: &str, batch: &Batch) -> Fate {
        let Slot::Filled { moving, known } = self else {
            return Fate::Drop;
        };
        *moving = false;
        let known = known.get_or_insert_with(|| Box::new(Known::nothing()));
        match known.follow(user, batch) {
            Ok(()) => Fate::Keep,
            Err(Lost) => Fate::Drop,
        }
    }
}

/// Follows what a commit wrote about a feed.
pub(super) fn follow_feed(tail: &mut Tail, feed: &[u8], batch: &Batch) -> Result<(), Lost> {
    match batch.table(Table::Feeds).get(feed) {
        None => {}
        Some(None) => return Err(Lost),
        Some(Some(value)) => {
            let (span, _) = tables::decode_trimmed(value).map_err(|_| Lost)?;
            tail.trimmed(span)?;
        }
    }
    for (row, value) in rows(batch, Table::Entries, feed) {
        let offset = key::offset_of(row).ok_or(Lost)?;
        match value {
            None => tail.removed(offset)?,
            Some(value) => {
                let EntryRecord { epoch, kind } = EntryRecord::decode(value).map_err(|_| Lost)?;
                let is_withdrawn = matches!(
                    kind,
                    EntryKindRecord::Notification {
                        withdrawn: Some(_),
                        ..
                    }
                );
                tail.written(Position { epoch, offset }, !is_withdrawn)?;
            }
        }
    }
    Ok(())
}

/// Whose a row of `entries` or `feeds` is.
pub(super) fn owner(row: &[u8]) -> Option<Owner<'_>> {
    match FeedId::split_key(row)? {
        (FeedKind::User, name, _) => Some(Owner::User(name)),
        (FeedKind::All, ..) => Some(Owner::All),
        (FeedKind::Topic, name, _) => Some(Owner::Topic(name)),
    }
}

/// The user of a row of `floors`, `marks`, `opens` or `attempts`.
pub(super) fn user_of(row: &[u8]) -> Option<&str> {
    let end = row.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&row[..end]).ok()
}

fn user_prefix(user: &str) -> Vec<u8> {
    let mut prefix = user.as_bytes().to_vec();
    prefix.push(0);
    prefix
}

fn rows<'b>(
    batch: &'b Batch,
    table: Table,
    prefix: &[u8],
) -> impl Iterator<Item = (&'b [u8], Option<&'b [u8]>)> + use<'b> {
    let changed = batch.table(table);
    let range = (!changed.is_empty()).then(|| changed.range(prefix, &key::after(prefix)));
    range.into_iter().flatten()
}
