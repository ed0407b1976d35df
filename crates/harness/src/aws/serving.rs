//! A small HTTP/1.1 server for stand-ins: a thread for each connection, keep-alive, bodies of known length.
//!
//! Invariant: requests of a connection are answered in their order, each before the next is read, and no thread outlives
//! the server's guard by more than the answer that it is making.
//!
//! It knows no chunked bodies and no pipelining of its own making: the SDKs send neither.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

/// Most bytes of a request's head, and of its body.
const HEAD_MAX: u64 = 64 << 10;
const BODY_MAX: usize = 4 << 20;

/// What a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// Names in lower case, in the order received.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What it is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        // No client here looks at the words of a status.
        let mut head = format!("HTTP/1.1 {} -\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", self.body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// What is served.
pub trait Site: Send + Sync + 'static {
    /// What it keeps for each connection.
    type Link: Default;

    /// The answer; `None` resets the connection instead.
    fn answer(&self, link: &mut Self::Link, asked: Asked) -> Option<Reply>;
}

/// A running server.
pub struct Serving {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicU64,
    is_over: AtomicBool,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Serving {
    /// Serves on a free port of loopback.
    pub fn start<S: Site>(site: Arc<S>) -> Result<Serving> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let acceptor = std::thread::spawn(move || accept(&listener, &own, &site));
        Ok(Serving {
            addr,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections it has taken.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many there are now.
    pub fn open(&self) -> usize {
        self.shared.open().len()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        if let Err(e) = TcpStream::connect(self.addr) {
            eprintln!("harness: a stand-in could not be woken: {e}");
            return;
        }
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            eprintln!("harness: a stand-in panicked");
        }
        for stream in self.shared.open().values() {
            // One that is gone by now is what was wanted.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

fn accept<S: Site>(listener: &TcpListener, shared: &Arc<Shared>, site: &Arc<S>) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let taken = stream.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok((stream.try_clone()?, stream))
        });
        let (for_guard, stream) = match taken {
            Ok(both) => both,
            Err(e) => {
                eprintln!("harness: a stand-in could not take a connection: {e}");
                continue;
            }
        };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        shared.open().insert(number, for_guard);
        let (shared, site) = (shared.clone(), site.clone());
        std::thread::spawn(move || {
            // How a connection ends is the client's affair, or was asked for.
            serve(stream, &*site).ok();
            shared.open().remove(&number);
        });
    }
}

fn serve<S: Site>(stream: TcpStream, site: &S) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut link = S::Link::default();
    while let Some(asked) = read(&mut reader)? {
        let Some(reply) = site.answer(&mut link, asked) else {
            SockRef::from(reader.get_ref()).set_linger(Some(Duration::ZERO))?;
            return Ok(());
        };
        reader.get_mut().write_all(&reply.bytes())?;
    }
    Ok(())
}

/// The next request; `None` where the client has ended the connection in order.
fn read(reader: &mut BufReader<TcpStream>) -> Result<Option<Asked>> {
    let mut head = reader.by_ref().take(HEAD_MAX);
    let mut first = String::new();
    if head.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut words = first.split_whitespace();
    let (method, target) = (words.next(), words.next());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        ensure!(head.read_line(&mut line)? > 0, "a head without an end");
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("a header without a colon")?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked {
        method: method.context("no method")?.to_owned(),
        target: target.context("no target")?.to_owned(),
        headers,
        body: Vec::new(),
    };
    let length: usize = asked.header("content-length").map_or(Ok(0), str::parse)?;
    ensure!(length <= BODY_MAX, "a body of {length} bytes");
    asked.body.resize(length, 0);
    reader.read_exact(&mut asked.body)?;
    Ok(Some(asked))
}
