//! `POST /v1/dead-letters/redrive`: redrives all that fit a filter, at a rate where one is given.
//!
//! Without a rate the answer comes when it is done, and counts what was redriven. With one, the answer counts
//! what will be tried, and the node goes on by itself; what it has not come to when it stops stays a dead
//! letter.

use super::dead_letters::filter;
use super::openapi::shapes;
use super::refusal::Refusal;
use super::{Api, body};
use crate::auth::Scope;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use postrider_engine::{EngineError, Redriven};
use postrider_model::{DeadLetterFilter, DeadLetterId};
use postrider_transports::Problem;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// One request redrives at most so many.
const MOST: usize = 100_000;
/// So many are redriven at once.
const CHUNK: usize = 256;
/// Dead letters looked up at once.
const PAGE: usize = 1000;
/// Requests with a rate that may be under way at a time.
pub const AT_A_RATE: usize = 4;
/// How often those go on.
const TICK: Duration = Duration::from_millis(100);
/// Most bytes of a body.
const BODY: usize = 16 << 10;

/// Which, and how fast.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Redrive")]
pub struct Wanted {
    /// Of this user.
    #[schemars(with = "Option<shapes::UserText>")]
    user: Option<String>,
    /// Given up for this reason.
    #[schemars(with = "Option<shapes::DeadReason>")]
    reason: Option<String>,
    /// From this source.
    source: Option<String>,
    /// So many in a second, rather than all at once.
    #[schemars(range(min = 1))]
    rate: Option<u32>,
}

/// Redrives.
pub async fn by_filter(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    request: Body,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    api.key(&headers, Scope::Manage)?;
    body::media_type(&headers, &["application/json"])?;
    let bytes = body::read_whole(&api, &headers, request, body::Most::bytes(BODY)).await?;
    let refused = |error: &str| {
        let detail = format!("The body must be a JSON object of user, reason, source and rate: {error}.");
        Problem::invalid_request(detail)
    };
    // A list of four would do for these fields, and nobody means that.
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(refused("it is no object").into());
    }
    let wanted: Wanted = serde_json::from_slice(&bytes).map_err(|error| refused(&error.to_string()))?;
    let mut filter = filter(
        wanted.user.as_deref(),
        wanted.reason.as_deref(),
        wanted.source.as_deref(),
    )?;
    filter.bare = true;
    let redriven = match wanted.rate {
        Some(0) => return Err(Problem::invalid_request("The rate must be 1 or more per second.").into()),
        Some(rate) => at_a_rate(api, &filter, rate).await?,
        None => at_once(&api, find(&api, &filter).await?).await?,
    };
    Ok((StatusCode::ACCEPTED, Json(json!({ "redriven": redriven }))))
}

async fn find(api: &Api, filter: &DeadLetterFilter) -> Result<Vec<DeadLetterId>, EngineError> {
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = api.engine.dead_letters(filter, after, PAGE).await?;
        let room = MOST - ids.len();
        ids.extend(page.letters.iter().take(room).map(|letter| letter.id));
        after = page.after;
        if after.is_none() || ids.len() == MOST {
            return Ok(ids);
        }
    }
}

async fn at_once(api: &Api, ids: Vec<DeadLetterId>) -> Result<usize, EngineError> {
    let mut count = 0;
    for chunk in ids.chunks(CHUNK) {
        count += redriven(&api.engine.redrive(chunk.to_vec()).await?);
    }
    Ok(count)
}

async fn at_a_rate(api: Arc<Api>, filter: &DeadLetterFilter, rate: u32) -> Result<usize, Refusal> {
    let turn = api.redrives.clone().try_acquire_owned().map_err(|_| Problem {
        detail: format!("{AT_A_RATE} redrives with a rate are under way. Ask again when one is done."),
        ..Problem::unavailable(5)
    })?;
    let ids = find(&api, filter).await?;
    let count = ids.len();
    let tasks = api.tasks.clone();
    tasks.spawn("redrive", async move {
        let left = tokio::select! {
            done = slowly(&api, &ids, rate) => ids.len() - done,
            () = api.drain.begun() => {
                tracing::info!("the node stops; what was not redriven yet stays a dead letter");
                0
            }
        };
        if left > 0 {
            tracing::warn!(left, "some dead letters could not be redriven");
        }
        drop(turn);
    });
    Ok(count)
}

/// Redrives at the rate, and counts those that were.
async fn slowly(api: &Api, ids: &[DeadLetterId], rate: u32) -> usize {
    let mut tick = tokio::time::interval(TICK);
    let (mut next, mut done, mut earned) = (0, 0, 0.0);
    while next < ids.len() {
        tick.tick().await;
        earned = (earned + f64::from(rate) * TICK.as_secs_f64()).min(f64::from(rate).max(1.0));
        let now = (earned as usize).min(ids.len() - next).min(CHUNK);
        if now == 0 {
            continue;
        }
        earned -= now as f64;
        match api.engine.redrive(ids[next..next + now].to_vec()).await {
            Ok(answers) => {
                done += redriven(&answers);
                next += now;
            }
            // Asked again at the next tick.
            Err(EngineError::Busy) => {}
            Err(error) => {
                tracing::error!(%error, "the redrive stops");
                return done;
            }
        }
    }
    done
}

fn redriven(answers: &[Redriven]) -> usize {
    answers.iter().filter(|answer| **answer == Redriven::Yes).count()
}
