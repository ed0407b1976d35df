//! Many sessions and what is published to them: notifications to everyone, and to one user each, at once or alone,
//! as fast as they are taken or at a steady rate.
//!
//! Invariant: at a steady rate a delivery's time counts from the moment its publish was *due*, whether or not it could
//! be sent then; so a server that stalls its publishers cannot hide it.

mod lane;

pub use lane::{Audience, Drive, Lane, Outcome};

use crate::account::Totals;
use crate::clock;
use crate::net::{Conn, Load, Message, Net};
use crate::sessions::Sessions;
use anyhow::{Context as _, Result, bail};
use std::time::{Duration, Instant};

/// How long what is under way may take when the time is up.
const GRACE: Duration = Duration::from_secs(30);
/// Nearer than this the next publish is waited for by looking at the clock: a poll would oversleep.
const SPIN: Duration = Duration::from_millis(1);
/// A wait without an end of its own.
const TICK: Duration = Duration::from_millis(20);
/// How long all may take that is published before anybody receives it.
const PUBLISH_LIMIT: Duration = Duration::from_secs(120);
/// How long opening may take.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Sessions, and lanes of publications.
pub struct Crowd<'a> {
    /// Who receives.
    pub sessions: Sessions<'a>,
    /// What is published, each with numbers of its own.
    pub lanes: Vec<Lane>,
    /// Whether the load sleeps where it has nothing to do while something is driven. Where both share a machine the
    /// server pays for waking it, the more often the slower the server is itself: a load with a core of its own
    /// should not.
    pub sleeps: bool,
}

impl<'a> Crowd<'a> {
    /// Opens all sessions. There is no lane yet.
    ///
    /// # Errors
    /// Not all could be opened in time.
    pub fn open(net: &mut Net, sessions: Sessions<'a>) -> Result<Crowd<'a>> {
        let mut crowd = Crowd {
            sessions,
            lanes: Vec::new(),
            sleeps: true,
        };
        crowd.reopen(net)?;
        Ok(crowd)
    }

    /// Opens the sessions, anew where they were dropped.
    ///
    /// # Errors
    /// Not all could be opened in time.
    pub fn reopen(&mut self, net: &mut Net) -> Result<Instant> {
        let all = self.sessions.count();
        net.run(self, OPEN_LIMIT, "opening sessions", |net, crowd| {
            crowd.sessions.open_more(net)
        })
        .with_context(|| format!("{} of {all} sessions are open", self.sessions.opened()))
    }

    /// The tag from which on connections are publishers': for the next lane to open.
    pub fn next_tag(&self) -> usize {
        let last = self.lanes.last().map(|lane| lane.tags.end);
        last.unwrap_or(self.sessions.status_tag() + 1)
    }

    /// Lets time pass while connections are kept.
    ///
    /// # Errors
    /// A connection broke.
    pub fn rest(&mut self, net: &mut Net, time: Duration) -> Result<()> {
        let until = clock::now() + time;
        net.run(self, time + GRACE, "rest", |_, _| Ok(clock::now() >= until))?;
        Ok(())
    }

    /// Publishes as each lane's drive says, and waits until all is delivered and accepted.
    ///
    /// # Errors
    /// A connection broke, or not all was delivered in time.
    pub fn run(&mut self, net: &mut Net, drives: &[Drive]) -> Result<Vec<Outcome>> {
        let start = clock::now();
        let mut limit = start + GRACE;
        for (lane, drive) in self.lanes.iter_mut().zip(drives) {
            lane.begin(*drive, start);
            limit = limit.max(start + drive.time() + GRACE);
        }
        loop {
            let mut wait = if self.sleeps { TICK } else { Duration::ZERO };
            let mut busy = false;
            for lane in &mut self.lanes {
                let now = clock::now();
                busy |= !lane.feed(net, now)?;
                if lane.has_more(net, now) {
                    wait = Duration::ZERO;
                }
                if let Some(due) = lane.next_due() {
                    wait = wait.min(due.saturating_duration_since(now).saturating_sub(SPIN));
                }
            }
            if !busy {
                break;
            }
            if clock::now() > limit {
                bail!("not all was delivered in time: {}", self.behind());
            }
            net.turn(wait, self)?;
        }
        Ok(self.lanes.iter_mut().map(Lane::outcome).collect())
    }

    /// Publishes on the first lane while nobody is there to receive, and waits until all is accepted.
    ///
    /// # Errors
    /// There is no such lane, or not all was accepted in time.
    pub fn publish(&mut self, net: &mut Net, count: u64) -> Result<()> {
        let lane = self.lanes.first_mut().context("no lane")?;
        lane.begin(Drive::Burst(count), clock::now());
        let limit = PUBLISH_LIMIT;
        net.run(self, limit, "what is published to be accepted", |net, crowd| {
            let lane = &mut crowd.lanes[0];
            while lane.has_more(net, clock::now()) {
                lane.feed(net, clock::now())?;
            }
            Ok(lane.is_accepted(count))
        })?;
        Ok(())
    }

    fn behind(&self) -> String {
        let behind: Vec<_> = self.lanes.iter().map(Lane::behind).collect();
        behind.join("; ")
    }

    /// Closes the books of every lane.
    ///
    /// # Errors
    /// Something was lost or came out of order.
    pub fn close(self) -> Result<Totals> {
        let mut totals = Totals::default();
        for lane in self.lanes {
            totals.add(lane.close()?);
        }
        Ok(totals)
    }
}

impl Load for Crowd<'_> {
    fn message(&mut self, net: &mut Net, conn: Conn, tag: usize, message: Message<'_>) -> Result<()> {
        let Crowd { sessions, lanes, .. } = self;
        if tag < sessions.count() {
            let now = net.now();
            return sessions.message(net, conn, tag, message, |number| {
                let lane = lanes.iter_mut().find(|lane| lane.owns(number));
                lane.with_context(|| format!("{number} was never sent"))?
                    .received(tag, number, now)
            });
        }
        if tag == sessions.status_tag() {
            return sessions.status(&message);
        }
        let lane = lanes.iter_mut().find(|lane| lane.tags.contains(&tag));
        lane.context("a message for no publisher")?
            .publisher
            .message(net, conn, message)
    }

    fn closed(&mut self, conn: Conn, tag: usize) -> Result<()> {
        match self.lanes.iter_mut().find(|lane| lane.tags.contains(&tag)) {
            Some(lane) => lane.publisher.closed(conn, tag),
            None => bail!("the server closed connection {tag}"),
        }
    }
}
