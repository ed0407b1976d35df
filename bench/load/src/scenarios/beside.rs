//! How long a notification to one user takes while another one is on its way to everyone, all the time.

use super::stage::{DATA, Stage, add_quantiles, side};
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
/// Who gets the notifications to one user. They hear the broadcast as all do, and the load reads them before the others:
/// with ten thousand sockets to read it is behind now and then, which is not the server's doing.
const WATCHED: usize = 1_000;
const RATE: f64 = 500.0;
const TIME: Duration = Duration::from_secs(4);
const REQUESTS: Way = Way::Requests {
    connections: 64,
    batch: 1,
};

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(SESSIONS)?;
    side(&mut measured, how, Kind::Postrider, |measured, server| {
        let hold = Hold::new(Transport::WebSocket);
        let mut stage = Stage::open_some_first(server, &users, hold, DATA, WATCHED)?;
        stage.add_lane(Audience::Each(users.names[..WATCHED].to_vec()), REQUESTS)?;
        stage.add_lane(Audience::Everyone, Way::Stream)?;
        let time = how.time(TIME);
        let steady = 50_000.0 / users.count() as f64;
        for (name, broadcast) in [
            ("alone", Drive::Off),
            ("beside 50,000 deliveries/s", Drive::Rate(steady, time)),
            ("beside W = 1", Drive::Window(1, time)),
        ] {
            let (outcomes, _) = stage.run(&[Drive::Rate(RATE, time), broadcast])?;
            add_quantiles(measured, name, &outcomes[0].took);
            if broadcast != Drive::Off {
                let rate = outcomes[1].delivered as f64 / outcomes[1].time.as_secs_f64();
                measured.add(format!("{name}, the broadcast"), rate, "deliveries/s");
            }
        }
        stage.close(measured)
    })?;
    for name in ["beside 50,000 deliveries/s", "beside W = 1"] {
        measured.add_ratio(
            format!("{name}, p99 ÷ alone"),
            &format!("{name}, p99"),
            "alone, p99",
        );
    }
    Ok(measured)
}
