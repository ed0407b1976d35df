//! Clients that listen by long poll, SSE or WebSocket, and account for what they get; one thread.
//!
//! Usage: `postrider-bench-listeners HOST:PORT long_poll|sse|websocket FILE`, where each line of FILE is one client's path, a
//! tab, and its bearer token (or `-`). Prints `ready` once all are connected. Then each line of standard input is a round,
//! `FIRST COUNT one|all SECONDS`: the messages that are about to be sent, numbered `"n":` from FIRST, the nth to the client
//! `n % clients` or all to everyone. When all have come, or after so many seconds, a line of JSON says what came, how long that
//! took, and how old (by `"t":`, microseconds since 1970) messages were when they were read. A message that comes twice, or to
//! whom it is not for, is counted and is no delivery.
//!
//! It knows no server: whatever holds `"n":N,"t":T` is a message. A long poll gives `cursor` back where an answer has one.

#![allow(clippy::print_stdout, reason = "a program for measuring")]
#![allow(clippy::disallowed_methods, reason = "a program for measuring")]

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// How many connect at a time.
const CONNECTING: usize = 50;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(30);
/// What one read may bring at once.
const READ: usize = 64 << 10;

#[derive(Clone, Copy, PartialEq)]
enum Transport {
    LongPoll,
    Sse,
    WebSocket,
}

struct Client {
    nth: u64,
    address: String,
    path: String,
    token: String,
    transport: Transport,
}

/// What was sent, and what came of it.
#[derive(Default)]
struct Round {
    first: u64,
    count: u64,
    is_for_all: bool,
    clients: u64,
    /// By client (of what is for one: by none), a bit for each message.
    seen: Vec<Vec<u64>>,
    ages: Vec<u32>,
    expected: u64,
    came: u64,
    strange: u64,
    began: u64,
    last: u64,
}

/// What all clients share.
struct Account {
    round: RefCell<Round>,
    complete: Notify,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, listen())
}

async fn listen() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, transport, file] = arguments.as_slice() else {
        bail!("HOST:PORT long_poll|sse|websocket FILE");
    };
    let transport = match transport.as_str() {
        "long_poll" => Transport::LongPoll,
        "sse" => Transport::Sse,
        "websocket" => Transport::WebSocket,
        other => bail!("{other} is no transport"),
    };
    let account = Rc::new(Account {
        round: RefCell::default(),
        complete: Notify::new(),
    });
    let text = std::fs::read_to_string(file)?;
    let clients = connect_all(&text, address, transport, &account).await?;
    println!("ready");
    let mut rounds = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = rounds.next_line().await? {
        let words: Vec<_> = line.split_whitespace().collect();
        let [first, count, who, seconds] = words.as_slice() else {
            bail!("FIRST COUNT one|all SECONDS");
        };
        let round = Round::new(first.parse()?, count.parse()?, *who == "all", clients);
        *account.round.borrow_mut() = round;
        println!("begun");
        let limit = Duration::from_secs(seconds.parse()?);
        let is_complete = tokio::time::timeout(limit, account.complete.notified())
            .await
            .is_ok();
        println!("{}", account.round.borrow().text(is_complete));
    }
    Ok(())
}

async fn connect_all(text: &str, address: &str, transport: Transport, account: &Rc<Account>) -> Result<u64> {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTING));
    let mut opening = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let (path, token) = line.split_once('\t').context("no tab")?;
        let client = Client {
            nth: nth as u64,
            address: address.to_owned(),
            path: path.to_owned(),
            token: token.to_owned(),
            transport,
        };
        let (account, room) = (account.clone(), room.clone());
        let (opened, is_open) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let Ok(permit) = room.acquire_owned().await else {
                return;
            };
            let told = || {
                drop(permit);
                opened.send(()).ok();
            };
            if let Err(error) = client.run(&account, told).await {
                eprintln!("client {}: {error:#}", client.nth);
            }
        });
        opening.push(is_open);
    }
    let clients = opening.len() as u64;
    let all = async {
        for one in opening {
            one.await.context("a client could not connect")?;
        }
        Ok(clients)
    };
    tokio::time::timeout(CONNECT, all)
        .await
        .context("too slow to connect")?
}

