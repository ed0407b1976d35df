//! `postrider.v1.NotificationService`: each method hands its message to what serves the same request under `/v1`.

use super::draft::{draft, placed};
use super::generated::postrider_v1::{
    AckRequest, AckResponse, CancelRequest, CancelResponse, GetRequest, GetResponse, GetStateRequest,
    GetStateResponse, Ids, NotificationService, PatchStateRequest, PatchStateResponse, PresenceRequest,
    PresenceResponse, PublishBatchRequest, PublishBatchResponse, PublishRequest, PublishResponse,
    ReadRequest, ReadResponse, ack_request, get_response, notification_service, presence_response,
    publish_batch_response, read_request,
};
use super::{Admitted, Call, Reply, Unknown, times};
use crate::api::body::Most;
use crate::api::inbox::{self, Word};
use crate::api::order::Order;
use crate::api::submit::{Outcome, Submission};
use crate::api::{Api, cancel, notification, presence, query, state, text};
use crate::auth::{ApiKey, Scope};
use axum::http::{HeaderMap, header};
use postrider_model::{NotificationId, SettleKind, UserId, json};
use postrider_router::{Draft, Fault, FaultCode};
use postrider_transports::{Identity, Problem};
use std::sync::Arc;

/// What is published here is counted as.
const SOURCE: &str = "twirp";
/// Most bytes of a message that names one thing.
const QUESTION_BYTES: usize = 4096;

/// Answers a call.
pub async fn serve(api: Arc<Api>, call: Call) -> Reply {
    notification_service(&Notifications { api }, call).await
}

struct Notifications {
    api: Arc<Api>,
}

/// Who calls: what a method needs of it.
enum Caller {
    /// A publish request that was opened.
    Publisher(Submission),
    /// A key, for what it may do.
    Key(Arc<ApiKey>),
    /// A user.
    User(Identity),
    /// Someone who may.
    Allowed,
}

impl NotificationService for Notifications {
    type Caller = Caller;

    fn admit(&self, method: &'static str, headers: &HeaderMap) -> Result<Admitted<Caller>, Problem> {
        let api = &self.api;
        let authorization = text(headers, header::AUTHORIZATION.as_str());
        let (caller, bytes) = match method {
            "Publish" | "PublishBatch" => {
                let submission = Submission::open(api, authorization, text(headers, "idempotency-key"))?;
                (Caller::Publisher(submission.by(SOURCE)), api.max_body)
            }
            "Get" => (Caller::Key(api.key(headers, Scope::Read)?), QUESTION_BYTES),
            "Cancel" => (Caller::Key(api.auth.api_key(authorization)?), QUESTION_BYTES),
            "Ack" | "Read" => (Caller::User(inbox::identify(api, headers)?), inbox::BODY_BYTES),
            "GetState" => (Caller::Key(api.key(headers, Scope::Manage)?), QUESTION_BYTES),
            "PatchState" => (Caller::Key(api.key(headers, Scope::Manage)?), state::BODY_BYTES),
            "Presence" => {
                presence::allow(api, headers)?;
                (Caller::Allowed, QUESTION_BYTES)
            }
            // Whoever adds a method says who may call it.
            _ => return Err(Problem::internal()),
        };
        Ok(Admitted {
            counts: matches!(caller, Caller::Publisher(_)),
            caller,
            most: Most::bytes(bytes),
            unknown: Unknown::Refused,
        })
    }

    async fn publish(&self, caller: Caller, request: PublishRequest) -> Result<PublishResponse, Problem> {
        let Caller::Publisher(mut submission) = caller else {
            return Err(Problem::internal());
        };
        bind(&mut submission, "Publish", &request);
        let drafts = [draft(request, self.api.limits.json_depth)];
        let outcomes = store(&submission, drafts, false).await?;
        let outcome = outcomes.into_iter().next();
        let id = outcome.unwrap_or_else(|| Err(Problem::unavailable(1)))?;
        Ok(PublishResponse { id: id.to_string() })
    }

