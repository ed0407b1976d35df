//! Sessions: opened, woken, told what their clients say.

use super::*;

impl Shard {
    /// The engine said where the feeds stand: the session begins.
    pub(super) fn opened(&mut self, key: Key, starts: Result<Vec<FeedStart>, postrider_engine::EngineError>) {
        if !self.is_current(key) {
            return;
        }
        let slot = key.slot;
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let closing = Stage::Closing {
            deadline: self.turn.now.plus(CLOSING_TIMEOUT),
        };
        let opening = match std::mem::replace(&mut connection.stage, closing) {
            Stage::Opening(opening) => *opening,
            other => {
                connection.stage = other;
                return;
            }
        };
        // A drain that began meanwhile has told only those who were there.
        let late = self.turn.draining && opening.request.wire.transport() != Transport::LongPoll;
        let starts = match starts {
            Ok(starts) if !late => starts,
            outcome => {
                if let Err(error) = outcome {
                    tracing::warn!(%error, "a session could not be opened");
                }
                connection.stage = Stage::Opening(Box::new(opening));
                return self.answer(slot, &Problem::unavailable(1), false, &[]);
            }
        };
        let mut asked = opening.asked();
        let over_time =
            asked.ack == AckMode::Explicit && opening.request.wire.transport() != Transport::LongPoll;
        asked.redelivery = over_time.then_some(self.turn.rules.redelivery);
        let Opening {
            request,
            cors,
            rest,
            missed,
            missed_more,
            session,
        } = opening;
        let state = request.state.then_some(&b"{}"[..]);
        let mut frames = Vec::new();
        let wire = match request.wire {
            WireRequest::WebSocket(handshake) => {
                self.push_upgrade(slot, &handshake, &cors);
                let Some(connection) = self.connections.get_mut(slot) else {
                    return;
                };
                connection.out.push(websocket::hello_frame(session.as_str()));
                state
                    .into_iter()
                    .for_each(|state| connection.out.push(websocket::state_frame(state)));
                frames = rest;
                Wire::WebSocket {
                    decoder: Decoder::default(),
                }
            }
            WireRequest::Stream => {
                let tcp_evidence = self.shared.tcp_evidence && connection.socket.is_direct();
                stream_start(&cors)
                    .into_iter()
                    .for_each(|bytes| connection.out.push(bytes));
                state
                    .into_iter()
                    .for_each(|state| connection.out.push(crate::sse::state(state)));
                Wire::Sse { tcp_evidence }
            }
            WireRequest::Poll {
                wait_s,
                limit,
                keep_alive,
            } => Wire::Poll(Poll {
                entries: Vec::new(),
                bytes: 0,
                limit,
                gap: false,
                state: request.state,
                cursor: asked.cursor.clone(),
                news: 0,
                dropped_transient: false,
                repeats_at: self.turn.now.plus(REPEAT_PAUSE),
                deadline: self.turn.now.plus(Millis::from_secs(u64::from(wait_s))),
                keep_alive,
                cors,
                rest,
            }),
        };
        let expires_at = request.identity.expires_at.map(|at| self.turn.steady(at));
        let lifetime = Lifetime::new(expires_at, self.turn.now);
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let (out, turn) = (&mut connection.out, &mut self.turn);
        let mut live = Live::open(key, &asked, &starts, lifetime, wire, out, turn);
        live.apply(key, out, turn, Evidence::Cursor, Effect::Appended(&missed));
        if missed_more {
            live.apply(key, out, turn, Evidence::Cursor, Effect::Suspect);
        }
        connection.stage = Stage::Live(Box::new(live));
        self.touch(slot);
        if !frames.is_empty() {
            self.received_frames(slot, &mut frames);
        }
    }

