//! The embedded engine in the hands of a node: on this machine, and nobody else's.

use super::{OpenFault, Opening, Sharing, Store};
use crate::assembly::StartError;
use crate::auth::TicketKey;
use crate::config::EngineKind;
use crate::metrics::StoreLevels;
use postrider_engine::{Embedded, EmbeddedOptions, Engine, Presence};
use std::path::PathBuf;
use std::sync::Arc;

/// The engine, and where it keeps what it stores; `None` is in memory.
struct Own {
    engine: Arc<Embedded>,
    data_dir: Option<PathBuf>,
}

/// Opens it in the data directory, or in memory.
pub(super) fn open(opening: Opening<'_>) -> Result<Arc<dyn Store>, OpenFault> {
    let is_kept = opening.config.engine.kind == EngineKind::Embedded;
    let data_dir = is_kept.then(|| opening.config.data_dir.clone());
    let options = EmbeddedOptions {
        data_dir: data_dir.clone(),
        rules: opening.rules,
        clock: Arc::new(crate::now),
        on_commit: opening.on_commit,
    };
    let engine = Arc::new(Embedded::open(options).map_err(OpenFault::Directory)?);
    Ok(Arc::new(Own { engine, data_dir }))
}

impl Store for Own {
    fn engine(&self) -> Arc<dyn Engine> {
        self.engine.clone()
    }

    fn ticket_key(&self) -> Result<TicketKey, StartError> {
        let key = match &self.data_dir {
            None => TicketKey::in_memory(),
            Some(data_dir) => TicketKey::in_directory(data_dir),
        };
        key.map_err(StartError::TicketKey)
    }

    fn share(&self, _: Sharing<'_>) -> Result<Option<Arc<dyn Presence>>, StartError> {
        Ok(None)
    }

    fn failure(&self) -> Option<&'static str> {
        let why = "the store cannot be written; publishing is refused, and the log says why";
        self.engine.is_failing().then_some(why)
    }

    fn levels(&self) -> StoreLevels {
        StoreLevels {
            failing: self.engine.is_failing(),
            dead_letters: self.engine.dead_letter_count(),
            held_bytes: self.engine.held_bytes(),
            store_bytes: self.engine.file_bytes(),
        }
    }

    fn close(&self) {
        self.engine.close();
    }
}
