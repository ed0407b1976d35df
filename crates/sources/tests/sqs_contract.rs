//! The sources of Amazon SQS under the contract suite, over emulators of it; and what is theirs alone.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: it reads clocks")]

use async_trait::async_trait;
use bytes::Bytes;
use postrider_aws::{Account, Reach};
use postrider_harness::aws::{ACCESS_KEY, Boto, Emulator, Fault, REGION, SECRET_KEY, Trouble};
use postrider_harness::machine::{self, Need};
use postrider_harness::proxy::{Proxy, Weather};
use postrider_model::{FeedId, Millis, Timestamp, UserId};
use postrider_sources::contract::{self, Subject};
use postrider_sources::queue::{Delivery, Source, SourceFault};
use postrider_sources::sqs::{QueueName, Sqs, SqsAccess, SqsOptions, SqsUsers, SqsUsersOptions, SteadyClock};
use postrider_sources::template::Template;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

const LOCALSTACK: &[Need] = &[Need::LocalStack, Need::Moto];
const MOTO: &[Need] = &[Need::Moto];

/// One LocalStack for all tests that run at the same time, each with queues of its own: to start one takes longer than most
/// of them.
fn localstack() -> anyhow::Result<Arc<Emulator>> {
    static RUNNING: Mutex<Weak<Emulator>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(emulator) = running.upgrade() {
        return Ok(emulator);
    }
    let started = Arc::new(Emulator::localstack()?);
    *running = Arc::downgrade(&started);
    Ok(started)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn access(endpoint: &str, node: &str) -> SqsAccess {
    SqsAccess {
        account: Arc::new(Account::with_keys(ACCESS_KEY, SECRET_KEY)),
        reach: Reach {
            region: Some(REGION.into()),
            endpoint: Some(endpoint.to_owned()),
            ..Reach::default()
        },
        wait: Duration::from_secs(20),
        // No rule ends of itself because a machine stands still for seconds.
        visibility: Duration::from_secs(60),
        parallel: 10,
        node: node.to_owned(),
    }
}

fn one(endpoint: &str, queue: &str, node: &str) -> Sqs {
    reading(access(endpoint, node), queue)
}

fn reading(access: SqsAccess, queue: &str) -> Sqs {
    Sqs::new(SqsOptions {
        access,
        queue: QueueName::Url(queue.to_owned()),
        workers: 2,
        create: false,
        remove: false,
        steady: steady(),
        random: Arc::new(|| u64::MAX / 2),
    })
}

fn steady() -> SteadyClock {
    let start = Instant::now();
    Arc::new(move || Timestamp(u64::try_from(start.elapsed().as_millis()).unwrap()))
}

fn users(access: SqsAccess, queue: &str, connections: usize) -> SqsUsers {
    SqsUsers::new(SqsUsersOptions {
        access,
        queue: Template::parse(queue, "{user}").unwrap(),
        connections,
        // A rule of the contract keeps 150 of one user.
        unsettled: 1_024,
        shared: 4_096,
        linger: Millis(100),
        steady: steady(),
        random: Arc::new(|| u64::MAX / 2),
    })
}

fn user(name: &str) -> FeedId {
    FeedId::User(UserId::new(name).unwrap())
}

/// What a rule's queue is read by.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    One,
    /// One of a FIFO queue, each message in a group of its own.
    Fifo,
    /// The queue of a user, whose name is the rule's.
    User,
}

/// A queue for each rule, behind a network that can be cut.
struct Queues {
    boto: Mutex<Boto>,
    proxy: Proxy,
    read: Read,
    /// The rule, its queue, and how much was put there.
    rule: Mutex<(String, String, usize)>,
}

impl Queues {
    fn before(emulator: &Emulator, read: Read) -> anyhow::Result<Queues> {
        Ok(Queues {
            boto: Mutex::new(Boto::start(&emulator.endpoint())?),
            proxy: Proxy::start(&[emulator.addr()])?,
            read,
            rule: Mutex::default(),
        })
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.proxy.addr())
    }
}

