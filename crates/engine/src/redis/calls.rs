//! What the functions of the library are called with, and what they answer.

use super::across::is_elsewhere;
use super::links::{Call, Cell, LinkFault};
use super::standing::state_of;
use crate::embedded::store::StoreFault;
use redis::Value;

/// What a server is known by until it may have forgotten something: it starts anew, another is promoted, or somebody
/// empties it.
pub(super) type Token = Vec<u8>;

/// The functions, as [`super::store::LIBRARY`] registers them.
pub(super) mod function {
    pub const FETCH: &str = "postrider_rows_1_fetch";
    pub const CHECK: &str = "postrider_rows_1_check";
    pub const KEEP: &str = "postrider_rows_1_keep";
    pub const LET_GO_ALL: &str = "postrider_rows_1_let_go_all";
    pub const MEET: &str = "postrider_rows_1_meet";
    pub const MARK: &str = "postrider_rows_1_mark";
    pub const MARKED: &str = "postrider_rows_1_marked";
    pub const COMMIT: &str = "postrider_rows_1_commit";
    pub const BEGIN: &str = "postrider_rows_1_begin";
    pub const PREPARE: &str = "postrider_rows_1_prepare";
    pub const DECIDE: &str = "postrider_rows_1_decide";
    pub const FINISH: &str = "postrider_rows_1_finish";
    pub const PEEK: &str = "postrider_rows_1_peek";
    pub const RESOLVE: &str = "postrider_rows_1_resolve";
    pub const FORGET: &str = "postrider_rows_1_forget";
    pub const SETTLE: &str = "postrider_rows_1_settle";
    pub const ENDED: &str = "postrider_rows_1_ended";
    pub const STALE: &str = "postrider_rows_1_stale";
    pub const ATTEND: &str = "postrider_rows_1_attend";
    pub const LEAVE: &str = "postrider_rows_1_leave";
    /// As those without `_FREEING`, where they leave less in memory than there was: also where it has run out.
    pub const COMMIT_FREEING: &str = "postrider_rows_1_commit_freeing";
    pub const BEGIN_FREEING: &str = "postrider_rows_1_begin_freeing";
    pub const PREPARE_FREEING: &str = "postrider_rows_1_prepare_freeing";
    pub const TELL: &str = "postrider_rows_1_tell";
    pub const COUNT: &str = "postrider_rows_1_count";

    /// The function that does the same over cells of several slots.
    pub fn across(function: &'static str) -> &'static str {
        match function {
            FETCH => "postrider_rows_1_fetch_across",
            CHECK => "postrider_rows_1_check_across",
            COUNT => "postrider_rows_1_count_across",
            KEEP => "postrider_rows_1_keep_across",
            LET_GO_ALL => "postrider_rows_1_let_go_all_across",
            STALE => "postrider_rows_1_stale_across",
            // It goes over cells outside a Cluster only.
            function => function,
        }
    }
}

/// The keys of a cell, by name.
pub(super) fn keys(cell: Cell, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| cell.key(name)).collect()
}

/// A call that changes something.
pub(super) fn writing(cell: Cell, function: &'static str, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>>) -> Call {
    Call {
        cell,
        function,
        keys,
        args,
        is_read: false,
    }
}

/// A call that changes nothing.
pub(super) fn reading(cell: Cell, function: &'static str, keys: Vec<Vec<u8>>, args: Vec<Vec<u8>>) -> Call {
    Call {
        is_read: true,
        ..writing(cell, function, keys, args)
    }
}

/// A number as an argument.
pub(super) fn number(number: impl std::fmt::Display) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// A transaction that holds what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    /// Where it does.
    pub cell: Cell,
    pub transaction: Vec<u8>,
    /// Its node should have finished it by now.
    pub is_over: bool,
}

/// What a writing function answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// Nothing was written. What is held by others, if that is why.
    Conflict(Vec<Held>),
    /// Nothing was written: the server is not the one that was read from.
    Stranger,
}

/// The answer of a call to these cells.
pub(super) fn answer(value: &Value, cells: &[Cell]) -> Result<Answer, StoreFault> {
    let parts = array(value)?;
    match bytes(part(parts, 0)?)? {
        b"done" | b"same" => Ok(Answer::Done),
        b"conflict" => match parts.get(1).map(bytes).transpose()? {
            Some(b"held") => {
                let at = usize::try_from(int(part(parts, 3)?)?).map_err(|_| unforeseen())?;
                let cell = cells.get(at).ok_or_else(unforeseen)?;
                Ok(Answer::Conflict(held(*cell, part(parts, 2)?)?))
            }
            Some(b"token") => Ok(Answer::Stranger),
            _ => Ok(Answer::Conflict(Vec::new())),
        },
        _ => Err(unforeseen()),
    }
}

/// Pairs of a transaction and whether its lease is over.
pub(super) fn held(cell: Cell, value: &Value) -> Result<Vec<Held>, StoreFault> {
    let mut all = Vec::new();
    for pair in array(value)?.chunks(2) {
        all.push(Held {
            cell,
            transaction: bytes(part(pair, 0)?)?.to_vec(),
            is_over: int(part(pair, 1)?)? == 1,
        });
    }
    all.sort();
    all.dedup();
    Ok(all)
}

pub(super) fn array(value: &Value) -> Result<&[Value], StoreFault> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unforeseen()),
    }
}

pub(super) fn part(values: &[Value], at: usize) -> Result<&Value, StoreFault> {
    values.get(at).ok_or_else(unforeseen)
}

pub(super) fn bytes(value: &Value) -> Result<&[u8], StoreFault> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.as_bytes()),
        _ => Err(unforeseen()),
    }
}

pub(super) fn int(value: &Value) -> Result<i64, StoreFault> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unforeseen()),
    }
}

/// Text, as one finds it in a hash; `None` where there is none.
pub(super) fn text(value: &Value) -> Result<Option<&str>, StoreFault> {
    match value {
        Value::Nil => Ok(None),
        value => std::str::from_utf8(bytes(value)?)
            .map(Some)
            .map_err(|_| unforeseen()),
    }
}

/// An answer that is not this library's.
pub(super) fn unforeseen() -> StoreFault {
    StoreFault::Io("Redis answered what the library of this version does not".into())
}

/// What Redis did not do, as the operator is told of it.
pub(super) fn fault(fault: &LinkFault) -> StoreFault {
    if is_elsewhere(fault) {
        return StoreFault::Conflict;
    }
    match state_of(fault) {
        Some(trouble) => StoreFault::Unready(trouble.detail().to_owned()),
        None => StoreFault::Io(fault.to_string()),
    }
}
