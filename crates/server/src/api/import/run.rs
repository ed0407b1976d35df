//! Runs an import: while one batch is at the engine, the next is read.
//!
//! Invariant: one batch is at the engine at a time, so users are written in their order. A busy engine is asked again,
//! for as long as the node runs and about a minute at most; reading stops meanwhile.

use super::answer::{BadLine, Tally};
use super::source::Source;
use crate::api::Api;
use crate::api::refusal::engine_problem;
use postrider_engine::{DirectoryError, EngineError, Put, UserPut};
use postrider_transports::Problem;
use std::sync::Arc;
use std::time::Duration;

/// First and longest pause before a busy engine is asked again, and how many there are.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
const BUSY_PAUSE_MOST: Duration = Duration::from_millis(500);
const BUSY_PAUSES: u32 = 120;

/// An import on its way.
pub struct Import {
    api: Arc<Api>,
    source: Source,
    tally: Tally,
    /// Why nothing more is read; an error where the input broke off.
    ended: Option<Result<(), Problem>>,
}

impl Import {
    /// From a source that was opened.
    pub fn new(api: Arc<Api>, source: Source) -> Import {
        Import {
            api,
            source,
            tally: Tally::default(),
            ended: None,
        }
    }

    /// What has been done.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Imports one batch, and returns its bad lines. `None`: there is nothing more. An error ends the import.
    pub async fn step(&mut self) -> Result<Option<Vec<BadLine>>, Problem> {
        while self.source.is_empty() {
            match self.ended.take() {
                Some(Ok(())) => return Ok(None),
                Some(Err(problem)) => return Err(problem),
                None => self.ended = end_of(self.source.fill(&self.api.drain).await),
            }
        }
        let batch = self.source.take();
        let lines = batch.lines();
        let answers = {
            let mut putting = std::pin::pin!(put(&self.api, &batch.puts));
            loop {
                let reads = self.ended.is_none() && self.source.has_room();
                tokio::select! {
                    biased;
                    answers = &mut putting => break answers,
                    more = self.source.fill(&self.api.drain), if reads => self.ended = end_of(more),
                }
            }
        };
        self.source.done();
        let answers = answers.map_err(|error| engine_problem(&error))?;
        let bad = self.count(lines, batch.bad, batch.numbers.into_iter().zip(answers));
        Ok(Some(bad))
    }

    fn count(
        &mut self,
        lines: usize,
        mut bad: Vec<BadLine>,
        answers: impl Iterator<Item = (u64, Result<Put, DirectoryError>)>,
    ) -> Vec<BadLine> {
        let mut batch = Tally {
            lines: lines as u64,
            ..Tally::default()
        };
        for (number, answer) in answers {
            match answer {
                Ok(Put::Created) => batch.created += 1,
                Ok(Put::Changed) => batch.changed += 1,
                Ok(Put::Same) => batch.unchanged += 1,
                Err(error) => bad.push(self.source.refused(number, &error)),
            }
        }
        bad.sort_by_key(|line| line.line);
        batch.imported = batch.created + batch.changed + batch.unchanged;
        batch.rejected = bad.len() as u64;
        self.api.metrics.count_imported(&[
            ("created", batch.created),
            ("changed", batch.changed),
            ("unchanged", batch.unchanged),
            ("rejected", batch.rejected),
        ]);
        self.tally.add(batch);
        bad
    }
}

impl Tally {
    fn add(&mut self, other: Tally) {
        self.lines += other.lines;
        self.imported += other.imported;
        self.created += other.created;
        self.changed += other.changed;
        self.unchanged += other.unchanged;
        self.rejected += other.rejected;
    }
}

/// What a read says of the end of the input.
fn end_of(filled: Result<bool, Problem>) -> Option<Result<(), Problem>> {
    match filled {
        Ok(true) => None,
        Ok(false) => Some(Ok(())),
        Err(problem) => Some(Err(problem)),
    }
}

async fn put(api: &Api, puts: &[UserPut]) -> Result<Vec<Result<Put, DirectoryError>>, EngineError> {
    if puts.is_empty() {
        return Ok(Vec::new());
    }
    let mut pause = BUSY_PAUSE;
    for pauses in 0.. {
        // A copy of it: what a busy engine was given is gone.
        match api.engine.put_users(puts.to_vec()).await {
            Err(EngineError::Busy) if pauses < BUSY_PAUSES && !api.drain.has_begun() => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(BUSY_PAUSE_MOST);
            }
            answers => return answers,
        }
    }
    Err(EngineError::Busy)
}
