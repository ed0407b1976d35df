//! Puts the functions onto a server that lacks them.

use super::fault::LinkFault;
use super::pipe::{Asked, Pipe};
use super::wire::{refused, text};
use redis::{Cmd, Value};
use tokio::time::Instant;

/// A library of functions: Lua text whose first line names it. The name holds its version, so that nodes of two
/// versions can live beside each other.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    name: &'static str,
    code: &'static str,
}

impl Library {
    /// Reads the name from the first line, `#!lua name=…`; empty text is no library.
    pub fn new(code: &'static str) -> Result<Option<Library>, LinkFault> {
        if code.is_empty() {
            return Ok(None);
        }
        let first = code.lines().next().unwrap_or_default();
        let name = first.strip_prefix("#!lua").and_then(|rest| {
            rest.split_whitespace()
                .find_map(|word| word.strip_prefix("name="))
        });
        match name {
            Some(name) if !name.is_empty() => Ok(Some(Library { name, code })),
            _ => Err(LinkFault::Unfit(
                "the library does not begin with `#!lua name=`".to_owned(),
            )),
        }
    }

    /// Loads it where the server has none of this name, or one of other text.
    pub async fn ensure(&self, pipe: &Pipe, deadline: Instant) -> Result<(), LinkFault> {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(self.name).arg("WITHCODE");
        if has_text(&ask(pipe, &list, deadline).await?, self.code) {
            return Ok(());
        }
        let mut load = redis::cmd("FUNCTION");
        load.arg("LOAD").arg("REPLACE").arg(self.code);
        ask(pipe, &load, deadline).await?;
        tracing::info!(library = self.name, "functions were loaded into Redis");
        Ok(())
    }
}

/// One command of our own; errors of the server are faults.
pub async fn ask(pipe: &Pipe, command: &Cmd, deadline: Instant) -> Result<Value, LinkFault> {
    let asked = Asked {
        bytes: command.get_packed_command(),
        count: 1,
        waits: false,
    };
    match pipe.ask(asked, deadline).await.pop() {
        Some(Ok(Value::ServerError(error))) => Err(refused(&error)),
        Some(answer) => answer,
        None => Err(LinkFault::Closed),
    }
}

/// Whether a text stands anywhere in an answer.
fn has_text(value: &Value, wanted: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_text(item, wanted)),
        Value::Map(pairs) => pairs.iter().any(|(_, value)| has_text(value, wanted)),
        value => text(value).is_some_and(|text| text == wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_named_by_its_first_line() {
        let named = Library::new("#!lua name=pr1\nredis.call()")
            .expect("well-formed")
            .expect("a library");
        assert_eq!(named.name, "pr1");
        assert!(Library::new("").expect("none").is_none());
        for text in ["redis.call()", "#!lua\nx", "#!lua name=\nx"] {
            assert!(Library::new(text).is_err(), "{text}");
        }
    }
}
