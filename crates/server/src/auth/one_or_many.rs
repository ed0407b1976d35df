//! A setting that is one text or a list of them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One text, or several of which each will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany(Vec<String>);

impl OneOrMany {
    /// Whether it is one of them.
    pub fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|own| own == text)
    }

    /// All of them; the first is the usual one.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl From<&str> for OneOrMany {
    fn from(text: &str) -> OneOrMany {
        OneOrMany(vec![text.to_owned()])
    }
}

impl Serialize for OneOrMany {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(s),
            many => many.serialize(s),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<OneOrMany, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a string or a list of strings is needed")]
        enum Given {
            One(String),
            Many(Vec<String>),
        }
        let many = match Given::deserialize(d)? {
            Given::One(text) => vec![text],
            Given::Many(many) => many,
        };
        if many.is_empty() || many.iter().any(String::is_empty) {
            return Err(serde::de::Error::custom("is empty, or holds an empty string"));
        }
        Ok(OneOrMany(many))
    }
}

impl schemars::JsonSchema for OneOrMany {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OneOrMany".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "array"],
            "minLength": 1,
            "items": {"type": "string", "minLength": 1},
            "minItems": 1,
            "x-type": "one-or-many",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn spellings() {
        let read = |value: Value| serde_json::from_value::<OneOrMany>(value).ok();
        for (given, expected) in [
            (json!("a"), Some(json!("a"))),
            (json!(["a"]), Some(json!("a"))),
            (json!(["a", "b"]), Some(json!(["a", "b"]))),
            (json!(""), None),
            (json!([]), None),
            (json!(["a", ""]), None),
            (json!(1), None),
        ] {
            let shown = read(given.clone()).map(|names| serde_json::to_value(names).unwrap());
            assert_eq!(shown, expected, "{given}");
        }
        assert!(read(json!(["a", "b"])).unwrap().contains("b"));
    }
}
