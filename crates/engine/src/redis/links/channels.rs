//! Which channels are wanted, how far each subscription is, and whether something can have been missed. Pure.
//!
//! A channel is *off* → *joining* → *on* → *leaving* → *off*, and only an answer of the server ends joining or leaving;
//! so what is wanted may change at any time without a command overtaking another.
//!
//! Invariant: a cell is told to be *mended* once for each time that a channel of it was on and ceased to be unasked,
//! and not before every such channel that is still wanted is on again.

use super::cell::{CELLS, Cell};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// A server's number among all of this process.
pub type ServerId = u64;
/// A channel's name.
pub type Name = Arc<[u8]>;

/// Most channels in one command: so that one does not hold a server up.
const JOINED: usize = 512;

/// The channels of a node.
#[derive(Debug)]
pub struct Channels {
    cells: Vec<CellChannels>,
    count: usize,
    most: usize,
}

#[derive(Debug, Default)]
struct CellChannels {
    /// The server that has the cell.
    home: Option<ServerId>,
    /// Whether the connection to it is up.
    up: bool,
    /// Whether the server turned a subscription away: the cell waits for [`Channels::retry`].
    held: bool,
    /// Whether something can have been missed that nobody was told of yet.
    lost: bool,
    /// Channels that were on, are not, and are wanted still.
    mending: usize,
    /// Channels to look at.
    changed: Vec<Name>,
    channels: HashMap<Name, Channel, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Channel {
    wanted: bool,
    stage: Stage,
    mending: bool,
    waiters: Vec<Arc<Waiter>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Off,
    Joining,
    On,
    Leaving,
}

/// Someone who waits for channels to be on.
#[derive(Debug)]
pub struct Waiter {
    left: AtomicUsize,
    /// Told once all are on.
    pub done: Notify,
}

/// One command to a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// `SSUBSCRIBE`
    Join(Cell, Vec<Name>),
    /// `SUNSUBSCRIBE`
    Leave(Cell, Vec<Name>),
}

impl Channels {
    /// None yet, and never more than `most`.
    pub fn new(most: usize) -> Channels {
        let cells = (0..CELLS).map(|_| CellChannels::default()).collect();
        Channels {
            cells,
            count: 0,
            most,
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Wants a channel. Returns the server to tell, if there is something to tell it.
    pub fn want(&mut self, cell: Cell, name: &[u8]) -> Option<ServerId> {
        let of = &mut self.cells[cell.index()];
        if let Some(channel) = of.channels.get_mut(name) {
            channel.wanted = true;
            if channel.stage != Stage::Off {
                return None;
            }
        } else {
            if self.count >= self.most {
                return None;
            }
            self.count += 1;
            of.channels.insert(name.into(), Channel::wanted());
        }
        of.look_at(name);
        of.home
    }

    /// Lets go of a channel. Returns the server to tell.
    pub fn unwant(&mut self, cell: Cell, name: &[u8]) -> Option<ServerId> {
        let of = &mut self.cells[cell.index()];
        let channel = of.channels.get_mut(name)?;
        channel.wanted = false;
        if std::mem::take(&mut channel.mending) {
            of.mending -= 1;
        }
        if of.up {
            of.look_at(name);
        } else if of.channels.remove(name).is_some() {
            self.count -= 1;
        }
        of.home
    }

    /// `Ok(None)` where all these are on; else who is told when they are. `Err` where one is not wanted at all.
    pub fn wait(&mut self, names: &[(Cell, &[u8])]) -> Result<Option<Arc<Waiter>>, NotWanted> {
        let mut waiting = Vec::new();
        for (cell, name) in names {
            match self.cells[cell.index()].channels.get(*name) {
                Some(channel) if channel.wanted && channel.stage == Stage::On => {}
                Some(channel) if channel.wanted => waiting.push((cell, *name)),
                _ => return Err(NotWanted),
            }
        }
        if waiting.is_empty() {
            return Ok(None);
        }
        let waiter = Arc::new(Waiter {
            left: AtomicUsize::new(waiting.len()),
            done: Notify::new(),
        });
        for (cell, name) in waiting {
            if let Some(channel) = self.cells[cell.index()].channels.get_mut(name) {
                // Those who gave up waiting are not kept.
                channel.waiters.retain(|waiter| Arc::strong_count(waiter) > 1);
                channel.waiters.push(Arc::clone(&waiter));
            }
        }
        Ok(Some(waiter))
    }

    /// A cell has another server now, or none.
    pub fn move_cell(&mut self, cell: Cell, home: Option<ServerId>, is_up: bool) {
        let of = &mut self.cells[cell.index()];
        if of.home == home {
            return;
        }
        self.count -= of.down();
        of.home = home;
        if is_up {
            of.up();
        }
    }

    /// The connection to a server is up: nothing is subscribed to on it.
    pub fn up(&mut self, server: ServerId) {
        for of in self.cells.iter_mut().filter(|of| of.home == Some(server)) {
            of.up();
        }
    }

    /// The connection to a server is gone, and its subscriptions with it.
    pub fn down(&mut self, server: ServerId) {
        for of in self.cells.iter_mut().filter(|of| of.home == Some(server)) {
            self.count -= of.down();
        }
    }

    /// The next commands for a server, at most `most`.
    pub fn orders(&mut self, server: ServerId, most: usize) -> Vec<Order> {
        let mut orders = Vec::new();
        for (cell, of) in Cell::all().zip(&mut self.cells) {
            if of.home != Some(server) || !of.up || of.held {
                continue;
            }
            while !of.changed.is_empty() && orders.len() < most {
                let (join, leave, gone) = of.take_changed();
                self.count -= gone;
                orders.extend((!leave.is_empty()).then_some(Order::Leave(cell, leave)));
                orders.extend((!join.is_empty()).then_some(Order::Join(cell, join)));
            }
        }
        orders
    }

    /// The server confirmed a subscription.
    pub fn joined(&mut self, server: ServerId, cell: Cell, name: &[u8]) {
        let of = &mut self.cells[cell.index()];
        if of.home != Some(server) {
            return;
        }
        let Some(channel) = of.channels.get_mut(name) else {
            return;
        };
        channel.stage = Stage::On;
        if std::mem::take(&mut channel.mending) {
            of.mending -= 1;
        }
        if !channel.wanted {
            of.changed.push(name.into());
            return;
        }
        for waiter in channel.waiters.drain(..) {
            if waiter.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                waiter.done.notify_one();
            }
        }
    }

    /// The server says that a subscription is over. Returns true where nobody asked for that: the slot has moved.
    pub fn left(&mut self, server: ServerId, cell: Cell, name: &[u8]) -> bool {
        let of = &mut self.cells[cell.index()];
        let Some(channel) = of.channels.get_mut(name).filter(|_| of.home == Some(server)) else {
            return false;
        };
        let was_asked = channel.stage == Stage::Leaving;
        of.mending += channel.lose(&mut of.lost);
        of.changed.push(name.into());
        of.held |= !was_asked;
        !was_asked
    }

    /// The server turned a command about channels of this cell away.
    pub fn refused(&mut self, server: ServerId, cell: Cell) {
        let of = &mut self.cells[cell.index()];
        if of.home != Some(server) {
            return;
        }
        of.held = true;
        for (name, channel) in &mut of.channels {
            if matches!(channel.stage, Stage::Joining | Stage::Leaving) {
                channel.stage = Stage::Off;
                of.changed.push(Arc::clone(name));
            }
        }
    }

    /// Whether cells of this server wait for [`Channels::retry`].
    pub fn is_held(&self, server: ServerId) -> bool {
        self.cells.iter().any(|of| of.home == Some(server) && of.held)
    }

    /// Lets what was turned away be asked again.
    pub fn retry(&mut self, server: ServerId) {
        for of in self.cells.iter_mut().filter(|of| of.home == Some(server)) {
            of.held = false;
        }
    }

    /// The cells of this server that may have missed something and are whole again: each is told once. None as long
    /// as another cell of it is on its way, so that a reconnect is told in one piece.
    pub fn mended(&mut self, server: ServerId) -> Vec<Cell> {
        let ours = || self.cells.iter().filter(|of| of.home == Some(server));
        if !ours().any(|of| of.lost) || ours().any(|of| of.up && !of.held && of.mending > 0) {
            return Vec::new();
        }
        let mut mended = Vec::new();
        for (cell, of) in Cell::all().zip(&mut self.cells) {
            if of.home == Some(server) && of.up && of.mending == 0 && std::mem::take(&mut of.lost) {
                mended.push(cell);
            }
        }
        mended
    }
}

/// A channel that nobody subscribed to was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotWanted;

impl CellChannels {
    /// Without a connection there is nothing to do: all are looked at when there is one.
    fn look_at(&mut self, name: &[u8]) {
        if self.up {
            self.changed.push(name.into());
        }
    }

