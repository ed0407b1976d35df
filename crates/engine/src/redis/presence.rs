//! Presence over all nodes. What the loops of a node hold stays the truth of that node; what is shared is as little as
//! tells the others whom to ask.
//!
//! * **The roster** (`roster`): each node holds a lease. Whatever else stands in Redis counts only as long as its node is
//!   on the roster, so that a node that is killed leaves nobody behind for longer than its lease. A node that comes is
//!   seen by the others before it is open (`arrival`).
//! * **Who is where**: one hash per node and cell, user → number of sessions, written some 50 ms after it changed, many
//!   users in a command, by a task of its own. One key per node and cell and not per user: a node that is gone is
//!   forgotten by 64 `UNLINK`s, and a user costs a field.
//! * **Everything else** (which sessions, who hears a topic, who comes and goes) is asked of the nodes themselves, over
//!   a channel of each (`talk`), and merged (`merge`); for a user only of those nodes that have one.
//!
//! Invariant: a question takes a bounded time. A node that does not answer in it counts as having nobody. No loop of the
//! hub waits for any of this.

mod arrival;
mod ghosts;
mod merge;
mod roster;
mod talk;
mod watch;

use super::links::{CELLS, Cell, LinkFault, Links};
use crate::{
    EngineError, NodePresence, Presence, PresenceFilter, PresenceWatch, PresentSession, TopicPresence,
    UserPresence,
};
use async_trait::async_trait;
use postrider_model::{Timestamp, Topic, UserId};
use redis::Value;
use roster::Renewed;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use talk::{Answer, Question, Said};
use tokio::sync::{Notify, mpsc, watch as latest};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use watch::{Followed, FollowedNodes, serve};
use xxhash_rust::xxh3::xxh3_64;

/// The cell of the roster and of what nodes say to each other.
const NODES: Cell = Cell(0);
/// What changed is gathered for so long before it is written.
const GATHER: Duration = Duration::from_millis(50);
/// Users that are written at once.
const AT_ONCE: usize = 2_000;
/// What a node wrote is forgotten by Redis itself so long after it was last renewed: for the end of all nodes at once.
const FORGOTTEN_AFTER_MS: u64 = 600_000;
/// How often that is renewed, in renewals of the lease, and told anew, should any of it have been lost: a user who is
/// gone stands as connected for no longer than this, whatever Redis forgot.
const RENEWALS_OF_HERE: u64 = 60;
/// A node that had been taken for gone tells once more who is here after so many renewals: whoever took it for gone may
/// have forgotten only then what it wrote, and has no longer than this for it.
const RENEWALS_TO_FORGET: u64 = 6;
/// How long the other nodes have for an answer.
const ANSWER: Duration = Duration::from_millis(500);
/// Messages of other nodes that wait to be looked at; more are dropped, and asked for again.
const MAX_MAIL: usize = 4_096;
/// Questions of this node that are under way.
const MAX_ASKS: usize = 4_096;
/// The pause before something is tried again that failed.
const RETRY: Duration = Duration::from_secs(1);

