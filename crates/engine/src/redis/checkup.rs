//! Whether a Redis can be what the engine needs, and how to mend what is wrong: what `postrider doctor` says, and what a
//! node asks before it starts.
//!
//! Invariant: looking changes nothing in Redis. What the servers answered is gathered first ([`look`]) and judged after,
//! without any I/O ([`judge`]), so that both who ask find the same words. No password stands in a finding.

mod facts;
mod rules;

pub(super) use facts::settings;
pub use facts::{Server, look};

use super::links::{Durability, LinkFault, NOT_EVERY_SLOT};

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Advice,
    /// It will not work, or what is promised does not hold.
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What, in a word or two.
    pub check: &'static str,
    /// How it stands.
    pub weight: Weight,
    /// What was found, and why it matters.
    pub detail: String,
    /// What to do, where there is something to do.
    pub mend: Option<String>,
}

impl Finding {
    fn good(check: &'static str, detail: impl Into<String>) -> Finding {
        Finding {
            check,
            weight: Weight::Good,
            detail: detail.into(),
            mend: None,
        }
    }

    fn advice(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            weight: Weight::Advice,
            mend: Some(mend.into()),
            ..Finding::good(check, detail)
        }
    }

    fn fault(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            weight: Weight::Fault,
            ..Finding::advice(check, detail, mend)
        }
    }
}

/// What a configuration asks of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// What a 202 means.
    pub durability: Durability,
    /// Its URL names a Cluster.
    pub cluster: bool,
}

/// Judges what the servers said: first what is about all of them, then each, the same words once.
pub fn judge(servers: &[Server], wanted: Wanted) -> Vec<Finding> {
    judge_by(rules::ALL, servers, wanted)
}

fn judge_by(rules: &[rules::Rule], servers: &[Server], wanted: Wanted) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for rule in rules {
        for server in servers {
            for finding in rule(server, wanted) {
                let known = findings.iter_mut().find(|known| known.check == finding.check);
                match known {
                    // A Cluster's masters are mostly alike: of those that are well the first speaks for all.
                    Some(_) if finding.weight == Weight::Good => {}
                    Some(known) if known.weight == Weight::Good => *known = of(server, servers, finding),
                    _ => findings.push(of(server, servers, finding)),
                }
            }
        }
    }
    findings
}

/// Says which server it is about, where there are several.
fn of(server: &Server, servers: &[Server], finding: Finding) -> Finding {
    match servers.len() > 1 && finding.weight != Weight::Good {
        true => Finding {
            detail: format!("{}: {}", server.address, finding.detail),
            ..finding
        },
        false => finding,
    }
}

/// What would lose what was accepted, or cannot work at all: with one of these a node does not start.
pub fn refusals(servers: &[Server], wanted: Wanted) -> Vec<Finding> {
    let mut findings = judge(servers, wanted);
    findings.retain(|finding| finding.weight == Weight::Fault && rules::REFUSED.contains(&finding.check));
    findings
}

/// What a node was promised at its start and would lose what is accepted now, as the settings of a running Redis can be
/// changed; by what [`settings`] says.
pub(super) fn broken(servers: &[Server], wanted: Wanted) -> Option<Finding> {
    let findings = judge_by(rules::LASTING, servers, wanted).into_iter();
    findings
        .max_by_key(|finding| finding.weight)
        .filter(|finding| finding.weight == Weight::Fault)
}

/// What it means that Redis could not be reached, or not be used.
pub fn unreachable(address: &str, fault: &LinkFault) -> Finding {
    let mend = match fault {
        LinkFault::Refused { code, .. } if code == "NOAUTH" => {
            "give engine.redis.url a user and a password: redis://user:password@host"
        }
        LinkFault::Refused { code, .. } if code == "WRONGPASS" => {
            "check the user and the password in engine.redis.url; @, : and / in them are written %40, %3A, %2F"
        }
        LinkFault::Unfit(why) => way_on(why),
        LinkFault::NotSent(why) if why == NOT_EVERY_SLOT => {
            "`redis-cli --cluster check HOST:PORT` with one of its servers names the slots, `redis-cli --cluster fix HOST:PORT` mends them"
        }
        _ => "check from this machine: `redis-cli -h HOST -p PORT ping` with a host of engine.redis.url",
    };
    Finding::fault("redis", format!("{address}: {fault}"), mend)
}

/// What to write where the server that answers is another than the URL says.
fn way_on(why: &str) -> &'static str {
    const WAYS: [(&str, &str); 6] = [
        (
            "is a node of a Cluster",
            "write engine.redis.url as redis+cluster://host:port,host:port",
        ),
        (
            "is not a node of a Cluster",
            "write engine.redis.url as redis://host:port: it is a single server",
        ),
        (
            "is not a cluster node",
            "write engine.redis.url as redis://host:port: it is a single server",
        ),
        (
            "is not a sentinel node",
            "name the Sentinels, not the servers they watch: redis+sentinel://host:26379/service; without Sentinels redis://host:port",
        ),
        (
            "knows no master",
            "name the service after the host as the Sentinels do: `redis-cli -h HOST -p 26379 SENTINEL MASTERS` lists them",
        ),
        (
            "is a Sentinel",
            "write engine.redis.url as redis+sentinel://host:26379/service",
        ),
    ];
    let way = WAYS.iter().find(|(what, _)| why.contains(what));
    way.map_or(
        "name a master of Redis 7 or newer in engine.redis.url",
        |(_, way)| way,
    )
}

#[cfg(test)]
mod tests;
