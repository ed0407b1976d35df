//! The store with [`Hot`] beside it: the one way by which rows change, so that nothing that changes is overlooked.

use super::Hot;
use crate::embedded::StoreFault;
use crate::embedded::store::{Batch, Store, View};
use std::sync::Arc;

/// A store whose commits are followed.
pub(in crate::embedded) struct Watched {
    store: Arc<dyn Store>,
    hot: Arc<Hot>,
}

impl Watched {
    pub fn new(store: Arc<dyn Store>, hot: Arc<Hot>) -> Watched {
        Watched { store, hot }
    }
}

impl Store for Watched {
    fn view(&self) -> Result<Box<dyn View + '_>, StoreFault> {
        self.store.view()
    }

    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreFault> {
        let touched = self.hot.begin(batch);
        let outcome = self.store.commit(batch, sync);
        self.hot.end(&touched, batch, outcome.is_ok());
        outcome
    }

    fn live_bytes(&self) -> u64 {
        self.store.live_bytes()
    }

    fn file_bytes(&self) -> u64 {
        self.store.file_bytes()
    }
}
