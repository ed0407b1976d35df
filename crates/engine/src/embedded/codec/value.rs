//! The parts of a value: appended one after another, and read back in that order.
//!
//! Invariant: every length is checked against what is there before anything is taken.

use super::VERSION;
use crate::embedded::StoreFault;
use postrider_model::{Epoch, Mark, MarkKind, Position, SessionId, Timestamp, Transport, WithdrawReason};

/// Appends the parts of a value.
pub(in crate::embedded) struct Writer(Vec<u8>);

impl Writer {
    pub fn new() -> Writer {
        Writer::of_version(VERSION)
    }
    pub(super) fn of_version(version: u8) -> Writer {
        Writer(vec![version])
    }
    /// Room for about so many bytes.
    pub(super) fn with_room(bytes: usize) -> Writer {
        let mut out = Vec::with_capacity(bytes);
        out.push(VERSION);
        Writer(out)
    }
    pub fn u8(mut self, n: u8) -> Self {
        self.0.push(n);
        self
    }
    pub fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
    pub fn u64(mut self, n: u64) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
    pub fn u128(mut self, n: u128) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }
    pub fn option<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            None => self.u8(0),
            Some(value) => write(self.u8(1), value),
        }
    }
    pub fn list<T>(self, values: &[T], write: impl FnMut(Self, &T) -> Self) -> Self {
        values.iter().fold(self.u32(values.len() as u32), write)
    }
    pub(super) fn mark(self, mark: &Mark) -> Self {
        self.u64(mark.from)
            .u64(mark.time.0)
            .u8(mark.transport.map_or(0, |transport| transport as u8))
            .option(mark.session.as_ref(), |out, session| out.text(session.as_str()))
            .text(&mark.why)
    }
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads the parts of a value back. Every length is checked against what is there.
pub(in crate::embedded) struct Reader<'a> {
    table: &'static str,
    version: u8,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(table: &'static str, value: &'a [u8]) -> Result<Self, StoreFault> {
        Reader::up_to(VERSION, table, value)
    }
    pub(super) fn up_to(newest: u8, table: &'static str, value: &'a [u8]) -> Result<Self, StoreFault> {
        match value {
            [version, rest @ ..] if (1..=newest).contains(version) => Ok(Reader {
                table,
                version: *version,
                rest,
            }),
            [version, ..] if *version > newest => Err(StoreFault::Newer { what: table }),
            _ => Err(StoreFault::Corrupt {
                table,
                detail: "no version byte",
            }),
        }
    }
    /// By which version of the format it was written.
    pub(super) fn version(&self) -> u8 {
        self.version
    }
    pub fn corrupt(&self, detail: &'static str) -> StoreFault {
        StoreFault::Corrupt {
            table: self.table,
            detail,
        }
    }
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreFault> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.corrupt("cut short"))?;
        self.rest = rest;
        Ok(*head)
    }
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }
    /// What was read, which has to be all: nothing was ever written behind it.
    pub fn end<T>(&self, value: T) -> Result<T, StoreFault> {
        match self.is_done() {
            true => Ok(value),
            false => Err(self.corrupt("more than a value")),
        }
    }
    pub fn u8(&mut self) -> Result<u8, StoreFault> {
        Ok(self.take::<1>()?[0])
    }
    pub fn u32(&mut self) -> Result<u32, StoreFault> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    pub fn u64(&mut self) -> Result<u64, StoreFault> {
        Ok(u64::from_le_bytes(self.take()?))
    }
    pub fn u128(&mut self) -> Result<u128, StoreFault> {
        Ok(u128::from_le_bytes(self.take()?))
    }
    pub fn bytes(&mut self) -> Result<&'a [u8], StoreFault> {
        let length = self.u32()? as usize;
        let (head, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| self.corrupt("cut short"))?;
        self.rest = rest;
        Ok(head)
    }
    pub fn text(&mut self) -> Result<&'a str, StoreFault> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.corrupt("not UTF-8"))
    }
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StoreFault>,
    ) -> Result<Option<T>, StoreFault> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(self.corrupt("not an option")),
        }
    }
    pub fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, StoreFault>,
    ) -> Result<Vec<T>, StoreFault> {
        let length = self.u32()? as usize;
        let mut values = Vec::with_capacity(length.min(self.rest.len()));
        for _ in 0..length {
            values.push(read(self)?);
        }
        Ok(values)
    }
    pub fn id<T, E>(&mut self, make: impl FnOnce(&str) -> Result<T, E>) -> Result<T, StoreFault> {
        let text = self.text()?;
        make(text).map_err(|_| self.corrupt("not an id"))
    }
    pub fn position(&mut self) -> Result<Position, StoreFault> {
        Ok(Position {
            epoch: Epoch(self.u32()?),
            offset: self.u64()?,
        })
    }
    pub fn mark(&mut self, offset: u64, kind: MarkKind) -> Result<Mark, StoreFault> {
        Ok(Mark {
            offset,
            kind,
            from: self.u64()?,
            time: Timestamp(self.u64()?),
            transport: match self.u8()? {
                0 => None,
                byte => Some(Transport::from_byte(byte).ok_or_else(|| self.corrupt("unknown transport"))?),
            },
            session: self.option(|r| r.id(SessionId::new))?,
            why: self.text()?.to_owned(),
        })
    }
    pub fn reason(&mut self) -> Result<Option<WithdrawReason>, StoreFault> {
        match self.u8()? {
            0 => Ok(None),
            byte => WithdrawReason::from_byte(byte)
                .map(Some)
                .ok_or_else(|| self.corrupt("unknown reason")),
        }
    }
}
