//! Reads server-sent events, line by line, as the HTML standard says (section 9.2.6).

use std::io::{BufRead, BufReader, Read};

/// A longer line is none: no entry is as large.
const LINE_BYTES: u64 = 64 << 20;

/// One event, or the bare id of a block without data.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name; `message` where it has none.
    pub name: String,
    /// Its data, lines joined.
    pub data: String,
}

/// What a stream consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// Something happened.
    Event(Event),
    /// From here a client may go on.
    Id(String),
}

/// What has been read of the stream.
#[derive(Debug, Default)]
pub struct Reader {
    event: Event,
    has_data: bool,
    /// The last id, for `Last-Event-ID`.
    pub last_id: Option<String>,
    /// After how many milliseconds the server wants clients back.
    pub retry_ms: Option<u64>,
}

impl Reader {
    /// Takes one line without its end. Returns an event where the line ends one.
    pub fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            "retry" => self.retry_ms = value.parse().ok().or(self.retry_ms),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }

    /// Reads a stream and hands over its blocks until it ends, and says why it did; `None` where whoever takes them
    /// has had enough.
    pub fn follow(&mut self, body: impl Read, hand: &mut dyn FnMut(Block) -> bool) -> Option<String> {
        let mut told = self.last_id.clone();
        let mut body = BufReader::new(body);
        loop {
            let line = match line(&mut body) {
                Ok(Some(line)) => line,
                Ok(None) => return Some("the stream ended".into()),
                Err(error) => return Some(format!("the stream broke: {error}")),
            };
            let mut goes_on = true;
            if let Some(event) = self.line(&line) {
                goes_on = hand(Block::Event(event));
            }
            if goes_on && line.is_empty() && self.last_id != told {
                told.clone_from(&self.last_id);
                goes_on = told.clone().is_none_or(|id| hand(Block::Id(id)));
            }
            if !goes_on {
                return None;
            }
        }
    }
}

/// A line without its end; `None` where there is none any more.
fn line(body: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    body.take(LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.len() as u64 == LINE_BYTES {
        return Err(std::io::Error::other("a line has no end"));
    }
    // What the end cuts off is no line.
    let Some(line) = line.strip_suffix(b"\n") else {
        return Ok(None);
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Some(String::from_utf8_lossy(line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_give_events_and_bare_ids_none() {
        let mut reader = Reader::default();
        let text = "retry: 1500\n\n: keep-alive\n\nevent: notification\ndata: {\"a\":1}\n\nid: c1\n\ndata: x\ndata:y\n\n";
        let events: Vec<_> = text.lines().filter_map(|line| reader.line(line)).collect();
        assert_eq!(
            events[0],
            Event {
                name: "notification".into(),
                data: "{\"a\":1}".into()
            }
        );
        assert_eq!(events[1].data, "x\ny");
        let (mut again, mut blocks) = (Reader::default(), 0);
        let why = again.follow(text.as_bytes(), &mut |_| {
            blocks += 1;
            true
        });
        assert_eq!((blocks, why.as_deref()), (3, Some("the stream ended")));
        assert_eq!(Reader::default().follow(text.as_bytes(), &mut |_| false), None);
        assert_eq!(
            (events.len(), reader.last_id.as_deref(), reader.retry_ms),
            (2, Some("c1"), Some(1500))
        );
    }
}
