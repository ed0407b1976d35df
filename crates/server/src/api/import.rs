//! `POST /v1/users/import`: many users at once, as NDJSON or CSV.
//!
//! Invariant: users are written in their order, batch by batch, each batch durable before it is counted. What was
//! imported before a break (of the connection, of the node) stays; importing the same again changes nothing of it.
//! With `bad_lines=refuse` every line is judged before the first user is written, by all that a line says: its form, and
//! how many topics it names. What only the engine knows of a user (topics left that still hold something, stays that no
//! more can be remembered of) is told when the user is written, and refuses that user alone.
//!
//! It does not remove users who are not in what is imported.

mod answer;
mod run;
mod source;

pub use answer::{BadLine, Imported, Refused, Tally};

use super::refusal::Refusal;
use super::{Api, body, query};
use crate::auth::Scope;
use answer::BAD_LINES;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use postrider_engine::DirectoryError;
use postrider_sources::users::{UserDraft, UserLine, UserReader};
use postrider_transports::Problem;
use run::Import;
use schemars::JsonSchema;
use serde::Deserialize;
use source::Source;
use std::sync::Arc;
use std::time::Duration;

/// The names that NDJSON goes by, then that of CSV; the first is meant where none is said.
const TYPES: [&str; 4] = [
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    CSV,
];
const CSV: &str = "text/csv";
/// Pieces of the answer that wait for the client to read.
const ANSWERS_WAITING: usize = 2;
/// A client that takes nothing of the answer for so long ends the import.
const UNTAKEN: Duration = Duration::from_secs(60);

/// What is wanted of an import.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// What to do where a line is bad. Default: `skip`.
    #[serde(default)]
    bad_lines: BadLines,
}

/// What to do where a line is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BadLines {
    /// Imports the good lines and tells of the bad ones.
    #[default]
    Skip,
    /// Imports nothing. The whole body is read first, so that it is bounded by `http.max_body`. A user whom only what
    /// is kept of them rules out is refused alone and told.
    Refuse,
}

/// How users are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ndjson,
    Csv,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Form, Problem> {
        Ok(match body::media_type(headers, &TYPES)? {
            Some(CSV) => Form::Csv,
            _ => Form::Ndjson,
        })
    }

    fn reader(self) -> UserReader {
        match self {
            Form::Ndjson => UserReader::ndjson(),
            Form::Csv => UserReader::csv(),
        }
    }
}

/// Imports users.
pub async fn import(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    wanted: Result<Query<Wanted>, QueryRejection>,
    body: Body,
) -> Result<Response, Refusal> {
    api.key(&headers, Scope::Manage)?;
    let wanted = query::query(wanted)?;
    let form = Form::of(&headers)?;
    let mut source = match wanted.bad_lines {
        BadLines::Skip => Source::new(form, body, Some(api.bodies.room())),
        BadLines::Refuse => {
            let most = body::Most {
                bytes: api.max_body,
                otherwise: "Send less, or bad_lines=skip, with which no body is too large.",
            };
            let whole = body::read_whole(&api, &headers, body, most).await?;
            if let Some(refused) = judge(form, &whole, api.topics_per_user)? {
                return Ok(refused.into_response());
            }
            Source::new(form, Body::from(whole), None)
        }
    };
    // A header that cannot be understood refuses the whole, with a status that says so.
    source.open(&api.drain).await?;
    let import = Import::new(api.clone(), source);
    if !wants_progress(&headers) {
        return Ok(Json(whole_answer(import).await?).into_response());
    }
    let (answers, channel) = Channel::<Bytes, axum::Error>::new(ANSWERS_WAITING);
    api.tasks.spawn("user import", tell_progress(import, answers));
    let ndjson = (header::CONTENT_TYPE, HeaderValue::from_static(TYPES[0]));
    Ok(([ndjson], Body::new(channel)).into_response())
}

/// Whether the client asks for an answer line by line.
fn wants_progress(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let essence = range.split(';').next().unwrap_or("").trim();
        TYPES[..3].iter().any(|name| essence.eq_ignore_ascii_case(name))
    })
}

/// Looks at every line. `Some`: at least one is bad. `most`: topics of a user.
fn judge(form: Form, whole: &Bytes, most: usize) -> Result<Option<Refused>, Problem> {
    let mut refused = Refused::default();
    let mut reader = form.reader();
    reader.push(whole.clone());
    for is_end in [false, true] {
        if is_end {
            reader.finish();
        }
        while let Some(line) = reader.take().map_err(source::header_problem)? {
            refused.lines += 1;
            let Some(bad) = judge_line(form, line, most) else {
                continue;
            };
            refused.rejected += 1;
            if refused.bad_lines.len() < BAD_LINES {
                refused.bad_lines.push(bad);
            }
        }
    }
    Ok((refused.rejected > 0).then_some(refused))
}

/// What is wrong with a line, as far as it says so itself.
fn judge_line(form: Form, line: UserLine, most: usize) -> Option<BadLine> {
    match line.user {
        Err(fault) => Some(BadLine::of(line.number, fault)),
        Ok(UserDraft {
            topics: Some(topics), ..
        }) if topics.len() > most => {
            let error = DirectoryError::TooManyTopics { most };
            Some(source::refused(form, line.number, &error))
        }
        Ok(_) => None,
    }
}

async fn whole_answer(mut import: Import) -> Result<Imported, Problem> {
    let mut bad_lines = Vec::new();
    loop {
        match import.step().await {
            Ok(Some(bad)) => {
                let room = BAD_LINES - bad_lines.len();
                bad_lines.extend(bad.into_iter().take(room));
            }
            Ok(None) => {
                let tally = import.tally();
                return Ok(Imported { tally, bad_lines });
            }
            Err(problem) => return Err(broken_off(problem, import.tally())),
        }
    }
}

async fn tell_progress(mut import: Import, mut answers: Sender<Bytes, axum::Error>) {
    loop {
        let step = import.step().await;
        let is_over = !matches!(step, Ok(Some(_)));
        let lines = match step {
            Ok(Some(bad)) => answer::progress_lines(&bad, import.tally()),
            Ok(None) => answer::end_line(import.tally(), None),
            Err(problem) => answer::end_line(import.tally(), Some(&problem)),
        };
        let sent = tokio::time::timeout(UNTAKEN, answers.send_data(lines)).await;
        if is_over || !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

/// The problem, and what has been done before it.
fn broken_off(problem: Problem, tally: Tally) -> Problem {
    let Problem { detail, .. } = &problem;
    let detail = format!(
        "{detail} {} users were imported before that and stay; importing the same again is safe.",
        tally.imported
    );
    Problem { detail, ..problem }
}
