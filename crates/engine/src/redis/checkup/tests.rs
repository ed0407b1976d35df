use super::*;
use std::collections::BTreeMap;

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    pairs.collect()
}

/// A server with which all is well.
fn server() -> Server {
    Server {
        address: "10.0.0.1:6379".into(),
        info: map(&[
            ("redis_version", "7.0.15"),
            ("role", "master"),
            ("cluster_enabled", "0"),
            ("maxmemory_policy", "noeviction"),
            ("maxmemory", "1000"),
            ("used_memory", "10"),
            ("slave0", "ip=10.0.0.2,port=6379,state=online,offset=1,lag=0"),
            ("slave_read_repl_offset", "state=online"),
        ]),
        config: Some(map(&[
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("save", ""),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 1 1 60 pubsub 33554432 8388608 60",
            ),
        ])),
        cluster: None,
        ahead_ms: Some(3),
        libraries: vec!["postrider_1".into()],
    }
}

const NONE: Wanted = Wanted {
    durability: Durability::None,
    cluster: false,
};

/// The one finding about something, of a server that was changed.
fn about(check: &str, wanted: Wanted, change: impl FnOnce(&mut Server)) -> Finding {
    let mut server = server();
    change(&mut server);
    let mut found = judge(&[server], wanted);
    found.retain(|finding| finding.check == check);
    assert_eq!(found.len(), 1, "{check}: {found:?}");
    found.remove(0)
}

fn info(name: &str, value: &str) -> impl FnOnce(&mut Server) {
    let (name, value) = (name.to_owned(), value.to_owned());
    move |server| _ = server.info.insert(name, value)
}

fn config(pairs: &'static [(&'static str, &'static str)]) -> impl FnOnce(&mut Server) {
    move |server| server.config.as_mut().unwrap().extend(map(pairs))
}

#[test]
fn where_all_is_well_everything_is_good() {
    for finding in judge(&[server()], NONE) {
        assert_eq!(
            (finding.weight, &finding.mend),
            (Weight::Good, &None),
            "{finding:?}"
        );
    }
}

#[test]
fn every_finding_that_is_not_good_says_how_to_mend_it() {
    let wait = |replicas| Wanted {
        durability: Durability::Replicas(replicas),
        ..NONE
    };
    let aof = Wanted {
        durability: Durability::Aof,
        ..NONE
    };
    let in_cluster = Wanted {
        cluster: true,
        ..NONE
    };
    let broken = |server: &mut Server| {
        server.info.insert("cluster_enabled".into(), "1".into());
        server.cluster = Some(map(&[
            ("cluster_state", "fail"),
            ("cluster_slots_assigned", "10000"),
            ("cluster_slots_fail", "0"),
        ]));
    };
    let table = [
        (
            about("redis version", NONE, info("redis_version", "6.2.1")),
            Weight::Fault,
            "7.0",
        ),
        (
            about("redis version", NONE, info("redis_version", "")),
            Weight::Fault,
            "7.0",
        ),
        (
            about("redis role", NONE, info("role", "slave")),
            Weight::Fault,
            "master",
        ),
        (
            about("redis cluster", NONE, info("cluster_enabled", "1")),
            Weight::Fault,
            "redis+cluster://",
        ),
        (
            about("redis cluster", in_cluster, |_| ()),
            Weight::Fault,
            "as redis://",
        ),
        (
            about("redis cluster", in_cluster, broken),
            Weight::Fault,
            "--cluster fix 10.0.0.1:6379",
        ),
        (
            about("redis eviction", NONE, info("maxmemory_policy", "allkeys-lru")),
            Weight::Fault,
            "noeviction",
        ),
        (
            about("redis eviction", NONE, info("maxmemory_policy", "volatile-ttl")),
            Weight::Advice,
            "noeviction",
        ),
        (
            about("redis memory", NONE, info("maxmemory", "0")),
            Weight::Advice,
            "maxmemory",
        ),
        (
            about("redis memory", NONE, info("used_memory", "800")),
            Weight::Advice,
            "retention",
        ),
        (
            about("redis memory", NONE, info("used_memory", "1000")),
            Weight::Fault,
            "retention",
        ),
        (
            about("redis persistence", aof, |_| ()),
            Weight::Fault,
            "appendfsync always",
        ),
        (
            about("redis persistence", aof, |server| server.config = None),
            Weight::Fault,
            "appendfsync always",
        ),
        (
            about("redis persistence", NONE, config(&[("appendonly", "no")])),
            Weight::Advice,
            "appendonly yes",
        ),
        (
            about("redis persistence", NONE, config(&[("appendfsync", "no")])),
            Weight::Advice,
            "everysec",
        ),
        (
            about("redis persistence", NONE, info("aof_last_write_status", "err")),
            Weight::Fault,
            "log",
        ),
        (
            about("redis replicas", wait(2), |_| ()),
            Weight::Fault,
            "replicas",
        ),
        (
            about(
                "redis buffers",
                NONE,
                config(&[("client-output-buffer-limit", "pubsub 1024 512 60")]),
            ),
            Weight::Advice,
            "pubsub 32mb",
        ),
        (
            about("redis clock", NONE, |server| server.ahead_ms = Some(-5_000)),
            Weight::Advice,
            "chrony",
        ),
        (
            about("redis clock", NONE, |server| server.ahead_ms = Some(90_000)),
            Weight::Fault,
            "chrony",
        ),
    ];
    for (finding, weight, mend) in table {
        assert_eq!(finding.weight, weight, "{finding:?}");
        assert!(
            finding.mend.as_ref().is_some_and(|said| said.contains(mend)),
            "{finding:?}"
        );
    }
    assert_eq!(about("redis replicas", wait(1), |_| ()).weight, Weight::Good);
    let always = config(&[("appendfsync", "always")]);
    assert_eq!(about("redis persistence", aof, always).weight, Weight::Good);
}

