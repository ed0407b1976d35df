//! Which nodes there are: each holds a lease in Redis, by Redis' own clock.
//!
//! Invariant: a node that renews its lease each second is on the roster; one that ended without a word is off it
//! [`LEASE_MS`] later. Where nobody could renew, because Redis was away, nobody is taken for gone: all leases begin anew.

use redis::Value;

/// How long a lease lasts.
pub(super) const LEASE_MS: u64 = 5_000;
/// How often it is renewed.
pub(super) const RENEWAL_MS: u64 = 1_000;
/// With the newest renewal older than this, nobody could renew.
const STALL_MS: u64 = 2_500;

/// Renews a lease and says who has one.
///
/// KEYS: the nodes by when they renewed last; what each says of itself. ARGV: this node, what it says of itself, the
/// lease and the stall in milliseconds. Answers whether this node was on the roster; who is; who no longer is. Also
/// where memory has run out: a node is there all the same, and one may begin.
const RENEW: &str = r"#!lua flags=allow-oom
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) < now - tonumber(ARGV[4]) then
  for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    redis.call('ZADD', KEYS[1], now, node)
  end
end
local gone = redis.call('ZRANGE', KEYS[1], '-inf', '(' .. (now - tonumber(ARGV[3])), 'BYSCORE')
for _, node in ipairs(gone) do
  redis.call('ZREM', KEYS[1], node)
  redis.call('HDEL', KEYS[2], node)
end
local was = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {was, redis.call('ZRANGE', KEYS[1], 0, -1), gone}
";

/// Gives a lease back. KEYS as above; ARGV: the node.
const LEAVE: &str = r"
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
";

/// What a renewal found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Renewed {
    /// This node was on the roster; where not, the others had taken it for gone, or this is the first time.
    pub was_there: bool,
    /// The nodes there are, this one among them.
    pub nodes: Vec<String>,
    /// Those whose lease this renewal found to have ended.
    pub gone: Vec<String>,
}

/// The keys of the roster, in the cell of the nodes.
fn keys(tag: &str) -> [String; 2] {
    [format!("{tag}:roster"), format!("{tag}:roster:about")]
}

pub(super) fn renew(tag: &str, node: &str, about: &str) -> redis::Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(RENEW).arg(2).arg(&keys(tag)).arg(node).arg(about);
    command.arg(LEASE_MS).arg(STALL_MS);
    command
}

pub(super) fn leave(tag: &str, node: &str) -> redis::Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(LEAVE).arg(2).arg(&keys(tag)).arg(node);
    command
}

impl Renewed {
    /// The answer to [`renew`].
    pub fn read(value: &Value) -> Option<Renewed> {
        let Value::Array(parts) = value else { return None };
        let [Value::Int(was), Value::Array(nodes), Value::Array(gone)] = parts.as_slice() else {
            return None;
        };
        let names = |all: &[Value]| {
            let names = all.iter().filter_map(|one| match one {
                Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
                Value::SimpleString(name) => Some(name.clone()),
                _ => None,
            });
            names.collect()
        };
        Some(Renewed {
            was_there: *was == 1,
            nodes: names(nodes),
            gone: names(gone),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::testing;

    #[test]
    fn a_lease_that_is_not_renewed_ends_unless_nobody_could() {
        if !testing::has_redis("the roster of nodes") {
            return;
        }
        let server = testing::Server::start();
        let renewed = |node: &str| Renewed::read(&server.ask(&renew("{t}", node, "here"))).unwrap();
        let names = |renewed: &Renewed| renewed.nodes.join(" ");
        let back = |node: &str| server.ask_line(&format!("ZINCRBY {{t}}:roster -6000 {node}"));
        let first = renewed("a");
        assert_eq!((first.was_there, names(&first).as_str()), (false, "a"));
        assert_eq!(names(&renewed("b")), "a b");
        assert!(renewed("a").was_there);

        // As if `b` had last renewed six seconds ago, and `a` a moment ago.
        back("b");
        let left = renewed("a");
        assert_eq!((names(&left).as_str(), left.gone), ("a", vec!["b".to_owned()]));
        assert_eq!(server.ask_line("HLEN {t}:roster:about"), Value::Int(1));

        // As if nobody had for six seconds.
        assert!(!renewed("b").was_there);
        back("a");
        back("b");
        let both = renewed("b");
        assert_eq!((names(&both).as_str(), both.gone.len()), ("a b", 0));

        assert_eq!(server.ask(&leave("{t}", "a")), Value::Int(1));
        assert_eq!(names(&renewed("b")), "b");
    }
}
