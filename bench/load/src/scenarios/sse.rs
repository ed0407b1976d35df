//! One notification to every event stream, against nchan.

use super::stage::{DATA, Stage, side};
use crate::options::How;
use crate::server::users;
use anyhow::Result;
use postrider_bench_load::crowd::{Audience, Drive};
use postrider_bench_load::figures::Measured;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Transport};
use postrider_bench_load::target::Kind;
use std::time::Duration;

const SESSIONS: usize = 10_000;
const WINDOWS: [u64; 2] = [1, 16];
const TIME: Duration = Duration::from_secs(2);

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(SESSIONS)?;
    for kind in how.kinds(&[Kind::Postrider, Kind::Nchan]) {
        side(&mut measured, how, kind, |measured, server| {
            let connections = WINDOWS[1] as usize;
            let way = match kind {
                Kind::Nchan => Way::Requests {
                    connections,
                    batch: 1,
                },
                _ => Way::Stream,
            };
            let mut stage = Stage::open(server, &users, Hold::new(Transport::Sse), DATA)?;
            stage.add_lane(Audience::Everyone, way)?;
            stage.crowd.sleeps = false;
            for window in WINDOWS {
                let name = format!("{}W = {window}", kind.prefix());
                let drive = Drive::Window(window, how.time(TIME));
                stage.rate(measured, &name, drive, "delivery")?;
            }
            stage.close(measured)
        })?;
    }
    for window in WINDOWS {
        let name = format!("W = {window}, server CPU");
        measured.add_ratio(format!("{name} ÷ nchan"), &name, &format!("nchan, {name}"));
    }
    Ok(measured)
}
