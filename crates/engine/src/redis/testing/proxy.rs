//! A way to a server that can be made to swallow what goes through it, as a network does that loses a route: nobody is
//! told that the connection is gone.

use crate::redis::links::RedisUrl;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Builder;

#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    /// Connections up to this number are swallowed.
    swallowed: Arc<AtomicUsize>,
    count: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Proxy {
    /// Before the server on this port.
    pub(crate) fn start(server: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let proxy = Proxy {
            port,
            swallowed: Arc::default(),
            count: Arc::default(),
            ended: Arc::default(),
        };
        let (swallowed, count, ended) = (
            Arc::clone(&proxy.swallowed),
            Arc::clone(&proxy.count),
            Arc::clone(&proxy.ended),
        );
        let accept = move || {
            for client in listener.incoming() {
                let (Ok(client), false) = (client, ended.load(Ordering::Acquire)) else {
                    return;
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else {
                    continue;
                };
                let number = count.fetch_add(1, Ordering::AcqRel) + 1;
                for (from, to) in [(&client, &server), (&server, &client)] {
                    carry(from, to, number, &swallowed);
                }
            }
        };
        Builder::new()
            .name("proxy".into())
            .spawn(accept)
            .expect("a thread");
        proxy
    }

    /// The server through it.
    pub(crate) fn url(&self) -> RedisUrl {
        format!("redis://127.0.0.1:{}", self.port)
            .parse()
            .expect("a well-formed address")
    }

    /// What was connected until now passes nothing on any more, and is not told.
    pub(crate) fn swallow(&self) {
        self.swallow_next(0);
    }

    /// So do the next so many connections.
    pub(crate) fn swallow_next(&self, count: usize) {
        self.swallowed
            .store(self.count.load(Ordering::Acquire) + count, Ordering::Release);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Its own thread sees the end with the next connection.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn carry(from: &TcpStream, to: &TcpStream, number: usize, swallowed: &Arc<AtomicUsize>) {
    let mut from = from.try_clone().expect("a socket can be cloned");
    let mut to = to.try_clone().expect("a socket can be cloned");
    let swallowed = Arc::clone(swallowed);
    let copy = move || {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let passes = swallowed.load(Ordering::Acquire) < number;
            if passes && to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        // One that was swallowed keeps its silence.
        if swallowed.load(Ordering::Acquire) < number {
            drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both)));
        }
    };
    Builder::new().name("proxy".into()).spawn(copy).expect("a thread");
}
