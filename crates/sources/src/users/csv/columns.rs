//! The columns of users as CSV: what the header names, and what a record's cells say.

use super::super::checks::{self, EMAIL, LOCALE, MAX_ATTRIBUTES, MOBILE, TIME_ZONE};
use super::super::{UserDraft, UserFault};
use crate::InputFault;
use postrider_model::Profile;

/// The columns beside the attributes.
pub const COLUMNS: &str = "id, email, mobile, locale, time_zone, topics and attributes.<name>";
/// What the name of an attribute's column begins with.
const ATTRIBUTE: &str = "attributes.";
/// Most columns: the six, and the attributes.
pub const MAX_COLUMNS: usize = 6 + MAX_ATTRIBUTES;
/// Of a name that is not known, so many characters are told.
const TOLD_CHARS: usize = 64;

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Column {
    Id,
    Email,
    Mobile,
    Locale,
    TimeZone,
    Topics,
    /// The attribute of this name.
    Attribute(String),
}

/// The columns that a header names; an error refuses the whole input.
pub fn header(cells: Result<Vec<&str>, InputFault>) -> Result<Vec<Column>, UserFault> {
    let of_column = |name: &str, detail: &str| {
        let name: String = name.chars().take(TOLD_CHARS).collect();
        let fault = InputFault::invalid(format!("the column `{name}` {detail}"));
        let column = Some(name);
        UserFault { fault, column }
    };
    let mut columns: Vec<Column> = Vec::new();
    for name in cells? {
        let name = name.trim();
        let column = match name {
            "id" => Column::Id,
            "email" => Column::Email,
            "mobile" => Column::Mobile,
            "locale" => Column::Locale,
            "time_zone" => Column::TimeZone,
            "topics" => Column::Topics,
            _ => match name.strip_prefix(ATTRIBUTE) {
                Some(attribute) => {
                    let good = checks::attribute_name(attribute, "");
                    good.map_err(|fault| of_column(name, &format!("cannot be: {fault}")))?;
                    Column::Attribute(attribute.to_owned())
                }
                None => return Err(of_column(name, &format!("is not known; there may be {COLUMNS}"))),
            },
        };
        if columns.contains(&column) {
            return Err(of_column(name, "stands there twice"));
        }
        columns.push(column);
    }
    if !columns.contains(&Column::Id) {
        return Err(of_column("id", "is missing"));
    }
    Ok(columns)
}

/// What the cells of a record say of a user.
pub fn user_of(columns: &[Column], cells: &[&str]) -> Result<UserDraft, UserFault> {
    if cells.len() != columns.len() {
        let detail = format!("there are {} cells, and {} columns", cells.len(), columns.len());
        return Err(InputFault::invalid(detail).into());
    }
    let mut id = "";
    let mut profile = Profile::default();
    let mut topics = None;
    for (column, &cell) in columns.iter().zip(cells) {
        let in_column = |fault: InputFault| UserFault {
            fault: InputFault {
                pointer: None,
                ..fault
            },
            column: Some(column.name()),
        };
        let text = |field: &checks::TextField| match cell {
            "" => Ok(None),
            cell => field.check(cell.to_owned()).map(Some).map_err(in_column),
        };
        match column {
            Column::Id => id = cell,
            Column::Email => profile.email = text(&EMAIL)?,
            Column::Mobile => profile.mobile = text(&MOBILE)?,
            Column::Locale => profile.locale = text(&LOCALE)?,
            Column::TimeZone => profile.time_zone = text(&TIME_ZONE)?,
            Column::Topics => {
                let names = cell.split([' ', ';']).filter(|name| !name.is_empty());
                topics = Some(checks::topics(names).map_err(in_column)?);
            }
            Column::Attribute(_) if cell.is_empty() => {}
            Column::Attribute(name) => {
                let value = checks::attribute(cell.to_owned(), "").map_err(in_column)?;
                profile.attributes.insert(name.clone(), value);
            }
        }
    }
    let user = checks::user_id(id).map_err(|fault| UserFault {
        fault: InputFault {
            pointer: None,
            ..fault
        },
        column: Some(Column::Id.name()),
    })?;
    Ok(UserDraft {
        user,
        profile,
        topics,
    })
}

impl Column {
    fn name(&self) -> String {
        match self {
            Column::Id => "id".into(),
            Column::Email => "email".into(),
            Column::Mobile => "mobile".into(),
            Column::Locale => "locale".into(),
            Column::TimeZone => "time_zone".into(),
            Column::Topics => "topics".into(),
            Column::Attribute(name) => format!("{ATTRIBUTE}{name}"),
        }
    }
}
