//! "Parsing an event stream" and "Interpreting an event stream" of the HTML standard (9.2.5 and 9.2.6), sentence by
//! sentence, over bytes that come in pieces of any size.

/// What would be dispatched to a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
    pub last_event_id: String,
}

/// An `EventSource` without its connection.
#[derive(Debug, Default)]
pub struct Source {
    pub events: Vec<Event>,
    /// What it would bring as `Last-Event-ID`.
    pub last_event_id: String,
    /// The reconnection time, once it was set. Milliseconds.
    pub retry: Option<u64>,
    /// Fields that the standard ignores.
    pub unknown: Vec<String>,
    /// The line that has begun. Line ends are ASCII, so that bytes can be cut into lines before they are decoded.
    line: Vec<u8>,
    /// A LF that comes next belongs to the CR before it.
    after_cr: bool,
    /// A line has ended: from then on a byte order mark is a character like others.
    begun: bool,
    data: String,
    event: String,
    id: String,
}

/// The same to a page; where in a line end each of them stands does not matter.
impl PartialEq for Source {
    fn eq(&self, other: &Source) -> bool {
        let told = |source: &Source| (source.last_event_id.clone(), source.retry, source.line.len());
        self.events == other.events && self.unknown == other.unknown && told(self) == told(other)
    }
}

impl Source {
    pub fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            let ends_before = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if ends_before => {}
                b'\n' => self.end_line(),
                b'\r' => {
                    self.after_cr = true;
                    self.end_line();
                }
                other => self.line.push(other),
            }
        }
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let line = String::from_utf8(bytes).expect("the stream is UTF-8");
        let line = match std::mem::replace(&mut self.begun, true) {
            // "One leading U+FEFF BYTE ORDER MARK character must be ignored if any are present."
            false => line.strip_prefix('\u{feff}').unwrap_or(&line),
            true => line.as_str(),
        };
        match line.split_once(':') {
            _ if line.is_empty() => self.dispatch(),
            Some(("", _)) => {}
            Some((field, value)) => self.field(field, value.strip_prefix(' ').unwrap_or(value)),
            None => self.field(line, ""),
        }
    }

    fn field(&mut self, field: &str, value: &str) {
        match field {
            "event" => self.event = value.to_owned(),
            "data" => {
                self.data += value;
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            other => self.unknown.push(other.to_owned()),
        }
    }

    fn dispatch(&mut self) {
        self.last_event_id.clone_from(&self.id);
        let name = std::mem::take(&mut self.event);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        if data.ends_with('\n') {
            data.pop();
        }
        self.events.push(Event {
            name: if name.is_empty() {
                "message".to_owned()
            } else {
                name
            },
            data,
            last_event_id: self.last_event_id.clone(),
        });
    }
}

#[test]
fn the_examples_of_the_standard() {
    let of = |text: &str| {
        let mut source = Source::default();
        source.feed(text.as_bytes());
        source
            .events
            .iter()
            .map(|event| {
                (
                    event.name.clone(),
                    event.data.clone(),
                    event.last_event_id.clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let message = |data: &str, id: &str| ("message".to_owned(), data.to_owned(), id.to_owned());
    assert_eq!(
        of("data: YHOO\ndata: +2\ndata: 10\n\n"),
        [message("YHOO\n+2\n10", "")]
    );
    let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n";
    assert_eq!(
        of(four),
        [message("first event", "1"), message("second event", "")]
    );
    assert_eq!(
        of("data\n\ndata\ndata\n\ndata:"),
        [message("", ""), message("\n", "")]
    );
    assert_eq!(
        of("data:test\r\rdata: test\r\n\r\n"),
        [message("test", ""), message("test", "")]
    );
}
