//! What is asked of Redis, and how it goes over the wire.

use super::cell::Cell;

/// A function call on the server that has this cell's slot.
#[derive(Debug, Clone)]
pub struct Call {
    /// Where it runs. In a Cluster all of `keys` carry this cell's tag.
    pub cell: Cell,
    /// The function's name in the library.
    pub function: &'static str,
    /// The keys it touches.
    pub keys: Vec<Vec<u8>>,
    /// Its other arguments.
    pub args: Vec<Vec<u8>>,
    /// True where it changes nothing: sent as `FCALL_RO`, and asked again where its answer was lost.
    pub is_read: bool,
}

/// How many copies a write must have before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// What the server gives of itself.
    #[default]
    None,
    /// So many replicas have it in memory (`WAIT`).
    Replicas(u32),
    /// It is on the master's disk (`appendfsync always`; `WAITAOF` where the server has it).
    Aof,
}

/// How the names of functions end that touch keys of other cells of the same server, which are not declared.
const ACROSS: &str = "_across";

impl Call {
    /// Whether it touches more cells than its own.
    pub(super) fn is_across(&self) -> bool {
        self.function.ends_with(ACROSS)
    }

    /// The command as the server reads it.
    pub(super) fn command(&self) -> redis::Cmd {
        let mut command = redis::cmd(if self.is_read { "FCALL_RO" } else { "FCALL" });
        command.arg(self.function).arg(self.keys.len());
        for part in self.keys.iter().chain(&self.args) {
            command.arg(part.as_slice());
        }
        command
    }
}
