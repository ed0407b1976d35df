//! Names of channels with a user or a topic in them: `notify:{user}`.
//!
//! Invariant: a name that was made of an id gives that id back.

/// What stands for the id.
const PLACES: [&str; 2] = ["{user}", "{topic}"];

/// A name with a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Reads a text that holds `place` (`{user}` or `{topic}`) once, and the other not at all.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Template, String> {
        let others = PLACES.iter().any(|other| *other != place && text.contains(other));
        match text.split_once(place) {
            Some((before, after)) if !after.contains(place) && !others => Ok(Template {
                before: before.to_owned(),
                after: after.to_owned(),
            }),
            _ => Err(format!("must hold {place} once, such as notify:{place}")),
        }
    }

    /// The name for an id.
    pub fn name(&self, id: &str) -> String {
        format!("{}{id}{}", self.before, self.after)
    }

    /// The id in a name, if it is one of these.
    pub fn id<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.before.as_str())?
            .strip_suffix(self.after.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        let template = Template::parse("n:{user}:x", "{user}").unwrap();
        for id in ["a", "", "{user}", "a:x", "é"] {
            assert_eq!(template.id(&template.name(id)), Some(id));
        }
        for other in ["n:a", "m:a:x", "n:x", ""] {
            assert_eq!(template.id(other), None, "{other}");
        }
        for wrong in ["n", "{user}{user}", "{user}{topic}", "{topic}"] {
            assert!(Template::parse(wrong, "{user}").is_err(), "{wrong}");
        }
    }
}
