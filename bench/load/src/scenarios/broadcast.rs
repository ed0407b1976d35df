//! One notification to every session, with a number of publications in flight: one is in flight until every session
//! has it. Ours are stored, synced and acknowledged (the load answers pings, as browsers do); beside it, in the
//! same run, the floor, which only copies bytes to sockets, and the peers.
//!
//! Then at a steady rate, where there is nothing to gather: a delivery's time counts from when its publish was due.

use super::stage::{DATA, Stage, side};
use crate::options::How;
use crate::server::{Server, users};
use anyhow::Result;
use postrider_bench_load::crowd::{Audience, Drive};
use postrider_bench_load::figures::Measured;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Transport};
use postrider_bench_load::target::{Kind, Users};
use std::time::Duration;

const SESSIONS: usize = 10_000;
const WINDOWS: [u64; 4] = [1, 4, 16, 64];
/// Those of peers, and of a short measurement.
const FEW: [u64; 2] = [1, 16];
const TIME: Duration = Duration::from_secs(2);
/// Deliveries a second where the rate is steady.
const STEADY: f64 = 50_000.0;
const STEADY_TIME: Duration = Duration::from_secs(4);

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(SESSIONS)?;
    for kind in how.kinds(&[Kind::Postrider, Kind::Floor, Kind::Nchan, Kind::Nats]) {
        side(&mut measured, how, kind, |measured, server| {
            one(measured, how, server, &users)
        })?;
    }
    for window in WINDOWS {
        let name = format!("W = {window}, server CPU");
        for other in ["floor", "nchan", "nats"] {
            measured.add_ratio(format!("{name} ÷ {other}"), &name, &format!("{other}, {name}"));
        }
    }
    let name = "50,000/s, server CPU";
    for other in ["floor", "nchan", "nats"] {
        measured.add_ratio(format!("{name} ÷ {other}"), name, &format!("{other}, {name}"));
    }
    Ok(measured)
}

fn one(measured: &mut Measured, how: &How, server: &Server, users: &Users) -> Result<()> {
    let kind = server.target.kind;
    let (windows, way) = match kind {
        Kind::Nchan => {
            let connections = 16;
            (
                FEW.to_vec(),
                Way::Requests {
                    connections,
                    batch: 1,
                },
            )
        }
        Kind::Nats => (FEW.to_vec(), Way::Stream),
        _ => (how.some(&WINDOWS, &FEW), Way::Stream),
    };
    let mut stage = Stage::open(server, users, Hold::new(Transport::WebSocket), DATA)?;
    stage.add_lane(Audience::Everyone, way)?;
    stage.crowd.sleeps = false;
    for window in windows {
        let name = format!("{}W = {window}", kind.prefix());
        let drive = Drive::Window(window, how.time(TIME));
        stage.rate(measured, &name, drive, "delivery")?;
    }
    let name = format!("{}50,000/s", kind.prefix());
    let rate = STEADY / users.count() as f64;
    stage.steady(measured, &name, rate, how.time(STEADY_TIME), "delivery")?;
    stage.close(measured)
}
