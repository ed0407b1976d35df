//! From publish to receive: each notification is one HTTP request to one connected user, at a steady rate. Its time
//! counts from the moment its publish was due.

use super::stage::{Stage, side};
use crate::options::How;
use crate::server::users;
use anyhow::Result;
use postrider_bench_load::crowd::{Audience, Drive};
use postrider_bench_load::figures::Measured;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Hold, Transport};
use postrider_bench_load::target::Kind;
use std::time::Duration;

const USERS: usize = 1_000;
const DATA: usize = 200;
const RATES: [f64; 2] = [200.0, 2_000.0];
const TIME: Duration = Duration::from_secs(3);
/// Connections that publish.
const REQUESTS: Way = Way::Requests {
    connections: 64,
    batch: 1,
};

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(USERS)?;
    for transport in Transport::ALL {
        side(&mut measured, how, Kind::Postrider, |measured, server| {
            let mut stage = Stage::open(server, &users, Hold::new(transport), DATA)?;
            stage.add_lane(Audience::Each(users.names.clone()), REQUESTS)?;
            // Each connection's first request says what the key may do; that is not measured.
            stage.run(&[Drive::Burst(64)])?;
            for rate in RATES {
                let name = format!("{}, {rate}/s", transport.name());
                let time = how.time(TIME);
                stage.steady(measured, &name, rate, time, "notification")?;
            }
            stage.close(measured)
        })?;
    }
    Ok(measured)
}
