//! A dead letter as it is stored.

use super::{Reader, VERSION, Writer};
use crate::embedded::StoreFault;
use bytes::Bytes;
use postrider_model::{DeadReason, NotificationId, Timestamp, UserId};

/// The version of one with a detail.
const LETTER_VERSION: u8 = 4;

/// What is stored of a dead letter; a notification's body stays with the notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::embedded) struct LetterRecord {
    pub notification: Option<NotificationId>,
    pub user: Option<UserId>,
    pub reason: DeadReason,
    pub source: String,
    pub attempts: u32,
    pub time: Timestamp,
    pub raw: Option<Bytes>,
    pub detail: Option<String>,
}

impl LetterRecord {
    pub fn encode(&self) -> Vec<u8> {
        let version = match self.detail {
            None => VERSION,
            Some(_) => LETTER_VERSION,
        };
        let out = Writer::of_version(version)
            .option(self.notification.as_ref(), |out, id| out.text(id.as_str()))
            .option(self.user.as_ref(), |out, user| out.text(user.as_str()))
            .u8(self.reason as u8)
            .text(&self.source)
            .u32(self.attempts)
            .u64(self.time.0)
            .option(self.raw.as_ref(), |out, raw| out.bytes(raw));
        match &self.detail {
            None => out.done(),
            Some(detail) => out.text(detail).done(),
        }
    }

    pub fn decode(value: &[u8]) -> Result<LetterRecord, StoreFault> {
        let mut r = Reader::up_to(LETTER_VERSION, "letters", value)?;
        let letter = LetterRecord {
            notification: r.option(|r| r.id(NotificationId::new))?,
            user: r.option(|r| r.id(UserId::new))?,
            reason: DeadReason::from_byte(r.u8()?).ok_or_else(|| r.corrupt("unknown reason"))?,
            source: r.text()?.to_owned(),
            attempts: r.u32()?,
            time: Timestamp(r.u64()?),
            raw: r.option(|r| r.bytes().map(Bytes::copy_from_slice))?,
            detail: match r.version() {
                LETTER_VERSION => Some(r.text()?.to_owned()),
                _ => None,
            },
        };
        r.end(letter)
    }
}
