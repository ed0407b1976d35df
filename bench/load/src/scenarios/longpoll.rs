//! Long polls, each over a connection that is kept. A cycle is one notification delivered and the next poll, with the
//! cursor that came with it: in rounds to everyone, and to one user each, as fast as it goes and at a steady rate.

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

const USERS: usize = 10_000;
const TIME: Duration = Duration::from_secs(2);
const STEADY: f64 = 1_000.0;
const STEADY_TIME: Duration = Duration::from_secs(4);
/// Publications to one user each that are not delivered yet.
const IN_FLIGHT: u64 = 2_000;
const REQUESTS: Way = Way::Requests {
    connections: 256,
    batch: 1,
};
const ONE: Way = Way::Requests {
    connections: 1,
    batch: 1,
};

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(USERS)?;
    for kind in how.kinds(&[Kind::Postrider, Kind::Nchan]) {
        side(&mut measured, how, kind, |measured, server| {
            rounds(measured, how, server, &users)?;
            each(measured, how, server, &users)
        })?;
    }
    for name in ["rounds, server CPU", "to one each, server CPU"] {
        measured.add_ratio(format!("{name} ÷ nchan"), name, &format!("nchan, {name}"));
    }
    Ok(measured)
}

/// One notification to everyone a round.
fn rounds(measured: &mut Measured, how: &How, server: &Server, users: &Users) -> Result<()> {
    let mut stage = Stage::open(server, users, Hold::new(Transport::LongPoll), DATA)?;
    stage.add_lane(Audience::Everyone, ONE)?;
    let name = format!("{}rounds", server.target.kind.prefix());
    stage.rate(measured, &name, Drive::Window(1, how.time(TIME)), "cycle")?;
    stage.close(measured)
}

/// To one user each, which for nchan are other channels.
fn each(measured: &mut Measured, how: &How, server: &Server, users: &Users) -> Result<()> {
    let mut stage = Stage::open(server, users, Hold::new(Transport::LongPoll).own(), DATA)?;
    stage.add_lane(Audience::Each(users.names.clone()), REQUESTS)?;
    let name = format!("{}to one each", server.target.kind.prefix());
    let drive = Drive::Window(IN_FLIGHT, how.time(TIME));
    stage.rate(measured, &name, drive, "cycle")?;
    let name = format!("{name}, 1,000/s");
    stage.steady(measured, &name, STEADY, how.time(STEADY_TIME), "cycle")?;
    stage.close(measured)
}
