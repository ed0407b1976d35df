//! Single calls: what is written to a user's row, what is read of many, and the leases.
//!
//! Invariant: a row is updated and never put, so that whatever else stands in it stays. A call that is throttled is
//! repeated after a pause that grows, and then given up.

use super::vigil::Seen;
use super::{Names, fault};
use crate::names::{BEAT, LAPSED, LASTS};
use crate::registry::RegistryFault;
use postrider_aws::dynamodb::Client;
use postrider_aws::dynamodb::error::BuildError;
use postrider_aws::dynamodb::operation::transact_write_items::TransactWriteItemsError;
use postrider_aws::dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use postrider_aws::dynamodb::types::{
    AttributeValue, CancellationReason, ConditionCheck, KeysAndAttributes, ReturnValue, TransactWriteItem,
    Update,
};
use postrider_aws::{Account, Reach, Trouble, trouble};
use postrider_model::{Millis, Pauses};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A call that is throttled is repeated so often.
const REPEATS: u32 = 7;
/// Before each repeat.
const PAUSES: Pauses = Pauses {
    first: Millis(50),
    most: Millis::from_secs(2),
};
/// How DynamoDB refuses what cannot be written.
const UNFIT: &str = "ValidationException";
/// Rows of one page, of an index or of the table: then it is looked at the clock.
const PAGE: i32 = 1_000;
/// Stand for the names of keys in expressions, where they could be reserved words.
const USER: &str = "#u";
const INSTANCE: &str = "#i";
/// What is so of a row that names nobody, with `:null` for the name of that type.
const FREE: &str = "attribute_not_exists(#i) OR attribute_type(#i, :null)";

/// A row, or a key.
pub(super) type Item = HashMap<String, AttributeValue>;

