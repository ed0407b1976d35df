//! What the fields of a user may hold. The same for every form in which they are written.

use crate::InputFault;
use postrider_model::{Topic, UserId};

/// Most attributes of a user.
pub const MAX_ATTRIBUTES: usize = 64;
/// Most topics that one user is made a member of: an inbox has at most 100 feeds by default, two of which are the
/// user's own and the one for everyone. The engine has the last word.
pub const MAX_TOPICS: usize = 1000;
const ATTRIBUTE_NAME_BYTES: usize = 64;
const ATTRIBUTE_BYTES: usize = 1024;

/// A text of the profile: its name, how long it may be, and which characters it may hold.
pub struct TextField {
    /// As it is written.
    pub name: &'static str,
    most: usize,
    form: &'static str,
    is_good: fn(&str) -> bool,
}

/// RFC 5321 allows 64 bytes before the `@` and 255 after it.
pub const EMAIL: TextField = TextField {
    name: "email",
    most: 320,
    form: "an e-mail address such as ada@example.com",
    is_good: |text| {
        let parts = text.rsplit_once('@');
        let is_whole = parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
        is_whole && !text.chars().any(|c| c.is_whitespace() || c.is_control())
    },
};
/// E.164 has at most 15 digits; people write them in groups.
pub const MOBILE: TextField = TextField {
    name: "mobile",
    most: 32,
    form: "a telephone number such as +49 170 1234567",
    is_good: |text| {
        let allowed = |b: u8| b.is_ascii_digit() || b"+ ().-/".contains(&b);
        text.bytes().all(allowed) && text.bytes().any(|b| b.is_ascii_digit())
    },
};
/// RFC 5646, 4.4.1: 35 characters are enough for every tag; some systems write `de_DE`.
pub const LOCALE: TextField = TextField {
    name: "locale",
    most: 35,
    form: "a language tag such as de-DE",
    is_good: |text| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    },
};
/// As the IANA time zone database names them. Which exist is not asked: that changes.
pub const TIME_ZONE: TextField = TextField {
    name: "time_zone",
    most: 64,
    form: "a time zone such as Europe/Berlin",
    is_good: |text| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b))
    },
};

impl TextField {
    /// The text, if it may stand there.
    pub fn check(&self, text: String) -> Result<String, InputFault> {
        let TextField { name, most, form, .. } = self;
        if text.len() > *most {
            let detail = format!("`{name}` is longer than {most} bytes");
            return Err(InputFault::too_large(Some(format!("/{name}")), detail));
        }
        if text.is_empty() || !(self.is_good)(&text) {
            let detail = format!("`{name}` must be {form}");
            return Err(InputFault::at(format!("/{name}"), detail));
        }
        Ok(text)
    }
}

/// A user's id.
pub fn user_id(text: &str) -> Result<UserId, InputFault> {
    UserId::new(text).map_err(|e| InputFault::at("/id", e.to_string()))
}

/// An attribute's name.
pub fn attribute_name(name: &str, pointer: &str) -> Result<(), InputFault> {
    if name.len() > ATTRIBUTE_NAME_BYTES {
        let detail = format!("an attribute's name is longer than {ATTRIBUTE_NAME_BYTES} bytes");
        return Err(InputFault::too_large(Some(pointer.to_owned()), detail));
    }
    if name.is_empty() || name.chars().any(char::is_control) {
        let detail = "an attribute's name is empty or holds a control character";
        return Err(InputFault::at(pointer, detail));
    }
    Ok(())
}

/// An attribute's value. Control characters but those of lines and columns are refused: nobody reads them, and escaped
/// they would make a line of six times the size, longer than [`super::LINE_BYTES`].
pub fn attribute(value: String, pointer: &str) -> Result<String, InputFault> {
    if value.len() > ATTRIBUTE_BYTES {
        let detail = format!("an attribute is longer than {ATTRIBUTE_BYTES} bytes");
        return Err(InputFault::too_large(Some(pointer.to_owned()), detail));
    }
    let is_good = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    if !value.chars().all(is_good) {
        let detail = "an attribute holds a control character other than a tab or the end of a line";
        return Err(InputFault::at(pointer, detail));
    }
    Ok(value)
}

/// A user has more attributes than there may be.
pub fn too_many_attributes() -> InputFault {
    let detail = format!("a user has at most {MAX_ATTRIBUTES} attributes");
    InputFault::too_large(Some("/attributes".into()), detail)
}

/// The topics, each once, in their order.
pub fn topics<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Topic>, InputFault> {
    let mut topics: Vec<Topic> = Vec::new();
    for (i, text) in texts.into_iter().enumerate() {
        if i == MAX_TOPICS {
            let detail = format!("a user is made a member of at most {MAX_TOPICS} topics");
            return Err(InputFault::too_large(Some("/topics".into()), detail));
        }
        let topic = Topic::new(text).map_err(|e| InputFault::at(format!("/topics/{i}"), e.to_string()))?;
        topics.push(topic);
    }
    topics.sort_unstable();
    topics.dedup();
    Ok(topics)
}
