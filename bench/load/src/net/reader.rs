//! What a server says on one connection, cut into messages: HTTP answers, event blocks, WebSocket frames.
//!
//! Invariant: a message is given once, whole. Anything the interface does not allow is an error, never skipped.

use anyhow::{Context as _, Result, bail};
use memchr::memmem;

/// What a connection speaks after its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Requests and answers, one after the other.
    Http,
    /// One request whose answer is a stream of chunks.
    Chunked,
    /// One request whose answer is a stream of events.
    Events,
    /// One request whose answer makes it a WebSocket.
    WebSocket,
    /// A WebSocket whose messages are binary.
    Binary,
    /// Lines from the first byte on, each ending with CR LF.
    Lines,
}

/// One thing the server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The stream, or the WebSocket, is open.
    Opened,
    /// A whole answer to a request.
    Answer {
        /// Its status.
        status: u16,
        /// Its head, with the empty line.
        head: &'a [u8],
        /// Its body.
        body: &'a [u8],
    },
    /// A piece of a streamed answer.
    Chunk(&'a [u8]),
    /// A streamed answer is complete.
    End,
    /// A block of an event stream, without the empty line that ends it.
    Event(&'a [u8]),
    /// A text, or from servers that send no texts a binary message.
    Text(&'a [u8]),
    /// Was answered already.
    Ping(&'a [u8]),
    /// A line, without its end.
    Line(&'a [u8]),
}

/// Where the parse of one connection stands.
pub struct Reader {
    wire: Wire,
    opened: bool,
}

/// A message and the bytes it took.
type Next<'a> = Option<(usize, Message<'a>)>;

impl Reader {
    pub fn new(wire: Wire) -> Reader {
        Reader { wire, opened: false }
    }

    /// The first message in `bytes`, or `None` if it is not whole yet.
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Next<'a>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        match (self.wire, self.opened) {
            (Wire::Http, _) => answer(bytes),
            (Wire::Lines, _) => Ok(line(bytes)),
            (_, false) => self.open(bytes),
            (Wire::Chunked, true) => chunk(bytes),
            (Wire::Events, true) => Ok(event(bytes)),
            (Wire::WebSocket, true) => frame(bytes, 0x81),
            (Wire::Binary, true) => frame(bytes, 0x82),
        }
    }

    fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<Next<'a>> {
        let Some(head) = head(bytes)? else { return Ok(None) };
        let expected = match self.wire {
            Wire::WebSocket | Wire::Binary => 101,
            Wire::Chunked => 202,
            _ => 200,
        };
        if head.status != expected {
            bail!("refused: {}", String::from_utf8_lossy(bytes));
        }
        self.opened = true;
        Ok(Some((head.length, Message::Opened)))
    }
}

/// The answer to a ping. Masked by zeros, which is a mask.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    // A control frame carries at most 125 bytes: the reader has checked it.
    let mut frame = vec![0x8A, 0x80 | payload.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame
}

struct Head {
    status: u16,
    length: usize,
    body: usize,
}

fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes)? else {
        return Ok(None);
    };
    let body = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .map(|header| {
            std::str::from_utf8(header.value)?
                .parse()
                .context("content-length")
        })
        .transpose()?;
    Ok(Some(Head {
        status: response.code.context("no status")?,
        length,
        body: body.unwrap_or(0),
    }))
}

fn answer(bytes: &[u8]) -> Result<Next<'_>> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let end = head.length + head.body;
    Ok(bytes.get(head.length..end).map(|body| {
        let (status, head) = (head.status, &bytes[..head.length]);
        (end, Message::Answer { status, head, body })
    }))
}

fn chunk(bytes: &[u8]) -> Result<Next<'_>> {
    let httparse::Status::Complete((start, size)) =
        httparse::parse_chunk_size(bytes).map_err(|_| anyhow::anyhow!("a bad chunk size"))?
    else {
        return Ok(None);
    };
    let end = start + usize::try_from(size)?;
    let message = |data| {
        if size == 0 {
            Message::End
        } else {
            Message::Chunk(data)
        }
    };
    // The chunk's own line end follows it.
    Ok(bytes
        .get(..end + 2)
        .map(|whole| (end + 2, message(&whole[start..end]))))
}

