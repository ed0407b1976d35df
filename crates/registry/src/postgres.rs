//! The table in PostgreSQL: `notifier_instances (user_id, notifier_instance_id)`, and beside it `…_alive`, the leases.
//!
//! One connection, since statements follow each other, and another for lookups, so that they keep nobody up; each is made
//! again when it is lost. Every statement is one round trip and prepared for nobody, so that it may go through a pooler.
//! Leases are counted by the database's clock.
//!
//! Invariant: no statement is waited for longer than [`ANSWER`], and the database gives up before that. A column's type
//! is taken as it is found (text or UUID); names of tables are checked and quoted.

mod address;
mod link;
mod sql;
mod tls;

pub use address::Address;

use crate::Table;
use crate::registry::{Lease, Registry, RegistryFault};
use async_trait::async_trait;
use link::{Link, Session};
use postrider_model::{Millis, UserId};
use sql::{Shape, Sql};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

/// A connection has to stand within this.
const CONNECT: Duration = Duration::from_secs(3);
/// A statement is answered within this.
const ANSWER: Duration = Duration::from_secs(5);
/// The database gives a statement up after this, before nobody waits for it.
const STATEMENT: Duration = Duration::from_secs(4);

/// A value of a statement.
type Value<'a> = (&'a (dyn ToSql + Sync), Type);

/// How the table is reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is.
    pub address: Address,
    /// Its name.
    pub table: Table,
    /// Whether it, and the leases, are made where they are missing.
    pub create: bool,
    /// What this instance is called.
    pub instance: String,
    /// How long its lease lasts.
    pub lease: Millis,
}

/// The table, as one instance writes it.
pub struct Postgres {
    options: Options,
    link: Link,
    /// For what is written.
    session: Mutex<Option<Session>>,
    /// For lookups; made with the first.
    reads: Mutex<Option<Session>>,
    /// As the table was found.
    sql: OnceLock<Sql>,
}

impl Postgres {
    /// Nothing is reached yet.
    ///
    /// # Errors
    /// The file of trusted certificates cannot be read.
    pub fn new(options: Options) -> Result<Postgres, RegistryFault> {
        Ok(Postgres {
            link: Link::new(&options.address)?,
            options,
            session: Mutex::default(),
            reads: Mutex::default(),
            sql: OnceLock::new(),
        })
    }

    fn sql(&self) -> Result<&Sql, RegistryFault> {
        let unopened = || RegistryFault::Away("the table was not looked at yet".into());
        self.sql.get().ok_or_else(unopened)
    }

