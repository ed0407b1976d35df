//! Reads server-sent events, line by line, as the HTML standard says (section 9.2.6).

/// One event, or the bare id of a block without data.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's name; `message` where it has none.
    pub name: String,
    /// Its data, lines joined.
    pub data: String,
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

    /// A new connection: what was unfinished is gone.
    pub fn restart(&mut self) {
        self.event = Event::default();
        self.has_data = false;
    }
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
        assert_eq!(
            (events.len(), reader.last_id.as_deref(), reader.retry_ms),
            (2, Some("c1"), Some(1500))
        );
    }
}