/// How presence over nodes is opened.
pub struct PresenceOptions {
    /// The way to Redis. Nothing may be subscribed to over it yet.
    pub links: Links,
    /// This node: a name that no other start of any node has. Letters, digits and `-`.
    pub node: String,
    /// What it says of itself to operators.
    pub about: String,
    /// A user counts as online for so long after the last session ended.
    pub linger: Duration,
    /// Tells the time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// See the module.
pub struct RedisPresence {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

pub(super) struct Inner {
    links: Links,
    node: String,
    about: String,
    linger: Duration,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    local: Arc<dyn NodePresence>,
    /// The nodes there are, as of the last renewal, without this one.
    others: latest::Sender<Arc<Vec<String>>>,
    /// One has come that may not be among them.
    newcomer: Notify,
    ids: AtomicU64,
    asks: Mutex<HashMap<u64, mpsc::Sender<(String, Answer)>>>,
    /// The watches of this node.
    followed: FollowedNodes,
    /// The watches of other nodes that this one serves.
    served: Mutex<HashMap<(String, u64), JoinHandle<()>>>,
    /// Messages may have been lost, or what was written.
    lost: Notify,
    /// What stands in Redis of who is here may not be so.
    unsure: Notify,
    is_closed: AtomicBool,
}

impl RedisPresence {
    /// Puts this node on the roster, begins to tell who is here, and waits until the other nodes see this one, for as
    /// long as a question may take.
    ///
    /// # Errors
    /// Where Redis cannot be reached.
    pub async fn open(
        options: PresenceOptions,
        local: Arc<dyn NodePresence>,
    ) -> Result<RedisPresence, LinkFault> {
        let inner = Arc::new(Inner {
            links: options.links,
            node: options.node,
            about: options.about,
            linger: options.linger,
            clock: options.clock,
            local,
            others: latest::Sender::new(Arc::default()),
            newcomer: Notify::new(),
            ids: AtomicU64::new(1),
            asks: Mutex::default(),
            followed: FollowedNodes::default(),
            served: Mutex::default(),
            lost: Notify::new(),
            unsure: Notify::new(),
            is_closed: AtomicBool::new(false),
        });
        let (mail, letters) = mpsc::channel::<Vec<u8>>(MAX_MAIL);
        let own = inner.channel(&inner.node);
        inner.listen(own.clone(), mail);
        inner.links.subscribe(NODES, own.clone());
        inner.links.subscribed(&[own]).await?;
        inner.renew().await?;
        inner.local.gather();
        let handle = inner.links.handle();
        let tasks = vec![
            handle.spawn(inner.clone().keep_lease()),
            handle.spawn(inner.clone().keep_here()),
            handle.spawn(inner.clone().open_mail(letters)),
            handle.spawn(inner.clone().mend()),
        ];
        let presence = RedisPresence {
            inner,
            tasks: Mutex::new(tasks),
        };
        presence.inner.announce().await;
        Ok(presence)
    }

    /// How many sessions each of these users has on other nodes, as they told about 50 ms ago.
    ///
    /// # Errors
    /// Where Redis does not answer.
    pub async fn sessions_elsewhere(&self, users: &[UserId]) -> Result<Vec<u64>, EngineError> {
        let places = self.inner.places(users).await?;
        let sum = |places: Vec<(String, u64)>| places.into_iter().map(|(_, sessions)| sessions).sum();
        Ok(places.into_iter().map(sum).collect())
    }

    /// Nodes there are, this one among them.
    pub fn nodes(&self) -> usize {
        self.inner.others.borrow().len() + 1
    }

