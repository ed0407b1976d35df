//! What stands at a position of a feed.

use super::record::WHOLE;
use super::{Reader, Writer};
use crate::embedded::StoreFault;
use postrider_model::{Epoch, NotificationId, SessionId, WithdrawReason};

/// What is stored at a position of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct EntryRecord {
    pub epoch: Epoch,
    pub kind: EntryKindRecord,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) enum EntryKindRecord {
    Notification {
        id: NotificationId,
        withdrawn: Option<WithdrawReason>,
    },
    Read {
        ids: Vec<NotificationId>,
        origin: Option<SessionId>,
    },
    Withdrawn {
        id: NotificationId,
        target: u64,
        reason: WithdrawReason,
        origin: Option<SessionId>,
    },
}

impl EntryRecord {
    pub fn encode(&self) -> Vec<u8> {
        let out = Writer::new().u32(self.epoch.0);
        match &self.kind {
            EntryKindRecord::Notification { id, withdrawn } => out
                .u8(1)
                .u8(withdrawn.map_or(0, |reason| reason as u8))
                .text(id.as_str()),
            EntryKindRecord::Read { ids, origin } => out
                .u8(2)
                .option(origin.as_ref(), |out, session| out.text(session.as_str()))
                .list(ids, |out, id| out.text(id.as_str())),
            EntryKindRecord::Withdrawn {
                id,
                target,
                reason,
                origin,
            } => out
                .u8(3)
                .u8(*reason as u8)
                .u64(*target)
                .text(id.as_str())
                .option(origin.as_ref(), |out, session| out.text(session.as_str())),
        }
        .done()
    }

    pub fn decode(value: &[u8]) -> Result<EntryRecord, StoreFault> {
        let mut r = Reader::new("entries", value)?;
        let epoch = Epoch(r.u32()?);
        let kind = match r.u8()? {
            1 => EntryKindRecord::Notification {
                withdrawn: r.reason()?,
                id: r.id(NotificationId::new)?,
            },
            2 => EntryKindRecord::Read {
                origin: r.option(|r| r.id(SessionId::new))?,
                ids: r.list(|r| r.id(NotificationId::new))?,
            },
            3 => {
                let reason = r.reason()?.ok_or_else(|| r.corrupt("no reason"))?;
                EntryKindRecord::Withdrawn {
                    reason,
                    target: r.u64()?,
                    id: r.id(NotificationId::new)?,
                    origin: match r.version() {
                        1 => None,
                        _ => r.option(|r| r.id(SessionId::new))?,
                    },
                }
            }
            // Whatever else stands in it, it stands for this.
            WHOLE => {
                let id = r.id(NotificationId::new)?;
                let kind = EntryKindRecord::Notification { id, withdrawn: None };
                return Ok(EntryRecord { epoch, kind });
            }
            _ => return Err(r.corrupt("unknown kind of entry")),
        };
        r.end(EntryRecord { epoch, kind })
    }
}
