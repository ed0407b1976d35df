//! Certificates that were fetched, kept for a while.
//!
//! Invariant: at most [`MOST_KEPT`] are kept, and at most [`MOST_FETCHES`] are fetched in [`FETCH_WINDOW`], so that forged
//! posts, each with another address, can neither fill the memory nor make this node ask SNS without end.

use super::certificate::Certificate;
use async_trait::async_trait;
use postrider_model::{Millis, Timestamp};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// SNS has one for each region and changes it about once a year.
const MOST_KEPT: usize = 16;
/// One that was fetched is fetched anew after this.
const KEPT_FOR: Millis = Millis(24 * 3_600_000);
/// Fetches in a window.
const MOST_FETCHES: usize = 20;
/// The window.
const FETCH_WINDOW: Millis = Millis(60_000);

/// Fetches what lies at an address. The addresses are of allowed hosts.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// What lies there, which is small; redirects are not followed.
    ///
    /// # Errors
    /// Why there was no such answer, for people.
    async fn fetch(&self, url: &str) -> Result<Vec<u8>, String>;
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It could not be fetched now.
    #[error("the certificate could not be fetched: {0}")]
    Away(String),
    /// Too many others were asked for.
    #[error("too many certificates were asked for in the last minute")]
    Busy,
    /// What lies there is none.
    #[error("{0}")]
    Bad(#[from] super::certificate::CertificateFault),
}

/// Counts milliseconds from anywhere, and never jumps.
type Steady = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The certificates of one source.
pub struct Keys {
    fetch: Arc<dyn Fetch>,
    steady: Steady,
    kept: Mutex<Kept>,
    /// Whoever has it fetches.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    /// Each with when it was fetched; the one used last stands last.
    certificates: VecDeque<(String, Timestamp, Arc<Certificate>)>,
    fetches: VecDeque<Timestamp>,
}

impl Keys {
    /// None yet; they are fetched by this. How long one is kept, and how often one is fetched, is measured by a clock that
    /// nobody sets.
    pub fn new(fetch: Arc<dyn Fetch>, steady: Steady) -> Keys {
        Keys {
            fetch,
            steady,
            kept: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The certificate at an allowed address, for the time of day `now`. One is fetched at a time; those that are kept wait
    /// for none.
    ///
    /// # Errors
    /// It is not to be had, or is none.
    pub async fn certificate(&self, url: &str, now: Timestamp) -> Result<Arc<Certificate>, KeyFault> {
        if let Some(found) = self.kept().find(url, now, (self.steady)()) {
            return Ok(found);
        }
        let _turn = self.turn.lock().await;
        // Who had the turn before may have wanted the same.
        if let Some(found) = self.kept().find(url, now, (self.steady)()) {
            return Ok(found);
        }
        self.kept().may_fetch((self.steady)())?;
        let pem = self.fetch.fetch(url).await.map_err(KeyFault::Away)?;
        let certificate = Arc::new(Certificate::read(&pem)?);
        self.kept().keep(url, (self.steady)(), certificate.clone());
        Ok(certificate)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// By the time of day and by the steady clock.
    fn find(&mut self, url: &str, now: Timestamp, steady: Timestamp) -> Option<Arc<Certificate>> {
        let place = self.certificates.iter().position(|(known, _, _)| known == url)?;
        let found = self.certificates.remove(place)?;
        let certificate = found.2.clone();
        let is_fresh = steady.since(found.1) < KEPT_FOR && certificate.counts_at(now);
        is_fresh.then(|| {
            self.certificates.push_back(found);
            certificate
        })
    }

    fn may_fetch(&mut self, steady: Timestamp) -> Result<(), KeyFault> {
        while self
            .fetches
            .front()
            .is_some_and(|then| steady.since(*then) >= FETCH_WINDOW)
        {
            self.fetches.pop_front();
        }
        if self.fetches.len() >= MOST_FETCHES {
            return Err(KeyFault::Busy);
        }
        self.fetches.push_back(steady);
        Ok(())
    }

    fn keep(&mut self, url: &str, steady: Timestamp, certificate: Arc<Certificate>) {
        if self.certificates.len() >= MOST_KEPT {
            self.certificates.pop_front();
        }
        self.certificates.push_back((url.to_owned(), steady, certificate));
    }
}
