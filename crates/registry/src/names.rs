//! What tables and keys may be called that hold users and instances, other than in PostgreSQL.
//!
//! Invariant: a name that was read is taken by its store as it is, with what is added to it.

use std::fmt;
use std::str::FromStr;

/// What is added to a table's name for the leases.
const LEASES: &str = "_alive";
/// Characters of a table's name in DynamoDB.
const TABLE_CHARS: std::ops::RangeInclusive<usize> = 3..=255;
/// Most bytes of the name of a key in Redis.
const MOST_KEY: usize = 200;
/// Bytes of the name of an attribute that is a key in DynamoDB.
const ATTRIBUTE_BYTES: std::ops::RangeInclusive<usize> = 1..=255;
/// What a lease in DynamoDB holds beside its key: a text that is another each time, for how many milliseconds it counts,
/// and whether somebody clears its rows.
pub(crate) const BEAT: &str = "beat";
pub(crate) const LASTS: &str = "lease_ms";
pub(crate) const LAPSED: &str = "lapsed";

/// The name of a table in DynamoDB; that of its leases can be made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamoTableName(String);

/// It is no name of a table in DynamoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a table in DynamoDB: 3 to 249 letters, digits, `_`, `-` and `.`")]
pub struct DynamoTableNameFault;

impl FromStr for DynamoTableName {
    type Err = DynamoTableNameFault;

    fn from_str(text: &str) -> Result<DynamoTableName, DynamoTableNameFault> {
        let is_of_it = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        let fits = TABLE_CHARS.contains(&text.len()) && TABLE_CHARS.contains(&(text.len() + LEASES.len()));
        if !fits || !text.bytes().all(is_of_it) {
            return Err(DynamoTableNameFault);
        }
        Ok(DynamoTableName(text.to_owned()))
    }
}

impl DynamoTableName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The table of the leases.
    pub fn leases(&self) -> String {
        format!("{}{LEASES}", self.0)
    }
}

/// It names no key of the tables in DynamoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the name of an attribute in DynamoDB, 1 to 255 bytes, and not `{BEAT}`, `{LASTS}` or `{LAPSED}`, which leases have"
)]
pub struct DynamoAttributeFault;

/// Whether the user or the instance may be in an attribute of this name.
///
/// # Errors
/// They may not.
pub fn check_dynamo_attribute(name: &str) -> Result<(), DynamoAttributeFault> {
    match ATTRIBUTE_BYTES.contains(&name.len()) && ![BEAT, LASTS, LAPSED].contains(&name) {
        true => Ok(()),
        false => Err(DynamoAttributeFault),
    }
}

/// The name of the hash in Redis; keys beside it are in the same slot of a Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisKeyName(String);

/// It is no name of a key in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the name of a key in Redis: 1 to 200 letters, digits, `_`, `-`, `.`, `:` and `/`")]
pub struct RedisKeyNameFault;

impl FromStr for RedisKeyName {
    type Err = RedisKeyNameFault;

    fn from_str(text: &str) -> Result<RedisKeyName, RedisKeyNameFault> {
        // No braces: they would choose another slot for the hash than for what is beside it.
        let is_of_it = |b: u8| b.is_ascii_alphanumeric() || b"_-.:/".contains(&b);
        if text.is_empty() || text.len() > MOST_KEY || !text.bytes().all(is_of_it) {
            return Err(RedisKeyNameFault);
        }
        Ok(RedisKeyName(text.to_owned()))
    }
}

impl RedisKeyName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key beside it: its name is the tag by which a Cluster chooses the slot.
    pub fn beside(&self, what: impl fmt::Display) -> String {
        format!("{{{}}}:{what}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_leave_room_for_the_leases() {
        let table: DynamoTableName = "app.Notifier-1".parse().unwrap();
        assert_eq!(table.leases(), "app.Notifier-1_alive");
        assert!("x".repeat(249).parse::<DynamoTableName>().is_ok());
        let long = "x".repeat(250);
        for bad in ["", "ab", "a b c", "a/b", "äää", &long] {
            assert_eq!(bad.parse::<DynamoTableName>(), Err(DynamoTableNameFault), "{bad}");
        }
    }

    #[test]
    fn keys_have_no_braces_of_their_own() {
        let key: RedisKeyName = "app:notifiers".parse().unwrap();
        assert_eq!(key.beside("alive"), "{app:notifiers}:alive");
        let long = "x".repeat(201);
        for bad in ["", "a b", "{a}", "a}", "ä", &long] {
            assert_eq!(bad.parse::<RedisKeyName>(), Err(RedisKeyNameFault), "{bad}");
        }
    }
}
