//! For whom a push is, once those who are excluded are taken off.

use postrider_model::{Audience, UserId};

/// Those whom a push is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// These users, each once.
    Users(Vec<UserId>),
    /// Everyone on the channel's list but these users, sorted.
    EveryoneBut(Vec<UserId>),
}

/// A channel's list has users, and no topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a channel knows users, and no members of topics")]
pub struct WithoutTopics;

impl Whom {
    /// From the audience of a notification, whose users stand in it once, and those who are excluded, sorted.
    ///
    /// # Errors
    /// It is for topics.
    pub fn of(audience: &Audience, exclude: &[UserId]) -> Result<Whom, WithoutTopics> {
        match audience {
            Audience::Users(users) => {
                let of_them = users.iter().filter(|user| exclude.binary_search(user).is_err());
                Ok(Whom::Users(of_them.cloned().collect()))
            }
            Audience::Everyone => Ok(Whom::EveryoneBut(exclude.to_vec())),
            Audience::Topics(_) => Err(WithoutTopics),
        }
    }

    /// Whether a user of the list is among them.
    pub fn has(&self, user: &str) -> bool {
        match self {
            Whom::Users(users) => users.iter().any(|one| one.as_str() == user),
            Whom::EveryoneBut(excluded) => excluded.binary_search_by(|one| one.as_str().cmp(user)).is_err(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(names: &[&str]) -> Vec<UserId> {
        names.iter().map(|name| UserId::new(name).unwrap()).collect()
    }

    #[test]
    fn the_excluded_are_taken_off() {
        let of = |audience, excluded: &[&str]| Whom::of(&audience, &users(excluded));
        let some = of(Audience::Users(users(&["c", "a", "b"])), &["a", "z"]).unwrap();
        assert_eq!(some, Whom::Users(users(&["c", "b"])));
        assert!(some.has("c") && !some.has("a") && !some.has("d"));
        let all = of(Audience::Everyone, &["a", "z"]).unwrap();
        assert!(all.has("c") && !all.has("a") && !all.has("z"));
        // Whatever stands in a table is somebody.
        assert!(all.has("") && all.has("a b"));
        let nobody = of(Audience::Users(users(&["a"])), &["a"]).unwrap();
        assert_eq!(nobody, Whom::Users(vec![]));
        assert_eq!(of(Audience::Topics(vec![]), &[]), Err(WithoutTopics));
    }
}
