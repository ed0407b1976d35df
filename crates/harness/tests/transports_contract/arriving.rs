//! `inbox.broadcasts: from_first_session`: a user gets what goes to everyone from the first session on.

use anyhow::{Result, ensure};
use postrider_harness::http::Cut;
use postrider_harness::inbox::AckMode;
use serde_json::json;

use crate::{Bench, before_marker, notified};

crate::contract!(
    set &[("inbox.broadcasts", "from_first_session")];
    what_went_to_everyone_before_the_first_session_is_not_shown,
);

fn what_went_to_everyone_before_the_first_session_is_not_shown(bench: &Bench) -> Result<()> {
    let everyone = |data| bench.publisher().accepted(&json!({ "data": data }));
    everyone(1)?;
    let own = bench.publish("ada", json!("for ada alone"))?;
    let mut inbox = bench.open("ada", AckMode::Explicit)?;
    let before = before_marker(bench, &mut *inbox, "ada")?;
    ensure!(notified(&before) == [own.as_str()], "{before:?}");
    inbox.cut(Cut::Close);
    let later = everyone(2)?;
    let mut back = bench.open("ada", AckMode::Explicit)?;
    // Feeds have no order among them: the broadcast may come after the marker.
    let mut got = before_marker(bench, &mut *back, "ada")?;
    while !notified(&got).contains(&later.as_str()) {
        got.extend(before_marker(bench, &mut *back, "ada")?);
    }
    let wide: Vec<_> = notified(&got).into_iter().filter(|id| *id == later).collect();
    ensure!(
        wide.len() == 1 && notified(&got).contains(&own.as_str()),
        "{got:?}"
    );
    let mut other = bench.open("bob", AckMode::Explicit)?;
    let before = before_marker(bench, &mut *other, "bob")?;
    ensure!(notified(&before).is_empty(), "bob came after both: {before:?}");
    Ok(())
}
