//! Lists that a node gives out page by page.

use crate::client;
use crate::exit::Failure;
use crate::term::plain;
use clap::Args;
use serde_json::value::RawValue;
use std::collections::HashMap;

/// Items asked for at once.
const PAGE: u64 = 500;

/// Which part of a long list.
#[derive(Args)]
pub struct Range {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: u64,
    /// All of them, however many there are
    #[arg(long, conflicts_with = "limit")]
    pub all: bool,
    /// Begin after this one
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
}

/// Asks for page after page, and says on standard error where there is nothing, or more. Items are handed over as the
/// node wrote them.
pub fn pages(
    range: &Range,
    list: &'static str,
    get: impl Fn(&[(&str, &str)]) -> Result<String, Failure>,
    mut show: impl FnMut(&[Box<RawValue>]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = if range.all { u64::MAX } else { range.limit };
    let mut after = range.after.clone();
    let mut shown = 0;
    while left > 0 {
        let limit = left.min(PAGE).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.as_deref().map(|after| ("after", after)));
        let page = get(&query)?;
        let mut page: HashMap<String, Box<RawValue>> = client::read(&page)?;
        let items = page.remove(list);
        let items: Vec<Box<RawValue>> = client::read(items.as_ref().map_or("[]", |items| items.get()))?;
        show(&items)?;
        shown += items.len() as u64;
        left = left.saturating_sub(items.len() as u64);
        after = client::read(page.get("after").map_or("null", |after| after.get()))?;
        if after.is_none() {
            if shown == 0 {
                eprintln!("there are none");
            }
            return Ok(());
        }
    }
    let next = after.unwrap_or_default();
    eprintln!(
        "there are more: --all shows them, --after {} the next",
        plain(&next)
    );
    Ok(())
}
