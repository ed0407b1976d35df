//! The siege: messages flow from SQS to listeners while the queue throttles, fails, tarries, answers batches in part, loses
//! requests and answers, falls silent, is cut off and dies, and while the node is killed between receiving and settling.
//! Then every message is accounted for: delivered, in the dead-letter queue, or a dead letter.
//!
//! The node speaks to the queue through a bad network ([`Proxy`]) and a bad service ([`Trouble`]); the producer, boto3,
//! speaks to it directly, so that what was sent is known.
//!
//! `POSTRIDER_MESSAGES` (450) sets how many. Each phase prints how long it took and which faults the node met.

mod ledger;
mod listeners;

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_harness::aws::{Boto, Emulator, Fault, Trouble, environment};
use postrider_harness::http::{Request, once};
use postrider_harness::machine::{Need, run};
use postrider_harness::node::{KEY, Node, NodeOptions};
use postrider_harness::proxy::{Proxy, Weather};
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};

use ledger::{Ledger, Sort};
use listeners::Listeners;

const LISTENERS: usize = 24;
const KILLS: usize = 3;
/// Eight phases, and one more of them for the kills.
const SHARES: usize = 9;
/// Of so many messages one is for a user who never comes, and one is broken.
const NOBODY_EACH: usize = 20;
const BROKEN_EACH: usize = 50;
/// So often the queue gives a message out before it moves it to the dead-letter queue.
const RECEIVES_MAX: u32 = 4;
/// How long the queue is away.
const AWAY: Duration = Duration::from_secs(4);
/// How long a phase may take, and the healing after all of them: so many seconds and one more for so many messages.
const PATIENCE_SECONDS: u64 = 90;
const MESSAGES_PER_SECOND: u64 = 50;

#[test]
fn every_message_is_accounted_for() -> Result<()> {
    run(
        "every_message_is_accounted_for",
        &[Need::LocalStack, Need::Moto],
        || {
            let messages = std::env::var("POSTRIDER_MESSAGES").ok();
            let messages = messages.map_or(Ok(450), |text| text.parse())?;
            let mut siege = Siege::start(messages)?;
            let held = siege.hold();
            say(&siege.ledger.text());
            if held.is_err() {
                say(&format!(
                    "the emulator's log ends with:\n{}",
                    siege.emulator.log_end()
                ));
            }
            held?;
            ensure!(siege.ledger.is_clean(), "the account does not balance");
            Ok(())
        },
    )
}

/// Past the test harness, which keeps to itself what a test prints that passes.
fn say(text: &str) {
    let text = text.replace('\n', "\nsiege of aws: ");
    // Nobody to tell where standard error is gone.
    writeln!(std::io::stderr(), "siege of aws: {text}").ok();
}

struct Siege {
    emulator: Emulator,
    boto: Boto,
    trouble: Trouble,
    proxy: Proxy,
    node: Node,
    queue: String,
    dead: String,
    ledger: Arc<Ledger>,
    /// How many messages a phase sends.
    share: usize,
    patience: Duration,
}

impl Siege {
    fn start(messages: usize) -> Result<Siege> {
        let emulator = Emulator::localstack()?;
        let mut boto = Boto::start(&emulator.endpoint())?;
        let (queue, dead) = queues(&mut boto)?;
        let trouble = Trouble::before(emulator.addr())?;
        let proxy = Proxy::start(&[trouble.addr()])?;
        let source = [
            ("sources.q.type", "sqs"),
            ("sources.q.queue_url", queue.as_str()),
            ("sources.q.decoder", "addressee"),
            ("sources.q.settle_on", "delivered"),
            ("sources.q.offline", "leave"),
            ("sources.q.visibility", "2s"),
            ("sources.q.wait", "2s"),
        ];
        let node = Node::start_with(NodeOptions {
            env: environment(&format!("http://{}", proxy.addr())),
            ..NodeOptions::sets(&source)
        })?;
        let seconds = PATIENCE_SECONDS + messages as u64 / MESSAGES_PER_SECOND;
        Ok(Siege {
            emulator,
            boto,
            trouble,
            proxy,
            node,
            queue,
            dead,
            ledger: Arc::new(Ledger::default()),
            share: messages.div_ceil(SHARES),
            patience: Duration::from_secs(seconds),
        })
    }

    fn hold(&mut self) -> Result<()> {
        let listeners = Listeners::start(LISTENERS, &self.node.endpoint, &self.ledger)?;
        until_true("the listeners", within(30), || {
            let open = |transport: &str| {
                self.node
                    .metric(&format!("postrider_sessions{{transport=\"{transport}\"}}"))
            };
            Ok(open("sse")? + open("websocket")? >= (LISTENERS * 2 / 3) as f64)
        })?;
        let ended = self.phases();
        listeners.stop();
        ended
    }

