//! The directory of users, and their state maps: reads from a view of the store, changes by the writer.

use super::codec::key;
use super::codec::people::UserRecord;
use super::store::{Table, View};
use super::writer::Command;
use super::{Embedded, StoreFault, people, tables};
use crate::{
    Directory, DirectoryError, EngineError, MemberChange, MemberPage, Put, States, UserEntry, UserPage,
    UserPut,
};
use async_trait::async_trait;
use postrider_model::{Membership, StateChange, StateError, Topic, UserId, UserState};

/// Users, or members, of one page.
const MAX_PAGE: usize = 10_000;
/// A page takes no more users once what is known of them amounts to this.
const MAX_PAGE_BYTES: usize = 1 << 20;
/// Users read in one step of a page.
const STEP: usize = 32;

#[async_trait]
impl Directory for Embedded {
    async fn put_users(&self, users: Vec<UserPut>) -> Result<Vec<Result<Put, DirectoryError>>, EngineError> {
        self.ask(|reply| Command::PutUsers(users, reply)).await
    }

    async fn user(&self, user: &UserId) -> Result<Option<UserEntry>, EngineError> {
        Ok(self.look(|reader| {
            let view = &*reader.view;
            Ok(match people::user(view, user)? {
                Some(record) => Some(entry(user.clone(), record, people::memberships(view, user)?)),
                None => None,
            })
        })?)
    }

    async fn users(&self, after: Option<UserId>, limit: usize) -> Result<UserPage, EngineError> {
        Ok(self.look(|reader| users(&*reader.view, after.as_ref(), limit.min(MAX_PAGE)))?)
    }

    async fn remove_user(&self, user: &UserId) -> Result<bool, EngineError> {
        self.ask(|reply| Command::RemoveUser(user.clone(), reply)).await
    }

    async fn change_members(
        &self,
        changes: Vec<MemberChange>,
    ) -> Result<Vec<Result<bool, DirectoryError>>, EngineError> {
        self.ask(|reply| Command::ChangeMembers(changes, reply)).await
    }

    async fn members(
        &self,
        topic: &Topic,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<MemberPage, EngineError> {
        let limit = limit.min(MAX_PAGE);
        Ok(self.look(|reader| members(&*reader.view, topic, after.as_ref(), limit))?)
    }

    async fn memberships(&self, user: &UserId) -> Result<Vec<Membership>, EngineError> {
        Ok(self.look(|reader| people::memberships(&*reader.view, user))?)
    }
}

#[async_trait]
impl States for Embedded {
    async fn state(&self, user: &UserId) -> Result<UserState, EngineError> {
        Ok(self.look(|reader| people::state(&*reader.view, user))?)
    }

    async fn change_state(
        &self,
        user: &UserId,
        change: StateChange,
    ) -> Result<Result<UserState, StateError>, EngineError> {
        self.ask(|reply| Command::ChangeState(user.clone(), change, reply))
            .await
    }
}

fn entry(user: UserId, record: UserRecord, memberships: Vec<Membership>) -> UserEntry {
    UserEntry {
        user,
        profile: record.profile,
        memberships,
        created_at: record.created_at,
        changed_at: record.changed_at,
    }
}

fn users(view: &dyn View, after: Option<&UserId>, limit: usize) -> Result<UserPage, StoreFault> {
    let (mut page, mut bytes) = (UserPage::default(), 0);
    let mut from = after.map_or(Vec::new(), |user| [user.as_str().as_bytes(), &[0]].concat());
    loop {
        let rows = view.scan(Table::Users, &from, &[0xff; 300], STEP)?;
        let ended = rows.len() < STEP;
        for (row, value) in &rows {
            if page.users.len() >= limit || bytes >= MAX_PAGE_BYTES {
                page.more = true;
                return Ok(page);
            }
            let user = tables::user_at_end("users", 0, row)?;
            let memberships = people::memberships(view, &user)?;
            let topics = memberships.iter().map(|one| one.topic.as_str().len());
            bytes += value.len() + topics.sum::<usize>();
            page.users
                .push(entry(user, UserRecord::decode(value)?, memberships));
        }
        match rows.last() {
            Some((last, _)) if !ended => from = [last.as_slice(), &[0]].concat(),
            _ => return Ok(page),
        }
    }
}

fn members(
    view: &dyn View,
    topic: &Topic,
    after: Option<&UserId>,
    limit: usize,
) -> Result<MemberPage, StoreFault> {
    let prefix = key::members(topic);
    let from = after.map_or(prefix.clone(), |user| {
        [&key::member(topic, user), &[0][..]].concat()
    });
    let end = key::after(&prefix);
    let mut rows = view.scan(Table::Members, &from, &end, limit.saturating_add(1))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let users = rows
        .iter()
        .map(|(row, _)| tables::user_at_end("members", prefix.len(), row));
    Ok(MemberPage {
        users: users.collect::<Result<_, _>>()?,
        count: people::count(view, topic)?,
        more,
    })
}
