//! Who waits: for messages, or to know whether SQS is there. Until it is dropped it counts.

use super::Pump;

/// Somebody who waits for messages.
pub(super) struct Waits<'a> {
    pump: &'a Pump,
    ticket: u64,
}

impl<'a> Waits<'a> {
    pub fn begin(pump: &'a Pump, most: usize) -> Waits<'a> {
        let mut state = pump.state();
        state.tickets += 1;
        let ticket = state.tickets;
        state.waiting.insert(ticket, most.max(1));
        drop(state);
        pump.tally.changed.notify_one();
        Waits { pump, ticket }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.pump.state().waiting.remove(&self.ticket);
    }
}

/// Somebody who waits to know whether SQS is there.
pub(super) struct Proves<'a>(&'a Pump);

impl<'a> Proves<'a> {
    pub fn begin(pump: &'a Pump) -> Proves<'a> {
        pump.state().proving += 1;
        pump.tally.changed.notify_one();
        Proves(pump)
    }
}

impl Drop for Proves<'_> {
    fn drop(&mut self) {
        self.0.state().proving -= 1;
    }
}
