//! The TLS of one connection: ciphertext in, plaintext out, and back. Pure: who has the socket feeds it, and
//! writes what it has to say; a shard does so from its loop, the API from a task, and a connection can go from
//! one to the other in the middle.
//!
//! Invariant: at rest it holds keys and no buffer. What waits in it is bounded: of the client less than
//! [`MAX_PARTIAL`], for the client no more than [`MAX_UNSENT`] of plaintext in its encrypted form, and the few
//! words of the protocol's own. Once it has failed it says its last words and hears nothing more.
//!
//! It chooses no certificate and no version: that is the [`ServerConfig`]. It does not read clocks or sockets.

mod socket;

use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use std::io::{self, IoSlice};
use std::sync::Arc;

pub(crate) use socket::TlsSocket;

/// What HTTP/2 is called in the handshake (RFC 7301).
pub const ALPN_HTTP2: &[u8] = b"h2";
/// What HTTP/1.1 is called in the handshake.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Plaintext that is encrypted before the socket has taken the ciphertext of what came before.
pub const MAX_UNSENT: usize = 64 << 10;
/// Of a record, or of a handshake message in several records, so much may be there without the rest: the
/// largest record that there is (RFC 5246, 6.2.3). No client has a reason for a longer handshake message.
pub const MAX_PARTIAL: usize = (16 << 10) + 2048 + 5;
/// Plaintext of one record.
const RECORD: usize = 16 << 10;
/// What encryption may add to a record: header, nonce, tag, and a key update before it.
const RECORD_OVERHEAD: usize = 256;
/// Alerts that a failing connection may still have to say.
const MAX_LAST_WORDS: usize = 4;

/// Why a connection is over before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The first byte is the beginning of a request in the clear.
    #[error("the client speaks HTTP without TLS")]
    NotTls,
    /// A message of the handshake has no end.
    #[error("a handshake message is too large")]
    TooLarge,
    /// The client sends what the server must answer, and does not take the answers.
    #[error("the client does not take the protocol's own answers")]
    Deaf,
    /// The protocol was broken, or there is no common version, cipher or name.
    #[error(transparent)]
    Protocol(#[from] rustls::Error),
    /// Nothing more can be encrypted.
    #[error("the connection cannot encrypt")]
    Exhausted,
}

