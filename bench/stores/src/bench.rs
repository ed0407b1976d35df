//! What the experiments share: an engine over a candidate, the arguments, reading a feed whole.

use crate::candidates::Candidate;
use crate::load;
use anyhow::{Context, Result, ensure};
use postrider_engine::stores::Store;
use postrider_engine::{Embedded, EmbeddedOptions, EngineError, Feeds, ReadLimit};
use postrider_model::{Entry, FeedId, Publication};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Entries of one page, as sessions read them.
pub const PAGE: ReadLimit = ReadLimit {
    entries: 100,
    bytes: usize::MAX,
};

/// One run of one experiment.
pub struct Bench {
    /// Who is measured.
    pub candidate: Candidate,
    /// Where its store lies.
    pub dir: PathBuf,
    values: HashMap<String, String>,
}

impl Bench {
    /// From `--name value` pairs; `--dir` is required.
    pub fn new(candidate: Candidate, words: &[String]) -> Result<Bench> {
        let mut values = HashMap::new();
        for pair in words.chunks(2) {
            let name = pair[0]
                .strip_prefix("--")
                .with_context(|| format!("{} is no option", pair[0]))?;
            values.insert(
                name.to_owned(),
                pair.get(1).context("an option without a value")?.clone(),
            );
        }
        let dir = values.get("dir").context("--dir is missing")?.into();
        Ok(Bench {
            candidate,
            dir,
            values,
        })
    }

    /// A number among the arguments.
    pub fn number(&self, name: &str, default: u64) -> Result<u64> {
        let given = self.values.get(name).map(|text| text.parse());
        Ok(given
            .transpose()
            .with_context(|| format!("--{name} is no number"))?
            .unwrap_or(default))
    }

    /// A text among the arguments.
    pub fn text(&self, name: &str) -> Result<&str> {
        Ok(self
            .values
            .get(name)
            .with_context(|| format!("--{name} is missing"))?)
    }

    /// Opens the candidate's store.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.candidate.open(&self.dir)
    }

    /// Opens the engine over the candidate's store.
    pub fn engine(&self) -> Result<Arc<Embedded>> {
        engine_over(self.store()?)
    }
}

/// An engine over this store, with a clock that stands.
pub fn engine_over(store: Arc<dyn Store>) -> Result<Arc<Embedded>> {
    let options = EmbeddedOptions {
        rules: Default::default(),
        data_dir: None,
        clock: Arc::new(|| load::NOW),
        on_commit: Box::new(|_, _| ()),
    };
    Ok(Arc::new(Embedded::over(store, options)?))
}

/// Publishes all of these and fails if one is refused.
pub async fn publish_all(engine: &Embedded, batch: Vec<Publication>) -> Result<()> {
    for receipt in engine.publish(batch).await {
        receipt?;
    }
    Ok(())
}

/// Publishes one, again while the engine is too busy. Returns how often it was.
pub async fn publish_one(engine: &Embedded, publication: Publication) -> Result<u64> {
    let mut busy = 0;
    loop {
        match engine
            .publish(vec![publication.clone()])
            .await
            .pop()
            .context("no answer")?
        {
            Ok(_) => return Ok(busy),
            Err(EngineError::Busy) => busy += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::task::yield_now().await;
    }
}

/// Reads a feed to its end, in pages; the offsets must rise by one from the first that is held.
pub async fn read_whole(engine: &Embedded, feed: &FeedId) -> Result<Vec<Arc<Entry>>> {
    let mut entries: Vec<Arc<Entry>> = Vec::new();
    let mut after = 0;
    loop {
        let page = engine.read(feed, after, PAGE).await?;
        if page.entries.is_empty() {
            ensure!(
                after.max(page.span.first - 1) == page.span.head.offset,
                "{feed} ends at {after}, its head is {}",
                page.span.head.offset
            );
            return Ok(entries);
        }
        for entry in page.entries {
            let expected = if after == 0 { page.span.first } else { after + 1 };
            ensure!(
                entry.position.offset == expected,
                "{feed} jumps to {}",
                entry.position.offset
            );
            after = entry.position.offset;
            entries.push(entry);
        }
    }
}