impl Client {
    async fn run(&self, account: &Account, opened: impl FnOnce()) -> Result<()> {
        let mut socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        match self.transport {
            Transport::LongPoll => self.poll(&mut socket, account, opened).await,
            Transport::Sse => self.stream(&mut socket, account, opened).await,
            Transport::WebSocket => self.frames(&mut socket, account, opened).await,
        }
    }

    fn request(&self, cursor: &str, more: &str) -> String {
        let Client {
            path, token, address, ..
        } = self;
        let joint = if path.contains('?') { '&' } else { '?' };
        let cursor = match cursor {
            "" => String::new(),
            cursor => format!("{joint}cursor={cursor}"),
        };
        let token = match token.as_str() {
            "-" => String::new(),
            token => format!("authorization: Bearer {token}\r\n"),
        };
        format!("GET {path}{cursor} HTTP/1.1\r\nhost: {address}\r\n{token}{more}\r\n")
    }

    /// Asks again as soon as there is an answer. A client counts as connected once its first request is out.
    async fn poll(&self, socket: &mut TcpStream, account: &Account, opened: impl FnOnce()) -> Result<()> {
        let (mut cursor, mut opened) = (String::new(), Some(opened));
        let mut buffer = Vec::with_capacity(READ);
        loop {
            socket.write_all(self.request(&cursor, "").as_bytes()).await?;
            if let Some(opened) = opened.take() {
                opened();
            }
            let body = answer(socket, &mut buffer).await?;
            account.count(self.nth, &body);
            if let Some(next) = text_of(&body, b"\"cursor\":\"") {
                cursor = next;
            }
        }
    }

    async fn stream(&self, socket: &mut TcpStream, account: &Account, opened: impl FnOnce()) -> Result<()> {
        socket.write_all(self.request("", "").as_bytes()).await?;
        let mut buffer = Vec::with_capacity(READ);
        let head = head(socket, &mut buffer).await?;
        buffer.drain(..head);
        opened();
        loop {
            // No server puts one message into two lines.
            if let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') {
                account.count(self.nth, &buffer[..end]);
                buffer.drain(..=end);
            }
            ensure!(socket.read_buf(&mut buffer).await? > 0, "the stream ended");
        }
    }

    async fn frames(&self, socket: &mut TcpStream, account: &Account, opened: impl FnOnce()) -> Result<()> {
        const UPGRADE: &str = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
            sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        socket.write_all(self.request("", UPGRADE).as_bytes()).await?;
        let mut buffer = Vec::with_capacity(READ);
        let head = head(socket, &mut buffer).await?;
        buffer.drain(..head);
        opened();
        loop {
            let (mut at, mut pongs) = (0, Vec::new());
            while let Some((kind, from, to)) = frame(&buffer[at..]) {
                let payload = &buffer[at + from..at + to];
                match kind {
                    1 | 2 => account.count(self.nth, payload),
                    9 => pong(payload, &mut pongs),
                    8 => bail!("closed: {}", String::from_utf8_lossy(payload)),
                    _ => {}
                }
                at += to;
            }
            buffer.drain(..at);
            if !pongs.is_empty() {
                socket.write_all(&pongs).await?;
            }
            ensure!(socket.read_buf(&mut buffer).await? > 0, "the connection ended");
        }
    }
}

/// Reads a head; its length.
async fn head(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let status = buffer.get(9..12).unwrap_or_default();
            let text = || String::from_utf8_lossy(buffer).into_owned();
            ensure!(status == b"200" || status == b"101", "{}", text());
            return Ok(end + 4);
        }
        ensure!(socket.read_buf(buffer).await? > 0, "no answer");
    }
}

