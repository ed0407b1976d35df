//! The rules, each about one thing: a pure function of what a server said.

use super::super::links::Durability;
use super::facts::Server;
use super::{Finding, Wanted, Weight};

/// One rule.
pub(super) type Rule = fn(&Server, Wanted) -> Vec<Finding>;

/// All of them, in the order in which they are told.
pub(super) const ALL: &[Rule] = &[
    version,
    role,
    cluster,
    eviction,
    memory,
    persistence,
    replicas,
    buffers,
    clock,
    library,
];

/// With a fault of these a node does not start.
pub(super) const REFUSED: &[&str] = &[
    "redis version",
    "redis role",
    "redis cluster",
    "redis eviction",
    "redis persistence",
];

/// What loses what was accepted while all seems well: it has to hold for as long as a node runs.
pub(super) const LASTING: &[Rule] = &[eviction, safety];

/// The oldest version that has functions and sharded Pub/Sub.
const OLDEST: u32 = 7;
/// A server that is this full, in hundredths, will soon refuse.
const FULL: u64 = 80;
/// What a subscriber must be able to lag behind: a wide publication beside a busy feed.
const LEAST_BUFFER: u64 = 8 << 20;
/// Clocks further apart deserve a word: times to live and due times are by the nodes' clocks.
const APART_MS: u64 = 1_000;
/// Clocks further apart make notifications expire before they are due.
const FAR_APART_MS: u64 = 60_000;
/// What a Cluster has.
const SLOTS: &str = "16384";

fn of<'s>(server: &'s Server, name: &str) -> &'s str {
    server.info.get(name).map_or("", String::as_str)
}

fn number(server: &Server, name: &str) -> u64 {
    of(server, name).parse().unwrap_or(0)
}

fn version(server: &Server, _: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis version";
    let (name, said) = match of(server, "valkey_version") {
        "" => ("Redis", of(server, "redis_version")),
        valkey => ("Valkey", valkey),
    };
    let major = said.split('.').next().and_then(|major| major.parse::<u32>().ok());
    vec![match major {
        Some(major) if major >= OLDEST => {
            Finding::good(CHECK, format!("{name} {said} at {}", server.address))
        }
        _ => Finding::fault(
            CHECK,
            format!(
                "{name} {said} lacks functions and sharded Pub/Sub, by which nodes store and wake each other"
            ),
            "use Redis 7.0 or newer, or Valkey",
        ),
    }]
}

fn role(server: &Server, _: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis role";
    vec![match of(server, "role") {
        "master" => Finding::good(CHECK, "master"),
        role => {
            let master = format!("{}:{}", of(server, "master_host"), of(server, "master_port"));
            Finding::fault(
                CHECK,
                format!("{role} of {master}: it takes no writes"),
                format!(
                    "name the master in engine.redis.url ({master}), or the Sentinels: redis+sentinel://…/service"
                ),
            )
        }
    }]
}

fn cluster(server: &Server, wanted: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis cluster";
    let is_cluster = of(server, "cluster_enabled") == "1";
    if is_cluster != wanted.cluster {
        let (what, scheme) = match is_cluster {
            true => (
                "it is part of a Cluster, and most of what is stored belongs on other servers",
                "redis+cluster",
            ),
            false => ("it is no part of a Cluster", "redis"),
        };
        return vec![Finding::fault(
            CHECK,
            what,
            format!("write engine.redis.url as {scheme}://…"),
        )];
    }
    let Some(said) = &server.cluster else {
        return Vec::new();
    };
    let of = |name: &str| said.get(name).map_or("", String::as_str);
    let (state, assigned, failing) = (
        of("cluster_state"),
        of("cluster_slots_assigned"),
        of("cluster_slots_fail"),
    );
    vec![match (state, assigned, failing) {
        ("ok", SLOTS, "0") => Finding::good(
            CHECK,
            format!("all {SLOTS} slots are served by {} masters", of("cluster_size")),
        ),
        _ => Finding::fault(
            CHECK,
            format!(
                "state {state}, {assigned} of {SLOTS} slots assigned, {failing} of them failing: users whose slots are not served receive nothing"
            ),
            format!(
                "`redis-cli --cluster check {0}` names them, `redis-cli --cluster fix {0}` mends them",
                server.address
            ),
        ),
    }]
}

