//! Measures the directory of the embedded engine: 100,000 users with three topics each are written, as an import
//! brings them, and 10,000 members of one topic come back at once.
//!
//! `cargo run --release -p postrider-engine --example directory`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::expect_used,
    reason = "it measures, and says what it found"
)]

use postrider_engine::{Directory, Embedded, EmbeddedOptions, Inboxes, Rules, StartsWanted, UserPut};
use postrider_model::{Cursor, Profile, Timestamp, Topic, UserId};
use std::sync::Arc;
use std::time::Instant;

const BATCHES: usize = 100;
const BATCH: usize = 1000;
const MEMBERS: usize = 10_000;
/// Sessions that one task opens.
const AT_ONCE: usize = 256;

fn user(n: usize) -> UserId {
    UserId::new(&format!("user-{n:06}")).expect("a user id")
}

fn put(n: usize, moved: bool) -> UserPut {
    let first = if moved {
        "moved".to_owned()
    } else {
        format!("region-{}", n % 7)
    };
    let topics = [first, format!("team-{}", n % 31), "news".to_owned()];
    let topics = topics.iter().map(|name| Topic::new(name).expect("a topic"));
    UserPut {
        user: user(n),
        profile: Profile {
            email: Some(format!("user-{n:06}@example.org")),
            locale: Some("de-AT".to_owned()),
            ..Profile::default()
        },
        topics: Some(topics.collect()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Embedded::open(EmbeddedOptions {
        data_dir: Some(dir.path().to_owned()),
        rules: Rules::default(),
        clock: Arc::new(|| Timestamp(1_700_000_000_000)),
        on_commit: Box::new(|_, _| {}),
    });
    let engine = engine.expect("an engine");
    for (what, moved) in [
        ("all new", false),
        ("all the same", false),
        ("one topic moves", true),
    ] {
        let begin = Instant::now();
        for batch in 0..BATCHES {
            let users = (batch * BATCH..(batch + 1) * BATCH).map(|n| put(n, moved));
            let answers = engine.put_users(users.collect()).await.expect("answers");
            assert!(answers.iter().all(Result::is_ok), "a user was refused");
        }
        println!("{} users, {what}: {:?}", BATCHES * BATCH, begin.elapsed());
    }
    let wanted: Vec<_> = (0..MEMBERS)
        .map(|n| StartsWanted {
            user: user(n),
            places: Vec::new(),
            cursor: Some(Cursor::default()),
            state: false,
        })
        .collect();
    for what in ["first", "again"] {
        let (begin, mut at_once) = (Instant::now(), 0);
        for some in wanted.chunks(AT_ONCE) {
            let (now, rest): (Vec<_>, Vec<_>) = some
                .iter()
                .cloned()
                .partition(|one| engine.starts_now(one).is_some());
            at_once += now.len();
            assert!(engine.starts(&rest).await.iter().all(Result::is_ok), "no answer");
        }
        println!(
            "{MEMBERS} members open {what}: {:?}, {at_once} from memory",
            begin.elapsed()
        );
    }
}