    /// Takes this node off the roster, with all that it wrote.
    pub async fn close(&self) {
        self.inner.is_closed.store(true, Ordering::Release);
        for task in self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
        for (_, task) in locked(&self.inner.served).drain() {
            task.abort();
        }
        let leave = roster::leave(NODES.tag(), &self.inner.node);
        if let Err(error) = self.inner.links.command(NODES, leave).await {
            tracing::debug!(%error, "the lease ends by itself");
        }
        self.inner.forget(&self.inner.node).await;
    }
}

impl Drop for RedisPresence {
    fn drop(&mut self) {
        for task in self
            .tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cell in which it is told where a user is.
fn cell_of(user: &UserId) -> Cell {
    Cell((xxh3_64(user.as_str().as_bytes()) % u64::from(CELLS)) as u8)
}

fn here(cell: Cell, node: &str) -> Vec<u8> {
    cell.key(&format!("here:{node}"))
}

/// Has Redis keep what stands there for a while.
fn keep(here: Vec<u8>) -> redis::Cmd {
    let mut command = redis::cmd("PEXPIRE");
    command.arg(here).arg(FORGOTTEN_AFTER_MS);
    command
}

impl Inner {
    fn channel(&self, node: &str) -> Vec<u8> {
        NODES.key(&format!("node:{node}"))
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn others(&self) -> Arc<Vec<String>> {
        self.others.borrow().clone()
    }

    fn listen(self: &Arc<Inner>, own: Vec<u8>, mail: mpsc::Sender<Vec<u8>>) {
        let lost = Arc::downgrade(self);
        self.links.on_message(
            Box::new(move |channel, payload| {
                if own == channel && mail.try_send(payload.to_vec()).is_err() {
                    tracing::debug!("a message of another node was dropped: too many wait");
                }
            }),
            Box::new(move |_cells| {
                if let Some(inner) = lost.upgrade() {
                    inner.lost.notify_one();
                }
            }),
        );
    }

    /// After messages may have been lost: whoever is followed is asked anew, and who is here is told again.
    async fn mend(self: Arc<Inner>) {
        loop {
            self.lost.notified().await;
            self.unsure.notify_one();
            self.followed.begin_again();
        }
    }

    async fn keep_lease(self: Arc<Inner>) {
        let mut renewals = 0u64;
        let mut back_at = None;
        let mut due = tokio::time::interval(Duration::from_millis(roster::RENEWAL_MS));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first is due at once, and was done before.
        due.tick().await;
        loop {
            let is_due = tokio::select! {
                _ = due.tick() => true,
                () = self.newcomer.notified() => false,
            };
            match self.renew().await {
                Ok(renewed) => {
                    if !renewed.was_there {
                        tracing::warn!(
                            "the other nodes had taken this one for gone; it tells again who is here"
                        );
                        self.unsure.notify_one();
                        back_at = Some(renewals);
                    }
                    for node in renewed.gone.iter().filter(|gone| **gone != self.node) {
                        tracing::warn!(node, "a node is gone");
                        self.forget(node).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "the lease could not be renewed"),
            }
            if !is_due {
                continue;
            }
            renewals += 1;
            if back_at.is_some_and(|back_at| renewals > back_at + RENEWALS_TO_FORGET) {
                back_at = None;
                self.unsure.notify_one();
            }
            if renewals.is_multiple_of(RENEWALS_OF_HERE) {
                self.each_cell(&self.node, keep).await;
                self.unsure.notify_one();
            }
        }
    }

    async fn renew(&self) -> Result<Renewed, LinkFault> {
        let command = roster::renew(NODES.tag(), &self.node, &self.about);
        let said = self.links.command(NODES, command).await?;
        let strange = || LinkFault::Unknown("the roster was not answered as it should be".into());
        let renewed = Renewed::read(&said).ok_or_else(strange)?;
        let mut others = renewed.nodes.clone();
        others.retain(|node| *node != self.node);
        self.others.send_if_modified(|known| {
            let is_new = **known != others;
            if is_new {
                *known = Arc::new(others);
            }
            is_new
        });
        Ok(renewed)
    }

    /// Forgets all that a node wrote.
    async fn forget(&self, node: &str) {
        self.each_cell(node, |key| {
            let mut command = redis::cmd("UNLINK");
            command.arg(key);
            command
        })
        .await;
    }

    /// One command for each of a node's keys. What fails is left: it ends by itself.
    async fn each_cell(&self, node: &str, command: impl Fn(Vec<u8>) -> redis::Cmd) {
        let commands = Cell::all().map(|cell| (cell, command(here(cell, node))));
        for said in self.all(commands.collect()).await {
            if let Err(error) = said {
                tracing::debug!(%error, node, "what a node wrote could not be renewed or forgotten");
                return;
            }
        }
    }

    /// Commands at a time, answered in order.
    async fn all(&self, commands: Vec<(Cell, redis::Cmd)>) -> Vec<Result<Value, LinkFault>> {
        let mut asking = JoinSet::new();
        let mut said: Vec<_> = commands.iter().map(|_| Err(LinkFault::Closed)).collect();
        for (nth, (cell, command)) in commands.into_iter().enumerate() {
            let links = self.links.clone();
            asking.spawn_on(
                async move { (nth, links.command(cell, command).await) },
                self.links.handle(),
            );
        }
        while let Some(one) = asking.join_next().await {
            if let Ok((nth, one)) = one {
                said[nth] = one;
            }
        }
        said
    }

    /// Writes who is here as it changes. What could not be written is tried until it can: who went meanwhile is not told
    /// by gathering who is here; what Redis itself lost of that is seen to by [`Inner::tell_anew`].
    async fn keep_here(self: Arc<Inner>) {
        loop {
            tokio::select! {
                () = self.local.has_changed() => {
                    tokio::time::sleep(GATHER).await;
                    self.write_surely(&self.local.changed(AT_ONCE)).await;
                }
                () = self.unsure.notified() => self.tell_anew().await,
            }
        }
    }

    async fn write_surely(&self, changed: &[(UserId, Option<u32>)]) {
        while let Err(error) = self.write(changed).await {
            tracing::debug!(%error, "who is here could not be told; it will be again");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn write(&self, changed: &[(UserId, Option<u32>)]) -> Result<(), LinkFault> {
        /// Users with their numbers, one after the other; and users.
        #[derive(Default)]
        struct Changes {
            put: Vec<Vec<u8>>,
            gone: Vec<Vec<u8>>,
        }
        let mut cells: HashMap<Cell, Changes> = HashMap::new();
        for (user, sessions) in changed {
            let changes = cells.entry(cell_of(user)).or_default();
            let name = user.as_str().as_bytes().to_vec();
            match sessions {
                Some(sessions) => changes.put.extend([name, sessions.to_string().into_bytes()]),
                None => changes.gone.push(name),
            }
        }
        let (mut commands, mut kept) = (Vec::new(), Vec::new());
        for (cell, Changes { put, gone }) in cells {
            let key = here(cell, &self.node);
            if !put.is_empty() {
                kept.push((cell, keep(key.clone())));
            }
            for (name, fields) in [("HSET", put), ("HDEL", gone)] {
                if !fields.is_empty() {
                    let mut command = redis::cmd(name);
                    command.arg(&key).arg(fields);
                    commands.push((cell, command));
                }
            }
        }
        for commands in [commands, kept] {
            let said = self.all(commands).await;
            said.into_iter().try_for_each(|said| said.map(drop))?;
        }
        Ok(())
    }

    /// On which other nodes each of these users is, and with how many sessions.
    async fn places(&self, users: &[UserId]) -> Result<Vec<Vec<(String, u64)>>, EngineError> {
        let others = self.others();
        let mut places = vec![Vec::new(); users.len()];
        let mut cells: HashMap<Cell, Vec<usize>> = HashMap::new();
        for (nth, user) in users.iter().enumerate() {
            cells.entry(cell_of(user)).or_default().push(nth);
        }
        let asked: Vec<_> = cells
            .iter()
            .flat_map(|cell| others.iter().map(move |node| (cell, node)))
            .collect();
        let commands = asked.iter().map(|((cell, users_of), node)| {
            let mut command = redis::cmd("HMGET");
            command.arg(here(**cell, node));
            users_of
                .iter()
                .for_each(|nth| _ = command.arg(users[*nth].as_str()));
            (**cell, command)
        });
        let said = self.all(commands.collect()).await;
        for (((_, users_of), node), said) in asked.into_iter().zip(said) {
            let Value::Array(counts) = said.map_err(|fault| EngineError::Store(fault.to_string()))? else {
                continue;
            };
            for (nth, count) in users_of.iter().zip(counts) {
                if let Value::BulkString(count) = count {
                    let count = String::from_utf8_lossy(&count).parse().unwrap_or(0);
                    places[*nth].push((node.clone(), count));
                }
            }
        }
        Ok(places)
    }

    fn saying(&self, node: &str, said: &Said) -> redis::Cmd {
        let mut command = redis::cmd("SPUBLISH");
        command.arg(self.channel(node)).arg(said.encode());
        command
    }

    /// Says something to a node. Tells how many heard it, of those that Redis knows of.
    async fn say(&self, node: &str, said: &Said) -> Result<i64, LinkFault> {
        match self.links.command(NODES, self.saying(node, said)).await? {
            Value::Int(heard) => Ok(heard),
            _ => Ok(0),
        }
    }

    /// Asks these nodes, and gives what came in time.
    async fn ask(&self, nodes: &[String], what: &Question) -> Result<Vec<Answer>, EngineError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (reply, mut answers) = mpsc::channel(nodes.len());
        {
            let mut asks = locked(&self.asks);
            if asks.len() >= MAX_ASKS {
                return Err(EngineError::Busy);
            }
            asks.insert(id, reply);
        }
        let _asked = Asked { inner: self, id };
        let (from, what) = (self.node.clone(), what.clone());
        let said = Said::Ask { from, id, what };
        let asked = nodes.iter().map(|node| (NODES, self.saying(node, &said)));
        let mut hearing = nodes.len();
        for asked in self.all(asked.collect()).await {
            let heard = asked.map_err(|fault| EngineError::Store(fault.to_string()))?;
            // Of a node that nobody speaks for no answer comes.
            hearing -= usize::from(heard == Value::Int(0));
        }
        let mut came = HashMap::new();
        let all = async {
            while came.len() < hearing {
                match answers.recv().await {
                    Some((from, answer)) => came.insert(from, answer),
                    None => break,
                };
            }
        };
        if tokio::time::timeout(ANSWER, all).await.is_err() {
            tracing::debug!("not every node answered in time who is there");
        }
        Ok(came.into_values().collect())
    }

    /// Looks at what other nodes say.
    async fn open_mail(self: Arc<Inner>, mut letters: mpsc::Receiver<Vec<u8>>) {
        while let Some(letter) = letters.recv().await {
            match Said::decode(&letter) {
                None => tracing::debug!("a message of another node could not be read"),
                Some(Said::Ask { from, id, what }) => {
                    let inner = self.clone();
                    // As many at a time as the hub answers.
                    self.links
                        .handle()
                        .spawn(async move { inner.answer(from, id, what).await });
                }
                Some(Said::Answer { from, id, what }) => {
                    let reply = locked(&self.asks).get(&id).cloned();
                    if let Some(reply) = reply
                        && reply.try_send((from, what)).is_err()
                    {
                        tracing::trace!("whoever asked had gone before the answer");
                    }
                }
                Some(Said::Watch { from, id, filter }) => self.begin_to_serve(from, id, filter.into()),
                Some(Said::Unwatch { from, id }) => {
                    if let Some(served) = locked(&self.served).remove(&(from, id)) {
                        served.abort();
                    }
                }
                Some(Said::News { from, id, nth, news }) => self.followed.tell(id, from, nth, news),
            }
        }
    }

    async fn answer(&self, from: String, id: u64, what: Question) {
        let answer = match what {
            Question::User(user) => {
                let told = self.local.user_presence(&user).await;
                told.map(|told| Answer::of_user(told.sessions))
            }
            Question::Topic { topic, after, limit } => {
                let told = self.local.topic_share(&topic, after, limit).await;
                told.map(Answer::of_topic)
            }
            Question::Newcomer => Ok(self.see(&from).await),
        };
        let what = answer.unwrap_or(Answer::Not);
        let answer = Said::Answer {
            from: self.node.clone(),
            id,
            what,
        };
        if let Err(error) = self.say(&from, &answer).await {
            tracing::debug!(%error, "another node could not be answered");
        }
    }

    fn begin_to_serve(self: &Arc<Inner>, from: String, id: u64, filter: PresenceFilter) {
        let mut served = locked(&self.served);
        served.retain(|_, task| !task.is_finished());
        if let Some(before) = served.remove(&(from.clone(), id)) {
            before.abort();
        }
        match self.local.watch_presence(filter) {
            Ok(watch) => {
                let serving = serve(self.clone(), from.clone(), id, watch);
                served.insert((from, id), self.links.handle().spawn(serving));
            }
            Err(error) => tracing::warn!(%error, "another node cannot watch who comes and goes here"),
        }
    }
}

/// A question under way; forgotten when it is dropped.
struct Asked<'a> {
    inner: &'a Inner,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        locked(&self.inner.asks).remove(&self.id);
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn user_presence(&self, user: &UserId) -> Result<UserPresence, EngineError> {
        let inner = &self.inner;
        let mut told = inner.local.user_presence(user).await?;
        let places = inner.places(std::slice::from_ref(user)).await?.concat();
        told.online |= !places.is_empty();
        let with_sessions = places.into_iter().filter(|(_, sessions)| *sessions > 0);
        let nodes: Vec<_> = with_sessions.map(|(node, _)| node).collect();
        let answers = inner.ask(&nodes, &Question::User(user.clone())).await?;
        let elsewhere: Vec<Vec<PresentSession>> = answers.into_iter().filter_map(Answer::sessions).collect();
        told.sessions.extend(elsewhere.concat());
        told.sessions.sort_by(|a, b| a.session.cmp(&b.session));
        Ok(told)
    }

    async fn topic_presence(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<TopicPresence, EngineError> {
        let inner = &self.inner;
        let question = Question::Topic {
            topic: topic.clone(),
            after: after.clone(),
            limit,
        };
        let others = inner.others();
        let (here, elsewhere) = tokio::join!(
            inner.local.topic_share(topic, after, limit),
            inner.ask(&others, &question)
        );
        let mut shares = vec![here?];
        for answer in elsewhere? {
            match answer {
                Answer::Not => return Err(EngineError::Busy),
                answer => shares.extend(answer.share()),
            }
        }
        Ok(merge::joined(shares, limit))
    }

    fn watch_presence(&self, filter: PresenceFilter) -> Result<Box<dyn PresenceWatch>, EngineError> {
        let inner = &self.inner;
        let local = inner.local.watch_presence(filter.clone())?;
        let id = inner.ids.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Followed::new(inner.clone(), id, filter.into(), local)))
    }
}

#[cfg(test)]
mod tests;
