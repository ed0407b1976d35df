//! The WebSocket decoder, fed in pieces of any size, against the plain one.

use super::plain::{MAX_CONTROL, Outcome, Said, plain};
use crate::websocket::{Decoder, Fault, MAX_MESSAGE, Message};

/// First bytes of the frames that are made up: text, its continuations, control frames, binary, a reserved one.
const FIRSTS: [u8; 10] = [0x81, 0x01, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x82, 0x09, 0xC1];

/// Streams up to this are also read octet by octet. Bytes.
const SHORT: usize = 4096;
/// Long payloads that are made up for one input: more of them would only be slow.
const LONG_PAYLOADS: usize = 2;

/// Frames as bytes, cut anywhere: the same as whole, the same as by the plain decoder, and little held meanwhile.
///
/// The first byte chooses: the rest is a stream as it stands, or the stuff that frames are made of, so that text
/// need not be guessed through a mask. The second seeds the cuts.
pub fn websocket(data: &[u8]) {
    let [choice, seed, rest @ ..] = data else {
        return;
    };
    let stream = if choice & 1 == 0 {
        rest.to_vec()
    } else {
        frames(rest)
    };
    let whole = read([stream.clone()]);
    assert_eq!(whole, plain(&stream), "against the plain decoder");
    assert_eq!(whole, read(cut(&stream, *seed)), "cut by seed {seed}");
    if stream.len() <= SHORT {
        let octets = read(stream.chunks(1).map(<[u8]>::to_vec));
        assert_eq!(whole, octets, "octet by octet");
    }
}

fn read(pieces: impl IntoIterator<Item = Vec<u8>>) -> Outcome {
    let mut decoder = Decoder::default();
    let (mut said, mut fault) = (Vec::new(), None);
    for mut piece in pieces {
        let ended = decoder.is_ended();
        let count = said.len();
        if let Err(Fault { code, .. }) = decoder.feed(&mut piece, |message| said.push(own(message))) {
            assert_eq!(fault.replace(code), None, "a second fault");
            assert!(decoder.is_ended());
        }
        assert!(!ended || said.len() == count, "read on after the end");
        let held = decoder.held();
        assert!(held <= MAX_MESSAGE + MAX_CONTROL, "{held} bytes are held");
        if decoder.is_at_rest() {
            assert_eq!(held, 0, "held at rest");
            // A session at rest lets go of its decoder, and gets a new one when more comes.
            decoder = Decoder::default();
        }
    }
    (said, fault)
}

fn own(message: Message<'_>) -> Said {
    match message {
        Message::Text(text) => Said::Text(text.into()),
        Message::Ping(payload) => Said::Ping(payload.into()),
        Message::Pong(payload) => Said::Pong(payload.into()),
        Message::Close(code, reason) => Said::Close(code, reason.into()),
    }
}

/// Pieces of 0 to 40 bytes; of a long stream longer ones.
fn cut(stream: &[u8], seed: u8) -> Vec<Vec<u8>> {
    let most = if stream.len() <= SHORT { 40 } else { 9000 };
    let mut state = u32::from(seed) + 1;
    let mut rest = stream;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 16) as usize % (most + 1);
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

/// Frames, masked as a client's are: per frame a byte that chooses what it is, one for its length, its payload.
fn frames(mut stuff: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut longs = 0;
    while let [choice, size, rest @ ..] = stuff {
        let first = FIRSTS.get(usize::from(*choice)).copied().unwrap_or(*choice);
        // Long payloads are one character over and over, so that limits are in reach of short inputs.
        let long = match size {
            _ if longs == LONG_PAYLOADS => None,
            0xF0..=0xFD => Some(usize::from(*size - 0xF0) * 6000 + 120),
            0xFE => Some(MAX_MESSAGE),
            0xFF => Some(MAX_MESSAGE + 1),
            _ => None,
        };
        let (payload, after) = match long {
            Some(length) => {
                longs += 1;
                let filler = rest.first().copied().unwrap_or(b'x');
                (vec![filler; length], rest.get(1..).unwrap_or_default())
            }
            None => {
                let (payload, after) = rest.split_at(rest.len().min(usize::from(*size)));
                (payload.to_vec(), after)
            }
        };
        push_masked(&mut out, first, &payload, [*choice, *size, 0xA5, 0]);
        stuff = after;
    }
    out
}

fn push_masked(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: [u8; 4]) {
    out.push(first);
    match payload.len() {
        n @ 0..=125 => out.push(0x80 | n as u8),
        n @ 126..=0xFFFF => {
            out.push(0xFE);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0xFF);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
}