fn event(bytes: &[u8]) -> Next<'_> {
    let end = memmem::find(bytes, b"\n\n")?;
    Some((end + 2, Message::Event(&bytes[..end])))
}

fn line(bytes: &[u8]) -> Next<'_> {
    let end = memmem::find(bytes, b"\r\n")?;
    Some((end + 2, Message::Line(&bytes[..end])))
}

/// `data` is how a frame begins that carries a message.
fn frame(bytes: &[u8], data: u8) -> Result<Next<'_>> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let (start, size) = match (second, rest) {
        (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, rest) if rest.len() >= 8 => {
            let length: [u8; 8] = rest[..8].try_into()?;
            (10, usize::try_from(u64::from_be_bytes(length))?)
        }
        (126 | 127, _) => return Ok(None),
        (size, _) if *size < 126 => (2, usize::from(*size)),
        _ => bail!("a server's frame is not masked"),
    };
    let Some(payload) = bytes.get(start..start + size) else {
        return Ok(None);
    };
    let message = match first {
        first if *first == data => Message::Text(payload),
        0x89 if size < 126 => Message::Ping(payload),
        0x88 => bail!("closed by the server: {}", String::from_utf8_lossy(payload)),
        other => bail!("a frame that begins with {other:#x}"),
    };
    Ok(Some((start + size, message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the stream byte by byte, as the loop would, and collects what is said.
    fn said(wire: Wire, stream: &[u8]) -> Result<Vec<String>> {
        let mut reader = Reader::new(wire);
        let (mut said, mut held) = (Vec::new(), Vec::new());
        for byte in stream {
            held.push(*byte);
            while let Some((length, message)) = reader.next(&held)? {
                said.push(match message {
                    Message::Answer { status, body, .. } => {
                        format!("{status} {}", String::from_utf8_lossy(body))
                    }
                    Message::Chunk(text) | Message::Event(text) | Message::Text(text) => {
                        String::from_utf8_lossy(text).into_owned()
                    }
                    other => format!("{other:?}"),
                });
                held.drain(..length);
            }
        }
        assert!(held.is_empty(), "{held:?}");
        Ok(said)
    }

    #[test]
    fn answers() {
        let two = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(said(Wire::Http, two).unwrap(), ["202 {}", "204 "]);
    }

    #[test]
    fn chunks() {
        let stream = b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\nA\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(
            said(Wire::Chunked, stream).unwrap(),
            ["Opened", "a\nb", "0123456789", "End"]
        );
    }

    #[test]
    fn lines() {
        assert_eq!(
            said(Wire::Lines, b"INFO {}\r\nPING\r\n").unwrap(),
            ["Line([73, 78, 70, 79, 32, 123, 125])", "Line([80, 73, 78, 71])"]
        );
    }

    #[test]
    fn events() {
        let stream = b"HTTP/1.1 200 OK\r\n\r\nretry: 1\n\nevent: notification\ndata: {}\n\n";
        let expected = ["Opened", "retry: 1", "event: notification\ndata: {}"];
        assert_eq!(said(Wire::Events, stream).unwrap(), expected);
    }

    #[test]
    fn frames_of_every_length() {
        let mut stream = b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81\x02hi\x89\x01!".to_vec();
        stream.extend_from_slice(&[0x81, 126, 1, 0]);
        stream.extend_from_slice(&[b'm'; 256]);
        stream.extend_from_slice(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend_from_slice(&vec![b'l'; 65536]);
        let said = said(Wire::WebSocket, &stream).unwrap();
        assert_eq!(said[..3], ["Opened", "hi", "Ping([33])"]);
        assert_eq!((said[3].len(), said[4].len()), (256, 65536));
    }

    #[test]
    fn what_is_not_allowed_is_an_error() {
        let refused = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        for wire in [Wire::Events, Wire::WebSocket, Wire::Chunked] {
            assert!(said(wire, refused).is_err());
        }
        let opened = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec();
        for frame in [
            &[0x88u8, 2, 0x0F, 0xA0][..],
            &[0x81, 0x81, 0],
            &[0x01, 1, b'a'],
            &[0x82, 1, b'a'],
        ] {
            assert!(
                said(Wire::WebSocket, &[&opened[..], frame].concat()).is_err(),
                "{frame:?}"
            );
        }
    }
}
