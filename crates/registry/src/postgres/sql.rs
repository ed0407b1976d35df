//! The statements, for a table as it was found. Pure: texts from names and types.
//!
//! Invariant: nothing that anybody sends becomes part of a text; names are quoted, types are of [`TYPES`]. Rows are locked
//! in the order of the users, or skipped, so that nodes that write the same rows do not wait for each other in a circle.

use crate::{MOST_ROWS, Table};

/// Types that users and instances may have, as `format_type` calls them.
const TYPES: [&str; 4] = ["text", "character varying", "character", "uuid"];

/// What the table looks like: the types of its two columns, whether a user has one row at most, whether there are leases.
/// The name of the table is `$1`, that of the leases `$2`.
pub(super) const LOOK: &str = "\
SELECT (SELECT format_type(a.atttypid, NULL) FROM pg_attribute a
        WHERE a.attrelid = to_regclass($1) AND a.attname = 'user_id' AND NOT a.attisdropped) AS user_type,
       (SELECT format_type(a.atttypid, NULL) FROM pg_attribute a
        WHERE a.attrelid = to_regclass($1) AND a.attname = 'notifier_instance_id' AND NOT a.attisdropped) AS instance_type,
       (SELECT CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 END FROM pg_attribute a
        WHERE a.attrelid = to_regclass($1) AND a.attname = 'notifier_instance_id' AND NOT a.attisdropped) AS instance_room,
       EXISTS (SELECT 1 FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
               WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1
                 AND i.indpred IS NULL AND i.indexprs IS NULL AND a.attname = 'user_id') AS is_unique,
       to_regclass($2) IS NOT NULL AS has_leases";

/// What [`LOOK`] said.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub user: Option<String>,
    pub instance: Option<String>,
    /// Most characters of an instance, where there is a bound.
    pub instance_room: Option<i32>,
    pub is_unique: bool,
    pub has_leases: bool,
}

/// The statements. Those of users have `$1` an array of them, and `$2` the instance; they return how many rows changed.
#[derive(Debug)]
pub(super) struct Sql {
    pub put: String,
    pub take_over: String,
    pub clear: String,
    /// The instance of user `$1`, as a text.
    pub read: String,
    /// A page of the rows of instance `$1`.
    pub leave: String,
    /// Whether instance `$1` can stand in its column: a fault where not.
    pub try_instance: String,
    pub leases: Option<Leases>,
}

/// The statements of leases.
#[derive(Debug)]
pub(super) struct Leases {
    /// Prolongs that of `$1` by `$2` seconds; whether it held.
    pub beat: String,
    /// Clears a page of the rows of those whose lease is over.
    pub sweep: String,
    /// Drops the leases that are over and of which no row is left.
    pub forget: String,
    /// Ends that of `$1`.
    pub end: String,
}

/// What makes the table and the leases where they are missing. A user has one row.
pub(super) fn create(table: &Table) -> Vec<String> {
    let (t, leases, index) = (table.quoted(), table.leases(), table.index());
    vec![
        format!("CREATE TABLE IF NOT EXISTS {t} (user_id text PRIMARY KEY, notifier_instance_id text)"),
        format!("CREATE INDEX IF NOT EXISTS {index} ON {t} (notifier_instance_id)"),
        format!(
            "CREATE TABLE IF NOT EXISTS {leases} (notifier_instance_id text PRIMARY KEY, alive_until timestamptz NOT NULL)"
        ),
    ]
}

impl Sql {
    /// For a table of this shape; else what is wrong with it, for the operator.
    pub fn of(table: &Table, shape: &Shape) -> Result<Sql, String> {
        let t = table.quoted();
        let user = type_of(&t, "user_id", shape.user.as_deref())?;
        let instance = type_of(&t, "notifier_instance_id", shape.instance.as_deref())?;
        // An instance whose lease was cleared after meanwhile has one again that is over: whoever beats next clears the rows, or
        // is told that it lapsed.
        let leased = match shape.has_leases {
            true => format!(
                "leased AS (INSERT INTO {} (notifier_instance_id, alive_until) VALUES ($2, '-infinity')
                     ON CONFLICT DO NOTHING),",
                table.leases()
            ),
            false => String::new(),
        };
        let given = format!("{leased} given AS (SELECT u::{user} AS user_id FROM unnest($1) AS g(u))");
        let (put, take_over) = if shape.is_unique {
            (
                upsert(&t, &given, instance, ""),
                upsert(&t, &given, instance, "WHERE old.notifier_instance_id IS NULL"),
            )
        } else {
            (
                update_or_insert(&t, &given, instance, ""),
                update_or_insert(&t, &given, instance, "AND t.notifier_instance_id IS NULL"),
            )
        };
        let clear = format!(
            "WITH mine AS (SELECT user_id FROM {t} WHERE user_id = ANY($1::{user}[]) AND notifier_instance_id = $2::{instance}
                 ORDER BY user_id, ctid FOR UPDATE),
             changed AS (UPDATE {t} t SET notifier_instance_id = NULL FROM mine
                 WHERE t.user_id = mine.user_id AND t.notifier_instance_id = $2::{instance} RETURNING 1)
             SELECT count(*) FROM changed"
        );
        let leave = format!(
            "WITH mine AS (SELECT user_id FROM {t} WHERE notifier_instance_id = $1::{instance}
                 ORDER BY user_id LIMIT {MOST_ROWS} FOR UPDATE),
             changed AS (UPDATE {t} t SET notifier_instance_id = NULL FROM mine
                 WHERE t.user_id = mine.user_id AND t.notifier_instance_id = $1::{instance} RETURNING 1)
             SELECT count(*) FROM changed"
        );
        let leases = shape
            .has_leases
            .then(|| Leases::of(&t, &table.leases(), instance));
        Ok(Sql {
            put,
            take_over,
            clear,
            read: format!(
                "SELECT notifier_instance_id::text FROM {t} WHERE user_id = $1::{user}
                 ORDER BY notifier_instance_id NULLS LAST LIMIT 1"
            ),
            leave,
            try_instance: format!("SELECT ($1::{instance})::text"),
            leases,
        })
    }
}

