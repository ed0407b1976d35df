//! What nats-server says to a client, cut into its protocol's operations. How they lie in WebSocket messages says
//! nothing: one may hold several, or a piece of one.
//!
//! Invariant: an operation is given once, whole. One that a load does not expect is an error, never skipped.

use anyhow::{Context as _, Result, bail};
use memchr::memmem;

/// One operation.
#[derive(Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// Who the server is: the first thing it says.
    Info,
    /// It wants to know whether the client lives.
    Ping,
    /// It lives, and has done what was asked before.
    Pong,
    /// What was published.
    Message(&'a [u8]),
}

/// The first operation in `bytes` and its length, or `None` if it is not whole yet.
pub fn next(bytes: &[u8]) -> Result<Option<(usize, Said<'_>)>> {
    let Some(end) = memmem::find(bytes, b"\r\n") else {
        return Ok(None);
    };
    let (line, after) = (&bytes[..end], end + 2);
    let said = match line {
        b"PING" => Said::Ping,
        b"PONG" => Said::Pong,
        _ if line.starts_with(b"INFO ") => Said::Info,
        _ if line.starts_with(b"MSG ") => {
            let size = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            let size: usize = std::str::from_utf8(size)?.parse().context("the size of a MSG")?;
            let whole = bytes.get(..after + size + 2);
            return Ok(whole.map(|whole| (whole.len(), Said::Message(&whole[after..after + size]))));
        }
        other => bail!("nats-server said {}", String::from_utf8_lossy(other)),
    };
    Ok(Some((after, said)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_cut_wherever_the_bytes_end() {
        let stream =
            b"INFO {\"a\":1}\r\nPONG\r\nPING\r\nMSG all 1 4\r\n\r\nxy\r\nMSG all 1 0\r\n\r\nPING\r\n";
        let expected = [
            Said::Info,
            Said::Pong,
            Said::Ping,
            Said::Message(b"\r\nxy"),
            Said::Message(b""),
            Said::Ping,
        ];
        for cut in 0..=stream.len() {
            let (mut said, mut at) = (Vec::new(), 0);
            for end in [cut, stream.len()] {
                while let Some((length, one)) = next(&stream[at..end]).unwrap() {
                    said.push(one);
                    at += length;
                }
            }
            assert_eq!(said, expected, "{cut}");
            assert_eq!(at, stream.len());
        }
    }

    #[test]
    fn what_is_not_expected_is_an_error() {
        for bytes in [&b"-ERR 'Slow Consumer'\r\n"[..], b"MSG all 1 x\r\n", b"+OK\r\n"] {
            assert!(next(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