    async fn rows(&self, statement: &str, values: &[Value<'_>]) -> Result<Vec<Row>, RegistryFault> {
        self.rows_on(&self.session, statement, values).await
    }

    /// Runs a statement on the connection of this place, which is made where there is none and dropped after a fault that
    /// may be its.
    async fn rows_on(
        &self,
        place: &Mutex<Option<Session>>,
        statement: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, RegistryFault> {
        let mut place = place.lock().await;
        // Not in its place while it is used: who is cancelled leaves none behind.
        let mut session = match place.take() {
            Some(session) if !session.is_closed() => session,
            _ => self.link.connect().await?,
        };
        let answer = session.query(statement, values).await;
        if !matches!(answer, Err(RegistryFault::Away(_))) {
            *place = Some(session);
        }
        answer
    }

    /// Runs a statement that counts the rows it changed.
    async fn count(&self, statement: &str, values: &[Value<'_>]) -> Result<u64, RegistryFault> {
        let rows = self.rows(statement, values).await?;
        let count: Option<i64> = told(&rows)?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    }

    async fn of_users(&self, statement: &str, users: &[UserId]) -> Result<u64, RegistryFault> {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        self.count(statement, &[(&users, Type::TEXT_ARRAY), self.instance()])
            .await
    }

    /// Repeats a statement that changes a page at a time until there is none.
    async fn all_pages(&self, statement: &str, values: &[Value<'_>]) -> Result<(), RegistryFault> {
        while self.count(statement, values).await? > 0 {}
        Ok(())
    }

    /// An instance that its column cannot hold is no fault of the users'.
    async fn fits(&self, sql: &Sql, room: Option<i32>) -> Result<(), RegistryFault> {
        let length = self.options.instance.chars().count();
        let room = room.and_then(|room| usize::try_from(room).ok());
        if let Some(room) = room.filter(|room| length > *room) {
            return Err(RegistryFault::Refused(format!(
                "notifier_instance_id takes {room} characters, and this instance's id has {length}"
            )));
        }
        match self.rows(&sql.try_instance, &[self.instance()]).await {
            Err(RegistryFault::Unfit(what)) => {
                Err(RegistryFault::Refused(format!("notifier_instance_id: {what}")))
            }
            other => other.map(drop),
        }
    }

    fn instance(&self) -> Value<'_> {
        (&self.options.instance, Type::TEXT)
    }
}

#[async_trait]
impl Registry for Postgres {
    async fn open(&self) -> Result<(), RegistryFault> {
        if self.options.create && self.sql.get().is_none() {
            for statement in sql::create(&self.options.table) {
                self.rows(&statement, &[]).await?;
            }
        }
        let name = self.options.table.quoted();
        let leases = self.options.table.leases();
        let found = self
            .rows(sql::LOOK, &[(&name, Type::TEXT), (&leases, Type::TEXT)])
            .await?;
        let text = |column: &str| -> Option<String> {
            let row = found.first()?;
            row.try_get(column).ok().flatten()
        };
        let truth = |column: &str| -> bool {
            let row = found.first();
            row.and_then(|row| row.try_get(column).ok()).unwrap_or(false)
        };
        let shape = Shape {
            user: text("user_type"),
            instance: text("instance_type"),
            instance_room: found
                .first()
                .and_then(|row| row.try_get("instance_room").ok().flatten()),
            is_unique: truth("is_unique"),
            has_leases: truth("has_leases"),
        };
        let sql = Sql::of(&self.options.table, &shape).map_err(RegistryFault::Refused)?;
        self.fits(&sql, shape.instance_room).await?;
        if self.sql.set(sql).is_ok() {
            if !shape.is_unique {
                tracing::warn!(
                    "no unique index keeps a user from having two rows in the registry's table: add one on user_id"
                );
            }
            if !shape.has_leases {
                let leases = self.options.table.leases();
                tracing::warn!(
                    leases,
                    "the registry has no table of leases: rows of a node that dies stay"
                );
            }
        }
        Ok(())
    }

    async fn put(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.of_users(&self.sql()?.put, users).await.map(drop)
    }

    async fn take_over(&self, users: &[UserId]) -> Result<u64, RegistryFault> {
        self.of_users(&self.sql()?.take_over, users).await
    }

    async fn clear(&self, users: &[UserId]) -> Result<(), RegistryFault> {
        self.of_users(&self.sql()?.clear, users).await.map(drop)
    }

    async fn beat(&self) -> Result<Lease, RegistryFault> {
        let Some(leases) = &self.sql()?.leases else {
            return Ok(Lease::Held);
        };
        let seconds = self.options.lease.as_duration().as_secs_f64();
        let rows = self
            .rows(&leases.beat, &[self.instance(), (&seconds, Type::FLOAT8)])
            .await?;
        let held: Option<bool> = told(&rows)?;
        self.all_pages(&leases.sweep, &[]).await?;
        self.rows(&leases.forget, &[]).await?;
        Ok(match held {
            Some(true) => Lease::Held,
            _ => Lease::Lapsed,
        })
    }

    async fn leave(&self) -> Result<(), RegistryFault> {
        let sql = self.sql()?;
        self.all_pages(&sql.leave, &[self.instance()]).await?;
        if let Some(leases) = &sql.leases {
            self.rows(&leases.end, &[self.instance()]).await?;
        }
        Ok(())
    }

    async fn instance_of(&self, user: &UserId) -> Result<Option<String>, RegistryFault> {
        let name = user.as_str();
        let values = [(&name as &(dyn ToSql + Sync), Type::TEXT)];
        match self.rows_on(&self.reads, &self.sql()?.read, &values).await {
            Ok(rows) => told(&rows),
            Err(RegistryFault::Unfit(_)) => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// The first value of the first row; `None` where it is NULL, or there is no row.
fn told<T: for<'a> FromSql<'a>>(rows: &[Row]) -> Result<Option<T>, RegistryFault> {
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    row.try_get(0)
        .map_err(|error| RegistryFault::Refused(error.to_string()))
}
