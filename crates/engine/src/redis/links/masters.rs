//! Which masters there are now, with the connections to them; replaced as a whole when the Cluster or the Sentinels say
//! otherwise.

use super::cell::Cell;
use super::server::Server;
use super::shared::Shared;
use super::topology::Homes;
use super::url::Address;
use std::sync::Arc;
use tokio::sync::watch;

/// The masters at one time.
#[derive(Default)]
pub struct Masters {
    pub servers: Vec<Arc<Server>>,
    /// By cell, a place in `servers`.
    of_cell: Vec<Option<usize>>,
}

/// The masters as they change.
pub struct Atlas {
    shared: Arc<Shared>,
    masters: watch::Sender<Arc<Masters>>,
}

impl Masters {
    /// The master that has a cell.
    pub fn of(&self, cell: Cell) -> Option<&Arc<Server>> {
        let place = (*self.of_cell.get(cell.index())?)?;
        self.servers.get(place)
    }

    /// The master at an address.
    pub fn at(&self, address: &Address) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.address == *address)
    }

    /// True where every cell has a master.
    pub fn is_whole(&self) -> bool {
        !self.of_cell.is_empty() && self.of_cell.iter().all(Option::is_some)
    }

    fn homes(&self) -> Homes {
        Cell::all()
            .map(|cell| self.of(cell).map(|server| server.address.clone()))
            .collect()
    }
}

impl Atlas {
    /// No masters yet.
    pub fn new(shared: Arc<Shared>) -> Atlas {
        Atlas {
            shared,
            masters: watch::Sender::new(Arc::default()),
        }
    }

    /// The masters now.
    pub fn masters(&self) -> Arc<Masters> {
        Arc::clone(&self.masters.borrow())
    }

    /// Tells of each change.
    pub fn changes(&self) -> watch::Receiver<Arc<Masters>> {
        self.masters.subscribe()
    }

    /// Takes over what was found; a cell that nobody serves stays where it was. Returns whether anything changed.
    /// Called by one task only.
    pub fn take_over(&self, found: Homes) -> bool {
        let before = self.masters();
        let old = before.homes();
        let homes: Homes = found
            .into_iter()
            .zip(&old)
            .map(|(new, old)| new.or_else(|| old.clone()))
            .collect();
        if homes == old {
            return false;
        }
        let mut masters = Masters::default();
        for home in &homes {
            let place = home
                .as_ref()
                .map(|address| masters.place(address, &before, &self.shared));
            masters.of_cell.push(place);
        }
        self.move_cells(&masters);
        let servers: Vec<String> = masters
            .servers
            .iter()
            .map(|server| server.address.to_string())
            .collect();
        tracing::info!(servers = servers.join(" "), "the masters of Redis");
        self.masters.send_replace(Arc::new(masters));
        true
    }

    fn move_cells(&self, masters: &Masters) {
        {
            let mut channels = self.shared.channels();
            for cell in Cell::all() {
                let server = masters.of(cell);
                let is_up = server.is_some_and(|server| server.is_listening());
                channels.move_cell(cell, server.map(|server| server.id), is_up);
            }
        }
        masters.servers.iter().for_each(|server| server.wake());
    }

    /// Ends everything.
    pub fn close(&self) {
        let masters = self.masters.send_replace(Arc::default());
        masters.servers.iter().for_each(|server| server.stop());
    }
}

impl Masters {
    /// The place of a server among these, taken over from those before or started.
    fn place(&mut self, address: &Address, before: &Masters, shared: &Arc<Shared>) -> usize {
        if let Some(place) = self.servers.iter().position(|server| server.address == *address) {
            return place;
        }
        let server = match before.at(address) {
            Some(server) => Arc::clone(server),
            None => Arc::new(Server::start(address.clone(), shared)),
        };
        self.servers.push(server);
        self.servers.len() - 1
    }
}
