use super::*;
use crate::derived_id;
use bytes::Bytes;
use postrider_model::{Audience, FeedId, Millis};

const NOW: Timestamp = Timestamp(1_000_000);
const BACKEND: Publisher<'static> = Publisher {
    name: "backend",
    may_broadcast: true,
};

fn draft() -> Draft {
    Draft {
        users: Some(vec!["ada".into()]),
        data: Bytes::from_static(b"1"),
        ..Draft::default()
    }
}

fn arrival(now: Timestamp) -> Arrival {
    Arrival {
        now,
        fresh: uuid::Uuid::from_u128(7),
        derived: None,
        request: None,
    }
}

fn admitted(draft: Draft) -> Publication {
    admit(draft, &BACKEND, &Limits::default(), arrival(NOW)).unwrap()
}

fn refused(draft: Draft) -> (&'static str, Option<String>) {
    let fault = admit(draft, &BACKEND, &Limits::default(), arrival(NOW)).unwrap_err();
    assert!(!fault.detail.is_empty());
    (fault.code.as_str(), fault.pointer)
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_breaks_a_rule_is_refused_at_its_place() {
    let long = |n: usize| Some("x".repeat(n));
    let many = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let transient = || Draft {
        durability: Durability::Transient,
        ..draft()
    };
    let at = Some(Timestamp(2_000_000));
    let table = [
        (
            Draft {
                users: Some(vec![]),
                ..draft()
            },
            "empty_audience",
            "/users",
        ),
        (
            Draft {
                users: None,
                topics: Some(vec![]),
                ..draft()
            },
            "empty_audience",
            "/topics",
        ),
        (
            Draft {
                topics: Some(names(&["t"])),
                ..draft()
            },
            "invalid_notification",
            "/topics",
        ),
        (
            Draft {
                users: Some(names(&["a", ""])),
                ..draft()
            },
            "invalid_notification",
            "/users/1",
        ),
        (
            Draft {
                users: None,
                topics: Some(names(&["a b"])),
                ..draft()
            },
            "invalid_notification",
            "/topics/0",
        ),
        (
            Draft {
                exclude_users: names(&["a\n"]),
                ..draft()
            },
            "invalid_notification",
            "/exclude_users/0",
        ),
        (
            Draft {
                users: Some(many(10_001)),
                ..draft()
            },
            "too_large",
            "/users",
        ),
        (
            Draft {
                exclude_users: many(1_001),
                ..draft()
            },
            "too_large",
            "/exclude_users",
        ),
        (
            Draft {
                data: vec![b'1'; (256 << 10) + 1].into(),
                ..draft()
            },
            "too_large",
            "/data",
        ),
        (
            Draft {
                subject: long(4097),
                ..draft()
            },
            "too_large",
            "/subject",
        ),
        (
            Draft {
                collapse_key: long(0),
                ..draft()
            },
            "invalid_notification",
            "/collapse_key",
        ),
        (
            Draft {
                collapse_key: long(257),
                ..draft()
            },
            "too_large",
            "/collapse_key",
        ),
        (
            Draft {
                id: Some("a/b".into()),
                ..draft()
            },
            "invalid_notification",
            "/id",
        ),
        (
            Draft {
                ttl: Some(Millis(0)),
                ..draft()
            },
            "invalid_notification",
            "/ttl",
        ),
        (
            Draft {
                policy: Some("fast".into()),
                ..draft()
            },
            "invalid_notification",
            "/policy",
        ),
        (
            Draft {
                policy: Some("default".into()),
                ..transient()
            },
            "invalid_notification",
            "/policy",
        ),
        (
            Draft {
                deliver_at: at,
                ..transient()
            },
            "invalid_notification",
            "/deliver_at",
        ),
        (
            Draft {
                collapse_key: long(1),
                ..transient()
            },
            "invalid_notification",
            "/collapse_key",
        ),
        (
            Draft {
                devices: Devices::First,
                ..transient()
            },
            "invalid_notification",
            "/devices",
        ),
        (
            Draft {
                users: None,
                topics: Some(names(&["orders"])),
                devices: Devices::First,
                ..draft()
            },
            "invalid_notification",
            "/devices",
        ),
    ];
    for (draft, code, pointer) in table {
        assert_eq!(refused(draft), (code, Some(pointer.to_owned())));
    }
}

#[test]
fn everyone_needs_the_broadcast_scope() {
    let everyone = || Draft {
        users: None,
        ..draft()
    };
    assert_eq!(admitted(everyone()).feeds, [FeedId::All]);
    let narrow = Publisher {
        may_broadcast: false,
        ..BACKEND
    };
    let fault = admit(everyone(), &narrow, &Limits::default(), arrival(NOW)).unwrap_err();
    assert_eq!(fault.code, FaultCode::Scope);
}

#[test]
fn users_come_once_and_the_excluded_are_taken_off() {
    let publication = admitted(Draft {
        users: Some(names(&["bob", "ada", "bob", "eve"])),
        exclude_users: names(&["eve", "dan", "eve"]),
        ..draft()
    });
    let user = |name: &str| postrider_model::UserId::new(name).unwrap();
    let notification = &publication.notification;
    assert_eq!(
        notification.audience,
        Audience::Users(["bob", "ada", "eve"].map(user).to_vec())
    );
    assert_eq!(notification.exclude, ["dan", "eve"].map(user));
    assert_eq!(
        publication.feeds,
        ["bob", "ada"].map(|name| FeedId::User(user(name)))
    );
    let nobody = admitted(Draft {
        exclude_users: names(&["ada"]),
        ..draft()
    });
    assert!(nobody.feeds.is_empty());
}

#[test]
fn times_are_counted_from_when_it_becomes_deliverable() {
    let at = |deliver_at, ttl| {
        let notification = admitted(Draft {
            deliver_at,
            ttl,
            ..draft()
        })
        .notification;
        (notification.deliver_at, notification.expires_at)
    };
    let (later, ttl) = (Timestamp(5_000_000), Millis(1000));
    assert_eq!(at(None, None), (None, None));
    assert_eq!(at(None, Some(ttl)), (None, Some(NOW.plus(ttl))));
    assert_eq!(at(Some(later), Some(ttl)), (Some(later), Some(later.plus(ttl))));
    assert_eq!(at(Some(Timestamp(1)), Some(ttl)), (None, Some(NOW.plus(ttl))));
}

#[test]
fn the_digest_knows_every_word_but_not_the_time_the_id_or_a_default() {
    let first = admitted(draft()).content;
    let later = admit(
        draft(),
        &BACKEND,
        &Limits::default(),
        arrival(Timestamp(9_000_000)),
    )
    .unwrap();
    assert_eq!(later.content, first);
    assert_eq!(
        admitted(Draft {
            id: Some("n-1".into()),
            ..draft()
        })
        .content,
        first
    );
    assert_eq!(
        admitted(Draft {
            policy: Some("default".into()),
            ..draft()
        })
        .content,
        first
    );
    let others = [
        Draft {
            data: Bytes::from_static(b"2"),
            ..draft()
        },
        Draft {
            users: Some(names(&["bob"])),
            ..draft()
        },
        Draft {
            users: None,
            ..draft()
        },
        Draft {
            users: None,
            topics: Some(names(&["ada"])),
            ..draft()
        },
        Draft {
            exclude_users: names(&["ada"]),
            ..draft()
        },
        Draft {
            subject: Some("s".into()),
            ..draft()
        },
        Draft {
            ttl: Some(Millis(1)),
            ..draft()
        },
        Draft {
            deliver_at: Some(Timestamp(1)),
            ..draft()
        },
        Draft {
            collapse_key: Some("s".into()),
            ..draft()
        },
        Draft {
            durability: Durability::Transient,
            ..draft()
        },
        Draft {
            devices: Devices::First,
            ..draft()
        },
    ];
    let mut digests: Vec<_> = others.into_iter().map(|draft| admitted(draft).content).collect();
    digests.push(first);
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 12);
}

#[test]
fn ids_are_given_derived_or_fresh() {
    assert_eq!(
        admitted(draft()).notification.id.as_str(),
        "00000000-0000-0000-0000-000000000007"
    );
    let derived = derived_id("backend", "k", 0);
    assert_eq!(derived, derived_id("backend", "k", 0));
    for other in [
        derived_id("backend", "k", 1),
        derived_id("backend", "l", 0),
        derived_id("backendk", "", 0),
    ] {
        assert_ne!(derived, other);
    }
    let arrival = Arrival {
        derived: Some(derived.clone()),
        ..arrival(NOW)
    };
    let publication = admit(draft(), &BACKEND, &Limits::default(), arrival.clone()).unwrap();
    assert_eq!(publication.notification.id, derived);
    let named = Draft {
        id: Some("own".into()),
        ..draft()
    };
    let publication = admit(named, &BACKEND, &Limits::default(), arrival).unwrap();
    assert_eq!(publication.notification.id.as_str(), "own");
}
