//! Postrider beside AWS, as far as AWS can be had on one machine, with boto3 as the producer.
//!
//! The reading order is `emulators` (whether the emulators and stand-ins do what the other tests take for granted), then
//! one file for each way of a notification, and the `siege` at last, which accounts for every message over faults.
//!
//! Where an emulator is missing a test says `NOT RUN`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a black-box test is a driver: it reads clocks and spawns"
)]

mod beyond;
mod both_ways;
mod emulators;
mod instance_queue;
mod many_nodes;
mod pusher;
mod pusher_topics;
mod queues;
mod registry;
mod siege;
mod sns;
mod sqs_long_poll;
mod stream;
mod terraform;
