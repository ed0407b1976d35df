//! A reconnect storm: every session is dropped at once, something is published while all are away, and all come back
//! with their cursors.
//!
//! Invariant: each gets what it missed exactly once, and nothing that it had before.

use crate::clock;
use crate::crowd::{Crowd, Drive};
use crate::machine::Meter;
use crate::net::Net;
use anyhow::{Result, bail};
use std::time::Duration;

/// How long a server may take to see that its sessions are gone.
const AWAY: Duration = Duration::from_millis(500);
/// What comes of itself after the last delivery, like probes, is paid for too.
const TRAIL: Duration = Duration::from_millis(2_800);
/// How long all may take to learn where they stand, and to come back.
const LIMIT: Duration = Duration::from_secs(60);

/// What a storm cost.
pub struct Storm {
    /// From the first connection to the last session that has what it missed.
    pub time: Duration,
    /// CPU for losing the sessions.
    pub losing: Duration,
    /// CPU for having them back.
    pub back: Duration,
}

/// Drops all sessions and has them back. With `missed`, the crowd's first lane publishes one to everyone meanwhile.
///
/// # Errors
/// Not all were back in time, or something was lost or repeated.
pub fn storm(net: &mut Net, crowd: &mut Crowd<'_>, meter: &Meter, missed: bool) -> Result<Storm> {
    if missed {
        crowd.sessions.keep_cursors();
        // One to everyone first: from now on each has a cursor that says more than a new session's.
        crowd.run(net, &[Drive::Burst(1)])?;
        net.run(crowd, LIMIT, "a cursor for each session", |_, crowd| {
            Ok(crowd.sessions.placed() == crowd.sessions.count())
        })?;
        crowd.rest(net, TRAIL)?;
    }
    let before = meter.cpu()?;
    crowd.sessions.drop_all(net)?;
    crowd.rest(net, AWAY)?;
    let lost = meter.cpu()?;
    if missed {
        crowd.publish(net, 1)?;
    }
    let (start, cpu) = (clock::now(), meter.cpu()?);
    crowd.reopen(net)?;
    let outcomes = crowd.run(net, &[])?;
    let end = clock::now();
    crowd.rest(net, TRAIL)?;
    let repeated: u64 = crowd.lanes.iter().map(|lane| lane.totals().repeated).sum();
    if repeated > 0 {
        bail!("{repeated} came again after the storm: {} lanes", outcomes.len());
    }
    Ok(Storm {
        time: end - start,
        losing: lost - before,
        back: meter.cpu()? - cpu,
    })
}
