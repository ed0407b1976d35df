//! Whether Redis takes what is to be kept, and keeps it as the operator chose: what is known of that while a node runs.
//!
//! What always holds: nothing is answered as kept that a server's settings were seen to lose. A server that was not met
//! before is looked at before anything is committed to it, and all are looked at again every [`STEPS`], as a running one
//! can be told to be another. What each said last counts, until it answers again or is no master any more: one that is
//! away says nothing of the others. What Redis refused for its state (it is full, it cannot write to its disk) counts as
//! refused until it takes something again, which is tried here: nobody publishes to nodes that say they are not ready.
//!
//! It decides nothing of what is stored, and changes no setting.

use super::checkup::{self, Server, Wanted};
use super::links::{Cell, LinkFault};
use super::store::{RedisStore, locked};
use crate::embedded::store::StoreFault;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// Every so many steps of [`Watch`](super::watch::Watch), which takes a second, the settings are looked at.
pub(super) const STEPS: u32 = 10;
/// For how long the key stays by which it is tried whether something is taken.
const TRIAL_MS: u32 = 1_000;
/// What a server says when its state, and not what was asked, is why it refuses. The next write fares alike.
const STATES: [&str; 2] = ["OOM", "MISCONF"];

/// Why nothing that is to be kept is taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// By its settings Redis would lose or forget what is accepted: which, for the operator and for who publishes.
    Unsafe(String),
    /// Redis has no memory left.
    Full(String),
    /// Redis refuses writes for another state that it is in.
    Refusing(String),
}

impl Trouble {
    /// What is so, as part of a sentence.
    pub fn detail(&self) -> &str {
        match self {
            Trouble::Unsafe(detail) | Trouble::Full(detail) | Trouble::Refusing(detail) => detail,
        }
    }
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// What each master said last of its settings, by its address.
    servers: Mutex<BTreeMap<String, Server>>,
    /// What was promised and does not hold.
    broken: Mutex<Option<Trouble>>,
    /// What Redis refused last for its state.
    refused: Mutex<Option<Trouble>>,
}

/// What a refusal says of the server's state; `None` where it is about what was asked.
pub(super) fn state_of(fault: &LinkFault) -> Option<Trouble> {
    match fault {
        LinkFault::Refused { code, .. } if code == "OOM" => Some(Trouble::Full(
            "Redis is out of memory (maxmemory), and nothing was written".into(),
        )),
        LinkFault::Refused { code, .. } if STATES.contains(&code.as_str()) => {
            Some(Trouble::Refusing(format!("{fault}, and nothing was written")))
        }
        _ => None,
    }
}

impl RedisStore {
    /// Why nothing that is to be kept is taken now, if that is so.
    pub fn trouble(&self) -> Option<Trouble> {
        let standing = &self.inner.standing;
        let broken = locked(&standing.broken).clone();
        broken.or_else(|| locked(&standing.refused).clone())
    }

    /// Fails while Redis would not keep what it is given as it was chosen.
    pub(super) fn keeps_its_promise(&self) -> Result<(), StoreFault> {
        match &*locked(&self.inner.standing.broken) {
            None => Ok(()),
            Some(trouble) => Err(StoreFault::Unready(trouble.detail().to_owned())),
        }
    }

    /// Asks every master whether it still is what was chosen. Fails where one does not answer; what the others said is
    /// noted all the same.
    pub(super) async fn look_at_settings(&self) -> Result<(), LinkFault> {
        let wanted = Wanted {
            durability: self.options().durability,
            cluster: self.links().is_cluster(),
        };
        let told = checkup::settings(self.links()).await;
        let mut silent = None;
        let mut servers = locked(&self.inner.standing.servers);
        servers.retain(|address, _| told.contains_key(address));
        for (address, told) in told {
            match told {
                Ok(server) => _ = servers.insert(address, server),
                Err(fault) => silent = Some(fault),
            }
        }
        let said: Vec<Server> = servers.values().cloned().collect();
        let broken = checkup::broken(&said, wanted);
        let mut known = locked(&self.inner.standing.broken);
        match (&broken, &*known) {
            (Some(finding), None) => {
                let mend = finding.mend.as_deref().unwrap_or_default();
                tracing::error!(
                    detail = finding.detail,
                    mend,
                    "Redis would lose what it is given; publishing is refused"
                );
            }
            (None, Some(_)) => tracing::info!("Redis is again what was chosen; publishing goes on"),
            _ => {}
        }
        *known = broken.map(|finding| Trouble::Unsafe(finding.detail));
        silent.map_or(Ok(()), Err)
    }

    /// Notes what a refusal says of the state that a server is in.
    pub(super) fn note_state(&self, fault: &LinkFault) {
        let Some(trouble) = state_of(fault) else { return };
        let mut known = locked(&self.inner.standing.refused);
        if known.is_none() {
            tracing::error!(
                detail = trouble.detail(),
                "publishing is refused until Redis takes what it is given"
            );
        }
        *known = Some(trouble);
    }

    /// Where something was refused for the state of a server: whether all of them take something now. One that is away
    /// refuses nothing; whoever writes to it finds out what it does when it is back.
    pub(super) async fn try_again(&self) {
        if locked(&self.inner.standing.refused).is_none() {
            return;
        }
        let servers: BTreeMap<u64, Cell> = Cell::all()
            .map(|cell| (self.links().server_of(cell), cell))
            .collect();
        let mut takes = false;
        for cell in servers.into_values() {
            let mut command = redis::cmd("SET");
            command.arg(cell.key("touch")).arg(1).arg("PX").arg(TRIAL_MS);
            match self.links().command(cell, command).await {
                Ok(_) => takes = true,
                Err(fault) if state_of(&fault).is_some() => return self.note_state(&fault),
                Err(fault) => tracing::debug!(%fault, "a server cannot be asked whether it takes anything"),
            }
        }
        if takes {
            *locked(&self.inner.standing.refused) = None;
            tracing::info!("Redis takes what it is given again");
        }
    }
}
