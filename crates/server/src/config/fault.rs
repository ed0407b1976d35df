//! One thing that is wrong with a configuration, as one line.

use std::fmt;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The file, `environment NAME` or `--set`.
    pub place: String,
    /// The dotted key; empty where the whole place is wrong.
    pub key: String,
    /// What is wrong. Never holds a secret.
    pub what: String,
    /// The known key it was most likely meant to be.
    pub nearest: Option<String>,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key is what somebody wrote, a place may be the name of a file: a line break can stand in either.
        let line = |text: &str| text.replace(['\n', '\r'], " ");
        write!(f, "{}: ", line(&self.place))?;
        if !self.key.is_empty() {
            write!(f, "{}: ", line(&self.key))?;
        }
        f.write_str(&line(&self.what))?;
        match &self.nearest {
            Some(key) => write!(f, " (nearest known key: {key})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_one_line_whatever_was_written() {
        let fault = ConfigFault {
            place: "a\nb.yaml".into(),
            key: "\rkey".into(),
            what: "unknown\nkey".into(),
            nearest: None,
        };
        assert_eq!(fault.to_string(), "a b.yaml:  key: unknown key");
    }
}
