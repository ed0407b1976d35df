//! Gets commands answered: each goes to the master of its cell, and what certainly did not run is asked again until it
//! is answered or the time is over.

use super::backoff::{backoff, roll};
use super::cell::Cell;
use super::fault::LinkFault;
use super::masters::{Atlas, Masters};
use super::pipe::{Asked, Pending, Pipe};
use super::server::Server;
use super::shared::Shared;
use super::url::Address;
use super::verdict::{Remedy, Verdict};
use super::wire::not_sent;
use redis::Value;
use std::sync::Arc;
use tokio::time::{Instant, sleep};

const ASKING: &[u8] = b"*1\r\n$6\r\nASKING\r\n";

/// A command, and what is known of its answer.
pub struct Item {
    pub cell: Cell,
    pub bytes: Vec<u8>,
    /// True where it may run twice.
    pub is_read: bool,
    /// True where it touches more cells than its own.
    pub is_across: bool,
}

/// A batch of commands on its way.
pub struct Batch<'a> {
    atlas: &'a Atlas,
    shared: &'a Shared,
    items: Vec<Item>,
    answers: Vec<Option<Result<Value, LinkFault>>>,
    /// Where another server is to be asked for this one command, while a slot moves.
    detours: Vec<Option<Address>>,
    /// Why each was not answered at the last try.
    faults: Vec<LinkFault>,
    deadline: Instant,
}

/// What of a batch went to one server.
struct Sent {
    server: Arc<Server>,
    pipe: Arc<Pipe>,
    /// Places in the batch.
    places: Vec<usize>,
    pending: Pending,
}

