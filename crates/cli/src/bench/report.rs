//! What was found, as text, JSON and a picture.

use super::node::Site;
use super::work::Found;
use crate::exit::Failure;
use anyhow::Context as _;
use postrider_bench_load::figures::show;
use postrider_bench_load::svg;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The quantiles that are told, with their names in JSON.
const SHARES: [(&str, &str, f64); 4] = [
    ("p50", "p50", 0.5),
    ("p90", "p90", 0.9),
    ("p99", "p99", 0.99),
    ("p99.9", "p99_9", 0.999),
];

/// Prints one scenario's result for people.
pub fn print(found: &Found) {
    let per_second = found.count as f64 / found.time.as_secs_f64();
    println!(
        "{:<9} {} {} in {:.2} s, {}/s",
        found.scenario.name(),
        show(found.count as f64),
        found.what,
        found.time.as_secs_f64(),
        show(per_second)
    );
    if found.took.count() > 0 {
        let took: Vec<_> = SHARES
            .iter()
            .map(|(label, _, share)| format!("{label} {}", show(found.took.quantile_ms(*share))))
            .collect();
        println!(
            "          {} longest {} ms",
            took.join(" "),
            show(found.took.max_ms())
        );
    }
    let mut costs = Vec::new();
    costs.extend(
        found
            .cpu
            .map(|cpu| format!("{} µs of the node's CPU each", show(cpu))),
    );
    costs.extend(
        found
            .memory
            .map(|bytes| format!("{} bytes of its memory each", show(bytes))),
    );
    if !costs.is_empty() {
        println!("          {}", costs.join(", "));
    }
    let totals = &found.totals;
    if totals.delivered > 0 {
        println!(
            "          {} deliveries checked: {} lost, {} out of order, {} repeated",
            totals.delivered, totals.lost, totals.reordered, totals.repeated
        );
    }
}

/// All results in one line.
pub fn json(site: &Site, results: &[Found]) -> Value {
    json!({
        "url": site.url,
        "users": site.users.count(),
        "results": results.iter().map(one).collect::<Vec<_>>(),
    })
}

fn one(found: &Found) -> Value {
    let mut latency = Map::new();
    if found.took.count() > 0 {
        for (_, name, share) in SHARES {
            latency.insert(name.into(), found.took.quantile_ms(share).into());
        }
        latency.insert("max".into(), found.took.max_ms().into());
    }
    json!({
        "scenario": found.scenario.name(),
        "count": found.count,
        "of": found.what,
        "seconds": found.time.as_secs_f64(),
        "per_second": found.count as f64 / found.time.as_secs_f64(),
        "latency_ms": latency,
        "server_cpu_us": found.cpu,
        "bytes_per_session": found.memory,
        "deliveries": found.totals,
    })
}

/// Draws how long things took.
pub fn draw(file: &Path, results: &[Found]) -> Result<(), Failure> {
    let series: Vec<_> = results
        .iter()
        .map(|found| (found.scenario.name(), found.took.clone()))
        .collect();
    let text = svg::draw("postrider bench: how long it took", &series);
    std::fs::write(file, text).with_context(|| file.display().to_string())?;
    Ok(())
}
