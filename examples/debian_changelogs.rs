//! Replays the Debian changelogs of this machine through a node of its own, and accounts for every delivery.
//!
//! Each entry becomes two notifications: one to the topic of its source package, one to its author's address as a
//! user. Readers on mixed transports, each with topics of its own and some of them real authors, come, go and resume
//! by cursor while it runs. In the end every reader must have got every one of its own, in the order of its feeds.
//!
//! `cargo run --release --example debian_changelogs -- --limit 2000`

#![allow(clippy::print_stdout, reason = "a program for the terminal")]
#![allow(
    clippy::disallowed_methods,
    reason = "a driver: it reads clocks, spawns threads and draws a seed"
)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use postrider_examples::changelog::{Entry, find, sanitize};
use postrider_harness::account::{Account, Audience};
use postrider_harness::inbox::{AckMode, TRANSPORTS};
use postrider_harness::node::{Endpoint, KEY, Node};
use postrider_harness::publish::{Item, Publisher, Stream};
use postrider_harness::reader::{Reader, ReaderSpec};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// Most session topics of a reader: `inbox.max_feeds` is 100, and the user's own feed and `all` are two of them.
const TOPICS_MAX: usize = 98;
/// Lines of a stream that may wait for their answer.
const WINDOW: usize = 500;
/// Notifications in an array.
const ARRAY: usize = 200;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(60);

