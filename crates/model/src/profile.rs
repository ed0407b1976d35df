//! What the directory holds of a user.

use std::collections::BTreeMap;

/// What is known of a user beside the id. Bounded by whoever decodes it; the engine keeps it as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Where e-mail reaches the user.
    pub email: Option<String>,
    /// Where a text message does.
    pub mobile: Option<String>,
    /// A language tag, such as `de-AT`.
    pub locale: Option<String>,
    /// A name of the IANA time zone database, such as `Europe/Vienna`.
    pub time_zone: Option<String>,
    /// Whatever else is known, by name.
    pub attributes: BTreeMap<String, String>,
}
