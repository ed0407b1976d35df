//! A client of Redis for tests: one connection, one command at a time, RESP2.
//!
//! Invariant: an answer belongs to the command before it; after an error of the connection the client is not used
//! again.
//!
//! It does not reconnect and does not follow `MOVED`: a test asks the server that it means.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How long a command may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest string and longest array that a server may send.
const LENGTH_MAX: usize = 64 << 20;

/// What a server answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// `+OK` and its like.
    Status(String),
    /// A whole number.
    Int(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing there.
    Nil,
    /// A list.
    List(Vec<Answer>),
    /// A refusal.
    Error(String),
}

impl Answer {
    /// As text; empty for what is none.
    pub fn text(&self) -> String {
        match self {
            Answer::Status(text) | Answer::Error(text) => text.clone(),
            Answer::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Answer::Int(number) => number.to_string(),
            Answer::Nil | Answer::List(_) => String::new(),
        }
    }

    /// Its items; none for what is no list.
    pub fn list(&self) -> &[Answer] {
        match self {
            Answer::List(items) => items,
            _ => &[],
        }
    }
}

/// A connection to a server.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(addr: SocketAddr) -> Result<Client> {
        Client::connect_within(addr, DEADLINE)
    }

    /// Connects, and waits no longer than this for anything.
    pub fn connect_within(addr: SocketAddr, patience: Duration) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&addr, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Client {
            stream: BufReader::new(stream),
        })
    }

    /// From now on waits no longer than this for an answer.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(Some(patience))?)
    }

    /// Sends a command and reads its answer, which may be an [`Answer::Error`].
    pub fn ask<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Answer> {
        self.send(words)?;
        self.read()
    }

    /// A command that must not be refused.
    pub fn must<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Answer> {
        let answer = self.ask(words)?;
        if let Answer::Error(refusal) = &answer {
            let command = words.first().map(|word| String::from_utf8_lossy(word.as_ref()));
            bail!("{} was refused: {refusal}", command.unwrap_or_default());
        }
        Ok(answer)
    }

    /// `INFO` of a section, as `name:value` lines.
    pub fn info(&mut self, section: &str) -> Result<String> {
        Ok(self.must(&["INFO", section])?.text())
    }

    /// One value of `INFO`.
    pub fn info_value(&mut self, section: &str, name: &str) -> Result<String> {
        let info = self.info(section)?;
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(value
            .with_context(|| format!("no {name} in {section}"))?
            .trim()
            .to_owned())
    }

    /// Sends a command without waiting, for one whose answers come by and by (`SUBSCRIBE`, `MONITOR`).
    pub fn send<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<()> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let word = word.as_ref();
            bytes.extend(format!("${}\r\n", word.len()).as_bytes());
            bytes.extend(word);
            bytes.extend(b"\r\n");
        }
        Ok(self.stream.get_mut().write_all(&bytes)?)
    }

    /// The next answer.
    pub fn read(&mut self) -> Result<Answer> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line)?;
        ensure!(read > 0, "the server closed the connection");
        let line = line.trim_end_matches(['\r', '\n']);
        let (kind, rest) = line
            .split_at_checked(1)
            .context("an empty line instead of an answer")?;
        Ok(match kind {
            "+" => Answer::Status(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Int(rest.parse()?),
            "$" => self.bulk(rest)?,
            "*" => self.items(rest)?,
            _ => bail!("not an answer: {line}"),
        })
    }

    fn bulk(&mut self, length: &str) -> Result<Answer> {
        let Some(length) = size(length)? else {
            return Ok(Answer::Nil);
        };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Answer::Bulk(bytes))
    }

    fn items(&mut self, count: &str) -> Result<Answer> {
        let Some(count) = size(count)? else {
            return Ok(Answer::Nil);
        };
        let items = (0..count).map(|_| self.read()).collect::<Result<_>>()?;
        Ok(Answer::List(items))
    }
}

/// A length; `None` for -1, which stands for nothing.
fn size(text: &str) -> Result<Option<usize>> {
    let length: i64 = text.parse()?;
    if length < 0 {
        return Ok(None);
    }
    let length = usize::try_from(length)?;
    ensure!(length <= LENGTH_MAX, "a server sends {length} of something");
    Ok(Some(length))
}
