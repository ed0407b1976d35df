//! The links against real servers that are killed, paused, failed over and cut off.

#![allow(
    clippy::disallowed_methods,
    reason = "tests measure how long real servers take"
)]

mod cluster;
mod faults;
mod login;
mod sentinel;
mod single;

use super::*;
use crate::redis::testing::{OwnTime, wait_until};

/// How long is waited for what has no time of its own.
const PATIENCE: Duration = Duration::from_secs(60);

/// Functions to test with: `plt_add` writes, `plt_get` reads, `plt_tell` publishes.
const LIBRARY: &str = "#!lua name=plt
redis.register_function('plt_add', function(keys, args) return redis.call('INCRBY', keys[1], args[1]) end)
redis.register_function('plt_tell', function(keys, args) return redis.call('SPUBLISH', args[1], args[2]) end)
redis.register_function('plt_fail', function(keys, args) return redis.error_reply('NOPE it is so') end)
redis.register_function{function_name='plt_get', flags={'no-writes'},
  callback=function(keys, args) return redis.call('GET', keys[1]) end}
";

/// Live delivery resumes within this after Redis answers again, as [`OwnTime`] has it.
const RESUMES_WITHIN: Duration = Duration::from_secs(2);

async fn open(url: &RedisUrl, timeout: Duration) -> Links {
    try_open(url, timeout).await.expect("the links open")
}

/// With so little time that a busy machine may need several tries.
async fn open_at_last(url: &RedisUrl, timeout: Duration) -> Links {
    let opening = async {
        loop {
            if let Ok(links) = try_open(url, timeout).await {
                return links;
            }
        }
    };
    tokio::time::timeout(PATIENCE, opening)
        .await
        .expect("the links open")
}

async fn try_open(url: &RedisUrl, timeout: Duration) -> Result<Links, LinkFault> {
    let options = LinkOptions {
        timeout,
        ..LinkOptions::new(url.clone(), "test")
    };
    Links::open(options, LIBRARY).await
}

fn add(cell: Cell, by: i64) -> Call {
    Call {
        cell,
        function: "plt_add",
        keys: vec![cell.key("n")],
        args: vec![by.to_string().into_bytes()],
        is_read: false,
    }
}

fn get(cell: Cell) -> Call {
    Call {
        cell,
        function: "plt_get",
        keys: vec![cell.key("n")],
        args: Vec::new(),
        is_read: true,
    }
}

fn tell(cell: Cell, channel: &[u8], payload: &str) -> Call {
    Call {
        cell,
        function: "plt_tell",
        keys: vec![cell.key("n")],
        args: vec![channel.to_vec(), payload.as_bytes().to_vec()],
        is_read: false,
    }
}

async fn one(links: &Links, call: Call) -> Result<Value, LinkFault> {
    links.call(vec![call]).await.pop().expect("one answer")
}

fn value(text: &str) -> Value {
    Value::BulkString(text.into())
}

/// What was heard, in order.
#[derive(Debug, Clone, Default)]
struct Heard {
    all: Arc<Mutex<Vec<News>>>,
}

#[derive(Debug, Clone, PartialEq)]
enum News {
    Message(Vec<u8>, String),
    Lost(Vec<Cell>),
}

impl Heard {
    fn by(links: &Links) -> Heard {
        let heard = Heard::default();
        let (messages, losses) = (heard.clone(), heard.clone());
        links.on_message(
            Box::new(move |channel, payload| {
                let payload = String::from_utf8_lossy(payload).into_owned();
                messages.note(News::Message(channel.to_vec(), payload));
            }),
            Box::new(move |cells| losses.note(News::Lost(cells.to_vec()))),
        );
        heard
    }

    fn note(&self, news: News) {
        self.all.lock().unwrap().push(news);
    }

    fn all(&self) -> Vec<News> {
        self.all.lock().unwrap().clone()
    }

    fn has(&self, payload: &str) -> bool {
        self.all()
            .iter()
            .any(|news| matches!(news, News::Message(_, heard) if heard == payload))
    }

    fn losses(&self) -> Vec<Vec<Cell>> {
        let lost = |news: News| {
            if let News::Lost(cells) = news {
                Some(cells)
            } else {
                None
            }
        };
        self.all().into_iter().filter_map(lost).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Heard) -> bool) {
        until(what, || is_so(self)).await;
    }
}

/// Waits without holding a worker of the runtime up.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let patience = tokio::time::timeout(PATIENCE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(patience.await.is_ok(), "not in time: {what}");
}

/// Publishes until one is heard, as publishers do that are answered only when it is stored. Returns how long it took.
async fn resumes(links: &Links, heard: &Heard, cell: Cell, channel: &[u8], mark: &str) -> Duration {
    let started = OwnTime::now();
    let mut count = 0;
    while !heard
        .all()
        .iter()
        .any(|news| matches!(news, News::Message(_, text) if text.starts_with(mark)))
    {
        assert!(started.elapsed() < PATIENCE, "live delivery does not resume");
        count += 1;
        // A refusal or a lost answer is what this is about; the next one is heard.
        drop(one(links, tell(cell, channel, &format!("{mark}{count}"))).await);
    }
    started.elapsed()
}
