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
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what.replace(['\n', '\r'], " "))?;
        match &self.nearest {
            Some(key) => write!(f, " (nearest known key: {key})"),
            None => Ok(()),
        }
    }
}