/// Replays Debian changelogs through a Postrider node and accounts for every delivery.
#[derive(Parser)]
struct Options {
    /// Where packages keep their changelogs.
    #[arg(long, default_value = "/usr/share/doc")]
    dir: PathBuf,
    /// Replay only the first N entries, oldest first.
    #[arg(long)]
    limit: Option<usize>,
    /// Reader clients.
    #[arg(long, default_value_t = 50)]
    readers: usize,
    /// Publishers; every other one streams NDJSON, the rest send arrays.
    #[arg(long, default_value_t = 4)]
    publishers: usize,
    /// Seconds that readers may take after the last publish.
    #[arg(long, default_value_t = 120)]
    patience: u64,
    /// Seed of topics and of when readers leave; drawn and printed if not given.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("debian_changelogs: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    ensure!(
        options.publishers > 0 && options.readers > 0,
        "at least one publisher and one reader are needed"
    );
    let mut found = find(&options.dir)?;
    println!(
        "{} changelogs, {} entries, {} more found in several packages, {} unreadable",
        found.files,
        found.entries.len(),
        found.duplicates,
        found.unreadable
    );
    found.entries.truncate(options.limit.unwrap_or(usize::MAX));
    ensure!(
        !found.entries.is_empty(),
        "no entry under {}",
        options.dir.display()
    );
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");

    let mut node = Node::start(&[("topics.open", r#"["*"]"#)])?;
    let account = Arc::new(Account::default());
    let readers = readers(options, &found.entries, &node.endpoint, &account, seed)?;
    let started = Instant::now();
    let shares = shares(&found.entries, options.publishers);
    std::thread::scope(|scope| -> Result<()> {
        let (endpoint, account) = (&node.endpoint, &*account);
        let publish = |(number, share)| scope.spawn(move || publish(number, share, endpoint, account));
        let publishers: Vec<_> = shares.into_iter().enumerate().map(publish).collect();
        publishers
            .into_iter()
            .try_for_each(|p| p.join().map_err(|_| anyhow::anyhow!("a publisher panicked"))?)
    })?;
    let published = started.elapsed();
    account.wait_complete(Instant::now() + Duration::from_secs(options.patience));
    let delivered = started.elapsed();
    let (rss, cpu) = (node.rss_bytes()?, node.cpu_seconds()?);
    readers.into_iter().for_each(Reader::stop);

    let report = account.report();
    let rate = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
    println!(
        "{} notifications in {:.1} s, {:.0}/s; {} deliveries in {:.1} s, {:.0}/s",
        report.accepted,
        published.as_secs_f64(),
        rate(report.accepted, published),
        report.deliveries,
        delivered.as_secs_f64(),
        rate(report.deliveries, delivered)
    );
    println!(
        "the node: {} MiB resident, {cpu:.1} s of processor time",
        rss >> 20
    );
    println!("account: {}", report.text());
    let status = node.terminate(Duration::from_secs(30))?;
    ensure!(status.success(), "the node ended with {status}");
    ensure!(
        report.is_clean(),
        "the account does not balance; run again with --seed {seed}"
    );
    ensure!(
        report.accepted == 2 * found.entries.len() as u64,
        "not everything was accepted"
    );
    Ok(())
}

/// Starts all readers; each has its first cursor before anything is published. The first stays connected, the others
/// leave and come back on the next transport. The first half are the most active authors.
fn readers(
    options: &Options,
    entries: &[Entry],
    endpoint: &Endpoint,
    account: &Arc<Account>,
    seed: u64,
) -> Result<Vec<Reader>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let authors = by_count(entries.iter().map(|e| e.email.clone()));
    let topics = by_count(entries.iter().map(|e| sanitize(&e.source)));
    let start = |number: usize| {
        let author = (number < options.readers / 2)
            .then(|| authors.get(number))
            .flatten();
        let user = author.cloned().unwrap_or_else(|| format!("reader-{number}"));
        let count = rng.random_range(1..=TOPICS_MAX);
        let mut transports = TRANSPORTS;
        transports.rotate_left(number % TRANSPORTS.len());
        let spec = ReaderSpec {
            name: format!("reader {number} ({user})"),
            user,
            topics: topics.choose_multiple(&mut rng, count).cloned().collect(),
            member_of: Vec::new(),
            transports: transports.to_vec(),
            ack: AckMode::Auto,
            leaves_after: (number > 0).then_some(20..=800),
            seed: rng.random(),
        };
        Reader::start(endpoint, account, spec).with_context(|| format!("reader {number}"))
    };
    (0..options.readers).map(start).collect()
}

/// Distinct names, the most frequent first.
fn by_count(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut sorted: Vec<(String, usize)> = counts.into_iter().collect();
    sorted.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    sorted.into_iter().map(|(name, _)| name).collect()
}

/// Deals the entries to the publishers by source, so that a topic's entries are published by one, in their order.
fn shares(entries: &[Entry], publishers: usize) -> Vec<Vec<(usize, &Entry)>> {
    let mut shares = vec![Vec::new(); publishers];
    for (number, entry) in entries.iter().enumerate() {
        let sum: usize = entry.source.bytes().map(usize::from).sum();
        shares[sum % publishers].push((number, entry));
    }
    shares
}

fn publish(number: usize, share: Vec<(usize, &Entry)>, endpoint: &Endpoint, account: &Account) -> Result<()> {
    let mut publisher = Publisher::new(endpoint, KEY);
    let mut stream = if number.is_multiple_of(2) {
        Some((publisher.stream()?, 0))
    } else {
        None
    };
    for part in share.chunks(ARRAY / 2) {
        let batch: Vec<Value> = part
            .iter()
            .flat_map(|(n, entry)| compose(*n, entry, number, account))
            .collect();
        match &mut stream {
            Some((stream, waiting)) => {
                for notification in &batch {
                    stream.send(&notification.to_string())?;
                    *waiting += 1;
                    if *waiting == WINDOW {
                        take_answer(stream, account)?;
                        *waiting -= 1;
                    }
                }
            }
            None => publisher
                .array(&batch)?
                .into_iter()
                .try_for_each(|item| accepted(item, account))?,
        }
    }
    if let Some((mut stream, waiting)) = stream {
        stream.finish()?;
        (0..waiting).try_for_each(|_| take_answer(&mut stream, account))?;
        ensure!(
            stream.answer(Instant::now() + ANSWER)?.is_none(),
            "more answers than lines"
        );
    }
    Ok(())
}

fn take_answer(stream: &mut Stream, account: &Account) -> Result<()> {
    let item = stream
        .answer(Instant::now() + ANSWER)?
        .context("the answer ended early")?;
    accepted(item, account)
}

fn accepted(item: Item, account: &Account) -> Result<()> {
    match item {
        Item::Accepted(id) => account.accepted(&id),
        Item::Rejected(code, whole) => bail!("rejected with {code}: {whole}"),
    }
    Ok(())
}

/// The two notifications of an entry, noted as sent.
fn compose(number: usize, entry: &Entry, publisher: usize, account: &Account) -> [Value; 2] {
    let data = json!({
        "source": entry.source,
        "version": entry.version,
        "distribution": entry.distribution,
        "author": entry.author,
        "time": entry.time,
        "changes": entry.changes,
    });
    let subject = format!("{} {}", entry.source, entry.version);
    let id = |kind: &str| sanitize(&format!("{number}-{kind}-{}_{}", entry.source, entry.version));
    let (to_topic, to_author) = (id("topic"), id("author"));
    let topic = sanitize(&entry.source);
    let text = data.to_string();
    account.sent(
        publisher,
        &to_topic,
        &text,
        &Audience::Topics(vec![topic.clone()]),
        &[],
    );
    account.sent(
        publisher,
        &to_author,
        &text,
        &Audience::Users(vec![entry.email.clone()]),
        &[],
    );
    [
        json!({"id": to_topic, "topics": [topic], "subject": subject, "data": data}),
        json!({"id": to_author, "users": [entry.email], "subject": subject, "data": data}),
    ]
}
