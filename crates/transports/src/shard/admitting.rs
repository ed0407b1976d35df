//! Sessions that ask whether they may begin, where more than this node has a say in it: many at a time, by few tasks,
//! before the engine is asked where their feeds stand.
//!
//! A session that would be one too many asks once more a moment later: what another node was heard to have may have
//! ended just now. It holds up no other meanwhile.
//!
//! Invariant: each is answered once. Those that wait are no more than connections that are opening.

use super::*;
use crate::addresses::Place;
use crate::gate::Entrance;
use crate::notify::Dialect;
use postrider_engine::StartsWanted;
use postrider_model::Topic;

/// Sessions that one task asks for, and such tasks of one loop at a time.
const ADMITTED_AT_ONCE: usize = 256;
const ADMITTING_TASKS: usize = 4;
/// What ended on another node is known here after about a third of this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A connection that waits for admission, and what follows.
pub(crate) struct Waiting {
    key: Key,
    wanted: StartsWanted,
    topics: Option<Vec<Topic>>,
    entrance: Entrance,
    is_asked_again: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Admissions {
    waiting: VecDeque<Waiting>,
    tasks: usize,
}

impl Admissions {
    /// These were refused a moment ago.
    pub fn ask_again(&mut self, refused: Vec<Waiting>) {
        self.waiting.extend(refused);
    }
}

impl Shard {
    /// What there is to ask before a session begins that is this user's so-many-th here, if more than this node has a
    /// say in it.
    pub(super) fn entrance(&self, request: &Request, sessions_here: usize) -> Option<Entrance> {
        self.shared.admission.get()?;
        Some(Entrance {
            user: request.identity.user.clone(),
            sessions_here,
            ticket: request.ticket.clone(),
        })
    }

    /// Has a session admitted, if that is to be asked, and then opened.
    pub(super) fn ask_to_begin(
        &mut self,
        key: Key,
        wanted: StartsWanted,
        topics: Option<Vec<Topic>>,
        entrance: Option<Entrance>,
    ) {
        match entrance {
            Some(entrance) => {
                self.admissions.waiting.push_back(Waiting {
                    key,
                    wanted,
                    topics,
                    entrance,
                    is_asked_again: false,
                });
            }
            None => self.ask_to_open(key, wanted, topics),
        }
    }

    /// Hands those that wait to tasks, as far as there may be more of them.
    pub(super) fn start_admissions(&mut self) {
        let Some(admission) = self.shared.admission.get() else {
            return;
        };
        while self.admissions.tasks < ADMITTING_TASKS && !self.admissions.waiting.is_empty() {
            self.admissions.tasks += 1;
            let many = self.admissions.waiting.len().min(ADMITTED_AT_ONCE);
            let waiting: Vec<_> = self.admissions.waiting.drain(..many).collect();
            let (admission, shared, mailbox) = (admission.clone(), self.shared.clone(), self.mailbox.clone());
            self.shared.spawn(async move {
                let entrance = |one: &Waiting| {
                    // Of those that came before it some may have ended; those that came after it do not count.
                    let now = shared.sessions.sessions_of(&one.entrance.user).unwrap_or(1);
                    Entrance {
                        sessions_here: one.entrance.sessions_here.min(now.max(1)),
                        ..one.entrance.clone()
                    }
                };
                let entrances: Vec<_> = waiting.iter().map(entrance).collect();
                let said = admission.admit(&entrances).await;
                mailbox.post(Post::Admitted(waiting.into_iter().zip(said).collect()));
            });
        }
    }

    /// These may begin, or may not.
    pub(super) fn admitted(&mut self, admitted: Vec<(Waiting, Result<(), Problem>)>) {
        self.admissions.tasks = self.admissions.tasks.saturating_sub(1);
        let mut again = Vec::new();
        for (waiting, said) in admitted {
            if !self.is_current(waiting.key) {
                continue;
            }
            match said {
                Ok(()) => self.ask_to_open(waiting.key, waiting.wanted, waiting.topics),
                Err(problem) if is_limit(&problem) && !waiting.is_asked_again => again.push(Waiting {
                    is_asked_again: true,
                    ..waiting
                }),
                Err(problem) => self.turn_away(waiting.key.slot, &problem),
            }
        }
        if !again.is_empty() {
            let mailbox = self.mailbox.clone();
            self.shared.spawn(async move {
                tokio::time::sleep(ASK_AGAIN_AFTER).await;
                mailbox.post(Post::AskAgain(again));
            });
        }
    }

    /// A session that was opening may not begin.
    fn turn_away(&mut self, slot: usize, problem: &Problem) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let closing = Stage::Closing {
            deadline: self.turn.now.plus(CLOSING_TIMEOUT),
        };
        let Stage::Opening(_) = &connection.stage else {
            return;
        };
        let stage = std::mem::replace(&mut connection.stage, closing);
        let seats = std::mem::take(&mut connection.seats);
        connection.place = Place::default();
        self.leave_stage(slot, &stage, &seats);
        let Stage::Opening(opening) = stage else { return };
        match (&opening.wire, opening.dialect()) {
            // It was greeted.
            (_, Some(Dialect::Notify)) => self.end_notify(slot, problem),
            _ if is_limit(problem) => {
                self.refuse_session(slot, &opening.wire, problem, &opening.cors);
            }
            _ => self.refuse(slot, &opening.wire, problem, &opening.cors),
        }
    }
}

/// The user has too many sessions: here there is room, or it would not have been asked.
fn is_limit(problem: &Problem) -> bool {
    problem.code == "session_limit"
}
