//! All sockets drop, one notification to everyone is published, and all come back: ours resume, each with its own
//! cursor, and get what they missed exactly once. nchan's come back to a channel and are told nothing.

use super::stage::{DATA, Stage, side};
use crate::options::How;
use crate::server::users;
use anyhow::Result;
use postrider_bench_load::crowd::Audience;
use postrider_bench_load::figures::Measured;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Transport};
use postrider_bench_load::storm::storm;
use postrider_bench_load::target::Kind;

const SESSIONS: usize = 10_000;
/// Connections that are being opened at a time: more than usual, and still fewer than a backlog.
const OPENING: usize = 256;

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(SESSIONS)?;
    for kind in how.kinds(&[Kind::Postrider, Kind::Nchan]) {
        side(&mut measured, how, kind, |measured, server| {
            let mut hold = Hold::new(Transport::WebSocket);
            hold.opening = OPENING;
            let mut stage = Stage::open(server, &users, hold, DATA)?;
            let resumes = kind == Kind::Postrider;
            if resumes {
                stage.add_lane(Audience::Everyone, Way::Stream)?;
            }
            let cost = storm(&mut stage.net, &mut stage.crowd, &server.meter, resumes)?;
            let prefix = kind.prefix();
            measured.add(format!("{prefix}all back in"), cost.time.as_secs_f64(), "s");
            let (losing, back) = (cost.losing.as_secs_f64(), cost.back.as_secs_f64());
            measured.add(format!("{prefix}losing them, server CPU"), losing, "s");
            measured.add(format!("{prefix}having them back, server CPU"), back, "s");
            measured.add(format!("{prefix}storm, server CPU"), losing + back, "s");
            stage.close(measured)
        })?;
    }
    for name in ["having them back, server CPU", "storm, server CPU"] {
        measured.add_ratio(format!("{name} ÷ nchan"), name, &format!("nchan, {name}"));
    }
    Ok(measured)
}
