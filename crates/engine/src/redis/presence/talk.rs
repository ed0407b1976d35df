//! What nodes say to each other about presence, over sharded channels. Lossy: who asks waits a bounded time, and who
//! follows a stream counts what comes.
//!
//! Invariant: what cannot be read is not taken for something else: a byte tells the version, and what a newer node says
//! in another one is let pass.

use crate::{Marks, PresenceFilter, PresenceNews, PresentSession, TopicPresence, TopicShare};
use postrider_model::{SessionId, Timestamp, Topic, Transport, UserId};
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Said {
    /// Answer this to `from`.
    Ask { from: String, id: u64, what: Question },
    /// The answer of node `from`.
    Answer { from: String, id: u64, what: Answer },
    /// Tell `from` who comes and goes on your node, from the beginning.
    Watch { from: String, id: u64, filter: Filter },
    /// No longer.
    Unwatch { from: String, id: u64 },
    /// The `nth` of what node `from` has to tell to that watch; nothing, where it only shows that none is missing.
    News {
        from: String,
        id: u64,
        nth: u64,
        news: Option<News>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Which sessions has this user?
    User(UserId),
    /// Who hears this topic?
    Topic {
        topic: Topic,
        after: Option<UserId>,
        limit: usize,
    },
    /// The asking node has just come: do you see it on the roster?
    Newcomer,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Session and transport.
    User(Vec<(SessionId, String)>),
    Topic {
        sessions: u64,
        users: u64,
        page: Vec<UserId>,
        more: bool,
        zeros: u32,
        digests: Vec<u64>,
    },
    /// The newcomer is seen: it is asked from now on, and what it writes counts.
    Seen,
    /// Too many ask at a time, or it could not be found out.
    Not,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Filter {
    All,
    Users(Vec<UserId>),
    Topic(Topic),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum News {
    Present { users: Vec<UserId>, last: bool },
    Change { user: UserId, online: bool, at: u64 },
    Lagged,
}

impl Said {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        // Of what is in a message nothing can fail to be written.
        bytes.extend(serde_json::to_vec(self).unwrap_or_default());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Said> {
        let (version, rest) = bytes.split_first()?;
        (*version == VERSION).then(|| serde_json::from_slice(rest).ok())?
    }
}

impl Answer {
    pub fn of_user(sessions: Vec<PresentSession>) -> Answer {
        let told = |one: PresentSession| (one.session, one.transport.as_str().to_owned());
        Answer::User(sessions.into_iter().map(told).collect())
    }

    pub fn of_topic(share: TopicShare) -> Answer {
        let TopicPresence {
            sessions,
            users,
            page,
            more,
        } = share.presence;
        let zeros = share.marks.zeros();
        let digests = share.marks.digests().collect();
        Answer::Topic {
            sessions,
            users,
            page,
            more,
            zeros,
            digests,
        }
    }

    pub fn sessions(self) -> Option<Vec<PresentSession>> {
        let Answer::User(told) = self else { return None };
        let read = |(session, transport): (SessionId, String)| {
            let transport = Transport::ALL.into_iter().find(|one| one.as_str() == transport)?;
            Some(PresentSession { session, transport })
        };
        Some(told.into_iter().filter_map(read).collect())
    }

    pub fn share(self) -> Option<TopicShare> {
        let Answer::Topic {
            sessions,
            users,
            page,
            more,
            zeros,
            digests,
        } = self
        else {
            return None;
        };
        Some(TopicShare {
            presence: TopicPresence {
                sessions,
                users,
                page,
                more,
            },
            marks: Marks::of(zeros, digests),
        })
    }
}

impl From<PresenceFilter> for Filter {
    fn from(filter: PresenceFilter) -> Filter {
        match filter {
            PresenceFilter::All => Filter::All,
            PresenceFilter::Users(users) => Filter::Users(users),
            PresenceFilter::Topic(topic) => Filter::Topic(topic),
        }
    }
}

impl From<Filter> for PresenceFilter {
    fn from(filter: Filter) -> PresenceFilter {
        match filter {
            Filter::All => PresenceFilter::All,
            Filter::Users(users) => PresenceFilter::Users(users),
            Filter::Topic(topic) => PresenceFilter::Topic(topic),
        }
    }
}

impl From<PresenceNews> for News {
    fn from(news: PresenceNews) -> News {
        match news {
            PresenceNews::Present { users, last } => News::Present { users, last },
            PresenceNews::Change { user, online, at } => News::Change {
                user,
                online,
                at: at.0,
            },
            PresenceNews::Lagged => News::Lagged,
        }
    }
}

impl From<News> for PresenceNews {
    fn from(news: News) -> PresenceNews {
        match news {
            News::Present { users, last } => PresenceNews::Present { users, last },
            News::Change { user, online, at } => PresenceNews::Change {
                user,
                online,
                at: Timestamp(at),
            },
            News::Lagged => PresenceNews::Lagged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user() -> impl Strategy<Value = UserId> {
        "[a-z]{1,8}".prop_map(|name| UserId::new(&name).unwrap())
    }

    fn topic() -> impl Strategy<Value = Topic> {
        "[a-z]{1,8}".prop_map(|name| Topic::new(&name).unwrap())
    }

    fn users() -> impl Strategy<Value = Vec<UserId>> {
        proptest::collection::vec(user(), 0..4)
    }

    fn question() -> impl Strategy<Value = Question> {
        prop_oneof![
            Just(Question::Newcomer),
            user().prop_map(Question::User),
            (topic(), proptest::option::of(user()), any::<usize>())
                .prop_map(|(topic, after, limit)| Question::Topic { topic, after, limit }),
        ]
    }

    fn answer() -> impl Strategy<Value = Answer> {
        let session = |n: u32| (SessionId::new(&format!("s-{n}")).unwrap(), "sse".to_owned());
        let marks = proptest::collection::vec(any::<u64>(), 0..4);
        let topic = (users(), marks, any::<[u64; 2]>(), any::<u32>(), any::<bool>());
        prop_oneof![
            Just(Answer::Not),
            Just(Answer::Seen),
            proptest::collection::vec(any::<u32>().prop_map(session), 0..4).prop_map(Answer::User),
            topic.prop_map(|(page, digests, [sessions, users], zeros, more)| Answer::Topic {
                sessions,
                users,
                page,
                more,
                zeros,
                digests,
            }),
        ]
    }

    fn filter() -> impl Strategy<Value = Filter> {
        prop_oneof![
            Just(Filter::All),
            users().prop_map(Filter::Users),
            topic().prop_map(Filter::Topic),
        ]
    }

    fn news() -> impl Strategy<Value = News> {
        prop_oneof![
            Just(News::Lagged),
            (users(), any::<bool>()).prop_map(|(users, last)| News::Present { users, last }),
            (user(), any::<bool>(), any::<u64>()).prop_map(|(user, online, at)| News::Change {
                user,
                online,
                at
            }),
        ]
    }

    fn said() -> impl Strategy<Value = Said> {
        let whom = || ("[a-z0-9-]{0,12}", any::<u64>());
        prop_oneof![
            (whom(), question()).prop_map(|((from, id), what)| Said::Ask { from, id, what }),
            (whom(), answer()).prop_map(|((from, id), what)| Said::Answer { from, id, what }),
            (whom(), filter()).prop_map(|((from, id), filter)| Said::Watch { from, id, filter }),
            whom().prop_map(|(from, id)| Said::Unwatch { from, id }),
            (whom(), any::<u64>(), proptest::option::of(news()))
                .prop_map(|((from, id), nth, news)| Said::News { from, id, nth, news }),
        ]
    }

    /// Bytes of the names of fields, which may be left out where they stand in order.
    const NAMES: usize = 160;

    /// Reads what may be anything. What comes of it says itself again, in about as many bytes: nothing grew in reading.
    fn read(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Some(said) = Said::decode(bytes) else {
            return Ok(());
        };
        let again = said.encode();
        prop_assert!(
            again.len() <= bytes.len() + NAMES,
            "{} of {}",
            again.len(),
            bytes.len()
        );
        prop_assert_eq!(Said::decode(&again), Some(said.clone()));
        if let Said::Answer { what, .. } = said {
            let sessions = what.clone().sessions().map_or(0, |sessions| sessions.len());
            let marks = what.share().map_or(0, |share| share.marks.digests().count());
            prop_assert!(sessions + marks <= bytes.len());
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_heard_as_it_was(said in said()) {
            prop_assert_eq!(Said::decode(&said.encode()), Some(said));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            read(&bytes)?;
            read(&[&[VERSION], bytes.as_slice()].concat())?;
        }

        /// Near what is said: bytes changed, left out and put in.
        #[test]
        fn what_was_damaged_is_read_without_harm(
            said in said(),
            damage in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..3, any::<u8>()), 1..6),
        ) {
            let mut bytes = said.encode();
            for (at, how, byte) in damage {
                let at = at.index(bytes.len() + 1).min(bytes.len());
                match how {
                    0 => bytes.insert(at, byte),
                    1 if at < bytes.len() => _ = bytes.remove(at),
                    _ if at < bytes.len() => bytes[at] = byte,
                    _ => bytes.truncate(at / 2),
                }
            }
            read(&bytes)?;
        }
    }

    #[test]
    fn what_is_nested_deeply_is_refused_and_not_followed() {
        for open in ["[", "{\"Ask\":", "{\"Answer\":{\"what\":"] {
            let deep = [&[VERSION], open.repeat(200_000).as_bytes()].concat();
            assert_eq!(Said::decode(&deep), None);
        }
        // Fields that nobody knows are passed over, however deep.
        let unknown = format!(
            "{{\"Unwatch\":{{\"from\":\"a\",\"id\":1,\"x\":{}",
            "[".repeat(200_000)
        );
        assert_eq!(Said::decode(&[&[VERSION], unknown.as_bytes()].concat()), None);
    }

    #[test]
    fn what_is_said_is_heard_and_nothing_else() {
        let user = UserId::new("ada").unwrap();
        let said = Said::News {
            from: "n1".into(),
            id: 7,
            nth: 3,
            news: Some(News::Change {
                user: user.clone(),
                online: true,
                at: 5,
            }),
        };
        let bytes = said.encode();
        assert_eq!(Said::decode(&bytes), Some(said));
        let newer = [&[VERSION + 1], &bytes[1..]].concat();
        assert_eq!(Said::decode(&newer), None);
        assert_eq!(Said::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Said::decode(b""), None);
        assert_eq!(
            Said::decode(b"\x01{\"Ask\":{\"from\":\"a\",\"id\":1,\"what\":{\"User\":\"\"}}}"),
            None
        );
    }

    #[test]
    fn answers_keep_what_they_hold() {
        let session = PresentSession {
            session: SessionId::new("a-1").unwrap(),
            transport: Transport::Sse,
        };
        assert_eq!(
            Answer::of_user(vec![session.clone()]).sessions(),
            Some(vec![session])
        );
        let mut share = TopicShare::default();
        (share.presence.users, share.presence.more) = (2, true);
        share.marks.add(&UserId::new("ada").unwrap());
        assert_eq!(Answer::of_topic(share.clone()).share(), Some(share));
        assert_eq!(Answer::Not.share(), None);
    }
}
