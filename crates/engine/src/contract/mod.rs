//! The engine contract as cases that every engine passes unchanged. A case sees an engine only through the
//! traits, and the world (its clock, its restarts) only through [`Instance`], so that it holds for an engine
//! in this process as for one behind a network.
//!
//! Invariant: a case never depends on another, on the wall clock, or on how an engine keeps its data.

mod dead_letters;
mod directory;
mod erasing;
mod fan_out;
mod feeds;
mod first_device;
mod identity;
mod keeping;
mod kit;
mod member_places;
mod membership;
mod places;
mod reading;
mod schedule;
mod settling;
mod states;
mod wakes;
mod withdrawing;

#[cfg(test)]
pub(crate) use kit::settlement;
pub use kit::{Kit, Make};

use crate::{Engine, EngineError, Rules};
use async_trait::async_trait;
use postrider_model::Timestamp;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// An engine to be judged.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A fresh, empty engine whose clock stands at `now`, and that keeps to these rules.
    async fn open(&self, now: Timestamp, rules: Rules) -> Box<dyn Instance>;
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
    dead_letters:
        attempts_count_once_in_an_ack_timeout,
        after_the_last_attempt_it_is_dead,
        attempts_end_with_an_ack,
        a_late_ack_takes_it_out,
        a_floor_does_not_deliver_what_is_dead,
        redriven_it_is_pending_again,
        a_broadcast_is_redriven_for_one,
        what_ran_out_cannot_be_redriven,
        what_was_taken_back_cannot_be_redriven,
        discarded_it_stays_dead,
        cancelled_it_is_no_dead_letter,
        filters_and_pages,
        what_cannot_be_decoded_is_buried,
        full_dead_letters_refuse,
        dead_letters_survive_a_restart;
    first_device:
        the_first_ack_by_id_takes_it,
        reading_takes_it,
        a_cursor_does_not_take_it,
        everyones_is_taken_by_each_user_alone,
        open_ones_expire_and_are_cancelled;
    keeping:
        what_is_too_old_is_forgotten,
        many_recipients_grow_old,
        wide_ones_grow_old_too,
        marks_grow_old,
        a_full_feed_makes_its_oldest_dead,
        a_full_wide_feed_expires_its_oldest,
        a_feed_is_bounded_by_bytes,
        all_is_bounded_by_bytes,
        what_cannot_give_way_refuses,
        what_is_scheduled_is_kept,
        a_dead_letter_keeps_its_body,
        ids_and_request_keys_are_free_again,
        new_users_begin_with_their_first_session;
    erasing:
        a_user_is_forgotten,
        others_keep_what_is_theirs,
        a_feed_goes_on_after_erasing,
        scheduled_and_dead_go_too;
    membership:
        what_came_during_a_stay_is_the_users,
        what_came_before_leaving_is_still_delivered,
        an_empty_stay_vanishes,
        one_delivery_however_many_topics,
        a_session_topic_keeps_no_state,
        acks_move_the_floor_over_what_is_not_the_users,
        through_a_position_of_a_topic,
        reading_in_a_topic_tells_the_others,
        cancelled_and_collapsed_for_members,
        the_first_device_of_a_member,
        a_member_gives_up,
        trimmed_it_is_expired_for_members;
    member_places:
        a_new_member_starts_at_the_join,
        a_cursor_finds_its_place,
        what_a_member_lost_is_a_gap,
        old_topics_leave_the_inbox,
        what_waits_is_for_those_who_are_there,
        topics_and_stays_are_bounded,
        members_are_told_in_order,
        a_session_topic_leaves_to_membership_what_is_shown_there,
        membership_survives_a_restart;
    directory:
        users_are_written_read_and_removed,
        one_refused_user_leaves_the_others,
        users_and_members_come_in_pages,
        a_put_makes_the_topics_exactly_these,
        erasing_leaves_all_topics;
    states:
        changes_are_merged_in_order,
        a_refused_change_changes_nothing,
        a_state_is_given_when_it_is_wanted,
        versions_rise_over_an_erase,
        a_state_survives_a_restart;
    wakes:
        a_wake_comes_after_what_it_tells,
        marks_wake_too,
        a_transient_one_is_told_and_not_stored;
}

/// The rules of a case: small numbers where a case is about them.
fn rules_of(case: &str) -> Rules {
    match case.split_once("::") {
        Some(("dead_letters", "full_dead_letters_refuse")) => Rules {
            dead_letters: 2,
            ..dead_letters::rules()
        },
        Some(("dead_letters", _)) => dead_letters::rules(),
        Some(("keeping", name)) => keeping::rules(name),
        Some(("membership", "a_member_gives_up")) => dead_letters::rules(),
        Some(("member_places", name)) => member_places::rules(name),
        _ => Rules::default(),
    }
}

/// Runs every case on a fresh engine. The error lists each that failed, with what was wrong.
pub async fn run(subject: &dyn Subject) -> Result<usize, String> {
    let mut faults = Vec::new();
    for (name, case) in CASES {
        let mut kit = Kit::new(subject.open(Kit::BEGIN, rules_of(name)).await);
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