fn eviction(server: &Server, _: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis eviction";
    let policy = of(server, "maxmemory_policy");
    const MEND: &str = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf";
    vec![match policy {
        "noeviction" => Finding::good(
            CHECK,
            "noeviction: what does not fit is refused, and nothing is forgotten",
        ),
        _ if policy.starts_with("allkeys-") => Finding::fault(
            CHECK,
            format!(
                "maxmemory-policy is {policy}: with its memory full Redis forgets notifications that were accepted, and says nothing"
            ),
            MEND,
        ),
        _ => Finding::advice(
            CHECK,
            format!(
                "maxmemory-policy is {policy}: with its memory full Redis forgets who is online and which tickets were used"
            ),
            MEND,
        ),
    }]
}

fn memory(server: &Server, _: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis memory";
    let (used, most) = (number(server, "used_memory"), number(server, "maxmemory"));
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    vec![match used.saturating_mul(100).checked_div(most) {
        None => Finding::advice(
            CHECK,
            format!(
                "{} used, without a limit: when the machine has no more, the system ends Redis",
                mib(used)
            ),
            "redis-cli CONFIG SET maxmemory to what the machine can spare, half of it where Redis writes snapshots, \
             and the same in redis.conf",
        ),
        Some(100..) => Finding::fault(
            CHECK,
            format!("{} of {} used: publishing is refused", mib(used), mib(most)),
            "raise maxmemory, or lower retention.age, retention.entries_per_feed or retention.total_bytes",
        ),
        Some(percent) if percent >= FULL => Finding::advice(
            CHECK,
            format!(
                "{} of {} used, {percent} %: when it is full, publishing is refused",
                mib(used),
                mib(most)
            ),
            "raise maxmemory, or lower retention.age, retention.entries_per_feed or retention.total_bytes",
        ),
        Some(_) => Finding::good(CHECK, format!("{} of {} used", mib(used), mib(most))),
    }]
}

/// What [`persistence`] and [`safety`] are about.
const PERSISTENCE: &str = "redis persistence";

fn persistence(server: &Server, wanted: Wanted) -> Vec<Finding> {
    let failed = [
        ("aof_last_write_status", "the append-only file"),
        ("rdb_last_bgsave_status", "a snapshot"),
    ];
    for (field, what) in failed {
        if of(server, field) == "err" {
            return vec![Finding::fault(
                PERSISTENCE,
                format!("Redis could not write {what}, and may refuse all writes until it can"),
                "look at the log of Redis, and at the free room and the owner of its directory (redis-cli CONFIG GET dir)",
            )];
        }
    }
    safety(server, wanted)
}

/// Whether what is written is as safe as it was asked to be.
fn safety(server: &Server, wanted: Wanted) -> Vec<Finding> {
    const CHECK: &str = PERSISTENCE;
    let config = |name: &str| server.config.as_ref().and_then(|config| config.get(name));
    let is_aof = match config("appendonly") {
        Some(on) => on == "yes",
        None => of(server, "aof_enabled") == "1",
    };
    let fsync = config("appendfsync").map(String::as_str);
    vec![match (wanted.durability, is_aof, fsync) {
        (Durability::Aof, true, Some("always")) => Finding::good(
            CHECK,
            "append-only file, synced at each write: a 202 is on the master's disk",
        ),
        (Durability::Aof, true, None) => Finding::advice(
            CHECK,
            "engine.redis.durability is aof, and this Redis does not let appendfsync be read",
            "make sure that it runs with appendonly yes and appendfsync always",
        ),
        (Durability::Aof, ..) => Finding::fault(
            CHECK,
            format!(
                "engine.redis.durability is aof, and Redis runs with appendonly {} and appendfsync {}: a 202 would \
                 promise what a crash can undo",
                if is_aof { "yes" } else { "no" },
                fsync.unwrap_or("unknown"),
            ),
            "redis-cli CONFIG SET appendonly yes, redis-cli CONFIG SET appendfsync always, and the same in redis.conf",
        ),
        (_, true, Some("always")) => Finding::good(CHECK, "append-only file, synced at each write"),
        (_, true, Some("no")) => Finding::advice(
            CHECK,
            "append-only file, synced when the system likes: a power loss undoes some 30 seconds",
            "redis-cli CONFIG SET appendfsync everysec, and the same in redis.conf",
        ),
        (_, true, _) => Finding::good(
            CHECK,
            "append-only file, synced each second: a power loss undoes about one second",
        ),
        (_, false, _) => without_aof(CHECK, config("save").map(String::as_str)),
    }]
}