    /// Lets something happen to a live session.
    pub(super) fn apply(&mut self, slot: usize, effect: Effect<'_>) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        match &mut connection.stage {
            Stage::Live(live) => {
                live.apply(key, &mut connection.out, &mut self.turn, Evidence::Cursor, effect);
                self.touch(slot);
            }
            Stage::Opening(opening) => opening.missed(&effect),
            _ => {}
        }
    }

    /// Entries of any feeds: each run of one feed goes to the sessions that hear it.
    pub(super) fn woken(&mut self, entries: &[Arc<Entry>]) {
        for run in entries.chunk_by(|a, b| a.feed == b.feed) {
            let Some(slots) = self.feeds.get(&run[0].feed) else {
                continue;
            };
            for slot in slots.clone() {
                self.apply(slot, Effect::Appended(run));
            }
        }
    }

    pub(super) fn transient(&mut self, entries: &[Arc<Entry>]) {
        for entry in entries {
            let Some(slots) = self.feeds.get(&entry.feed) else {
                continue;
            };
            for slot in slots.clone() {
                self.apply(slot, Effect::Transient(entry));
            }
        }
    }

    /// Frames from a WebSocket client.
    pub(super) fn received_frames(&mut self, slot: usize, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        let Some(live) = connection.live() else { return };
        let Wire::WebSocket { decoder } = &mut live.wire else {
            return;
        };
        let user = live.session.user().clone();
        let mut said = Vec::new();
        let fault = decoder
            .feed(bytes, |message| said.push(Heard::from(message, &user)))
            .err();
        for heard in said {
            if !self.is_current(key) {
                return;
            }
            self.heard(slot, heard);
        }
        if let Some(fault) = fault
            && self.is_current(key)
        {
            self.end_websocket(slot, websocket::close(fault.code, fault.reason));
        }
        self.touch(slot);
    }

    fn heard(&mut self, slot: usize, heard: Heard) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        let Stage::Live(live) = &mut connection.stage else {
            return;
        };
        match heard {
            Heard::Pong(payload) => live.pong(&payload, key, &mut connection.out, &mut self.turn),
            Heard::Ping(payload) => {
                connection.out.push(websocket::pong(&payload));
                live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
            }
            Heard::Close(code) => self.end_websocket(slot, websocket::close_reply(code)),
            Heard::Frame(ClientFrame::Token(token)) => {
                match self
                    .shared
                    .gate
                    .renew(live.session.user(), &token, self.turn.wall)
                {
                    Ok(expires_at) => live.lifetime.expires_at = Some(self.turn.steady(expires_at)),
                    // Nobody can tell whether it is good: the session goes on by its old one, the client sends it again.
                    Err(problem) if problem.status == 503 => {
                        connection.out.push(websocket::error_frame("unavailable"));
                        live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
                    }
                    Err(_) => self.end_websocket(slot, close_frame(4500, "token_invalid", Millis(0))),
                }
            }
            Heard::Frame(ClientFrame::BadCursor) => {
                connection.out.push(websocket::error_frame("invalid_cursor"));
                live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
            }
            Heard::Frame(ClientFrame::Settle {
                kind,
                target,
                reference,
            }) => {
                let target = match target {
                    Said::Ids(ids) => SettleTarget::Ids(ids),
                    Said::Through(cursor) => SettleTarget::Through(live.session.places_of(&cursor)),
                };
                let settlement = Settlement {
                    user: live.session.user().clone(),
                    kind,
                    target,
                    evidence: Evidence::Client,
                    session: Some(live.session.id().clone()),
                    transport: Some(Transport::WebSocket),
                };
                if live.session.ack() == AckMode::None
                    && matches!(settlement.target, SettleTarget::Through(_))
                {
                    // The cursors of a session that only watches settle nothing; ids are its user's own word.
                    live.settling += 1;
                    self.settled(key, reference, Ok(0));
                    return;
                }
                live.settling += 1;
                live.paused |= live.settling >= MAX_SETTLING;
                let (shared, mailbox) = (self.shared.clone(), self.mailbox.clone());
                self.shared.spawn(async move {
                    let outcome = settle_durably(&shared, settlement).await;
                    if let Ok(entries) = &outcome {
                        shared.stats.add_said(kind, *entries);
                    }
                    mailbox.post(Post::Settled(key, reference, outcome));
                });
            }
            Heard::Nonsense(why) => {
                tracing::debug!(why, "a client broke the protocol");
                self.end_websocket(slot, close_frame(4501, "protocol", Millis(0)));
            }
        }
    }

    pub(super) fn end_websocket(&mut self, slot: usize, last: bytes::Bytes) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.out.push(last);
            self.close(slot);
        }
    }

    /// A client's own word is durable, or could not be made so.
    pub(super) fn settled(
        &mut self,
        key: Key,
        reference: Option<u64>,
        outcome: Result<u64, postrider_engine::EngineError>,
    ) {
        if !self.is_current(key) {
            return;
        }
        let Some(connection) = self.connections.get_mut(key.slot) else {
            return;
        };
        let Stage::Live(live) = &mut connection.stage else {
            return;
        };
        live.settling = live.settling.saturating_sub(1);
        match (outcome, reference) {
            (Ok(count), Some(reference)) => {
                let frame = format!(r#"{{"type":"settled","ref":{reference},"settled":{count}}}"#);
                connection.out.push(websocket::text_frame(frame.as_bytes()));
            }
            (Ok(_), None) => {}
            (Err(_), _) => connection.out.push(websocket::error_frame("unavailable")),
        }
        live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
        // Reading goes on when the turn ends, if there is room again.
        self.touch(key.slot);
    }
}

/// What a WebSocket client sent.
enum Heard {
    Frame(ClientFrame),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Nonsense(&'static str),
}

impl Heard {
    fn from(message: Message<'_>, user: &UserId) -> Heard {
        match message {
            Message::Text(text) => match ClientFrame::parse(text, user) {
                Ok(frame) => Heard::Frame(frame),
                Err(why) => Heard::Nonsense(why),
            },
            Message::Ping(payload) => Heard::Ping(payload.to_vec()),
            Message::Pong(payload) => Heard::Pong(payload.to_vec()),
            Message::Close(code, _) => Heard::Close(code),
        }
    }
}

/// A client's word must not be lost because the store is busy for a moment.
async fn settle_durably(
    shared: &Shared,
    settlement: Settlement,
) -> Result<u64, postrider_engine::EngineError> {
    let mut tries = 0;
    loop {
        match shared
            .engine
            .settle(vec![settlement.clone()], Sync::Durable)
            .await
        {
            Ok(counts) => return Ok(counts.into_iter().sum()),
            Err(error) if error.is_transient() && tries < SETTLE_TRIES => {
                tries += 1;
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}