#[async_trait]
impl Subject for Queues {
    async fn begin(&self, rule: &str) {
        // Others of this emulator have the same rules.
        let rule = format!("{:?}-{rule}", self.read);
        eprintln!("{rule}");
        let (name, attributes) = match self.read {
            Read::Fifo => (format!("{rule}.fifo"), json!({"FifoQueue": "true"})),
            _ => (rule.clone(), json!({})),
        };
        let url = self.boto.lock().unwrap().queue(&name, attributes).unwrap();
        *self.rule.lock().unwrap() = (rule, url, 0);
    }

    async fn node(&self, name: &str, lease: Duration) -> Arc<dyn Source> {
        let (rule, url, _) = self.rule.lock().unwrap().clone();
        let access = SqsAccess {
            visibility: lease,
            ..access(&self.endpoint(), name)
        };
        if self.read != Read::User {
            return Arc::new(reading(access, &url));
        }
        let of_users = url.replace(&format!("/{rule}"), "/{user}");
        let source = users(access, &of_users, 8);
        source.follow(&user(&rule));
        Arc::new(source)
    }

    async fn left(&self) -> usize {
        let queue = self.rule.lock().unwrap().1.clone();
        let (visible, hidden) = self.boto.lock().unwrap().counts(&queue).unwrap();
        usize::try_from(visible + hidden).unwrap()
    }

    async fn put(&self, payloads: &[String]) {
        let mut rule = self.rule.lock().unwrap();
        let message = |(n, payload): (usize, &String)| match self.read {
            Read::Fifo => {
                json!({"body": payload, "group": format!("g{}", n + rule.2), "id": format!("{}", n + rule.2)})
            }
            _ => json!({"body": payload, "attributes": {"n": "x"}}),
        };
        let messages: Vec<Value> = payloads.iter().enumerate().map(message).collect();
        // It sends several batches at the same time: their order is kept by one after another.
        for batch in messages.chunks(10) {
            self.boto.lock().unwrap().send_many(&rule.1, batch).unwrap();
        }
        rule.2 += payloads.len();
    }

    fn payload(&self, delivery: &Delivery) -> Bytes {
        delivery.message().body.clone().unwrap()
    }

    async fn go_away(&self) {
        self.proxy.weather(Weather {
            refuses: true,
            ..Weather::default()
        });
        self.proxy.cut();
    }

    async fn come_back(&self) {
        self.proxy.clear();
    }
}

