//! Sessions: woken, told what their clients say.

use super::*;

impl Shard {
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

    /// Frames from a WebSocket client.
    pub(super) fn received_frames(&mut self, slot: usize, bytes: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(slot) else {
            return;
        };
        let key = connection.key;
        let Some(live) = connection.live() else { return };
        let Wire::WebSocket { decoder, dialect } = &mut live.wire else {
            return;
        };
        let dialect = *dialect;
        let mut heard = std::mem::take(&mut self.heard);
        let mut reading = decoder.take().unwrap_or_default();
        let user = live.session.user();
        let fault = reading
            .feed(bytes, |message| heard.push(Heard::from(message, user, dialect)))
            .err();
        if !reading.is_at_rest() {
            *decoder = Some(reading);
        }
        let mut quiet = fault.is_none();
        let mut pings = heard
            .iter()
            .filter(|heard| matches!(heard, Heard::Ping(_)))
            .count();
        for heard in heard.drain(..) {
            if matches!(heard, Heard::Ping(_)) {
                pings -= 1;
                // A pong answers the pings before its own, too (RFC 6455, 5.5.3).
                if pings >= MAX_PONGS {
                    continue;
                }
            }
            if !self.is_current(key) {
                break;
            }
            quiet &= matches!(heard, Heard::Pong(_) | Heard::Nothing);
            self.heard(slot, heard);
        }
        self.heard = heard;
        if !self.is_current(key) {
            return;
        }
        if let Some(fault) = fault {
            self.end_websocket(slot, websocket::close(fault.code, fault.reason));
        }
        if quiet {
            self.look_later(slot);
        } else {
            self.touch(slot);
        }
    }

    /// A client said nothing that calls for an answer: only when to look at it may be another.
    fn look_later(&mut self, slot: usize) {
        if let Some(connection) = self.connections.get_mut(slot)
            && let Stage::Live(live) = &connection.stage
            && !connection.blocked
            && !connection.touched
        {
            let at = live.look_at(&self.turn);
            self.set_timer(slot, at);
        }
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
            Heard::Pong(token) => live.pong(token, key, &mut connection.out, &mut self.turn),
            Heard::Ping(payload) => {
                connection.out.push(websocket::pong(&payload));
                live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
            }
            Heard::Echo(text) => {
                connection.out.push(websocket::text_frame(text.as_bytes()));
                live.paused |= connection.out.waiting() > MAX_ANSWERS * self.turn.rules.bounds.outbox;
            }
            Heard::Close(code) => self.end_websocket(slot, websocket::close_reply(code)),
            Heard::Frame(ClientFrame::Token(_)) if !live.may_renew(self.turn.now) => {
                self.end_websocket(slot, close_frame(4501, "protocol", Millis(0)));
            }
            Heard::Frame(ClientFrame::Token(token)) => {
                match self
                    .shared
                    .gate
                    .renew(live.session.user(), &token, self.turn.wall)
                {
                    Ok(expires_at) => live.lifetime.renew(self.turn.steady(expires_at)),
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
                let weight = Word::weight_of(&settlement);
                live.settling += weight;
                let word = Word {
                    key,
                    weight,
                    reference,
                    kind,
                };
                if live.session.ack() == AckMode::None
                    && matches!(settlement.target, SettleTarget::Through(_))
                {
                    // The cursors of a session that only watches settle nothing; ids are its user's own word.
                    return self.settled(word, Some(0));
                }
                live.paused |= live.settling >= MAX_SETTLING;
                self.said(word, settlement);
            }
            Heard::Nothing => {}
            Heard::Nonsense(why) => {
                tracing::debug!(why, "a client broke the protocol");
                self.end_websocket(slot, close_frame(4501, "protocol", Millis(0)));
            }
        }
    }

    /// Says the last word of a WebSocket session. Once: of several reasons to end it, the first is told.
    pub(super) fn end_websocket(&mut self, slot: usize, last: bytes::Bytes) {
        if let Some(connection) = self.connections.get_mut(slot)
            && connection.live().is_some()
        {
            connection.out.push(last);
            self.close(slot);
        }
    }
}

/// What a WebSocket client sent.
pub(super) enum Heard {
    Frame(ClientFrame),
    /// Only under the feature `echo`.
    Echo(String),
    Ping(Vec<u8>),
    /// The number in it; zero for one that answers no ping of ours.
    Pong(u64),
    Close(Option<u16>),
    /// The dialect's clients have nothing to say: that they are there.
    Nothing,
    Nonsense(&'static str),
}

impl Heard {
    fn from(message: Message<'_>, user: &UserId, dialect: Dialect) -> Heard {
        match message {
            Message::Text(_) if dialect == Dialect::Notify => Heard::Nothing,
            Message::Text(text) if cfg!(feature = "echo") => Heard::Echo(text.to_owned()),
            Message::Text(text) => match ClientFrame::parse(text, user) {
                Ok(frame) => Heard::Frame(frame),
                Err(why) => Heard::Nonsense(why),
            },
            Message::Ping(payload) => Heard::Ping(payload.to_vec()),
            Message::Pong(payload) => Heard::Pong(payload.try_into().map_or(0, u64::from_be_bytes)),
            Message::Close(code, _) => Heard::Close(code),
        }
    }
}