    fn up(&mut self) {
        self.up = true;
        self.held = false;
        self.changed = self.channels.keys().map(Arc::clone).collect();
    }

    /// Returns how many channels are gone with it.
    fn down(&mut self) -> usize {
        self.up = false;
        self.held = false;
        self.changed = Vec::new();
        for channel in self.channels.values_mut() {
            self.mending += channel.lose(&mut self.lost);
        }
        let before = self.channels.len();
        self.channels.retain(|_, channel| channel.wanted);
        before - self.channels.len()
    }

    /// Looks at what changed: what to join, what to leave, and how many channels are gone.
    fn take_changed(&mut self) -> (Vec<Name>, Vec<Name>, usize) {
        let (mut join, mut leave, mut gone) = (Vec::new(), Vec::new(), 0);
        while join.len() < JOINED && leave.len() < JOINED {
            let Some(name) = self.changed.pop() else {
                break;
            };
            let Some(channel) = self.channels.get_mut(&name) else {
                continue;
            };
            match (channel.stage, channel.wanted) {
                (Stage::Off, true) => {
                    channel.stage = Stage::Joining;
                    join.push(name);
                }
                (Stage::Off, false) => {
                    self.channels.remove(&name);
                    gone += 1;
                }
                (Stage::On, false) => {
                    channel.stage = Stage::Leaving;
                    leave.push(name);
                }
                // Its answer is on the way, and is looked at again when it comes.
                (Stage::Joining | Stage::Leaving, _) | (Stage::On, true) => {}
            }
        }
        (join, leave, gone)
    }
}

impl Channel {
    fn wanted() -> Channel {
        Channel {
            wanted: true,
            stage: Stage::Off,
            mending: false,
            waiters: Vec::new(),
        }
    }

    /// It is off from here on. Returns 1 where it becomes one that must be mended, and notes the loss.
    fn lose(&mut self, lost: &mut bool) -> usize {
        let was_on = std::mem::replace(&mut self.stage, Stage::Off) == Stage::On;
        if !was_on || !self.wanted || self.mending {
            return 0;
        }
        self.mending = true;
        *lost = true;
        1
    }
}

#[cfg(test)]
mod tests;
