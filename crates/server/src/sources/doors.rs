//! Sources that are posted to: by name, for the route that serves them.

use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use postrider_transports::Problem;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What takes posts for one source.
pub trait Door: Send + Sync {
    /// Judges the head, before a body is read.
    ///
    /// # Errors
    /// Why it is not let in.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem>;

    /// Takes what was posted. It returns when that is settled.
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<(), Problem>>;
}

/// The doors of a node.
#[derive(Default)]
pub struct Doors(Mutex<BTreeMap<String, Arc<dyn Door>>>);

impl Doors {
    /// The door of the source of this name.
    pub fn find(&self, name: &str) -> Option<Arc<dyn Door>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned()
    }

    /// Opens one.
    #[cfg_attr(
        not(feature = "aws"),
        allow(dead_code, reason = "no source of this build is posted to")
    )]
    pub(super) fn open(&self, name: &str, door: Arc<dyn Door>) {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doors.insert(name.to_owned(), door);
    }
}