impl From<TlsFault> for io::Error {
    fn from(fault: TlsFault) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

/// The state of one connection.
pub struct Layer {
    connection: UnbufferedServerConnection,
    /// The beginning of a record.
    incoming: Vec<u8>,
    /// Ciphertext, and how much of it the socket has taken.
    outgoing: Vec<u8>,
    gone: usize,
    phase: Phase,
    said_goodbye: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    New,
    Open,
    /// The client has said that nothing more will come.
    Ended,
    Failed,
}

/// What is to be done as soon as the connection can take it.
enum Job<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Goodbye,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer")
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Layer {
    /// For a connection that was just accepted.
    ///
    /// # Errors
    /// Where the configuration cannot serve anyone.
    pub fn new(config: Arc<ServerConfig>) -> Result<Layer, TlsFault> {
        Ok(Layer {
            connection: UnbufferedServerConnection::new(config)?,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            gone: 0,
            phase: Phase::New,
            said_goodbye: false,
        })
    }

    /// Takes what came, and adds what it says to `plain`. `bytes` are changed on the way. There may be something
    /// to send afterwards, whatever is returned.
    ///
    /// # Errors
    /// The connection is over; what is unsent ends with an alert that says why.
    pub fn receive(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<(), TlsFault> {
        if matches!(self.phase, Phase::Ended | Phase::Failed) || bytes.is_empty() {
            return Ok(());
        }
        if self.phase == Phase::New {
            self.phase = Phase::Open;
            // No record begins with a letter; every method does.
            if bytes[0].is_ascii_uppercase() {
                return Err(self.failed(TlsFault::NotTls));
            }
        }
        let held = std::mem::take(&mut self.incoming);
        let rest = if held.is_empty() {
            self.take_records(bytes, plain)?
        } else {
            let mut whole = held;
            whole.extend_from_slice(bytes);
            self.take_records(&mut whole, plain)?
        };
        if self.phase == Phase::Open {
            self.incoming = rest;
        }
        if self.incoming.len() > MAX_PARTIAL {
            return Err(self.failed(TlsFault::TooLarge));
        }
        if self.unsent().len() > MAX_UNSENT * 2 {
            return Err(self.failed(TlsFault::Deaf));
        }
        Ok(())
    }

    /// Encrypts from the front of `slices`, and returns how many bytes. Small slices share a record. Takes nothing
    /// while ciphertext waits: there is room again once that is sent.
    ///
    /// # Errors
    /// Where the connection has failed, or not yet begun.
    pub fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, TlsFault> {
        if !self.unsent().is_empty() {
            return Ok(0);
        }
        let mut taken = 0;
        let mut gathered = Vec::new();
        for slice in slices {
            let mut left = &slice[..slice.len().min(MAX_UNSENT - taken)];
            taken += left.len();
            while !left.is_empty() {
                if gathered.is_empty() && left.len() >= RECORD {
                    self.seal(&left[..RECORD])?;
                    left = &left[RECORD..];
                    continue;
                }
                let n = left.len().min(RECORD - gathered.len());
                gathered.extend_from_slice(&left[..n]);
                left = &left[n..];
                if gathered.len() == RECORD {
                    self.seal(&gathered)?;
                    gathered.clear();
                }
            }
            if taken == MAX_UNSENT {
                break;
            }
        }
        if !gathered.is_empty() {
            self.seal(&gathered)?;
        }
        Ok(taken)
    }

    /// Says that nothing more will come (`close_notify`), so that the client knows that it has everything.
    pub fn goodbye(&mut self) {
        if self.phase == Phase::Failed || self.connection.is_handshaking() || self.said_goodbye {
            return;
        }
        self.said_goodbye = true;
        if let Err(fault) = self.work(Job::Goodbye) {
            tracing::debug!(%fault, "a TLS connection ends without a goodbye");
        }
    }

    /// Ends the connection with these bytes, as they are: for a client that speaks no TLS.
    pub fn last_words(&mut self, bytes: &[u8]) {
        self.phase = Phase::Failed;
        self.outgoing = bytes.to_vec();
        self.gone = 0;
    }

    /// Ciphertext for the socket.
    pub fn unsent(&self) -> &[u8] {
        &self.outgoing[self.gone..]
    }

    /// The socket has taken so many of the unsent bytes.
    pub fn sent(&mut self, n: usize) {
        self.gone += n;
        if self.gone >= self.outgoing.len() {
            // A connection at rest keeps no memory.
            self.outgoing = Vec::new();
            self.gone = 0;
        }
    }

    /// Whether the two are still agreeing on keys.
    pub fn is_handshaking(&self) -> bool {
        self.phase != Phase::Failed && self.connection.is_handshaking()
    }

    /// Whether nothing more will be heard: the client said so, or the connection has failed.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended | Phase::Failed)
    }

    /// Whether the client said that nothing more will come.
    pub fn peer_has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether the handshake chose HTTP/2.
    pub fn speaks_http2(&self) -> bool {
        self.connection.alpn_protocol() == Some(ALPN_HTTP2)
    }

    fn failed(&mut self, fault: TlsFault) -> TlsFault {
        self.phase = Phase::Failed;
        self.incoming = Vec::new();
        fault
    }

    /// One record.
    fn seal(&mut self, piece: &[u8]) -> Result<(), TlsFault> {
        match self.work(Job::Encrypt(piece)) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.failed(TlsFault::Exhausted)),
            Err(fault) => Err(fault),
        }
    }

    /// Does a job between two records. Whether there was an occasion for it.
    fn work(&mut self, job: Job<'_>) -> Result<bool, TlsFault> {
        if self.phase == Phase::Failed {
            return Ok(false);
        }
        let mut held = std::mem::take(&mut self.incoming);
        // All that is whole was taken when it came, so nothing can be heard here.
        let mut plain = Vec::new();
        let (used, done) = self.step(&mut held, &mut plain, job)?;
        held.drain(..used);
        self.incoming = held;
        Ok(done)
    }

    /// Takes what is whole; returns the rest.
    fn take_records(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<Vec<u8>, TlsFault> {
        let (used, _) = self.step(bytes, plain, Job::Nothing)?;
        Ok(bytes[used..].to_vec())
    }

    /// Goes on until more bytes are needed; returns how many were used, and whether the job was done.
    fn step(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        job: Job<'_>,
    ) -> Result<(usize, bool), TlsFault> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut bytes[used..]);
            let done = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                    None
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.outgoing, 0, |space| data.encode(space))?;
                    None
                }
                // It lies among what is unsent, and leaves in that order.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.phase = Phase::Ended;
                    None
                }
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    Some(perform(traffic, &job, &mut self.outgoing)?)
                }
                Ok(_) => Some(false),
                Err(error) => {
                    self.collect_alerts()?;
                    return Err(self.failed(error.into()));
                }
            };
            used += discard;
            if let Some(done) = done {
                return Ok((used, done));
            }
        }
    }

    /// What a failed connection has to say still. It must not look at the bytes again: it would fail again.
    fn collect_alerts(&mut self) -> Result<(), TlsFault> {
        for _ in 0..MAX_LAST_WORDS {
            if !self.connection.wants_write() {
                break;
            }
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else {
                break;
            };
            append(&mut self.outgoing, 0, |space| data.encode(space))?;
        }
        Ok(())
    }
}

/// Does a job while the connection can take it. Whether there was one.
fn perform(
    mut traffic: WriteTraffic<'_, ServerConnectionData>,
    job: &Job<'_>,
    outgoing: &mut Vec<u8>,
) -> Result<bool, TlsFault> {
    match job {
        Job::Nothing => return Ok(false),
        Job::Encrypt(piece) => {
            let room = piece.len() + RECORD_OVERHEAD;
            append(outgoing, room, |space| traffic.encrypt(piece, space))?;
        }
        Job::Goodbye => append(outgoing, RECORD_OVERHEAD, |space| {
            traffic.queue_close_notify(space)
        })?,
    }
    Ok(true)
}

/// How much room was asked for, where there was too little.
trait Room {
    fn required(&self) -> Option<usize>;
}

impl Room for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl Room for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

/// Lets `fill` write behind what is there, with more room if it asks for it.
fn append<E: Room>(
    buffer: &mut Vec<u8>,
    room: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), TlsFault> {
    let start = buffer.len();
    buffer.resize(start + room, 0);
    let mut filled = fill(&mut buffer[start..]);
    if let Some(required) = filled.as_ref().err().and_then(Room::required) {
        buffer.resize(start + required, 0);
        filled = fill(&mut buffer[start..]);
    }
    buffer.truncate(start + filled.as_ref().copied().unwrap_or(0));
    filled.map(|_| ()).map_err(|_| TlsFault::Exhausted)
}

#[cfg(test)]
mod tests;
