//! What listeners are told, and when.

use super::kit::{Kit, Make, notification_id, of_topic, of_user, short, user_id};
use super::{Outcome, holds, same};
use crate::{StartsWanted, Wake};
use postrider_model::{Entry, FeedId, FeedSpan, Millis, Position};
use std::sync::{Arc, Mutex, PoisonError};

/// What was told so far. A case tells a handful.
#[derive(Clone, Default)]
pub(super) struct Wakes(Arc<Mutex<Vec<Wake>>>);

impl Wakes {
    /// Hears what is told of these feeds from now on.
    pub(super) async fn listen(kit: &Kit, feeds: &[FeedId]) -> Result<Wakes, super::Fault> {
        let wakes = Wakes::default();
        let (heard, engine) = (wakes.clone(), kit.engine());
        engine.listen(Box::new(move |wake| {
            heard.0.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
        }));
        feeds.iter().for_each(|feed| engine.follow(feed));
        // What an engine answers about a feed that is followed is followed by every wake of what comes later.
        let wanted = StartsWanted {
            user: user_id("listener")?,
            places: feeds.iter().map(|feed| (feed.clone(), None)).collect(),
            cursor: None,
            state: false,
        };
        for starts in engine.starts(&[wanted]).await {
            starts?;
        }
        Ok(wakes)
    }

    /// Waits until this was told, and no more than this: of each feed, and of each user beside entries, in this order.
    /// What is told of one comes before or after what is told of another as it may.
    pub(super) async fn tell(&self, kit: &Kit, told: &[impl ToString]) -> Outcome {
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        kit.eventually("the wakes", || async { Ok(self.all().len() >= told.len()) })
            .await?;
        same!(of_each(self.all()), of_each(told), "what was told");
        Ok(())
    }

    /// Everything appended that was told, and everything transient.
    fn told(&self) -> (Vec<Arc<Entry>>, Vec<Arc<Entry>>) {
        let (mut appended, mut transient) = (Vec::new(), Vec::new());
        for wake in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            match wake {
                Wake::Appended(more) => appended.extend(more.iter().cloned()),
                Wake::Transient(more) => transient.extend(more.iter().cloned()),
                Wake::Members(_) | Wake::State(..) | Wake::Missed => {}
            }
        }
        (appended, transient)
    }

    /// All of it, in order, as short texts.
    pub(super) fn all(&self) -> Vec<String> {
        let mut all = Vec::new();
        for wake in &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            match wake {
                Wake::Appended(entries) | Wake::Transient(entries) => {
                    all.extend(
                        entries
                            .iter()
                            .map(|entry| format!("{} {}", entry.feed, short(entry))),
                    );
                }
                Wake::Members(moves) => all.extend(moves.iter().map(|one| {
                    let what = if one.joins { "joins" } else { "leaves" };
                    format!("{} {what} {} at {}", one.user, one.topic, one.at)
                })),
                Wake::State(user, state) => {
                    let json = String::from_utf8_lossy(state.json());
                    all.push(format!("{user} {json} {}", state.version()));
                }
                Wake::Missed => {}
            }
        }
        all
    }

    async fn appended(&self, kit: &Kit, count: usize) -> Result<Vec<Arc<Entry>>, super::Fault> {
        kit.eventually("the wakes", || async { Ok(self.told().0.len() >= count) })
            .await?;
        Ok(self.told().0)
    }
}

/// By whom, or what, it is about.
fn of_each(mut told: Vec<String>) -> Vec<String> {
    told.sort_by(|one, other| one.split(' ').next().cmp(&other.split(' ').next()));
    told
}

async fn same_as_read(kit: &Kit, told: &[Arc<Entry>]) -> Outcome {
    for entry in told {
        let read = kit.feed(&entry.feed).await?;
        let read = read.iter().find(|other| other.position == entry.position);
        let Some(read) = read else {
            return Err(format!("told of {:?}, which cannot be read", entry.position).into());
        };
        same!(read.json(), entry.json(), "what was told at {:?}", entry.position);
    }
    Ok(())
}

pub(super) async fn a_wake_comes_after_what_it_tells(kit: &mut Kit) -> Outcome {
    let feeds = [of_user("ada")?, of_user("bob")?, of_topic("x")?];
    let wakes = Wakes::listen(kit, &feeds).await?;
    kit.publish_all((0..20).map(|n| Make::new(format!("n-{n}")).users(["ada", "bob"]).data("1.0")))
        .await?;
    kit.publish(Make::new("t").topics(&["x"]).ttl(Millis(9))).await?;
    let told = wakes.appended(kit, 41).await?;
    same!(told.len(), 41, "entries told");
    let offsets: Vec<_> = told.iter().filter(|e| e.feed != FeedId::All).collect();
    let ada = of_user("ada")?;
    let offsets: Vec<_> = offsets
        .iter()
        .filter(|e| e.feed == ada)
        .map(|e| e.position.offset)
        .collect();
    same!(
        offsets,
        (1..=20).collect::<Vec<_>>(),
        "the offsets told of one feed"
    );
    same_as_read(kit, &told).await
}

pub(super) async fn marks_wake_too(kit: &mut Kit) -> Outcome {
    kit.publish(Make::new("a").user("ada")).await?;
    kit.publish(Make::new("b").user("ada")).await?;
    kit.publish(Make::new("later").user("ada").deliver_in(Millis(5)))
        .await?;
    let wakes = Wakes::listen(kit, &[of_user("ada")?]).await?;
    kit.read("ada", &["a"]).await?;
    kit.cancel("b").await?;
    kit.pass(Millis(5)).await;
    let told = wakes.appended(kit, 3).await?;
    let offsets: Vec<_> = told.iter().map(|entry| entry.position.offset).collect();
    same!(
        offsets,
        [3, 4, 5],
        "a read mark, a withdrawn mark, a scheduled one"
    );
    same_as_read(kit, &told).await
}

pub(super) async fn a_transient_one_is_told_and_not_stored(kit: &mut Kit) -> Outcome {
    let wakes = Wakes::listen(kit, &[of_user("ada")?, of_user("bob")?]).await?;
    let publication = Make::new("a")
        .users(["ada", "bob"])
        .transient()
        .publication(kit.now());
    kit.engine().transmit(publication);
    kit.eventually("the transient one", || async { Ok(wakes.told().1.len() >= 2) })
        .await?;
    let (appended, mut told) = wakes.told();
    same!(appended.len(), 0, "transient entries that were told as appended");
    // Between feeds no order is promised.
    told.sort_by_key(|entry| entry.feed.to_string());
    for (entry, user) in told.iter().zip(["ada", "bob"]) {
        same!(entry.feed, of_user(user)?, "the feed it is for");
        same!(entry.position, Position::START, "its place");
    }
    let span = kit.engine().spans(&[of_user("ada")?]).await?[0];
    same!(span, FeedSpan::EMPTY, "the feed");
    let stored = kit.engine().lookup(&notification_id("a")?).await?;
    holds!(stored.is_none(), "a transient one was stored");
    same!(kit.states("a").await?, [], "its recipients");
    Ok(())
}
