//! What a loop logs of troubles that all its sessions can have at once: of each kind at most one line in a second, which
//! says for how many others it stands.

use postrider_model::LogPace;

/// Kinds of trouble, each at its own pace.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    /// A session could not be opened.
    pub opening: LogPace,
    /// A page could not be read.
    pub page: LogPace,
    /// Memberships could not be looked up.
    pub members: LogPace,
    /// A state map could not be looked up.
    pub state: LogPace,
    /// The system gives no connection, or no way to watch one.
    pub socket: LogPace,
    /// There are too many connections.
    pub crowd: LogPace,
}