    async fn publish_batch(
        &self,
        caller: Caller,
        request: PublishBatchRequest,
    ) -> Result<PublishBatchResponse, Problem> {
        let Caller::Publisher(mut submission) = caller else {
            return Err(Problem::internal());
        };
        let most = self.api.limits.array;
        if request.notifications.len() > most {
            self.api.metrics.count_rejected(FaultCode::TooLarge.as_str());
            let detail = format!("The batch has more than {most} notifications. Send several.");
            return Err(Problem::too_large(detail, None));
        }
        bind(&mut submission, "PublishBatch", &request);
        let depth = self.api.limits.json_depth;
        let drafts = request.notifications.into_iter().map(|one| draft(one, depth));
        Ok(batch_response(store(&submission, drafts, true).await?))
    }

    async fn get(&self, _: Caller, request: GetRequest) -> Result<GetResponse, Problem> {
        let shown = notification::find(&self.api, id_of(&request.id)?).await?;
        Ok(get_response(shown))
    }

    async fn cancel(&self, caller: Caller, request: CancelRequest) -> Result<CancelResponse, Problem> {
        let Caller::Key(key) = caller else {
            return Err(Problem::internal());
        };
        let cancelled = cancel::take_back(&self.api, &key, &id_of(&request.id)?).await?;
        Ok(CancelResponse {
            cancelled: cancelled.map(count),
        })
    }

    async fn ack(&self, caller: Caller, request: AckRequest) -> Result<AckResponse, Problem> {
        let target = request.target.map(|target| match target {
            ack_request::Target::Ids(ids) => Said::Ids(ids),
            ack_request::Target::Cursor(cursor) => Said::Cursor(cursor),
        });
        let settled = self.settle(caller, SettleKind::Delivered, target).await?;
        Ok(AckResponse { settled })
    }

    async fn read(&self, caller: Caller, request: ReadRequest) -> Result<ReadResponse, Problem> {
        let target = request.target.map(|target| match target {
            read_request::Target::Ids(ids) => Said::Ids(ids),
            read_request::Target::Cursor(cursor) => Said::Cursor(cursor),
        });
        let settled = self.settle(caller, SettleKind::Read, target).await?;
        Ok(ReadResponse { settled })
    }

    async fn get_state(&self, _: Caller, request: GetStateRequest) -> Result<GetStateResponse, Problem> {
        let state = state::of_user(&self.api, &user_of(&request.user)?).await?;
        Ok(GetStateResponse {
            version: state.version(),
            state: state.map().clone(),
        })
    }

    async fn patch_state(
        &self,
        _: Caller,
        request: PatchStateRequest,
    ) -> Result<PatchStateResponse, Problem> {
        let user = user_of(&request.user)?;
        let change =
            state::read_merge(&merge_json(&request)).map_err(|problem| in_patch(problem, &request))?;
        let state = state::change_of(&self.api, &user, change).await;
        let state = state.map_err(|problem| in_patch(problem, &request))?;
        Ok(PatchStateResponse {
            version: state.version(),
            state: state.map().clone(),
        })
    }

    async fn presence(&self, _: Caller, request: PresenceRequest) -> Result<PresenceResponse, Problem> {
        let presence = presence::of_user(&self.api, &user_of(&request.user)?).await?;
        let sessions = presence
            .sessions
            .into_iter()
            .map(|one| presence_response::Session {
                session: one.session.to_string(),
                transport: one.transport.as_str().to_owned(),
            });
        Ok(PresenceResponse {
            user: request.user,
            online: presence.online,
            sessions: sessions.collect(),
        })
    }
}

/// What a client says of, whichever method it says it by.
enum Said {
    Ids(Ids),
    Cursor(String),
}

impl Notifications {
    async fn settle(&self, caller: Caller, kind: SettleKind, said: Option<Said>) -> Result<u32, Problem> {
        let Caller::User(identity) = caller else {
            return Err(Problem::internal());
        };
        let word = match said {
            Some(Said::Ids(ids)) => Word::ids(&ids.ids).map_err(|problem| Problem {
                // There the list is the field itself.
                pointer: problem.pointer.as_ref().map(|pointer| format!("/ids{pointer}")),
                ..problem
            })?,
            Some(Said::Cursor(cursor)) => Word::cursor(&cursor, &identity.user)?,
            None => {
                return Err(Problem::invalid_request(
                    "Send `ids` or `cursor`, exactly one of them.",
                ));
            }
        };
        inbox::take(&self.api, identity.user, kind, word).await.map(count)
    }
}

