//! What the connection plane counts, for whoever publishes metrics.

use postrider_model::{SettleKind, Transport};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start, and gauges of now. Shared by all shards.
#[derive(Debug, Default)]
pub struct HubStats {
    deliveries: [AtomicU64; 3],
    sessions: [AtomicU64; 3],
    settled: AtomicU64,
    said: [AtomicU64; 2],
    connections: AtomicU64,
    transient_dropped: AtomicU64,
    wakes_lost: AtomicU64,
    handshakes: AtomicU64,
    tls_faults: AtomicU64,
}

impl HubStats {
    /// Entries handed to sessions' sockets, by transport.
    pub fn deliveries(&self, transport: Transport) -> u64 {
        self.deliveries[slot(transport)].load(Ordering::Relaxed)
    }
    /// Sessions open now, by transport.
    pub fn sessions(&self, transport: Transport) -> u64 {
        self.sessions[slot(transport)].load(Ordering::Relaxed)
    }
    /// Settlements by evidence handed to the engine; each may cover many entries.
    pub fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }
    /// Entries that clients settled by a frame of theirs.
    pub fn said(&self, kind: SettleKind) -> u64 {
        self.said[usize::from(kind == SettleKind::Read)].load(Ordering::Relaxed)
    }
    /// Sockets held by the shards now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
    /// Transient notifications dropped because a session had no room.
    pub fn transient_dropped(&self) -> u64 {
        self.transient_dropped.load(Ordering::Relaxed)
    }
    /// Times a shard's mailbox was full and its sessions had to look for themselves.
    pub fn wakes_lost(&self) -> u64 {
        self.wakes_lost.load(Ordering::Relaxed)
    }
    /// TLS handshakes that were completed.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }
    /// Connections that ended by a fault of TLS, among them handshakes that were not completed in time.
    pub fn tls_faults(&self) -> u64 {
        self.tls_faults.load(Ordering::Relaxed)
    }

    pub(crate) fn delivered(&self, transport: Transport, entries: u64) {
        self.deliveries[slot(transport)].fetch_add(entries, Ordering::Relaxed);
    }
    pub(crate) fn opened(&self, transport: Transport) {
        self.sessions[slot(transport)].fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn ended(&self, transport: Transport) {
        self.sessions[slot(transport)].fetch_sub(1, Ordering::Relaxed);
    }
    pub(crate) fn add_settled(&self, count: u64) {
        self.settled.fetch_add(count, Ordering::Relaxed);
    }
    pub(crate) fn add_said(&self, kind: SettleKind, entries: u64) {
        self.said[usize::from(kind == SettleKind::Read)].fetch_add(entries, Ordering::Relaxed);
    }
    pub(crate) fn connected(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }
    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
    pub(crate) fn dropped_transients(&self, count: u64) {
        self.transient_dropped.fetch_add(count, Ordering::Relaxed);
    }
    pub(crate) fn shook_hands(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn faulted(&self) {
        self.tls_faults.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn lost_wake(&self) {
        self.wakes_lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn slot(transport: Transport) -> usize {
    match transport {
        Transport::LongPoll => 0,
        Transport::Sse => 1,
        Transport::WebSocket => 2,
    }
}
