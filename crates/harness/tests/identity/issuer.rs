//! A stand-in for an issuer: serves a JWK set over HTTP, counts, and does what the test tells it to.

use anyhow::Result;
use postrider_harness::ports::{free, loopback};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A running issuer; it ends when it is dropped.
pub struct Issuer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Status line's end, further headers, body.
    answer: Mutex<(String, String)>,
    fetches: AtomicUsize,
    is_over: AtomicBool,
}

impl Issuer {
    /// At an address that nobody takes while it is away.
    pub fn start(keys: &[Value]) -> Result<Issuer> {
        Issuer::at(loopback(free(1)?[0]), keys)
    }

    /// At an address that one had before.
    pub fn at(addr: SocketAddr, keys: &[Value]) -> Result<Issuer> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(64)?;
        let listener = TcpListener::from(socket);
        let shared = Arc::<Shared>::default();
        let issuer = Issuer {
            addr: listener.local_addr()?,
            shared: shared.clone(),
            thread: Some(std::thread::spawn(move || serve(&listener, &shared))),
        };
        issuer.publish(keys);
        Ok(issuer)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.addr)
    }

    /// From now on these are its keys.
    pub fn publish(&self, keys: &[Value]) {
        self.answer("200 OK", &json!({ "keys": keys }).to_string());
    }

    /// From now on it answers this; the status may carry further header lines.
    pub fn answer(&self, status: &str, body: &str) {
        *self.shared.answer.lock().unwrap() = (status.to_owned(), body.to_owned());
    }

    /// How often it was asked.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        drop(TcpStream::connect(self.addr));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(listener: &TcpListener, shared: &Shared) {
    for socket in listener.incoming() {
        if shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        if let Err(error) = socket
            .map_err(anyhow::Error::from)
            .and_then(|socket| reply(socket, shared))
        {
            println!("issuer: {error:#}");
        }
    }
}

fn reply(mut socket: TcpStream, shared: &Shared) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    shared.fetches.fetch_add(1, Ordering::SeqCst);
    let (status, body) = shared.answer.lock().unwrap().clone();
    let length = body.len();
    write!(
        socket,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}