fn without_aof(check: &'static str, save: Option<&str>) -> Finding {
    const MEND: &str = "redis-cli CONFIG SET appendonly yes, and the same in redis.conf";
    match save {
        Some("") => Finding::advice(
            check,
            "nothing is kept on disk: a restart of Redis loses every notification and every mark",
            MEND,
        ),
        _ => Finding::advice(
            check,
            "snapshots alone: a crash of Redis undoes what was stored since the last, often minutes",
            MEND,
        ),
    }
}

fn replicas(server: &Server, wanted: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis replicas";
    let lines = server.info.iter().filter(|(name, value)| {
        let nth = name.strip_prefix("slave");
        nth.is_some_and(|nth| nth.parse::<u32>().is_ok()) && value.contains("state=online")
    });
    let online = lines.count();
    let Durability::Replicas(least) = wanted.durability else {
        return vec![Finding::good(CHECK, format!("{online} online"))];
    };
    vec![match online as u64 >= u64::from(least) {
        true => Finding::good(
            CHECK,
            format!("{online} online, and engine.redis.durability waits for {least}"),
        ),
        false => Finding::fault(
            CHECK,
            format!(
                "{online} online, and engine.redis.durability waits for {least}: every publication would be answered 503"
            ),
            "start more replicas (`redis-cli INFO replication` names those there are), or lower engine.redis.durability",
        ),
    }]
}

fn buffers(server: &Server, _: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis buffers";
    let limits = server
        .config
        .as_ref()
        .and_then(|config| config.get("client-output-buffer-limit"));
    let Some((hard, soft)) = limits.and_then(|limits| pubsub_limits(limits)) else {
        return Vec::new();
    };
    let is_small = |limit: u64| limit > 0 && limit < LEAST_BUFFER;
    vec![match is_small(hard) || is_small(soft) {
        true => Finding::advice(
            CHECK,
            format!(
                "client-output-buffer-limit lets a subscriber lag {hard} bytes, {soft} for long: a node behind a burst is cut off, and looks anew"
            ),
            "redis-cli CONFIG SET client-output-buffer-limit \"pubsub 32mb 8mb 60\", and the same in redis.conf",
        ),
        false => Finding::good(CHECK, "a node may lag behind a burst"),
    }]
}

/// The hard and the soft limit of subscribers, of `class hard soft seconds …`.
fn pubsub_limits(limits: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = limits.split_whitespace().collect();
    let class = words.chunks_exact(4).find(|class| class[0] == "pubsub")?;
    Some((class[1].parse().ok()?, class[2].parse().ok()?))
}

fn clock(server: &Server, _: Wanted) -> Vec<Finding> {
    const CHECK: &str = "redis clock";
    let Some(ahead) = server.ahead_ms else {
        return Vec::new();
    };
    let apart = ahead.unsigned_abs();
    let side = if ahead > 0 { "behind" } else { "ahead of" };
    let detail = format!("this machine's clock is {apart} ms {side} that of Redis");
    const MEND: &str = "run systemd-timesyncd or chrony on all machines: nodes judge deliver_at, ttl and tokens each by its own clock";
    let weight = match apart {
        0..=APART_MS => return vec![Finding::good(CHECK, "agrees with this machine's to a second")],
        apart if apart <= FAR_APART_MS => Weight::Advice,
        _ => Weight::Fault,
    };
    vec![Finding {
        weight,
        ..Finding::advice(CHECK, detail, MEND)
    }]
}

fn library(server: &Server, _: Wanted) -> Vec<Finding> {
    vec![Finding::good(
        "redis functions",
        match server.libraries.as_slice() {
            [] => "none of Postrider yet; the first node loads them".to_owned(),
            there => there.join(", "),
        },
    )]
}
