//! The scripts, each one atomic step, and what they are given. Pure texts.
//!
//! `KEYS` are, in this order, those of the [`Keys`] that a script names; `ARGV[1]` is the time of the server after which
//! nobody waits for the answer any more: what comes later does nothing and fails with [`LATE`]. Leases are counted by the
//! server's clock.
//!
//! Invariant: whenever a row names an instance, the set of that instance has the user, and the instance has a lease, be it
//! one that is over: so its rows are found when it is gone. The set may have more.

use crate::RedisKeyName;

/// The code of the error where it was too late.
pub(super) const LATE: &str = "LATE";

/// The keys of a registry, all in one slot of a Cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    /// A hash: user to instance.
    pub rows: String,
    /// A sorted set: instance to the end of its lease, in milliseconds.
    pub alive: String,
    name: RedisKeyName,
}

impl Keys {
    pub fn new(name: RedisKeyName) -> Keys {
        Keys {
            rows: name.as_str().to_owned(),
            alive: name.beside("alive"),
            name,
        }
    }

    /// A set: the users whose rows may name this instance.
    pub fn of(&self, instance: &str) -> String {
        self.name.beside(format_args!("of:{instance}"))
    }
}

/// Begins each: the server's time, and the end where it is too late.
macro_rules! in_time {
    ($($rest:literal),+) => {
        concat!(
            "local t = redis.call('TIME') ",
            "local now = t[1] * 1000 + math.floor(t[2] / 1000) ",
            "if now > tonumber(ARGV[1]) then return redis.error_reply('LATE nobody waits for this any more') end ",
            $($rest),+
        )
    };
}

/// `rows`, `of`, `alive`; the instance, users. Their rows name it. An instance whose lease was cleared after meanwhile has
/// one again that is over: whoever beats next clears the rows, or is told that it lapsed.
pub(super) const PUT: &str = in_time!(
    "redis.call('ZADD', KEYS[3], 'NX', string.format('%d', now - 1), ARGV[2]) ",
    "for i = 3, #ARGV do ",
    "redis.call('SADD', KEYS[2], ARGV[i]) redis.call('HSET', KEYS[1], ARGV[i], ARGV[2]) end ",
    "return #ARGV - 2"
);

/// `rows`, `of`, `alive`; the instance, users. Those of their rows that are missing name it; how many. Of the lease as
/// [`PUT`].
pub(super) const TAKE_OVER: &str = in_time!(
    "redis.call('ZADD', KEYS[3], 'NX', string.format('%d', now - 1), ARGV[2]) ",
    "local n = 0 for i = 3, #ARGV do ",
    "if redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[2]) == 1 then ",
    "redis.call('SADD', KEYS[2], ARGV[i]) n = n + 1 end end return n"
);

/// `rows`, `of`, `alive`; the instance, users. Those of their rows that name it go; its lease stays as it is.
pub(super) const CLEAR: &str = in_time!(
    "for i = 3, #ARGV do redis.call('SREM', KEYS[2], ARGV[i]) ",
    "if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[i]) end end ",
    "return #ARGV - 2"
);

/// `alive`; the instance, its lease in milliseconds, how many others to tell. Whether the lease held, and those whose
/// lease is over.
pub(super) const BEAT: &str = in_time!(
    "local old = redis.call('ZSCORE', KEYS[1], ARGV[2]) ",
    "redis.call('ZADD', KEYS[1], string.format('%d', now + ARGV[3]), ARGV[2]) ",
    "local held = 0 if old and tonumber(old) >= now then held = 1 end ",
    "local dead = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('(%d', now), 'LIMIT', 0, ARGV[4]) ",
    "return {held, dead}"
);

/// `rows`, `of`, `alive`; an instance, how many rows, whether it is cleared even if its lease holds. Clears so many of
/// its rows, and drops its lease once there is none; how many users were looked at.
pub(super) const SWEEP: &str = in_time!(
    "local ends = redis.call('ZSCORE', KEYS[3], ARGV[2]) ",
    "if ARGV[4] == '0' and (not ends or tonumber(ends) >= now) then return 0 end ",
    "local users = redis.call('SPOP', KEYS[2], ARGV[3]) ",
    "for _, user in ipairs(users) do ",
    "if redis.call('HGET', KEYS[1], user) == ARGV[2] then redis.call('HDEL', KEYS[1], user) end end ",
    "if #users == 0 then redis.call('ZREM', KEYS[3], ARGV[2]) end return #users"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_in_one_slot() {
        let keys = Keys::new("notifier_instances".parse().unwrap());
        let slot = postrider_sources::redis::slot(keys.rows.as_bytes());
        for key in [&keys.alive, &keys.of("node-{1}"), &keys.of("")] {
            assert_eq!(postrider_sources::redis::slot(key.as_bytes()), slot, "{key}");
        }
    }
}