    fn phases(&mut self) -> Result<()> {
        self.phase("fair", |_| Ok(()))?;
        self.phase("throttled and failing", |siege| {
            siege.trouble.every(3, None, Fault::Throttles);
            siege.trouble.every(5, None, Fault::Fails(503));
            Ok(())
        })?;
        self.phase("slow", |siege| {
            siege
                .trouble
                .every(2, None, Fault::Tarries(Duration::from_millis(400)));
            Ok(())
        })?;
        self.phase("batches done in part", |siege| {
            siege.trouble.every(1, None, Fault::DoesBatchesInPart);
            Ok(())
        })?;
        self.phase("requests and answers lost", |siege| {
            siege.trouble.every(4, None, Fault::LosesAnswers);
            siege.trouble.every(7, None, Fault::LosesRequests);
            Ok(())
        })?;
        self.phase("silent, then cut off", |siege| {
            siege.emulator.pause()?;
            std::thread::park_timeout(AWAY);
            siege.emulator.resume()?;
            let cut_off = Weather {
                refuses: true,
                ..Weather::default()
            };
            siege.proxy.weather(cut_off);
            siege.proxy.cut();
            std::thread::park_timeout(AWAY);
            siege.proxy.clear();
            Ok(())
        })?;
        self.phase("node killed between receiving and settling", |siege| {
            (0..KILLS).try_for_each(|_| siege.kill())
        })?;
        self.close()?;
        self.emulator_dies()?;
        self.close()
    }

    /// Sends a share, does what is to be done meanwhile, and waits until most of it has come in spite of it.
    fn phase(&mut self, name: &str, fault: impl FnOnce(&mut Siege) -> Result<()>) -> Result<()> {
        let began = Instant::now();
        let due = self.ledger.delivered_count() + self.share * 3 / 4;
        let met = self.trouble.met();
        self.send(self.share)?;
        fault(self)?;
        let ledger = self.ledger.clone();
        until_true(name, Instant::now() + self.patience, || {
            Ok(ledger.delivered_count() >= due)
        })?;
        self.trouble.clear();
        let mut faults = self.trouble.met();
        faults.retain(|what, times| {
            *times -= met.get(what).unwrap_or(&0);
            *times > 0
        });
        say(&format!(
            "{name}: {:.1} s, met {faults:?}",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn send(&mut self, count: usize) -> Result<()> {
        let messages: Vec<Value> = (0..count)
            .map(|nth| match nth {
                _ if nth % BROKEN_EACH == 7 => self.ledger.next(Sort::Broken, ""),
                _ if nth % NOBODY_EACH == 3 => self.ledger.next(Sort::ForNobody, &format!("nobody-{nth}")),
                _ => self
                    .ledger
                    .next(Sort::ForListener, &listeners::name(nth % LISTENERS)),
            })
            .collect();
        self.boto.send_many(&self.queue, &messages)
    }

    /// Kills the node while it has messages that it has received and not settled.
    fn kill(&mut self) -> Result<()> {
        self.trouble.every(
            1,
            Some("DeleteMessageBatch"),
            Fault::Tarries(Duration::from_secs(1)),
        );
        self.send(self.share.div_ceil(KILLS))?;
        let (boto, queue) = (&mut self.boto, &self.queue);
        until_true("messages under way", Instant::now() + self.patience, || {
            Ok(boto.counts(queue)?.1 > 0)
        })?;
        self.node.kill9()?;
        let (_, held) = self.boto.counts(&self.queue)?;
        self.trouble.clear();
        say(&format!("killed with {held} messages received and not settled"));
        self.node.restart()
    }

    /// Until every message has ended and the queue is empty.
    fn close(&mut self) -> Result<()> {
        let began = Instant::now();
        let deadline = began + self.patience;
        loop {
            for message in self.boto.drain(&self.dead)? {
                self.ledger.in_dlq(message["body"].as_str().context("no body")?);
            }
            self.letters()?;
            let missing = self.ledger.missing();
            let left = self.boto.counts(&self.queue)?;
            if missing.is_empty() && left == (0, 0) {
                say(&format!("all ended after {:.1} s", began.elapsed().as_secs_f64()));
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} messages have not ended, the queue has {left:?}",
                missing.len()
            );
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }

    /// Tells the ledger of all dead letters.
    fn letters(&mut self) -> Result<()> {
        let mut after = String::new();
        loop {
            let request = Request::new("GET", &format!("/v1/dead-letters?limit=500{after}")).bearer(KEY);
            let page = once(self.node.endpoint.addr()?, &request)?.json()?;
            for letter in page["dead_letters"].as_array().context("no dead letters")? {
                let id = letter["id"].as_str().context("no id")?;
                let text = match letter["raw_base64"].as_str() {
                    Some(raw) => String::from_utf8(STANDARD.decode(raw)?)?,
                    None => letter["data"]
                        .as_str()
                        .map_or_else(|| letter["data"].to_string(), str::to_owned),
                };
                self.ledger.letter(id, &text);
            }
            match page["after"].as_str() {
                Some(last) => after = format!("&after={last}"),
                None => return Ok(()),
            }
        }
    }

    /// The emulator dies with its queues, which are made again by whoever runs them; nothing was in them.
    fn emulator_dies(&mut self) -> Result<()> {
        self.emulator.kill9()?;
        std::thread::park_timeout(AWAY);
        self.emulator.restart()?;
        let again = queues(&mut self.boto)?;
        ensure!(again == (self.queue.clone(), self.dead.clone()), "{again:?}");
        self.phase("after the emulator's death", |_| Ok(()))
    }
}

fn queues(boto: &mut Boto) -> Result<(String, String)> {
    boto.queue_with_dlq("siege", RECEIVES_MAX, json!({"VisibilityTimeout": 2}))
}
