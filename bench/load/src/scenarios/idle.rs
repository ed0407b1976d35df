//! What a session at rest costs: resident bytes of the process, and CPU while nothing happens. At the end one
//! notification to everyone shows that every session is alive.

use super::stage::{Stage, side};
use crate::options::How;
use crate::server::{Server, users};
use anyhow::Result;
use postrider_bench_load::clock;
use postrider_bench_load::crowd::{Audience, Drive};
use postrider_bench_load::figures::{Measured, micros_each};
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Transport};
use postrider_bench_load::target::{Kind, Users};
use std::time::Duration;

const USERS: usize = 10_000;
const DATA: usize = 100;
/// Rest before memory is looked at: a server may let go of what it needed to open sessions.
const QUIET: Duration = Duration::from_secs(4);
/// How long CPU is watched; in the first run only, as it hardly varies.
const WATCHED: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_secs(1);

pub fn run(how: &How, nth: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(USERS)?;
    let sides = [
        (Kind::Postrider, Transport::LongPoll),
        (Kind::Postrider, Transport::Sse),
        (Kind::Postrider, Transport::WebSocket),
        (Kind::Floor, Transport::WebSocket),
        (Kind::Nchan, Transport::Sse),
        (Kind::Nchan, Transport::WebSocket),
        (Kind::Nats, Transport::WebSocket),
    ];
    for (kind, transport) in how.some(&sides, &sides[2..3]) {
        let watched = (nth == 0 && kind == Kind::Postrider).then(|| how.time(WATCHED));
        side(&mut measured, how, kind, |measured, server| {
            one(measured, how, server, transport, &users, watched)
        })?;
    }
    for other in ["floor", "nchan", "nats"] {
        let of = "WebSocket, memory";
        measured.add_ratio(format!("{of} ÷ {other}"), of, &format!("{other}, {of}"));
    }
    Ok(measured)
}

fn one(
    measured: &mut Measured,
    how: &How,
    server: &Server,
    transport: Transport,
    users: &Users,
    watched: Option<Duration>,
) -> Result<()> {
    let kind = server.target.kind;
    let name = format!("{}{}", kind.prefix(), transport.name());
    clock::pause(SETTLE);
    let (before, start, cpu) = (server.meter.resident()?, clock::now(), server.meter.cpu()?);
    let mut stage = Stage::open(server, users, Hold::new(transport), DATA)?;
    let rate = users.count() as f64 / start.elapsed().as_secs_f64();
    measured.add(format!("{name}, opened"), rate, "sessions/s");
    let each = micros_each(server.meter.cpu()? - cpu, users.count() as u64);
    measured.add(format!("{name}, opening, server CPU"), each, "µs/session");
    stage.crowd.rest(&mut stage.net, how.time(QUIET))?;
    let grown = server.meter.resident()?.saturating_sub(before);
    let each = grown as f64 / users.count() as f64;
    measured.add(format!("{name}, memory"), each, "bytes/session");
    if let Some(time) = watched {
        let cpu = server.meter.cpu()?;
        stage.crowd.rest(&mut stage.net, time)?;
        let share = (server.meter.cpu()? - cpu).as_secs_f64() / time.as_secs_f64();
        measured.add(format!("{name}, CPU at rest"), share * 100.0, "% of a core");
    }
    let way = match kind {
        Kind::Nchan => Way::Requests {
            connections: 1,
            batch: 1,
        },
        _ => Way::Stream,
    };
    stage.add_lane(Audience::Everyone, way)?;
    stage.crowd.run(&mut stage.net, &[Drive::Burst(1)])?;
    stage.close(measured)
}
