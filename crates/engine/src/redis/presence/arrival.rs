//! A node that comes says so to all that are on the roster, and waits until they know it: otherwise its sessions would
//! count nowhere else until each of the others renewed its lease.
//!
//! Invariant: a node that answered as having seen another asks it, and counts what it wrote, from then on. Where no
//! answer comes, as of a node that ended without a word or is of an older version, nothing waits for longer than a
//! question may take; that node sees the other at its next renewal.

use super::talk::{Answer, Question};
use super::{ANSWER, Inner};

impl Inner {
    /// Tells the others that this node is there. It is on the roster by now.
    pub(super) async fn announce(&self) {
        let others = self.others();
        let seen = match self.ask(&others, &Question::Newcomer).await {
            Ok(answers) => answers.iter().filter(|answer| **answer == Answer::Seen).count(),
            Err(error) => {
                tracing::warn!(%error, "the other nodes could not be told of this one; they see it within a second");
                return;
            }
        };
        if seen < others.len() {
            let unseen = others.len() - seen;
            tracing::info!(
                unseen,
                "nodes did not say that they see this one; they do within a second"
            );
        }
    }

    /// A node says that it has come: looks who is on the roster, and tells when it is known here.
    pub(super) async fn see(&self, newcomer: &str) -> Answer {
        let mut others = self.others.subscribe();
        self.newcomer.notify_one();
        let seen = others.wait_for(|others| others.iter().any(|node| node == newcomer));
        match tokio::time::timeout(ANSWER, seen).await {
            Ok(Ok(_)) => Answer::Seen,
            Ok(Err(_)) | Err(_) => Answer::Not,
        }
    }
}
