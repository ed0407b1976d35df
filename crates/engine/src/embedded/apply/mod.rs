//! What each command does to the tables. Runs on the writer's thread inside one transaction; decides
//! nothing by the wall clock (`now` is given) and does no I/O but reads of the transaction.
//!
//! Invariant: offsets of a feed are appended without holes; a user's final mark (read, expired, cancelled)
//! is never followed by another; a floor never passes the head and never goes back.

mod ahead;
mod attempts;
mod cleaning;
#[cfg(test)]
mod cleaning_tests;
mod cohorts;
mod due;
mod erase;
mod keeping;
mod letters;
mod people;
mod publish;
mod repair;
mod rows;
mod settle;
mod states;
mod withdraw;

pub(super) use due::Upcoming;
pub(super) use erase::Erasing;
pub(super) use keeping::Counts;
pub(super) use letters::REDRIVEN;

pub(super) use settle::Settled;

use super::hot::Hot;
use super::rules::Rules;
use super::store::Txn;
use super::tables::{Due, Stage};
use crate::MemberWake;
use foldhash::HashMap;
use postrider_model::{
    DeadReason, Entry, Epoch, FeedId, FeedSpan, Membership, Notification, NotificationId, Settlement,
    Timestamp, Topic, UserId, UserState, WithdrawReason,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One transaction with what the commands in it share.
pub(super) struct Apply<'a> {
    pub txn: Txn<'a>,
    pub epoch: Epoch,
    pub now: Timestamp,
    /// Spans of the feeds this transaction, or earlier ones, touched.
    pub spans: HashMap<FeedId, FeedSpan>,
    /// What was appended, in order.
    pub appended: Vec<Arc<Entry>>,
    /// What else listeners are told, each after so many of those.
    pub told: Vec<(usize, Told)>,
    /// Some of what has run out by now is not recorded as such yet, so whoever moves a floor has to look.
    pub behind: bool,
    /// What is due cannot be done for now.
    pub overdue: bool,
    /// Before this nothing more becomes due.
    pub calm_until: Timestamp,
    /// What is known of the tables without looking, as of the last commit.
    hot: &'a Hot,
    /// What was accepted in this transaction and is not among the rows that say what grows old.
    young: cohorts::Young,
    /// What the operator chose.
    pub rules: &'a Rules,
    /// What is counted over all rows.
    pub counts: Counts,
    /// Notifications without their data, as the rules look at them again and again.
    heads: HashMap<NotificationId, Arc<Notification>>,
    /// The memberships of the user who was last looked at.
    members: Option<(UserId, Arc<[Membership]>)>,
    /// Other nodes write the same rows.
    pub is_shared: bool,
    /// There: by how much the members of topics become more or less. They are read nowhere, so that those who join the
    /// same topic are not in one another's way.
    pub joined: BTreeMap<Topic, i64>,
    /// No more publications are taken once it changes so many bytes.
    pub most_bytes: usize,
}

/// What listeners are told beside entries.
pub(super) enum Told {
    Member(MemberWake),
    State(UserId, Arc<UserState>),
}

/// Heads remembered in one transaction.
const MAX_HEADS: usize = 4096;

/// Who did it, as marks keep it.
struct By<'s> {
    settlement: Option<&'s Settlement>,
    why: &'s str,
}

impl<'s> By<'s> {
    fn said(settlement: &'s Settlement) -> Self {
        By {
            settlement: Some(settlement),
            why: settlement.evidence.as_str(),
        }
    }
    fn reason(reason: WithdrawReason) -> Self {
        By::rule(reason.as_str())
    }
    fn dead(reason: DeadReason) -> Self {
        By::rule(reason.as_str())
    }
    fn rule(why: &'s str) -> Self {
        By {
            settlement: None,
            why,
        }
    }
}

impl<'a> Apply<'a> {
    pub fn new(
        txn: Txn<'a>,
        epoch: Epoch,
        now: Timestamp,
        spans: HashMap<FeedId, FeedSpan>,
        rules: &'a Rules,
        counts: Counts,
        hot: &'a Hot,
    ) -> Apply<'a> {
        Apply {
            hot,
            rules,
            counts,
            txn,
            epoch,
            now,
            spans,
            appended: Vec::new(),
            told: Vec::new(),
            members: None,
            behind: false,
            overdue: false,
            calm_until: Timestamp(0),
            young: cohorts::Young::default(),
            heads: HashMap::default(),
            is_shared: false,
            joined: BTreeMap::new(),
            most_bytes: usize::MAX,
        }
    }

    /// It may take in more.
    pub fn has_room(&self) -> bool {
        self.txn.batch().bytes() < self.most_bytes
    }
}
