//! What is written of users: one of them as JSON, or many as NDJSON or CSV.
//!
//! Invariant: decoding is total: any bytes give a user or a fault that says where, and one bad line harms no other. A
//! reader of many holds one piece of input and one unfinished line, never more.
//!
//! It does not know which users there are.

mod checks;
mod csv;
mod json;
mod ndjson;

pub use checks::{MAX_ATTRIBUTES, MAX_TOPICS};
pub use csv::CsvUsers;
pub use json::{decode_line, decode_user};
pub use ndjson::NdjsonUsers;

use crate::InputFault;
use bytes::Bytes;
use postrider_model::{Profile, Topic, UserId};

/// Most bytes of a line, or of a record of CSV: more than the largest user takes.
pub const LINE_BYTES: usize = 256 * 1024;

/// What was written of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDraft {
    /// Who.
    pub user: UserId,
    /// What the directory is to hold.
    pub profile: Profile,
    /// The topics to be a member of; `None` leaves them as they are.
    pub topics: Option<Vec<Topic>>,
}

/// A line that held a user, or should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserLine {
    /// Which line it is, or where its record begins: from 1, blank lines counted.
    pub number: u64,
    /// How many bytes it took.
    pub bytes: usize,
    /// The user.
    pub user: Result<UserDraft, UserFault>,
}

/// What is wrong with one of many users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFault {
    /// What, and for JSON where.
    pub fault: InputFault,
    /// For CSV, the column, by its name in the header.
    pub column: Option<String>,
}

impl From<InputFault> for UserFault {
    fn from(fault: InputFault) -> UserFault {
        UserFault { fault, column: None }
    }
}

/// Reads users from a stream of bytes, piece by piece.
#[derive(Debug)]
pub enum UserReader {
    /// A JSON object on every line.
    Ndjson(NdjsonUsers),
    /// A header, then a record for every user.
    Csv(Box<CsvUsers>),
}

impl UserReader {
    /// Of NDJSON.
    pub fn ndjson() -> UserReader {
        UserReader::Ndjson(NdjsonUsers::default())
    }

    /// Of CSV (RFC 4180) with a header.
    pub fn csv() -> UserReader {
        UserReader::Csv(Box::default())
    }

    /// The next piece of input. To be called when [`UserReader::take`] has nothing more of the piece before.
    pub fn push(&mut self, bytes: Bytes) {
        match self {
            UserReader::Ndjson(users) => users.push(bytes),
            UserReader::Csv(users) => users.push(bytes),
        }
    }

    /// There is no more input: what is unfinished is the last line.
    pub fn finish(&mut self) {
        match self {
            UserReader::Ndjson(users) => users.finish(),
            UserReader::Csv(users) => users.finish(),
        }
    }

    /// The next user of what has come; `None`: more input is needed, or there is none. An error refuses the whole
    /// input, since nothing in it can be understood, and is told before any user.
    pub fn take(&mut self) -> Result<Option<UserLine>, UserFault> {
        match self {
            UserReader::Ndjson(users) => Ok(users.take()),
            UserReader::Csv(users) => users.take(),
        }
    }

    /// Whether users can come now: of CSV, once its header has been read.
    pub fn is_open(&self) -> bool {
        match self {
            UserReader::Ndjson(_) => true,
            UserReader::Csv(users) => users.has_header(),
        }
    }

    /// Bytes that are held: of the piece, and of the unfinished line.
    pub fn held(&self) -> usize {
        match self {
            UserReader::Ndjson(users) => users.held(),
            UserReader::Csv(users) => users.held(),
        }
    }
}

#[cfg(test)]
mod tests;