/// What is done to a row, for an instance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    /// It names it.
    Put(&'a str),
    /// It names it, if it names nobody or is missing.
    TakeOver(&'a str),
    /// It names nobody, if it names it.
    Clear(&'a str),
}

/// How a step over rows and a lease ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of it is done.
    Done,
    /// Nothing is: the lease has another beat, or is gone.
    Unleased,
    /// Nothing is, since these rows, counted as they were given, name somebody.
    Named(Vec<usize>),
}

/// Sends a call, again where it is throttled. No function: the SDK's calls have nothing in common but their methods.
macro_rules! sent {
    ($calls:expr, $call:expr) => {
        $calls
            .patiently(|| {
                let call = $call.clone();
                async move { call.send().await.map_err(|error| trouble(&error)) }
            })
            .await
    };
}

/// Makes the calls of one registry.
pub(super) struct Calls {
    pub names: Names,
    pub account: Arc<Account>,
    pub reach: Reach,
    pub random: fn() -> u64,
    pub made: OnceCell<Client>,
}

impl Calls {
    pub async fn client(&self) -> &Client {
        let make = || self.account.dynamodb(&self.reach);
        self.made.get_or_init(make).await
    }

    /// Does this to a user's row. Whether it was changed.
    pub async fn change(&self, user: &str, change: Change<'_>) -> Result<bool, RegistryFault> {
        let row = self
            .client()
            .await
            .update_item()
            .table_name(self.names.table.as_str())
            .key(&self.names.user, text(user))
            .expression_attribute_names(INSTANCE, &self.names.instance);
        let (update, instance) = match change {
            Change::Put(instance) => (row.update_expression("SET #i = :i"), instance),
            Change::TakeOver(instance) => {
                let row = row.update_expression("SET #i = :i").condition_expression(FREE);
                let row = row.expression_attribute_values(":null", text("NULL"));
                (row, instance)
            }
            Change::Clear(instance) => {
                let row = row.update_expression("REMOVE #i").condition_expression("#i = :i");
                (row, instance)
            }
        };
        let update = update.expression_attribute_values(":i", text(instance));
        self.written(update).await.map_err(of_row)
    }

    /// Has these users' rows name this instance in one step, if its lease has this beat; with `only_free` if besides no row
    /// names anybody.
    pub async fn name_together(
        &self,
        users: &[&str],
        instance: &str,
        beat: &str,
        only_free: bool,
    ) -> Result<Step, RegistryFault> {
        let items = self
            .step(users, instance, beat, only_free)
            .map_err(|error| RegistryFault::Refused(error.to_string()))?;
        let write = self
            .client()
            .await
            .transact_write_items()
            .set_transact_items(Some(items));
        let ask = || {
            let write = write.clone();
            async move {
                let Err(error) = write.send().await else {
                    return Ok(Step::Done);
                };
                match error.as_service_error() {
                    Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                        ended(cancelled.cancellation_reasons())
                    }
                    _ => Err(trouble(&error)),
                }
            }
        };
        self.patiently(ask).await.map_err(of_row)
    }

    /// The look at the lease comes first.
    fn step(
        &self,
        users: &[&str],
        instance: &str,
        beat: &str,
        only_free: bool,
    ) -> Result<Vec<TransactWriteItem>, BuildError> {
        let lease = ConditionCheck::builder()
            .table_name(self.names.table.leases())
            .key(&self.names.instance, text(instance))
            .condition_expression("#b = :b")
            .expression_attribute_names("#b", BEAT)
            .expression_attribute_values(":b", text(beat))
            .build()?;
        let mut items = vec![TransactWriteItem::builder().condition_check(lease).build()];
        for user in users {
            let mut row = Update::builder()
                .table_name(self.names.table.as_str())
                .key(&self.names.user, text(user))
                .update_expression("SET #i = :i")
                .expression_attribute_names(INSTANCE, &self.names.instance)
                .expression_attribute_values(":i", text(instance));
            if only_free {
                row = row
                    .condition_expression(FREE)
                    .expression_attribute_values(":null", text("NULL"));
            }
            items.push(TransactWriteItem::builder().update(row.build()?).build());
        }
        Ok(items)
    }

    /// This instance has a lease with this beat, which is over: who beats next clears its rows, or is told that it lapsed.
    pub async fn lapse(&self, instance: &str, beat: &str) -> Result<(), RegistryFault> {
        let update = self
            .lease(instance)
            .await
            .update_expression("SET #b = :b, #l = :l, #o = :o")
            .expression_attribute_names("#b", BEAT)
            .expression_attribute_names("#l", LASTS)
            .expression_attribute_names("#o", LAPSED)
            .expression_attribute_values(":b", text(beat))
            .expression_attribute_values(":l", AttributeValue::N("0".into()))
            .expression_attribute_values(":o", AttributeValue::Bool(true));
        sent!(self, update).map(drop).map_err(fault)
    }

    /// The instance that a user's row names, as of a moment ago.
    pub async fn read(&self, user: &str) -> Result<Option<String>, RegistryFault> {
        let get = self
            .client()
            .await
            .get_item()
            .table_name(self.names.table.as_str())
            .key(&self.names.user, text(user))
            .projection_expression("#i")
            .expression_attribute_names(INSTANCE, &self.names.instance);
        let answer = sent!(self, get).map_err(fault)?;
        let mut item = answer.item.unwrap_or_default();
        Ok(taken(&mut item, &self.names.instance))
    }

    /// Those of at most 100 users whose rows name somebody, as of a moment ago.
    pub async fn named(&self, users: &[&str]) -> Result<HashSet<String>, RegistryFault> {
        let key = |user: &&str| HashMap::from([(self.names.user.clone(), text(user))]);
        let mut left: Vec<Item> = users.iter().map(key).collect();
        let mut named = HashSet::new();
        let mut turns = 0;
        while !left.is_empty() {
            // What was left out was too much at once.
            if turns > 0 {
                self.pause(turns - 1).await;
            }
            if turns > REPEATS {
                return Err(RegistryFault::Away("the table is asked too often".into()));
            }
            turns += 1;
            let keys = KeysAndAttributes::builder()
                .set_keys(Some(left))
                .projection_expression("#u, #i")
                .expression_attribute_names(USER, &self.names.user)
                .expression_attribute_names(INSTANCE, &self.names.instance)
                .build()
                .map_err(|error| RegistryFault::Refused(error.to_string()))?;
            let get = self
                .client()
                .await
                .batch_get_item()
                .request_items(self.names.table.as_str(), keys);
            let answer = sent!(self, get).map_err(fault)?;
            let rows = answer.responses.unwrap_or_default().into_values().flatten();
            named.extend(rows.filter_map(|mut row| {
                let is_named = matches!(row.get(&self.names.instance), Some(AttributeValue::S(_)));
                is_named.then(|| taken(&mut row, &self.names.user)).flatten()
            }));
            let unprocessed = answer.unprocessed_keys.unwrap_or_default();
            left = unprocessed.into_values().flat_map(|keys| keys.keys).collect();
        }
        Ok(named)
    }

    /// A page of the users whose rows name this instance, and where the next begins: of the index, or of the whole table.
    pub async fn page(
        &self,
        index: Option<&str>,
        instance: &str,
        after: Option<Item>,
    ) -> Result<(Vec<String>, Option<Item>), RegistryFault> {
        let (items, last) = match index {
            Some(index) => self.page_of_index(index, instance, after).await,
            None => self.page_of_table(instance, after).await,
        }
        .map_err(fault)?;
        let users = items.into_iter();
        let users = users.filter_map(|mut item| taken(&mut item, &self.names.user));
        Ok((users.collect(), last.filter(|key| !key.is_empty())))
    }

    async fn page_of_index(
        &self,
        index: &str,
        instance: &str,
        after: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>), Trouble> {
        let query = self
            .client()
            .await
            .query()
            .table_name(self.names.table.as_str())
            .index_name(index)
            .key_condition_expression("#i = :i")
            .projection_expression("#u")
            .expression_attribute_names(USER, &self.names.user)
            .expression_attribute_names(INSTANCE, &self.names.instance)
            .expression_attribute_values(":i", text(instance))
            .limit(PAGE)
            .set_exclusive_start_key(after);
        let answer = sent!(self, query)?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    /// Consistent: the row of a run that crashed a moment ago is there.
    async fn page_of_table(
        &self,
        instance: &str,
        after: Option<Item>,
    ) -> Result<(Vec<Item>, Option<Item>), Trouble> {
        let scan = self
            .client()
            .await
            .scan()
            .table_name(self.names.table.as_str())
            .consistent_read(true)
            .filter_expression("#i = :i")
            .projection_expression("#u")
            .expression_attribute_names(USER, &self.names.user)
            .expression_attribute_names(INSTANCE, &self.names.instance)
            .expression_attribute_values(":i", text(instance))
            .limit(PAGE)
            .set_exclusive_start_key(after);
        let answer = sent!(self, scan)?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    /// A new beat of this instance's own lease. Whether there was one of which nobody clears the rows.
    pub async fn prolong(&self, instance: &str, beat: &str, lease: Millis) -> Result<bool, RegistryFault> {
        let update = self
            .lease(instance)
            .await
            .update_expression("SET #b = :b, #l = :l REMOVE #o")
            .expression_attribute_names("#b", BEAT)
            .expression_attribute_names("#l", LASTS)
            .expression_attribute_names("#o", LAPSED)
            .expression_attribute_values(":b", text(beat))
            .expression_attribute_values(":l", AttributeValue::N(lease.0.to_string()))
            .return_values(ReturnValue::AllOld);
        let old = sent!(self, update).map_err(fault)?.attributes;
        let old = old.unwrap_or_default();
        Ok(old.contains_key(BEAT) && !old.contains_key(LAPSED))
    }

    /// Who clears the rows of a lease that is over: whoever changes the beat that all have seen. It is this instance for
    /// another lease of its own.
    pub async fn claim(&self, seen: &Seen, beat: &str, lease: Millis) -> Result<bool, RegistryFault> {
        let update = self
            .lease(&seen.instance)
            .await
            .update_expression("SET #b = :b, #l = :l, #o = :o")
            .condition_expression("#b = :seen")
            .expression_attribute_names("#b", BEAT)
            .expression_attribute_names("#l", LASTS)
            .expression_attribute_names("#o", LAPSED)
            .expression_attribute_values(":b", text(beat))
            .expression_attribute_values(":seen", text(&seen.beat))
            .expression_attribute_values(":l", AttributeValue::N(lease.0.to_string()))
            .expression_attribute_values(":o", AttributeValue::Bool(true));
        self.written(update).await.map_err(fault)
    }

    /// Ends a lease, if it has this beat still.
    pub async fn end(&self, instance: &str, beat: Option<&str>) -> Result<bool, RegistryFault> {
        let delete = self
            .client()
            .await
            .delete_item()
            .table_name(self.names.table.leases())
            .key(&self.names.instance, text(instance));
        let delete = match beat {
            None => delete,
            Some(beat) => delete
                .condition_expression("#b = :b")
                .expression_attribute_names("#b", BEAT)
                .expression_attribute_values(":b", text(beat)),
        };
        done(sent!(self, delete)).map_err(fault)
    }

    /// All leases.
    pub async fn leases(&self) -> Result<Vec<Seen>, RegistryFault> {
        let (mut leases, mut after) = (Vec::new(), None);
        loop {
            let scan = self
                .client()
                .await
                .scan()
                .table_name(self.names.table.leases())
                .consistent_read(true)
                .set_exclusive_start_key(after);
            let answer = sent!(self, scan).map_err(fault)?;
            let items = answer.items.unwrap_or_default().into_iter();
            leases.extend(items.filter_map(|item| self.seen(item)));
            after = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if after.is_none() || leases.len() >= super::MOST_LEASES {
                return Ok(leases);
            }
        }
    }

    fn seen(&self, mut item: Item) -> Option<Seen> {
        let lease = match item.remove(LASTS)? {
            AttributeValue::N(millis) => Millis(millis.parse().ok()?),
            _ => return None,
        };
        Some(Seen {
            instance: taken(&mut item, &self.names.instance)?,
            beat: taken(&mut item, BEAT)?,
            lease,
        })
    }

    async fn lease(&self, instance: &str) -> UpdateItemFluentBuilder {
        let client = self.client().await;
        client
            .update_item()
            .table_name(self.names.table.leases())
            .key(&self.names.instance, text(instance))
    }

    async fn written(&self, update: UpdateItemFluentBuilder) -> Result<bool, Trouble> {
        done(sent!(self, update))
    }

    async fn patiently<T, F>(&self, ask: impl Fn() -> F + Send + Sync) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        let mut repeats = 0;
        loop {
            match ask().await {
                Err(Trouble::Throttled(_)) if repeats < REPEATS => self.pause(repeats).await,
                done => return done,
            }
            repeats += 1;
        }
    }

    async fn pause(&self, nth: u32) {
        tokio::time::sleep(PAUSES.nth(nth, (self.random)()).as_duration()).await;
    }
}

/// Whether it was done: its condition may not hold, which is no fault.
fn done<T>(answer: Result<T, Trouble>) -> Result<bool, Trouble> {
    match answer {
        Ok(_) => Ok(true),
        Err(trouble) if trouble.is(&["ConditionalCheckFailedException"]) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

/// What the reasons mean for which a step was not done: one for the lease, and one for each row.
fn ended(reasons: &[CancellationReason]) -> Result<Step, Trouble> {
    let mut named = Vec::new();
    for (nth, reason) in reasons.iter().enumerate() {
        let code = reason.code().unwrap_or_default();
        let said = || format!("{code}: {}", reason.message().unwrap_or_default());
        match code {
            "" | "None" => {}
            "ConditionalCheckFailed" if nth == 0 => return Ok(Step::Unleased),
            "ConditionalCheckFailed" => named.push(nth - 1),
            // Somebody else writes the same just now, or too much is written.
            "TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded" => {
                return Err(Trouble::Throttled(said()));
            }
            _ => {
                return Err(Trouble::Refused {
                    code: UNFIT.into(),
                    text: said(),
                });
            }
        }
    }
    match named.is_empty() {
        false => Ok(Step::Named(named)),
        true => Err(Trouble::Away(
            "a step was not done, and no reason is given".into(),
        )),
    }
}

/// The table has the right key: what is refused then is this row, such as one that is full of something else.
fn of_row(trouble: Trouble) -> RegistryFault {
    if trouble.is(&[UNFIT]) {
        return RegistryFault::Unfit(trouble.to_string());
    }
    fault(trouble)
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn taken(item: &mut Item, name: &str) -> Option<String> {
    match item.remove(name) {
        Some(AttributeValue::S(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_of(codes: &[&str]) -> Result<Step, Trouble> {
        let reason = |code: &&str| CancellationReason::builder().code(*code).build();
        ended(&codes.iter().map(reason).collect::<Vec<_>>())
    }

    #[test]
    fn why_a_step_was_not_done() {
        const FAILED: &str = "ConditionalCheckFailed";
        assert_eq!(step_of(&[FAILED, FAILED, "None"]), Ok(Step::Unleased));
        assert_eq!(
            step_of(&["None", "None", FAILED, FAILED]),
            Ok(Step::Named(vec![1, 2]))
        );
        let met = step_of(&["None", FAILED, "TransactionConflict"]);
        assert!(matches!(met, Err(Trouble::Throttled(_))), "{met:?}");
        let unfit = step_of(&["None", "ValidationError"]).unwrap_err();
        assert!(matches!(of_row(unfit), RegistryFault::Unfit(_)));
        assert!(step_of(&["None"]).is_err());
    }
}
