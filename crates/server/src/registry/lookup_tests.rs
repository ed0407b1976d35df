use super::*;
use async_trait::async_trait;
use postrider_registry::Lease;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A table that answers these, one after the other, and then hangs.
struct Answers(Vec<Result<Option<String>, RegistryFault>>, AtomicUsize);

#[async_trait]
impl Registry for Answers {
    async fn open(&self) -> Result<(), RegistryFault> {
        Ok(())
    }
    async fn put(&self, _: &[UserId]) -> Result<(), RegistryFault> {
        Ok(())
    }
    async fn take_over(&self, _: &[UserId]) -> Result<u64, RegistryFault> {
        Ok(0)
    }
    async fn clear(&self, _: &[UserId]) -> Result<(), RegistryFault> {
        Ok(())
    }
    async fn beat(&self) -> Result<Lease, RegistryFault> {
        Ok(Lease::Held)
    }
    async fn leave(&self) -> Result<(), RegistryFault> {
        Ok(())
    }
    async fn instance_of(&self, _: &UserId) -> Result<Option<String>, RegistryFault> {
        match self.0.get(self.1.fetch_add(1, Ordering::Relaxed)) {
            Some(answer) => answer.clone(),
            None => std::future::pending().await,
        }
    }
}

fn table(answers: Vec<Result<Option<String>, RegistryFault>>) -> Table {
    let Lookup::Table(table) = Lookup::table(Arc::new(Answers(answers, AtomicUsize::new(0)))) else {
        unreachable!("it is a table")
    };
    table
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_gone_is_made_again_and_a_refusal_is_one() {
    let ada = UserId::new("ada").unwrap();
    let away = || Err(RegistryFault::Away("gone".into()));
    let here = || Ok(Some("one".to_owned()));
    assert_eq!(
        table(vec![away(), here()]).instance_of(&ada).await.unwrap(),
        here().unwrap()
    );
    let fault = table(vec![away(), away(), here()])
        .instance_of(&ada)
        .await
        .unwrap_err();
    assert!(
        matches!(fault, LookupFault::Table(RegistryFault::Away(_))),
        "{fault}"
    );
    let refused = table(vec![Err(RegistryFault::Refused("no".into())), here()]);
    let fault = refused.instance_of(&ada).await.unwrap_err();
    assert!(
        matches!(fault, LookupFault::Table(RegistryFault::Refused(_))),
        "{fault}"
    );
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "a test is a driver")]
async fn who_waits_is_told_in_time_and_too_many_are_told_at_once() {
    let (table, ada) = (table(Vec::new()), UserId::new("ada").unwrap());
    let begun = tokio::time::Instant::now();
    let asked = (0..=CALLERS).map(|_| table.instance_of(&ada));
    let told = futures_util::future::join_all(asked).await;
    let late = told.iter().filter(|told| matches!(told, Err(LookupFault::Late)));
    let busy = told.iter().filter(|told| matches!(told, Err(LookupFault::Busy)));
    assert_eq!((late.count(), busy.count()), (CALLERS, 1));
    assert_eq!(begun.elapsed(), WITHIN);
}
