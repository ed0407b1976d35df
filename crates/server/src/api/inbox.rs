//! `POST /v1/inbox/ack` and `…/read`: a client's word, answered after it is synced.

use super::refusal::{Refusal, engine_problem, sentence};
use super::{Api, body, text};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use postrider_engine::Sync;
use postrider_model::{
    Cursor, Evidence, FeedId, Membership, NotificationId, Position, SettleKind, SettleTarget, Settlement,
    UserId,
};
use postrider_transports::{Credentials, Gate as _, Identity, Problem};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Bodies here are lists of ids.
pub const BODY_BYTES: usize = 1 << 20;
/// Most ids of one request.
const IDS: usize = 5_000;

/// The user behind a request of the API. A ticket stands for a session only, and counts for nothing here.
pub fn identify(api: &Api, headers: &HeaderMap) -> Result<Identity, Problem> {
    let credentials = Credentials {
        authorization: text(headers, header::AUTHORIZATION.as_str()),
        cookie: text(headers, header::COOKIE.as_str()),
        ticket: None,
        origin: text(headers, header::ORIGIN.as_str()),
        sec_fetch_site: text(headers, "sec-fetch-site"),
        host: text(headers, header::HOST.as_str()),
        resumes: false,
        // Wrong ones are counted where every answer passes.
        client: None,
    };
    api.auth.identify(&credentials, crate::now())
}

/// Marks as delivered.
pub async fn ack(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    settle(&api, &headers, body, SettleKind::Delivered).await
}

/// Marks as read.
pub async fn read(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    settle(&api, &headers, body, SettleKind::Read).await
}

async fn settle(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
    kind: SettleKind,
) -> Result<Json<Value>, Refusal> {
    let identity = identify(api, headers)?;
    body::media_type(headers, &["application/json"])?;
    let body = body::read_whole(api, headers, body, body::Most::bytes(BODY_BYTES)).await?;
    let word = word(&body, &identity.user)?;
    let settled = take(api, identity.user, kind, word).await?;
    Ok(Json(json!({ "settled": settled })))
}

/// Takes a client's word, and says how many it settled.
pub async fn take(api: &Api, user: UserId, kind: SettleKind, word: Word) -> Result<u64, Problem> {
    let refused = |error| engine_problem(&error);
    let target = match word {
        Word::Ids(ids) => SettleTarget::Ids(ids),
        Word::Cursor(cursor) => {
            let memberships = api.engine.memberships(&user).await.map_err(refused)?;
            SettleTarget::Through(positions(&cursor, &user, &memberships))
        }
    };
    let settlement = Settlement {
        user,
        kind,
        target,
        evidence: Evidence::Client,
        session: None,
        transport: None,
    };
    let batch = vec![settlement];
    let settled = (api.engine.settle(batch.clone(), Sync::Durable).await).map_err(refused)?;
    api.waits.settled(&batch);
    let settled = settled.first().copied().unwrap_or(0);
    api.metrics.count_settled(kind, settled);
    Ok(settled)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    ids: Option<Vec<String>>,
    cursor: Option<String>,
}

/// What the client speaks of: ids, or everything up to a cursor.
#[derive(Debug, PartialEq)]
pub enum Word {
    /// These.
    Ids(Vec<NotificationId>),
    /// All up to and with it.
    Cursor(Cursor),
}

impl Word {
    /// Ids that name nothing are no error; a text that cannot be an id is a mistake worth telling.
    pub fn ids(texts: &[String]) -> Result<Word, Problem> {
        if texts.len() > IDS {
            let detail = format!("At most {IDS} ids fit in one request.");
            return Err(Problem::too_large(detail, Some("/ids".into())));
        }
        let ids = texts.iter().enumerate().map(|(i, text)| {
            NotificationId::new(text).map_err(|e| Problem {
                pointer: Some(format!("/ids/{i}")),
                ..Problem::invalid_request(sentence(&e))
            })
        });
        ids.collect::<Result<_, _>>().map(Word::Ids)
    }

    /// A cursor of this user.
    pub fn cursor(text: &str, user: &UserId) -> Result<Word, Problem> {
        let cursor = Cursor::decode(text, user).map_err(|e| Problem {
            pointer: Some("/cursor".into()),
            ..Problem::invalid_cursor(sentence(&e))
        })?;
        Ok(Word::Cursor(cursor))
    }
}

fn word(body: &[u8], user: &UserId) -> Result<Word, Problem> {
    const SHAPE: &str = "Send {\"ids\":[…]} or {\"cursor\":\"…\"}, exactly one of them.";
    let word: Written = serde_json::from_slice(body)
        .map_err(|e| Problem::invalid_request(format!("The body cannot be read: {e}. {SHAPE}")))?;
    match (word.ids, word.cursor) {
        (Some(ids), None) => Word::ids(&ids),
        (None, Some(cursor)) => Word::cursor(&cursor, user),
        _ => Err(Problem::invalid_request(SHAPE)),
    }
}

/// The feeds of an inbox that carry a delivery state: topics only where the user is a member, or was.
fn positions(cursor: &Cursor, user: &UserId, memberships: &[Membership]) -> Vec<(FeedId, Position)> {
    let topics = memberships.iter().map(|one| FeedId::Topic(one.topic.clone()));
    let feeds = [FeedId::User(user.clone()), FeedId::All];
    feeds
        .into_iter()
        .chain(topics)
        .filter_map(|feed| cursor.get(&feed).map(|position| (feed, position)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_model::{Epoch, Topic};

    #[test]
    fn exactly_one_of_ids_and_cursor() {
        let ada = UserId::new("ada").unwrap();
        let place = Position {
            epoch: Epoch(1),
            offset: 7,
        };
        let cursor = Cursor::new([(&FeedId::All, place)]).encode(&ada);
        let of = |body: &str| word(body.as_bytes(), &ada).map_err(|problem| problem.code);
        let ids = Word::Ids(vec![NotificationId::new("a").unwrap()]);
        assert_eq!(of(r#"{"ids":["a"]}"#), Ok(ids));
        let through = Word::Cursor(Cursor::new([(&FeedId::All, place)]));
        assert_eq!(of(&format!(r#"{{"cursor":"{cursor}"}}"#)), Ok(through));
        for body in [
            "",
            "{}",
            "[]",
            r#"{"ids":[1]}"#,
            r#"{"ids":["no/id"]}"#,
            r#"{"id":[]}"#,
            r#"{"ids":[],"cursor":"x"}"#,
        ] {
            assert_eq!(of(body), Err("invalid_request"), "{body}");
        }
        assert_eq!(of(r#"{"cursor":"x"}"#), Err("invalid_cursor"));
        let bobs = Cursor::new([(&FeedId::All, place)]).encode(&UserId::new("bob").unwrap());
        assert_eq!(of(&format!(r#"{{"cursor":"{bobs}"}}"#)), Err("invalid_cursor"));
    }
    #[test]
    fn a_topic_counts_for_its_members() {
        let ada = UserId::new("ada").unwrap();
        let place = Position {
            epoch: Epoch(1),
            offset: 7,
        };
        let feed = |name| FeedId::Topic(Topic::new(name).unwrap());
        let (member, session) = (feed("member"), feed("session"));
        let cursor = Cursor::new([(&member, place), (&session, place), (&FeedId::All, place)]);
        let membership = Membership::new(Topic::new("member").unwrap());
        let settled = positions(&cursor, &ada, &[membership]);
        assert_eq!(settled, [(FeedId::All, place), (member, place)]);
    }
}
