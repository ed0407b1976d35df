//! Clients' own acks and reads over WebSocket. What a turn's frames say is handed to the engine together when the
//! turn ends, and each is answered once it is durable.
//!
//! Invariant: one batch is under way at a time, and what comes meanwhile waits, so that a client's words become
//! durable in the order in which it said them. How many wait is bounded per session ([`MAX_SETTLING`]), and how many are
//! handed over together ([`MAX_BATCH`]), both by weight: one that names many ids counts as many.

use super::*;
use postrider_engine::EngineError;
use postrider_model::SettleKind;

/// Words handed to the engine at once, by weight; at least one.
const MAX_BATCH: u32 = 1024;
/// So many ids weigh as much as a word.
const IDS_OF_A_WORD: usize = 8;
/// Tries to make them durable while the store is busy.
const SETTLE_TRIES: u32 = 40;

/// The words of a loop's clients.
#[derive(Default)]
pub(super) struct Words {
    said: VecDeque<(Word, Settlement)>,
    under_way: bool,
}

/// Who waits for a word to be durable.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    pub key: Key,
    /// The client wants to be told, by this number.
    pub reference: Option<u64>,
    pub kind: SettleKind,
    /// What it counts for where words are bounded.
    pub weight: u32,
}

impl Word {
    /// One, and more where it names many ids.
    pub fn weight_of(settlement: &Settlement) -> u32 {
        let ids = match &settlement.target {
            SettleTarget::Ids(ids) => ids.len(),
            SettleTarget::Through(_) => 0,
        };
        1 + u32::try_from(ids / IDS_OF_A_WORD).unwrap_or(u32::MAX)
    }
}

impl Shard {
    /// A client said this; it is settled with what else this turn brings.
    pub(super) fn said(&mut self, said: Word, settlement: Settlement) {
        self.words.said.push_back((said, settlement));
    }

    /// Hands to the engine what was said, unless it is still busy with what was said before.
    pub(super) fn hand_words(&mut self) {
        if self.words.under_way || self.words.said.is_empty() {
            return;
        }
        self.words.under_way = true;
        let mut weight = 0;
        let fits = |(word, _): &&(Word, Settlement)| {
            let first = weight == 0;
            weight += word.weight;
            first || weight <= MAX_BATCH
        };
        let count = self.words.said.iter().take_while(fits).count();
        let (said, settlements): (Vec<_>, Vec<_>) = self.words.said.drain(..count).unzip();
        if self.words.said.is_empty() {
            // At rest it keeps no memory.
            self.words.said = VecDeque::new();
        }
        let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
        self.shared.spawn(async move {
            let settled = settle_durably(&shared, settlements).await;
            for (word, entries) in said.iter().zip(&settled) {
                shared.stats.add_said(word.kind, entries.unwrap_or(0));
            }
            mailbox.post(Post::Settled(said, settled));
        });
    }

    /// A batch of words is durable, but for those that could not be made so.
    pub(super) fn words_settled(&mut self, said: &[Word], settled: &[Option<u64>]) {
        self.words.under_way = false;
        for (nth, word) in said.iter().enumerate() {
            self.settled(*word, settled.get(nth).copied().flatten());
        }
    }

    /// A client's own word is durable, with so many entries changed, or could not be made so.
    pub(super) fn settled(&mut self, said: Word, entries: Option<u64>) {
        let key = said.key;
        if !self.is_current(key) {
            return;
        }
        let Some(connection) = self.connections.get_mut(key.slot) else {
            return;
        };
        let Stage::Live(live) = &mut connection.stage else {
            return;
        };
        live.settling = live.settling.saturating_sub(said.weight);
        match (entries, said.reference) {
            (Some(count), Some(reference)) => {
                let frame = format!(r#"{{"type":"settled","ref":{reference},"settled":{count}}}"#);
                connection.out.push(websocket::text_frame(frame.as_bytes()));
            }
            (Some(_), None) if !live.paused => return,
            (Some(_), None) => {}
            (None, _) => connection.out.push(websocket::error_frame("unavailable")),
        }
        live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
        // Reading goes on when the turn ends, if there is room again.
        self.touch(key.slot);
    }
}

/// Settles these, and says how many entries each changed; `None` where it could not be made durable. Where something
/// is wrong with one of them, the others do not suffer for it.
async fn settle_durably(shared: &Shared, settlements: Vec<Settlement>) -> Vec<Option<u64>> {
    match settle_patiently(shared, &settlements).await {
        Ok(counts) => counts.into_iter().map(Some).collect(),
        Err(error) if settlements.len() > 1 && !error.is_transient() => {
            let mut settled = Vec::new();
            for settlement in settlements {
                let alone = settle_patiently(shared, &[settlement]).await;
                settled.push(alone.ok().map(|counts| counts.into_iter().sum()));
            }
            settled
        }
        Err(_) => vec![None; settlements.len()],
    }
}

/// What clients say must not be lost because the store is busy for a moment.
async fn settle_patiently(shared: &Shared, settlements: &[Settlement]) -> Result<Vec<u64>, EngineError> {
    let mut tries = 0;
    loop {
        match shared.settle(settlements.to_vec(), Sync::Durable).await {
            Err(error) if error.is_transient() && tries < SETTLE_TRIES => {
                tries += 1;
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