#[test]
fn a_node_does_not_start_on_what_loses_data_and_starts_on_the_rest() {
    let refused = |wanted: Wanted, change: &dyn Fn(&mut Server)| {
        let mut server = server();
        change(&mut server);
        let refusals = refusals(&[server], wanted);
        refusals.first().map(|finding| finding.check)
    };
    let set = |name: &'static str, value: &'static str| {
        move |server: &mut Server| _ = server.info.insert(name.into(), value.into())
    };
    let aof = Wanted {
        durability: Durability::Aof,
        ..NONE
    };
    assert_eq!(refused(NONE, &|_| ()), None);
    assert_eq!(refused(aof, &|_| ()), Some("redis persistence"));
    assert_eq!(
        refused(NONE, &set("maxmemory_policy", "allkeys-lfu")),
        Some("redis eviction")
    );
    assert_eq!(refused(NONE, &set("maxmemory_policy", "volatile-lru")), None);
    assert_eq!(refused(NONE, &set("used_memory", "2000")), None);
    assert_eq!(refused(NONE, &set("role", "slave")), Some("redis role"));
}

#[test]
fn of_several_servers_the_bad_one_is_named() {
    let (mut bad, good) = (server(), server());
    bad.address = "10.0.0.9:7001".into();
    bad.info.insert("maxmemory_policy".into(), "allkeys-lru".into());
    for servers in [[good.clone(), bad.clone()], [bad, good]] {
        let found = judge(&servers, NONE);
        let eviction: Vec<_> = found.iter().filter(|f| f.check == "redis eviction").collect();
        assert_eq!(eviction.len(), 1);
        assert!(eviction[0].detail.starts_with("10.0.0.9:7001: "), "{eviction:?}");
    }
}

#[test]
fn what_cannot_be_reached_is_a_fault_with_a_way_on() {
    let refused = |code: &str| LinkFault::Refused {
        code: code.into(),
        detail: "…".into(),
    };
    for (fault, mend) in [
        (refused("NOAUTH"), "password"),
        (refused("WRONGPASS"), "%40"),
        (LinkFault::Unfit("a replica".into()), "Redis 7"),
        (
            LinkFault::Unfit("h:1 is not a cluster node".into()),
            "as redis://",
        ),
        (
            LinkFault::Unfit("h:1 is a node of a Cluster: its address must …".into()),
            "redis+cluster://",
        ),
        (
            LinkFault::Unfit("the Sentinel h:1 knows no master \"x\"".into()),
            "SENTINEL MASTERS",
        ),
        (LinkFault::NotSent("no connection".into()), "redis-cli -h"),
        (LinkFault::NotSent(NOT_EVERY_SLOT.into()), "--cluster fix"),
    ] {
        let finding = unreachable("redis://host:6379", &fault);
        assert_eq!(finding.weight, Weight::Fault);
        assert!(finding.mend.unwrap().contains(mend));
    }
}
