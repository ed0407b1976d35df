//! Tells anew who is here, and forgets whoever stands in Redis and is not: a failover may have lost that somebody went.
//!
//! Invariant: done by the task that writes who is here, between its writes: who comes meanwhile is written after it.

use super::{AT_ONCE, Inner, here};
use crate::redis::links::{Cell, LinkFault};
use postrider_model::UserId;
use redis::Value;
use std::collections::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// Users that are looked at in one go.
const STEP: usize = 1_000;

/// Who was told to be here, by digests of 8 bytes: two users with the same one are a ghost that stays, at worst.
#[derive(Default)]
struct Told(HashSet<u64>);

impl Told {
    fn note(&mut self, told: &[(UserId, Option<u32>)]) {
        for (user, sessions) in told {
            let digest = xxh3_64(user.as_str().as_bytes());
            match sessions {
                Some(_) => self.0.insert(digest),
                None => self.0.remove(&digest),
            };
        }
    }

    /// Those of these fields that nobody told.
    fn ghosts(&self, fields: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut fields = fields;
        fields.retain(|field| !self.0.contains(&xxh3_64(field)));
        fields
    }
}

impl Inner {
    /// Writes who is here, and takes away who is not.
    pub(super) async fn tell_anew(&self) {
        let mut told = Told::default();
        self.local.gather();
        loop {
            let changed = self.local.changed(AT_ONCE);
            told.note(&changed);
            self.write_surely(&changed).await;
            if changed.len() < AT_ONCE {
                break;
            }
        }
        let mut count = 0;
        for cell in Cell::all() {
            match self.forget_ghosts(cell, &told).await {
                Ok(ghosts) => count += ghosts,
                Err(error) => {
                    tracing::debug!(%error, "who is gone is looked for again later");
                    return;
                }
            }
        }
        if count > 0 {
            tracing::warn!(
                count,
                "users stood as connected here who were not; Redis had lost that they went"
            );
        }
    }

    async fn forget_ghosts(&self, cell: Cell, told: &Told) -> Result<usize, LinkFault> {
        let (mut cursor, mut count) = (b"0".to_vec(), 0);
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(here(cell, &self.node))
                .arg(&cursor)
                .arg("COUNT")
                .arg(STEP);
            let (next, fields) = scanned(self.links.command(cell, scan).await?)?;
            let ghosts = told.ghosts(fields);
            count += ghosts.len();
            if !ghosts.is_empty() {
                let mut forget = redis::cmd("HDEL");
                forget.arg(here(cell, &self.node)).arg(ghosts);
                self.links.command(cell, forget).await?;
            }
            if next == b"0" {
                return Ok(count);
            }
            cursor = next;
        }
    }
}

/// Where to go on, and the fields without their values.
fn scanned(said: Value) -> Result<(Vec<u8>, Vec<Vec<u8>>), LinkFault> {
    let strange = || LinkFault::Unknown("HSCAN was not answered as it should be".into());
    let Value::Array(parts) = said else {
        return Err(strange());
    };
    let Ok([Value::BulkString(next), Value::Array(fields)]) = <[Value; 2]>::try_from(parts) else {
        return Err(strange());
    };
    let fields = fields.into_iter().step_by(2).filter_map(|field| match field {
        Value::BulkString(field) => Some(field),
        _ => None,
    });
    Ok((next, fields.collect()))
}
