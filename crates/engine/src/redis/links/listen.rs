//! The Pub/Sub connection to one master: makes the subscriptions that are wanted, and hands messages on.
//!
//! Invariant: it reads as fast as the listeners take; what a server cuts off because it could not keep up is a loss
//! like any other, and told as one.

use super::backoff::{backoff, roll};
use super::cell::Cell;
use super::channels::{Order, ServerId};
use super::fault::LinkFault;
use super::pipe::QUIET;
use super::server::Signals;
use super::shared::{Shared, now, unpoisoned};
use super::url::Address;
use super::verdict::{Remedy, Verdict};
use super::wire::{Replies, Speech, Wire, Writer, not_sent};
use redis::{PushKind, Value};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Commands under way at most; further ones wait for answers.
const UNANSWERED: usize = 64;
/// After this what a server turned away is asked again.
const RETRY: Duration = Duration::from_millis(150);

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

/// Keeps a listening connection for ever: each that ends is followed by another.
pub async fn keep(shared: Arc<Shared>, address: Address, id: ServerId, signals: Arc<Signals>) {
    let mut failures = 0;
    loop {
        match shared.dial(&address, Speech::Resp3).await {
            Ok(wire) => {
                failures = 0;
                set_listening(&shared, id, &signals, true);
                let fault = serve(wire, &shared, &address, id, &signals).await;
                set_listening(&shared, id, &signals, false);
                shared.counts.reconnects.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(server = %address, %fault, "the Pub/Sub connection to Redis was lost");
            }
            Err(fault) => {
                tracing::debug!(server = %address, %fault, failures, "no Pub/Sub connection to Redis")
            }
        }
        failures += 1;
        shared.trouble.notify_one();
        sleep(backoff(failures, roll())).await;
    }
}

fn set_listening(shared: &Shared, id: ServerId, signals: &Signals, is_listening: bool) {
    let mut channels = shared.channels();
    signals.is_listening.store(is_listening, Ordering::Release);
    if is_listening {
        channels.up(id);
    } else {
        channels.down(id);
    }
}

/// What the two directions of a connection tell one another.
#[derive(Default)]
struct Between {
    ask_for_life: Notify,
    unanswered: Mutex<VecDeque<Unanswered>>,
}

/// A command that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unanswered {
    /// So many channels of a cell are still to be confirmed.
    Channels(Cell, usize),
    /// A sign of life.
    Life,
}

async fn serve(wire: Wire, shared: &Shared, address: &Address, id: ServerId, signals: &Signals) -> LinkFault {
    let between = Between::default();
    let reader = Reader {
        shared,
        address,
        id,
        signals,
        between: &between,
    };
    tokio::select! {
        fault = write(wire.writer, shared, id, signals, &between) => fault,
        fault = reader.run(wire.replies) => fault,
        () = signals.redial.notified() => not_sent("the connection was given up"),
    }
}

async fn write(
    mut writer: Writer,
    shared: &Shared,
    id: ServerId,
    signals: &Signals,
    between: &Between,
) -> LinkFault {
    let mut retry_at = None;
    loop {
        let room = UNANSWERED.saturating_sub(unpoisoned(&between.unanswered).len());
        let (orders, is_held) = {
            let mut channels = shared.channels();
            (channels.orders(id, room), channels.is_held(id))
        };
        let mut bytes = Vec::new();
        for order in &orders {
            write_order(order, &mut bytes, between);
        }
        // Letting go of the last channel that is missing ends a loss too.
        shared.tell_mended(id);
        retry_at = if is_held {
            retry_at.or_else(|| Some(now() + RETRY))
        } else {
            None
        };
        if bytes.is_empty() {
            tokio::select! {
                () = signals.wake.notified() => {}
                () = between.ask_for_life.notified() => {
                    unpoisoned(&between.unanswered).push_back(Unanswered::Life);
                    bytes.extend_from_slice(PING);
                }
                () = until(retry_at) => {
                    retry_at = None;
                    shared.channels().retry(id);
                }
            }
        }
        let written = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return not_sent(format!("the connection ended: {error}"));
        }
    }
}