/// Ties an `Idempotency-Key` to what the request says, however it was written.
fn bind(submission: &mut Submission, method: &str, request: &impl prost::Message) {
    if submission.is_idempotent() {
        let mut said = method.as_bytes().to_vec();
        said.extend_from_slice(&request.encode_to_vec());
        submission.bind(&said);
    }
}

/// Takes what was decoded through intake and the engine.
async fn store(
    submission: &Submission,
    drafts: impl IntoIterator<Item = Result<Draft, Fault>>,
    is_array: bool,
) -> Result<Vec<Outcome>, Problem> {
    let mut order = Order::of(submission, drafts, is_array);
    let receipts = order.store().await;
    let outcomes = order.outcomes(receipts).map_err(placed)?;
    Ok(outcomes
        .into_iter()
        .map(|outcome| outcome.map_err(placed))
        .collect())
}

fn batch_response(outcomes: Vec<Outcome>) -> PublishBatchResponse {
    let mut response = PublishBatchResponse::default();
    for (index, outcome) in (0u32..).zip(outcomes) {
        match outcome {
            Ok(id) => response.accepted.push(publish_batch_response::Accepted {
                index,
                id: id.to_string(),
            }),
            Err(problem) => response.rejected.push(publish_batch_response::Rejected {
                index,
                code: problem.code.to_owned(),
                detail: problem.detail,
                pointer: problem.pointer,
            }),
        }
    }
    response
}

fn get_response(shown: notification::Shown) -> GetResponse {
    let kind = match shown.audience.kind {
        "users" => get_response::audience::Kind::Users,
        "topics" => get_response::audience::Kind::Topics,
        _ => get_response::audience::Kind::Everyone,
    };
    let small = |number: usize| count(number as u64);
    let counts = shown.counts;
    GetResponse {
        id: shown.id.to_string(),
        time: Some(times::from_instant(shown.time)),
        subject: shown.subject,
        audience: Some(get_response::Audience {
            kind: kind.into(),
            count: shown.audience.count.map(count),
        }),
        counts: Some(get_response::Counts {
            pending: counts.pending.map(small),
            delivered: small(counts.delivered),
            read: small(counts.read),
            expired: small(counts.expired),
            cancelled: small(counts.cancelled),
            dead: small(counts.dead),
        }),
    }
}

/// The merge as it is written under `/v1`, so that it is judged by the same reader.
fn merge_json(request: &PatchStateRequest) -> Vec<u8> {
    let mut out = vec![b'{'];
    let set = request.set.iter().map(|(key, value)| (key, Some(value)));
    for (key, value) in set.chain(request.remove.iter().map(|key| (key, None))) {
        if out.len() > 1 {
            out.push(b',');
        }
        json::push_string(&mut out, key);
        out.push(b':');
        match value {
            Some(value) => json::push_string(&mut out, value),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    out
}

/// The place of a key in the request: what is refused of both kinds is refused where it is set.
fn in_patch(problem: Problem, request: &PatchStateRequest) -> Problem {
    let pointer = problem.pointer.as_deref().map(|pointer| {
        let key = pointer
            .trim_start_matches('/')
            .replace("~1", "/")
            .replace("~0", "~");
        match request.remove.iter().position(|removed| *removed == key) {
            Some(at) => format!("/remove/{at}"),
            None => format!("/set{pointer}"),
        }
    });
    Problem { pointer, ..problem }
}

fn user_of(text: &str) -> Result<UserId, Problem> {
    query::user_of(text).map_err(|problem| Problem {
        pointer: Some("/user".into()),
        ..problem
    })
}

/// One that cannot exist is not found.
fn id_of(text: &str) -> Result<NotificationId, Problem> {
    NotificationId::new(text).map_err(|_| Problem::not_found())
}

/// A number of entries or recipients, of which a server has fewer than 2³².
fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
