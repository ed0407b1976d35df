//! A hundred notifications for each user are stored while nobody is connected; then all come and read.

use super::stage::{TAG, side};
use crate::options::How;
use crate::server::users;
use anyhow::Result;
use postrider_bench_load::drain::Backlog;
use postrider_bench_load::figures::Measured;
use postrider_bench_load::payload::Payload;
use postrider_bench_load::target::Kind;

const USERS: usize = 10_000;
const EACH: u64 = 100;
const DATA: usize = 200;
/// How many read at a time; fewer in the first run only, as it varies little.
const MANY: usize = 1_000;
const FEW: usize = 100;

pub fn run(how: &How, nth: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let users = users(if how.short { USERS / 10 } else { USERS })?;
    let payload = Payload::new(DATA, TAG);
    let few = (nth == 0 && !how.short).then_some(FEW);
    for readers in [MANY].into_iter().chain(few) {
        side(&mut measured, how, Kind::Postrider, |measured, server| {
            let backlog = Backlog {
                target: &server.target,
                users: &users,
                payload: &payload,
                each: EACH,
            };
            let before = server.meter.cpu()?;
            let time = backlog.store()?;
            let cpu = server.meter.cpu()?;
            if readers == MANY {
                let total = users.count() as u64 * EACH;
                let name = "stored by one NDJSON stream";
                measured.add_rate(name, total, time, cpu - before, "notification");
            }
            let drained = backlog.read(readers)?;
            let used = server.meter.cpu()? - cpu;
            let name = format!("{readers} at a time");
            measured.add_rate(&name, drained.totals.delivered, drained.time, used, "entry");
            let memory = server.meter.resident()? as f64 / 1e6;
            measured.add(format!("{name}, resident memory after it"), memory, "MB");
            measured.totals.add(drained.totals);
            Ok(())
        })?;
    }
    Ok(measured)
}
