//! What it costs that a client acknowledges each notification by its id, over its WebSocket, against sessions that
//! acknowledge nothing. Afterwards every inbox is asked: nothing may be pending.

use super::readback;
use super::stage::{DATA, Stage, side};
use crate::options::How;
use crate::server::{Server, users};
use anyhow::Result;
use postrider_bench_load::crowd::{Audience, Drive};
use postrider_bench_load::figures::Measured;
use postrider_bench_load::publisher::Way;
use postrider_bench_load::sessions::{Acks, Hold, Transport};
use postrider_bench_load::target::{Kind, Users};
use std::time::Duration;

const USERS: usize = 10_000;
const TIME: Duration = Duration::from_secs(2);
const IN_FLIGHT: u64 = 2_000;
const WAYS: [(&str, Acks); 3] = [
    ("no acks", Acks::None),
    ("auto", Acks::Auto),
    ("by id", Acks::ById),
];

pub fn run(how: &How, _: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(USERS)?;
    for (name, acks) in how.some(&WAYS, &[WAYS[0], WAYS[2]]) {
        side(&mut measured, how, Kind::Postrider, |measured, server| {
            one(measured, how, server, &users, name, acks)
        })?;
    }
    for audience in ["unicast", "broadcast, W = 1"] {
        for (name, _) in &WAYS[1..] {
            let cpu = |name: &str| format!("{audience}, {name}, server CPU");
            measured.add_ratio(format!("{} ÷ no acks", cpu(name)), &cpu(name), &cpu("no acks"));
        }
    }
    Ok(measured)
}

fn one(
    measured: &mut Measured,
    how: &How,
    server: &Server,
    users: &Users,
    name: &str,
    acks: Acks,
) -> Result<()> {
    let mut hold = Hold::new(Transport::WebSocket);
    hold.acks = acks;
    let mut stage = Stage::open(server, users, hold, DATA)?;
    stage.add_lane(Audience::Each(users.names.clone()), Way::Stream)?;
    let drive = Drive::Window(IN_FLIGHT, how.time(TIME));
    stage.rate(measured, &format!("unicast, {name}"), drive, "delivery")?;
    stage.add_lane(Audience::Everyone, Way::Stream)?;
    let (outcomes, cpu) = stage.run(&[Drive::Off, Drive::Window(1, how.time(TIME))])?;
    let outcome = &outcomes[1];
    let name = format!("broadcast, W = 1, {name}");
    measured.add_rate(&name, outcome.delivered, outcome.time, cpu, "delivery");
    stage.close(measured)?;
    if acks != Acks::None {
        let nothing = vec![0; users.count()];
        readback::read_all(server, users, &nothing)?;
    }
    Ok(())
}
