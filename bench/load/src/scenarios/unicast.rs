//! Each notification goes to one of 10,000 connected users, each with a feed of their own: published over one stream,
//! in arrays, and by a request for each. The floor is fed by one stream; nchan by requests, the same number in
//! flight; nats-server by its own protocol over TCP.

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
/// Publications of a stream, or of all arrays, that are not delivered yet.
const IN_FLIGHT: u64 = 8_000;
const TIME: Duration = Duration::from_secs(2);
const STEADY: f64 = 2_000.0;
const STEADY_TIME: Duration = Duration::from_secs(4);
/// Connections that publish, one notification in a request.
const REQUESTS: Way = Way::Requests {
    connections: 256,
    batch: 1,
};
const ARRAYS: Way = Way::Requests {
    connections: 16,
    batch: 100,
};

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(USERS)?;
    for kind in how.kinds(&[Kind::Postrider, Kind::Floor, Kind::Nchan, Kind::Nats]) {
        let ways: &[(&str, Way)] = match kind {
            Kind::Postrider => &[
                ("requests", REQUESTS),
                ("stream", Way::Stream),
                ("arrays of 100", ARRAYS),
            ],
            Kind::Nchan => &[("requests", REQUESTS)],
            Kind::Floor | Kind::Nats => &[("stream", Way::Stream)],
        };
        side(&mut measured, how, kind, |measured, server| {
            one(measured, how, server, &users, ways)
        })?;
    }
    for (name, other) in [
        ("stream", "floor, stream"),
        ("arrays of 100", "floor, stream"),
        ("requests", "nchan, requests"),
        ("stream", "nats, stream"),
    ] {
        let cpu = |name: &str| format!("{name}, server CPU");
        let peer = other.split(',').next().unwrap_or_default();
        measured.add_ratio(format!("{} ÷ {peer}", cpu(name)), &cpu(name), &cpu(other));
    }
    Ok(measured)
}

fn one(
    measured: &mut Measured,
    how: &How,
    server: &Server,
    users: &Users,
    ways: &[(&str, Way)],
) -> Result<()> {
    let prefix = server.target.kind.prefix();
    let hold = Hold::new(Transport::WebSocket).own();
    let mut stage = Stage::open(server, users, hold, DATA)?;
    for (nth, (name, way)) in ways.iter().enumerate() {
        stage.add_lane(Audience::Each(users.names.clone()), *way)?;
        // Earlier lanes rest: the last one is driven.
        let drive = |drive| {
            let mut drives = vec![Drive::Off; nth];
            drives.push(drive);
            drives
        };
        let (outcomes, cpu) = stage.run(&drive(Drive::Window(IN_FLIGHT, how.time(TIME))))?;
        let outcome = &outcomes[nth];
        let name = format!("{prefix}{name}");
        measured.add_rate(&name, outcome.delivered, outcome.time, cpu, "notification");
        if nth == 0 {
            let name = format!("{name}, 2,000/s");
            stage.steady(measured, &name, STEADY, how.time(STEADY_TIME), "notification")?;
        }
    }
    stage.close(measured)
}
