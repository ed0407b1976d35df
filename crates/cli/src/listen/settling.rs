//! Acknowledging what has been written out, where the wire does not do it by itself.

use super::recent::Recent;
use super::{Ack, Transport};
use crate::client::Call;
use crate::exit::Failure;
use crate::output::counted;
use serde_json::json;

/// Ids of one request.
const IDS_AT_ONCE: usize = 500;
/// Ids that wait for a node that is away; older ones are let go, since they come again.
const IDS_MOST: usize = 5000;

/// What is to be acknowledged.
pub struct Settling {
    call: Call,
    how: How,
    /// What was settled by this program, and nobody else.
    own: Recent,
}

enum How {
    /// By id, once it is written out.
    Ids(Vec<String>),
    /// The next poll does it; after the last one, a request.
    LastCursor(Option<String>),
    /// Somebody else does, or nobody.
    Not,
}

impl Settling {
    /// As the arguments say.
    pub fn new(call: Call, ack: Ack, transport: Transport) -> Settling {
        let how = match (ack, transport) {
            (Ack::Explicit, _) => How::Ids(Vec::new()),
            (Ack::Auto, Transport::LongPoll) => How::LastCursor(None),
            _ => How::Not,
        };
        Settling {
            call,
            how,
            own: Recent::default(),
        }
    }

    /// It has been written out.
    pub fn written(&mut self, id: &str) {
        if let How::Ids(ids) = &mut self.how {
            ids.push(id.to_owned());
            if ids.len() > IDS_MOST {
                ids.drain(..IDS_AT_ONCE);
            }
        }
    }

    /// Whether this program acknowledged it first: what is for the first device is then its own.
    pub fn took(&self, id: &str) -> bool {
        self.own.has(id)
    }

    /// Everything up to here has been written out.
    pub fn cursor(&mut self, cursor: &str) {
        if let How::LastCursor(last) = &mut self.how {
            *last = Some(cursor.to_owned());
        }
    }

    /// Whether so many wait that it is time to acknowledge them.
    pub fn is_due(&self) -> bool {
        matches!(&self.how, How::Ids(ids) if ids.len() >= IDS_AT_ONCE)
    }

    /// Acknowledges what is there; what the node does not take now waits.
    pub fn settle(&mut self) -> Result<(), Failure> {
        let How::Ids(ids) = &mut self.how else {
            return Ok(());
        };
        while !ids.is_empty() {
            let some = ids.len().min(IDS_AT_ONCE);
            let answer = self
                .call
                .send("POST", "/v1/inbox/ack", &json!({"ids": ids[..some]}))?;
            // Where fewer were settled, somebody else was first with some of them.
            let all_own = answer["settled"].as_u64() == Some(some as u64);
            for id in ids.drain(..some).filter(|_| all_own) {
                self.own.repeats(&id, false);
            }
        }
        Ok(())
    }

    /// The last acknowledgement of all.
    pub fn finish(&mut self) -> Result<(), Failure> {
        if let How::LastCursor(Some(cursor)) = &self.how {
            let told = "what was shown last could not be acknowledged, and comes again";
            let answer = self
                .call
                .send("POST", "/v1/inbox/ack", &json!({"cursor": cursor}));
            return answer.map(drop).map_err(|failure| failure.context(told));
        }
        let settled = self.settle();
        let left = match &self.how {
            How::Ids(ids) => ids.len() as u64,
            _ => 0,
        };
        settled.map_err(|failure| {
            failure.context(format!(
                "{} could not be acknowledged, and come again",
                counted(left, "notification")
            ))
        })
    }
}