impl<'a> Batch<'a> {
    pub fn new(atlas: &'a Atlas, shared: &'a Shared, items: Vec<Item>, deadline: Instant) -> Batch<'a> {
        let count = items.len();
        Batch {
            atlas,
            shared,
            items,
            answers: vec![None; count],
            detours: vec![None; count],
            faults: vec![not_sent("not in time"); count],
            deadline,
        }
    }

    /// The answers, in the order of the items.
    pub async fn run(mut self) -> Vec<Result<Value, LinkFault>> {
        let mut tries = 0;
        loop {
            let masters = self.atlas.masters();
            let mut changes = self.atlas.changes();
            let (sent, away) = self.send(&masters).await;
            for sent in sent {
                self.receive(sent).await;
            }
            tries += 1;
            if self.answers.iter().all(Option::is_some) {
                break;
            }
            let wait = async {
                tokio::select! {
                    () = sleep(backoff(tries, roll())) => {}
                    () = back(away.as_deref()) => {}
                    _ = changes.changed() => {}
                }
            };
            if tokio::time::timeout_at(self.deadline, wait).await.is_err() {
                break;
            }
        }
        let faults = self.faults.into_iter();
        self.answers
            .into_iter()
            .zip(faults)
            .map(|(answer, fault)| answer.unwrap_or(Err(fault)))
            .collect()
    }

    /// Hands in what is open, by server. Returns what was handed in, and a server that is away, if one is.
    async fn send(&mut self, masters: &Masters) -> (Vec<Sent>, Option<Arc<Server>>) {
        let mut sent = Vec::new();
        let mut away = None;
        for (server, places) in self.by_server(masters) {
            let Some(server) = server else {
                self.fail(&places, &not_sent("no server has the slot"));
                self.shared.look(None);
                continue;
            };
            let pipe = match server.pipe() {
                Ok(pipe) => pipe,
                Err(fault) => {
                    self.fail(&places, &not_sent(fault.to_string()));
                    away.get_or_insert(server);
                    continue;
                }
            };
            let asked = self.packed(&places);
            match server.submit(&pipe, asked, self.deadline).await {
                Ok(pending) => sent.push(Sent {
                    server,
                    pipe,
                    places,
                    pending,
                }),
                Err(fault) => self.fail(&places, &fault),
            }
        }
        (sent, away)
    }

    fn fail(&mut self, places: &[usize], fault: &LinkFault) {
        for place in places {
            self.faults[*place] = fault.clone();
        }
    }

    /// The open items, grouped by the server to ask, in their order.
    fn by_server(&mut self, masters: &Masters) -> Vec<(Option<Arc<Server>>, Vec<usize>)> {
        let mut groups: Vec<(Option<Arc<Server>>, Vec<usize>)> = Vec::new();
        for place in (0..self.items.len()).filter(|place| self.answers[*place].is_none()) {
            let detour = self.detours[place]
                .as_ref()
                .and_then(|address| masters.at(address));
            if detour.is_none() {
                self.detours[place] = None;
            }
            let server = detour.or_else(|| masters.of(self.items[place].cell));
            let id = server.map(|server| server.id);
            match groups
                .iter_mut()
                .find(|(of, _)| of.as_ref().map(|of| of.id) == id)
            {
                Some((_, places)) => places.push(place),
                None => groups.push((server.cloned(), vec![place])),
            }
        }
        groups
    }

    fn packed(&self, places: &[usize]) -> Asked {
        let mut asked = Asked {
            bytes: Vec::new(),
            count: 0,
            waits: false,
        };
        asked
            .bytes
            .reserve_exact(places.iter().map(|place| self.items[*place].bytes.len()).sum());
        for place in places {
            if self.detours[*place].is_some() {
                asked.bytes.extend_from_slice(ASKING);
                asked.count += 1;
            }
            asked.bytes.extend_from_slice(&self.items[*place].bytes);
            asked.count += 1;
        }
        asked
    }

    async fn receive(&mut self, sent: Sent) {
        let Sent {
            server,
            pipe,
            places,
            pending,
        } = sent;
        let mut answers = pending.answers(self.deadline).await.into_iter();
        let mut lacks_library = false;
        for place in &places {
            if self.detours[*place].take().is_some() {
                // The word that let it be asked there.
                answers.next();
            }
            match answers.next().unwrap_or_else(|| Err(not_sent("not answered"))) {
                Ok(value) => match Verdict::of(value, &server.address) {
                    Verdict::Done(value) => self.answers[*place] = Some(Ok(value)),
                    Verdict::Refused(fault) => self.answers[*place] = Some(Err(fault)),
                    // Where a slot is going, a server that is asked takes keys of other slots that it lacks for empty.
                    Verdict::NotRun(Remedy::Ask(_), _) if self.items[*place].is_across => {
                        self.answers[*place] = Some(Err(LinkFault::Refused {
                            code: "ASK".to_owned(),
                            detail: "non local key: its slot is on the move".to_owned(),
                        }));
                    }
                    Verdict::NotRun(remedy, fault) => {
                        self.faults[*place] = fault;
                        lacks_library |= remedy == Remedy::Library;
                        self.seek(*place, remedy, &server, &pipe);
                    }
                },
                Err(fault) if fault.did_not_run() || self.items[*place].is_read => {
                    self.faults[*place] = fault
                }
                Err(fault) => self.answers[*place] = Some(Err(fault)),
            }
        }
        if lacks_library && let Err(fault) = server.load(&pipe, self.deadline).await {
            tracing::warn!(server = %server.address, %fault, "the functions could not be loaded into Redis");
            self.fail(&places, &fault);
        }
    }

    fn seek(&mut self, place: usize, remedy: Remedy, server: &Server, pipe: &Pipe) {
        match remedy {
            Remedy::Time | Remedy::Library => {}
            Remedy::Look(hint) => self.shared.look(hint),
            Remedy::Reconnect => {
                server.redial(pipe);
                self.shared.look(None);
            }
            Remedy::Ask(address) => {
                if self.atlas.masters().at(&address).is_none() {
                    self.shared.look(Some(address.clone()));
                }
                self.detours[place] = Some(address);
            }
        }
    }
}

/// Returns when a server that was away is back.
async fn back(away: Option<&Server>) {
    match away {
        Some(server) => server.is_back().await,
        None => std::future::pending().await,
    }
}
