//! Takes the connections that hold no inbox request, and serves the API on them.

use crate::connection::serve_connection;
use crate::drain::Drain;
use crate::tasks::Tasks;
use axum::Router;
use bytes::Bytes;
use postrider_transports::{Problem, Refer, response};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use tokio::sync::Semaphore;

/// Connections of the API at a time; one more gets a 503.
const CONNECTIONS: usize = 4096;

/// Serves referred connections.
pub struct Front {
    /// Set once the hub, which the API needs, is there.
    router: OnceLock<Router>,
    room: Arc<Semaphore>,
    tasks: Tasks,
    drain: Drain,
}

impl Front {
    /// A front that has no API yet.
    pub fn new(tasks: Tasks, drain: Drain) -> Front {
        Front {
            router: OnceLock::new(),
            room: Arc::new(Semaphore::new(CONNECTIONS)),
            tasks,
            drain,
        }
    }

    /// Gives it the API. The first one stays.
    pub fn open(&self, router: Router) {
        self.router.get_or_init(|| router);
    }

    fn serve(&self, mut socket: TcpStream, already_read: Vec<u8>) -> std::io::Result<()> {
        let (Some(router), Ok(place)) = (self.router.get(), self.room.clone().try_acquire_owned()) else {
            return socket.write_all(&response::problem(&Problem::unavailable(1), false, &[]));
        };
        let peer: SocketAddr = socket.peer_addr()?;
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let socket = {
            let _entered = self.tasks.runtime().enter();
            tokio::net::TcpStream::from_std(socket)?
        };
        let served = serve_connection(
            router.clone(),
            socket,
            Bytes::from(already_read),
            peer,
            self.drain.clone(),
        );
        self.tasks.spawn("api connection", async move {
            served.await;
            drop(place);
        });
        Ok(())
    }
}

impl Refer for Front {
    fn refer(&self, socket: TcpStream, already_read: Vec<u8>) {
        if let Err(error) = self.serve(socket, already_read) {
            tracing::debug!(%error, "a connection could not be served");
        }
    }
}