/// Reads an answer of a known length; its body.
async fn answer(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>> {
    let head = head(socket, buffer).await?;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.split("content-length:").nth(1).context("no length")?;
    let length: usize = length.lines().next().unwrap_or_default().trim().parse()?;
    while buffer.len() < head + length {
        ensure!(socket.read_buf(buffer).await? > 0, "half an answer");
    }
    let body = buffer[head..head + length].to_vec();
    buffer.drain(..head + length);
    Ok(body)
}

/// The first whole frame of a server: its kind, and where its payload begins and ends.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let kind = bytes.first()? & 15;
    let (from, length) = match bytes.get(1)? & 127 {
        126 => (4, u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize,
        ),
        short => (2, short as usize),
    };
    (bytes.len() >= from + length).then_some((kind, from, from + length))
}

/// The answer to a ping, under a mask of zeros.
fn pong(payload: &[u8], out: &mut Vec<u8>) {
    out.extend([0x8a, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend(payload);
}

/// What stands after `name` up to the next quotation mark.
fn text_of(bytes: &[u8], name: &[u8]) -> Option<String> {
    let at = memchr::memmem::rfind(bytes, name)? + name.len();
    let length = bytes[at..].iter().position(|byte| *byte == b'"')?;
    Some(String::from_utf8_lossy(&bytes[at..at + length]).into_owned())
}

/// The number at the beginning, and what is after it.
fn number(bytes: &[u8]) -> (u64, &[u8]) {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = bytes[..digits]
        .iter()
        .fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
    (value, &bytes[digits..])
}

impl Account {
    /// Counts the messages that these bytes hold.
    fn count(&self, client: u64, bytes: &[u8]) {
        let now = micros();
        let mut round = self.round.borrow_mut();
        for at in memchr::memmem::find_iter(bytes, b"\"n\":") {
            let (n, rest) = number(&bytes[at + 4..]);
            if let Some(rest) = rest.strip_prefix(b",\"t\":") {
                round.came(client, n, number(rest).0, now);
            }
        }
        if round.expected > 0 && round.came == round.expected {
            round.expected = 0;
            self.complete.notify_one();
        }
    }
}

impl Round {
    fn new(first: u64, count: u64, is_for_all: bool, clients: u64) -> Round {
        let rows = if is_for_all { clients } else { 1 };
        let words = count.div_ceil(64) as usize;
        Round {
            first,
            count,
            is_for_all,
            clients,
            seen: vec![vec![0; words]; rows as usize],
            expected: rows * count,
            ages: Vec::with_capacity((rows * count) as usize),
            began: u64::MAX,
            ..Round::default()
        }
    }

    fn came(&mut self, client: u64, n: u64, t: u64, now: u64) {
        let index = n.wrapping_sub(self.first);
        let is_his = self.is_for_all || n % self.clients == client;
        if index >= self.count || !is_his {
            self.strange += 1;
            return;
        }
        let row = if self.is_for_all { client as usize } else { 0 };
        let (word, bit) = (&mut self.seen[row][index as usize / 64], 1 << (index % 64));
        if *word & bit != 0 {
            self.strange += 1;
            return;
        }
        *word |= bit;
        self.came += 1;
        self.began = self.began.min(t);
        self.last = now;
        self.ages
            .push(u32::try_from(now.saturating_sub(t)).unwrap_or(u32::MAX));
    }

    fn text(&self, is_complete: bool) -> String {
        let mut ages = self.ages.clone();
        ages.sort_unstable();
        let at = |part: f64| {
            let nth = (ages.len() as f64 * part) as usize;
            ages.get(nth).map(|micros| f64::from(*micros) / 1e3)
        };
        json!({
            "complete": is_complete, "came": self.came, "strange": self.strange,
            "seconds": self.last.saturating_sub(self.began) as f64 / 1e6,
            "p50_ms": at(0.5), "p99_ms": at(0.99), "most_ms": ages.last().map(|micros| f64::from(*micros) / 1e3),
        })
        .to_string()
    }
}

fn micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}
