//! Users' state maps.
//!
//! Invariant: the version of a user's map rises with every change, also over an erase.

use super::{Apply, Told};
use crate::embedded::codec::people::encode_state;
use crate::embedded::codec::{Writer, key};
use crate::embedded::store::{Table, View};
use crate::embedded::{StoreFault, people};
use postrider_model::{StateChange, StateError, UserId, UserState};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Apply<'_> {
    pub fn change_state(
        &mut self,
        user: &UserId,
        change: &StateChange,
    ) -> Result<Result<UserState, StateError>, StoreFault> {
        let before = people::state(&self.txn, user)?;
        let changed = before.changed(change, self.version_after(before.version()));
        if let Ok(state) = &changed {
            self.txn.put(Table::States, key::user(user), encode_state(state));
            self.tell_state(user, state.clone());
        }
        Ok(changed)
    }

    /// The map goes; what stays is the version, under a digest. True if there was one.
    pub(super) fn erase_state(&mut self, user: &UserId) -> Result<bool, StoreFault> {
        let row = key::user(user);
        let last = match self.txn.get(Table::States, &row) {
            Ok(None) => return Ok(false),
            // What it was cannot be read; what it is then is known.
            Err(StoreFault::Corrupt { .. }) => 0,
            Err(fault) => return Err(fault),
            Ok(Some(_)) => match people::state(&self.txn, user) {
                Err(StoreFault::Corrupt { .. }) => 0,
                state => state?.version(),
            },
        };
        let version = self.version_after(last);
        self.txn.remove(Table::States, row);
        let value = Writer::new().u64(version).done();
        self.txn.put(Table::Erased, key::erased_state(user), value);
        self.tell_state(user, UserState::new(version, BTreeMap::new()));
        Ok(true)
    }

    fn version_after(&self, last: u64) -> u64 {
        self.now.0.max(last.saturating_add(1))
    }

    fn tell_state(&mut self, user: &UserId, state: UserState) {
        let told = Told::State(user.clone(), Arc::new(state));
        self.told.push((self.appended.len(), told));
    }
}