/// `only` is a condition on the old row, or nothing. What would not change is not touched.
fn upsert(t: &str, given: &str, instance: &str, only: &str) -> String {
    format!(
        "WITH {given},
         changed AS (INSERT INTO {t} AS t (user_id, notifier_instance_id)
             SELECT given.user_id, $2::{instance} FROM given LEFT JOIN {t} old ON old.user_id = given.user_id
                 {only} ORDER BY given.user_id
             ON CONFLICT (user_id) DO UPDATE SET notifier_instance_id = EXCLUDED.notifier_instance_id
                 WHERE {} RETURNING 1)
         SELECT count(*) FROM changed",
        match only {
            "" => "t.notifier_instance_id IS DISTINCT FROM EXCLUDED.notifier_instance_id",
            _ => "t.notifier_instance_id IS NULL",
        }
    )
}

/// For a table in which nothing keeps a user from having two rows. `only` is a condition on the row, or nothing.
fn update_or_insert(t: &str, given: &str, instance: &str, only: &str) -> String {
    format!(
        "WITH {given},
         locked AS (SELECT t.user_id FROM {t} t JOIN given ON t.user_id = given.user_id
             WHERE true {only} ORDER BY t.user_id, t.ctid FOR UPDATE OF t),
         changed AS (UPDATE {t} t SET notifier_instance_id = $2::{instance} FROM (SELECT DISTINCT user_id FROM locked) l
             WHERE t.user_id = l.user_id {only} RETURNING 1),
         added AS (INSERT INTO {t} (user_id, notifier_instance_id) SELECT given.user_id, $2::{instance} FROM given
             WHERE NOT EXISTS (SELECT 1 FROM {t} t WHERE t.user_id = given.user_id) RETURNING 1)
         SELECT (SELECT count(*) FROM changed) + (SELECT count(*) FROM added)"
    )
}

impl Leases {
    fn of(t: &str, leases: &str, instance: &str) -> Leases {
        Leases {
            beat: format!(
                "WITH old AS (SELECT alive_until FROM {leases} WHERE notifier_instance_id = $1)
                 INSERT INTO {leases} AS l (notifier_instance_id, alive_until) VALUES ($1, now() + make_interval(secs => $2))
                 ON CONFLICT (notifier_instance_id) DO UPDATE SET alive_until = EXCLUDED.alive_until
                 RETURNING (SELECT alive_until >= now() FROM old)"
            ),
            sweep: format!(
                "WITH dead AS (SELECT t.user_id, t.notifier_instance_id FROM {leases} l
                     JOIN {t} t ON t.notifier_instance_id = l.notifier_instance_id::{instance}
                     WHERE l.alive_until < now() LIMIT {MOST_ROWS} FOR UPDATE OF t SKIP LOCKED),
                 changed AS (UPDATE {t} t SET notifier_instance_id = NULL FROM dead
                     WHERE t.user_id = dead.user_id AND t.notifier_instance_id = dead.notifier_instance_id RETURNING 1)
                 SELECT count(*) FROM changed"
            ),
            forget: format!(
                "DELETE FROM {leases} l WHERE l.alive_until < now() AND NOT EXISTS (SELECT 1 FROM {t} t
                     WHERE t.notifier_instance_id = l.notifier_instance_id::{instance})"
            ),
            end: format!("DELETE FROM {leases} WHERE notifier_instance_id = $1"),
        }
    }
}

fn type_of<'a>(t: &str, column: &str, found: Option<&'a str>) -> Result<&'a str, String> {
    match found {
        None => Err(format!(
            "there is no column {column} in a table {t}; it is made where registry.create is true"
        )),
        Some(found) if TYPES.contains(&found) => Ok(found),
        Some(found) => Err(format!(
            "the column {column} of {t} is of the type {found}; it must be text or uuid"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_will_not_do_is_told_from_one_that_will() {
        let table: Table = "notifier_instances".parse().unwrap();
        let shape = |user: Option<&str>, instance: Option<&str>| Shape {
            user: user.map(str::to_owned),
            instance: instance.map(str::to_owned),
            instance_room: None,
            is_unique: true,
            has_leases: false,
        };
        assert!(Sql::of(&table, &shape(Some("uuid"), Some("character varying"))).is_ok());
        for (user, instance, told) in [
            (None, None, "there is no column user_id"),
            (Some("text"), None, "there is no column notifier_instance_id"),
            (Some("bigint"), Some("text"), "is of the type bigint"),
        ] {
            let fault = Sql::of(&table, &shape(user, instance)).unwrap_err();
            assert!(fault.contains(told), "{fault}");
        }
    }
}