/// Each beside the others: most of it is to wait.
fn all_pass(emulator: &Emulator, kinds: &[Read]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let one = |read: &Read| {
            let read = *read;
            let name = format!("{read:?}");
            let check = move || -> anyhow::Result<()> {
                let queues = Queues::before(emulator, read)?;
                runtime().block_on(contract::check(&queues));
                Ok(())
            };
            // A rule that does not hold names the thread.
            std::thread::Builder::new().name(name).spawn_scoped(scope, check)
        };
        let checks = kinds.iter().map(one).collect::<Result<Vec<_>, _>>()?;
        for check in checks {
            match check.join() {
                Ok(passed) => passed?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

#[test]
fn every_kind_of_queue_passes_the_contract_over_localstack() -> anyhow::Result<()> {
    machine::run("contract_over_localstack", LOCALSTACK, || {
        all_pass(&*localstack()?, &[Read::One, Read::Fifo, Read::User])
    })
}

#[test]
fn sqs_passes_the_contract_over_moto() -> anyhow::Result<()> {
    machine::run("contract_over_moto", MOTO, || {
        all_pass(&Emulator::moto()?, &[Read::One, Read::User])
    })
}

/// Receives until there are so many.
async fn receive(source: &dyn Source, count: usize) -> Vec<Delivery> {
    let mut out = Vec::new();
    let all = async {
        while out.len() < count {
            out.extend(source.receive(0, count - out.len()).await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .expect("all come");
    out
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    let body = |delivery: &Delivery| delivery.message().body.clone().unwrap_or_default();
    deliveries
        .iter()
        .map(|one| String::from_utf8(body(one).to_vec()).unwrap())
        .collect()
}

#[test]
fn a_group_comes_in_order_though_one_of_it_is_given_back() -> anyhow::Result<()> {
    machine::run("group_order", LOCALSTACK, || {
        let emulator = localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("o.fifo", json!({"FifoQueue": "true"}))?;
        for n in 0..6 {
            for group in ["a", "b"] {
                boto.send_fifo(
                    &queue,
                    group,
                    &format!("{group}{n}"),
                    &format!("{group}{n}"),
                    "ada",
                )?;
            }
        }
        runtime().block_on(async {
            let source = one(&emulator.endpoint(), &queue, "n");
            source.open().await.unwrap();
            let first = receive(&source, 2).await;
            assert_eq!(texts(&first), ["a0", "b0"], "one of each group at a time");
            assert!(source.receive(0, 10).await.unwrap().is_empty());
            for delivery in first {
                delivery.ack().await.unwrap();
            }
            let mut seen = [vec!["a0".to_owned()], vec!["b0".to_owned()]];
            let (mut given_back, mut counts) = (0, Vec::new());
            while seen.iter().map(Vec::len).sum::<usize>() < 12 {
                for delivery in receive(&source, 1).await {
                    let text = texts(std::slice::from_ref(&delivery)).remove(0);
                    if text == "a2" {
                        counts.push(delivery.message().deliveries);
                    }
                    if text == "a2" && given_back < 2 {
                        given_back += 1;
                        delivery.nack(Millis(0)).await.unwrap();
                        continue;
                    }
                    seen[usize::from(text.starts_with('b'))].push(text);
                    delivery.ack().await.unwrap();
                }
            }
            for (group, seen) in ["a", "b"].iter().zip(&seen) {
                let all: Vec<_> = (0..6).map(|n| format!("{group}{n}")).collect();
                assert_eq!(seen, &all);
            }
            assert_eq!(counts, [1, 2, 3]);
            source.close().await;
        });
        assert_eq!(boto.counts(&queue)?, (0, 0));
        Ok(())
    })
}

#[test]
fn a_poll_that_is_under_way_at_the_end_strands_nothing() -> anyhow::Result<()> {
    machine::run("strands_nothing", LOCALSTACK, || {
        let emulator = localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("s", json!({}))?;
        runtime().block_on(async {
            let source = Sqs::new(SqsOptions {
                access: SqsAccess {
                    // What were stranded would come far too late.
                    visibility: Duration::from_secs(600),
                    ..access(&emulator.endpoint(), "n")
                },
                queue: QueueName::Url(queue.clone()),
                workers: 1,
                create: false,
                remove: false,
                steady: steady(),
                random: Arc::new(|| u64::MAX / 2),
            });
            source.open().await.unwrap();
            assert!(source.receive(0, 5).await.unwrap().is_empty(), "its poll goes on");
            let begun = Instant::now();
            source.close().await;
            // Far less than the poll would have gone on.
            assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
            boto.send(&queue, "late", &[]).unwrap();
            let other = one(&emulator.endpoint(), &queue, "m");
            other.open().await.unwrap();
            let came = receive(&other, 1).await;
            assert_eq!(texts(&came), ["late"]);
            for delivery in came {
                delivery.ack().await.unwrap();
            }
            other.close().await;
        });
        Ok(())
    })
}

/// Forty words, of each batch of which a third is not taken. `None`: the machine stood still for so long that they were not
/// worth saying any more.
async fn forty_words(source: &Sqs, trouble: &Trouble) -> Option<u64> {
    let came = receive(source, 40).await;
    let before: u64 = trouble.met().values().sum();
    let began = Instant::now();
    let acks = futures_util::future::join_all(came.into_iter().map(Delivery::ack)).await;
    let calls = trouble.met().values().sum::<u64>() - before;
    let untaken = acks.iter().filter(|ack| ack.is_err()).count();
    let is_proof = began.elapsed() < Duration::from_secs(3);
    assert!(!is_proof || untaken <= 4, "{acks:?}");
    // What was not deleted comes again.
    for delivery in receive(source, untaken).await {
        delivery.ack().await.unwrap();
    }
    is_proof.then_some(calls)
}

#[test]
fn many_words_take_few_calls_and_those_that_fail_alone_are_said_again() -> anyhow::Result<()> {
    machine::run("few_calls", LOCALSTACK, || {
        let emulator = localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("b", json!({}))?;
        let trouble = Trouble::before(emulator.addr())?;
        trouble.every(1, Some("DeleteMessageBatch"), Fault::DoesBatchesInPart);
        let many: Vec<Value> = (0..40)
            .map(|n| json!({"body": format!("{n}"), "attributes": {}}))
            .collect();
        runtime().block_on(async {
            let access = SqsAccess {
                visibility: Duration::from_secs(4),
                ..access(&trouble.endpoint(), "n")
            };
            let source = reading(access, &queue);
            source.open().await.unwrap();
            let mut calls = None;
            for _ in 0..5 {
                boto.send_many(&queue, &many).unwrap();
                calls = forty_words(&source, &trouble).await;
                if calls.is_some() {
                    break;
                }
            }
            // Every call but the first of each batch is a repeat, of a third of what the one before said.
            let calls = calls.expect("the machine stands still again and again");
            assert!((4..=24).contains(&calls), "{calls} calls for 40 words");
            source.close().await;
        });
        assert_eq!(boto.counts(&queue)?, (0, 0));
        Ok(())
    })
}

#[test]
fn throttling_and_outages_are_told_apart_and_pass() -> anyhow::Result<()> {
    machine::run("throttling", MOTO, || {
        let emulator = Emulator::moto()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let queue = boto.queue("t", json!({}))?;
        let trouble = Trouble::before(emulator.addr())?;
        runtime().block_on(async {
            let source = one(&trouble.endpoint(), &queue, "n");
            source.open().await.unwrap();
            for (fault, is_named) in [
                (Fault::Throttles, true),
                (Fault::Fails(503), true),
                (Fault::LosesRequests, false),
            ] {
                trouble.every(1, Some("ReceiveMessage"), fault);
                let told = async {
                    loop {
                        match source.receive(0, 1).await {
                            Ok(none) => assert!(none.is_empty()),
                            Err(told) => break told,
                        }
                    }
                };
                let told = tokio::time::timeout(Duration::from_secs(30), told).await.unwrap();
                let text = match (fault, told) {
                    (Fault::Throttles, SourceFault::Throttled(text)) => text,
                    (Fault::Fails(_) | Fault::LosesRequests, SourceFault::Away(text)) => text,
                    (_, told) => panic!("{fault:?}: {told:?}"),
                };
                assert!(
                    !is_named || text.contains("Throttl") || text.contains("Internal"),
                    "{text}"
                );
                assert!(!text.contains(SECRET_KEY) && !text.contains(ACCESS_KEY), "{text}");
                trouble.clear();
                source.open().await.unwrap();
            }
            boto.send(&queue, "x", &[]).unwrap();
            for delivery in receive(&source, 1).await {
                delivery.ack().await.unwrap();
            }
            let gone = one(&trouble.endpoint(), &format!("{queue}-none"), "n");
            assert!(matches!(gone.open().await, Err(SourceFault::Refused(_))));
            source.close().await;
        });
        Ok(())
    })
}

#[test]
fn a_queue_is_made_and_taken_away_again_where_nothing_is_in_it() -> anyhow::Result<()> {
    machine::run("made_and_taken_away", LOCALSTACK, || {
        let emulator = localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let making = |name: &str| {
            Sqs::new(SqsOptions {
                access: access(&emulator.endpoint(), "n"),
                queue: QueueName::Name(name.to_owned()),
                workers: 1,
                create: true,
                remove: true,
                steady: steady(),
                random: Arc::new(|| u64::MAX / 2),
            })
        };
        let named =
            |boto: &mut Boto, name: &str| boto.call("sqs", "get_queue_url", json!({"QueueName": name}));
        let theirs = boto.queue("theirs", json!({}))?;
        runtime().block_on(async {
            for name in ["empty", "full", "theirs"] {
                let source = making(name);
                source.open().await.unwrap();
                let url = named(&mut boto, name).unwrap()["QueueUrl"]
                    .as_str()
                    .unwrap()
                    .to_owned();
                if name == "empty" {
                    let asked = json!({"QueueUrl": url, "AttributeNames": ["All"]});
                    let known = boto.call("sqs", "get_queue_attributes", asked).unwrap();
                    assert_eq!(known["Attributes"]["ReceiveMessageWaitTimeSeconds"], "20");
                }
                if name == "full" {
                    boto.send(&url, "x", &[]).unwrap();
                }
                source.close().await;
            }
        });
        assert!(named(&mut boto, "empty").is_err(), "it was made and is empty");
        assert!(named(&mut boto, "full").is_ok(), "something is in it");
        assert_eq!(
            named(&mut boto, "theirs")?["QueueUrl"],
            theirs.as_str(),
            "it was there before"
        );
        Ok(())
    })
}

#[test]
fn users_are_polled_while_they_are_here_and_one_without_a_queue_harms_nobody() -> anyhow::Result<()> {
    machine::run("users_polled", LOCALSTACK, || {
        let emulator = localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let mut queues = Vec::new();
        for n in 0..6 {
            queues.push(boto.queue(&format!("n-u{n}"), json!({}))?);
        }
        let template = queues[0].replace("n-u0", "n-{user}");
        runtime().block_on(async {
            // Fewer connections than users: they take turns.
            let source = users(access(&emulator.endpoint(), "u"), &template, 2);
            source.open().await.unwrap();
            for n in 0..6 {
                source.follow(&user(&format!("u{n}")));
            }
            source.follow(&user("nobody"));
            source.follow(&user("no/body"));
            for (n, queue) in queues.iter().enumerate() {
                boto.send(queue, &format!("for {n}"), &[]).unwrap();
            }
            let mut came = receive(&source, 6).await;
            assert!(source.polled().1 <= 2);
            came.sort_by_key(|delivery| delivery.message().body.clone());
            for (n, delivery) in came.into_iter().enumerate() {
                assert_eq!(delivery.message().feed, Some(user(&format!("u{n}"))));
                assert_eq!(texts(std::slice::from_ref(&delivery)), [format!("for {n}")]);
                delivery.ack().await.unwrap();
            }
            for n in 1..6 {
                source.unfollow(&user(&format!("u{n}")));
            }
            source.unfollow(&user("nobody"));
            let gone = async {
                while source.polled().0 > 1 {
                    assert!(source.receive(0, 9).await.unwrap().is_empty())
                }
            };
            tokio::time::timeout(Duration::from_secs(30), gone)
                .await
                .expect("nobody else is polled");
            boto.send(&queues[3], "later", &[]).unwrap();
            boto.send(&queues[0], "now", &[]).unwrap();
            let came = receive(&source, 1).await;
            assert_eq!(texts(&came), ["now"]);
            for delivery in came {
                delivery.ack().await.unwrap();
            }
            source.close().await;
        });
        assert_eq!(boto.counts(&queues[3])?, (1, 0), "left to the queue");
        Ok(())
    })
}