/// Never, where there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn write_order(order: &Order, bytes: &mut Vec<u8>, between: &Between) {
    let (command, cell, names) = match order {
        Order::Join(cell, names) => ("SSUBSCRIBE", *cell, names),
        Order::Leave(cell, names) => ("SUNSUBSCRIBE", *cell, names),
    };
    let mut command = redis::cmd(command);
    for name in names {
        command.arg(&name[..]);
    }
    unpoisoned(&between.unanswered).push_back(Unanswered::Channels(cell, names.len()));
    command.write_packed_command(bytes);
}

/// The direction in which messages and answers come.
struct Reader<'a> {
    shared: &'a Shared,
    address: &'a Address,
    id: ServerId,
    signals: &'a Signals,
    between: &'a Between,
}

impl Reader<'_> {
    async fn run(&self, mut replies: Replies) -> LinkFault {
        let mut asked_for_life = false;
        loop {
            match timeout(QUIET, replies.fill()).await {
                Err(_) if asked_for_life => return not_sent("the server does not answer"),
                Err(_) => {
                    asked_for_life = true;
                    self.between.ask_for_life.notify_one();
                    continue;
                }
                Ok(Ok(0)) => return not_sent("the server closed the connection"),
                Ok(Err(error)) => return not_sent(format!("the connection ended: {error}")),
                Ok(Ok(_)) => asked_for_life = false,
            }
            loop {
                match replies.next() {
                    Ok(Some(Value::Push { kind, data })) => self.pushed(&kind, &data),
                    Ok(Some(answer)) => {
                        if let Err(fault) = self.answered(answer) {
                            return fault;
                        }
                    }
                    Ok(None) => break,
                    Err(fault) => return not_sent(fault.to_string()),
                }
            }
            self.shared.tell_mended(self.id);
        }
    }

    fn pushed(&self, kind: &PushKind, data: &[Value]) {
        let Some(Value::BulkString(channel)) = data.first() else {
            return;
        };
        match (kind, data.get(1)) {
            (PushKind::SMessage, Some(Value::BulkString(payload))) => self.shared.tell(channel, payload),
            (PushKind::SSubscribe, _) => self.confirmed(channel, true),
            (PushKind::SUnsubscribe, _) => self.confirmed(channel, false),
            _ => {}
        }
    }

    fn confirmed(&self, channel: &[u8], is_joined: bool) {
        let Some(cell) = Cell::of_key(channel) else {
            return;
        };
        let mut was_asked = true;
        {
            let mut channels = self.shared.channels();
            if is_joined {
                channels.joined(self.id, cell, channel);
            } else {
                was_asked = !channels.left(self.id, cell, channel);
            }
        }
        if was_asked {
            self.count_down(cell);
        } else {
            self.shared.look(None);
        }
        self.signals.wake.notify_one();
    }

    /// One more channel of the oldest command is confirmed.
    fn count_down(&self, cell: Cell) {
        let mut unanswered = unpoisoned(&self.between.unanswered);
        if let Some(Unanswered::Channels(of, left)) = unanswered.front_mut()
            && *of == cell
        {
            *left -= 1;
            if *left == 0 {
                unanswered.pop_front();
            }
        }
    }

    /// An answer that is no push: to a sign of life, or against a command as a whole. Fails where it fits neither:
    /// then nothing is known of the subscriptions any more, and the connection is made anew.
    fn answered(&self, answer: Value) -> Result<(), LinkFault> {
        let command = unpoisoned(&self.between.unanswered).pop_front();
        let cell = match (command, &answer) {
            (Some(Unanswered::Life), _) => return Ok(()),
            (Some(Unanswered::Channels(cell, _)), Value::ServerError(_)) => cell,
            _ => return Err(not_sent("the answers are out of step")),
        };
        self.shared.channels().refused(self.id, cell);
        match Verdict::of(answer, self.address) {
            Verdict::NotRun(Remedy::Look(hint), _) => self.shared.look(hint),
            Verdict::NotRun(Remedy::Reconnect, fault) => return Err(fault),
            Verdict::NotRun(_, fault) | Verdict::Refused(fault) => {
                tracing::warn!(server = %self.address, %fault, "a subscription was turned away");
            }
            Verdict::Done(_) => {}
        }
        self.signals.wake.notify_one();
        Ok(())
    }
}
