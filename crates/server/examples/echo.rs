//! A node for conformance suites of WebSocket: the product's front, TLS, tokens, loop, decoder and frames, but what a
//! client says in text comes back to it, and nothing is said unasked (the feature `echo` of `postrider-transports`).
//!
//! Takes `serve --config FILE` and prints the JSON ready line, as `postrider` does; SIGTERM ends it.

#![allow(clippy::print_stdout, reason = "the ready line is read by whoever started it")]

use postrider_server::Node;
use postrider_server::config::{Given, load};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let files = arguments.windows(2).filter(|pair| pair[0] == "--config");
    let given = Given {
        files: files.map(|pair| pair[1].clone().into()).collect(),
        ..Given::default()
    };
    let loaded = load(&given).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let node = Node::start(loaded.config, None, runtime.handle().clone())?;
    println!(
        r#"{{"event":"ready","http":"{}","ops":"{}"}}"#,
        node.http(),
        node.ops()
    );
    runtime.block_on(async {
        terminate.recv().await;
        node.drain().await;
    });
    Ok(())
}
