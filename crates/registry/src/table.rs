//! What the table is called.

use std::str::FromStr;

/// Most bytes of a name in PostgreSQL.
const MOST_NAME: usize = 63;
/// What is added to the table's name for the index.
const INDEX: &str = "_by_instance";
/// And for the leases.
#[cfg(feature = "postgres")]
const LEASES: &str = "_alive";

/// The name of the table, with its schema or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    schema: Option<String>,
    name: String,
}

/// It is no name of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be the name of a table, or a schema and one, such as `public.notifier_instances`: letters, digits and _, at most 51"
)]
pub struct TableFault;

impl FromStr for Table {
    type Err = TableFault;

    fn from_str(text: &str) -> Result<Table, TableFault> {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema), name),
            None => (None, text),
        };
        let is_name = |name: &str| {
            let is_first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
            name.bytes().next().is_some_and(is_first)
                && name.bytes().all(|b| is_first(b) || b.is_ascii_digit())
                && name.len() + INDEX.len() <= MOST_NAME
        };
        if !is_name(name) || !schema.is_none_or(is_name) {
            return Err(TableFault);
        }
        Ok(Table {
            schema: schema.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

#[cfg(feature = "postgres")]
impl Table {
    /// As it stands in a statement: exactly this name, capitals and all.
    pub(crate) fn quoted(&self) -> String {
        self.with("")
    }

    /// The table of the leases.
    pub(crate) fn leases(&self) -> String {
        self.with(LEASES)
    }

    /// The index over instances, which has no schema of its own.
    pub(crate) fn index(&self) -> String {
        format!("\"{}{INDEX}\"", self.name)
    }

    fn with(&self, ending: &str) -> String {
        let schema = self.schema.iter().map(|schema| format!("\"{schema}\"."));
        format!("{}\"{}{ending}\"", schema.collect::<String>(), self.name)
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_quoted() {
        let table: Table = "app.Notifier_1".parse().unwrap();
        assert_eq!(table.quoted(), "\"app\".\"Notifier_1\"");
        assert_eq!(table.leases(), "\"app\".\"Notifier_1_alive\"");
        assert_eq!(table.index(), "\"Notifier_1_by_instance\"");
        let long = "x".repeat(52);
        for bad in [
            "", "1a", "a-b", "a.b.c", "a\"b", "a b", ".a", "a.", "ä", "a;b", &long,
        ] {
            assert_eq!(bad.parse::<Table>(), Err(TableFault), "{bad}");
        }
    }
}
