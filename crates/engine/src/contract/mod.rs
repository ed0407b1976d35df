//! The engine contract as cases that every engine passes unchanged. A case sees an engine only through the
//! traits, and the world (its clock, its restarts) only through [`Instance`], so that it holds for an engine
//! in this process as for one behind a network.
//!
//! Invariant: a case never depends on another, on the wall clock, or on how an engine keeps its data.

mod fan_out;
mod feeds;
mod identity;
mod kit;
mod places;
mod reading;
mod schedule;
mod settling;
mod wakes;
mod withdrawing;

#[cfg(test)]
pub(crate) use kit::settlement;
pub use kit::{Kit, Make};

use crate::{Engine, EngineError};
use async_trait::async_trait;
use postrider_model::Timestamp;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// An engine to be judged.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A fresh, empty engine whose clock stands at `now`.
    async fn open(&self, now: Timestamp) -> Box<dyn Instance>;
}

/// One engine under judgement, and the world around it.
#[async_trait]
pub trait Instance: Send + Sync {
    /// The engine.
    fn engine(&self) -> Arc<dyn Engine>;
    /// Sets the engine's clock.
    fn set_time(&self, now: Timestamp);
    /// Has the engine do what is due by its clock, and returns when that is done.
    async fn tick(&self);
    /// Stops the engine and starts it again on the same data, with the same clock. False, and nothing is
    /// done, where an engine keeps nothing over a restart. A case holds no other handle then.
    async fn restart(&mut self) -> bool;
    /// Shuts the engine down in good order.
    async fn close(&self);
}

/// Why a case failed.
#[derive(Debug, Clone)]
pub struct Fault(String);

/// What a case says.
pub type Outcome = Result<(), Fault>;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Self {
        Fault(format!("the engine answered an error: {error}"))
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Self {
        Fault(text)
    }
}

/// Fails the case unless both are the same.
macro_rules! same {
    ($found:expr, $wanted:expr, $($what:tt)+) => {{
        let (found, wanted) = (&$found, &$wanted);
        if found != wanted {
            return Err($crate::contract::Fault::from(format!(
                "{}: expected {wanted:?}, found {found:?}",
                format_args!($($what)+)
            )));
        }
    }};
}

/// Fails the case unless it holds.
macro_rules! holds {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::contract::Fault::from(format!($($what)+)));
        }
    };
}

pub(crate) use {holds, same};

type Case = for<'k> fn(&'k mut Kit) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'k>>;

macro_rules! cases {
    ($($group:ident: $($case:ident),+ $(,)?;)+) => {
        const CASES: &[(&str, Case)] = &[
            $($((concat!(stringify!($group), "::", stringify!($case)), |kit| Box::pin($group::$case(kit))),)+)+
        ];
    };
}

cases! {
    feeds:
        offsets_have_no_holes_under_concurrent_publishers,
        offsets_follow_the_order_of_the_batch,
        pages_are_bounded_by_entries_and_by_bytes,
        an_unknown_feed_is_empty,
        trimmed_entries_are_gone_and_the_rest_stays,
        trimming_expires_what_nobody_had,
        trimming_changes_no_other_state,
        a_closed_engine_refuses;
    fan_out:
        users_get_an_entry_each,
        a_topic_and_everyone_get_one_entry,
        the_excluded_get_nothing,
        a_notification_for_nobody_is_accepted,
        a_wide_list_of_users;
    identity:
        the_same_again_is_repeated,
        other_content_is_a_conflict,
        concurrent_twins_make_one_entry,
        a_request_key_is_bound_to_its_content,
        one_refused_leaves_the_others,
        lookup_tells_what_was_stored;
    places:
        a_place_is_held_in_its_epoch_only,
        the_start_is_held_until_something_is_trimmed,
        old_places_are_gaps_after_a_trim,
        a_restart_begins_an_epoch;
    settling:
        by_ids_counts_once,
        unknown_ids_are_no_error,
        through_a_position_settles_all_before_it,
        through_a_wide_feed,
        positions_that_are_none_settle_nothing,
        a_floor_never_goes_back_nor_passes_the_head,
        single_acks_move_the_floor_when_they_meet,
        the_excluded_settle_nothing,
        lazily_shows_eventually,
        marks_tell_who_and_on_what_evidence,
        many_entries_at_once,
        settlements_survive_a_restart;
    reading:
        read_implies_delivered_and_tells_the_others,
        read_through_a_position,
        read_after_delivered_and_only_once,
        a_wide_one_is_read_by_one_user_only,
        an_inbox_page_joins_the_states;
    withdrawing:
        cancel_judges_each_recipient,
        cancel_of_a_wide_one_spares_who_had_it,
        a_floor_does_not_deliver_what_was_cancelled,
        cancel_of_the_unknown_and_again,
        collapse_judges_each_recipient,
        collapse_in_a_wide_feed,
        final_states_stay;
    schedule:
        expiry_of_a_users_entry,
        expiry_of_a_wide_entry,
        a_cursor_does_not_deliver_what_expired,
        deliver_at_appends_at_its_time,
        a_scheduled_one_is_idempotent,
        cancel_before_it_is_due,
        expiry_before_it_is_due,
        cancel_after_expiry_changes_nothing,
        many_due_at_once,
        a_schedule_survives_a_restart;
    wakes:
        a_wake_comes_after_what_it_tells,
        marks_wake_too,
        a_transient_one_is_told_and_not_stored;
}

/// Runs every case on a fresh engine. The error lists each that failed, with what was wrong.
pub async fn run(subject: &dyn Subject) -> Result<usize, String> {
    let mut faults = Vec::new();
    for (name, case) in CASES {
        let mut kit = Kit::new(subject.open(Kit::BEGIN).await);
        if let Err(fault) = case(&mut kit).await {
            faults.push(format!("{name}: {fault}"));
        }
    }
    if faults.is_empty() {
        Ok(CASES.len())
    } else {
        Err(faults.join("\n"))
    }
}
