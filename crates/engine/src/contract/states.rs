//! Users' state maps.

use super::kit::{Kit, of_user, user_id};
use super::wakes::Wakes;
use super::{Fault, Outcome, holds, same};
use crate::StartsWanted;
use postrider_model::{MAX_STATE_KEYS, StateChange, StateError, UserState};

fn merge(members: &[(&str, Option<&str>)]) -> StateChange {
    let members = members.iter();
    StateChange::Merge(
        members
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect(),
    )
}

fn add(members: &[(&str, i64)]) -> StateChange {
    StateChange::Increment(members.iter().map(|(key, by)| ((*key).to_owned(), *by)).collect())
}

async fn change(kit: &Kit, user: &str, change: StateChange) -> Result<UserState, Fault> {
    let changed = kit.engine().change_state(&user_id(user)?, change).await?;
    changed.map_err(|error| Fault::from(error.to_string()))
}

pub(super) async fn changes_are_merged_in_order(kit: &mut Kit) -> Outcome {
    let ada = user_id("ada")?;
    let wakes = Wakes::listen(kit, &[of_user("ada")?]).await?;
    same!(kit.engine().state(&ada).await?, UserState::default(), "never set");
    let first = change(kit, "ada", merge(&[("a", Some("1")), ("b", Some("x"))])).await?;
    same!(first.version(), kit.now().0, "the first version");
    let steps = [
        merge(&[("b", None), ("c", Some("\""))]),
        add(&[("a", 4), ("n", -1)]),
        StateChange::Clear,
    ];
    let engine = kit.engine();
    // Together: they are made one after the other all the same.
    let (one, two, three) = tokio::join!(
        engine.change_state(&ada, steps[0].clone()),
        engine.change_state(&ada, steps[1].clone()),
        engine.change_state(&ada, steps[2].clone()),
    );
    let mut versions: Vec<_> = [one?, two?, three?]
        .iter()
        .flatten()
        .map(UserState::version)
        .collect();
    versions.sort_unstable();
    let begin = first.version();
    same!(versions, [begin + 1, begin + 2, begin + 3], "the versions");
    let told = [
        format!(r#"ada {{"a":"1","b":"x"}} {begin}"#),
        format!(r#"ada {{"a":"1","c":"\""}} {}"#, begin + 1),
        format!(r#"ada {{"a":"5","c":"\"","n":"-1"}} {}"#, begin + 2),
        format!("ada {{}} {}", begin + 3),
    ];
    wakes.tell(kit, &told).await
}

pub(super) async fn a_refused_change_changes_nothing(kit: &mut Kit) -> Outcome {
    let ada = user_id("ada")?;
    let before = change(kit, "ada", merge(&[("a", Some("x")), ("n", Some("1"))])).await?;
    let wakes = Wakes::listen(kit, &[of_user("ada")?]).await?;
    let many: Vec<_> = (0..MAX_STATE_KEYS)
        .map(|n| (format!("k-{n}"), Some(String::new())))
        .collect();
    let most = MAX_STATE_KEYS;
    let key = "a".to_owned();
    let refused = [
        (add(&[("n", 1), ("a", 1)]), StateError::NotANumber { key }),
        (StateChange::Merge(many), StateError::TooManyKeys { most }),
    ];
    for (change, error) in refused {
        same!(
            kit.engine().change_state(&ada, change).await?,
            Err(error),
            "the answer"
        );
    }
    same!(kit.engine().state(&ada).await?, before, "the map");
    same!(wakes.all(), Vec::<String>::new(), "what was told");
    Ok(())
}

pub(super) async fn a_state_is_given_when_it_is_wanted(kit: &mut Kit) -> Outcome {
    let state = change(kit, "ada", add(&[("unread", 3)])).await?;
    for (user, wanted) in [("ada", true), ("ada", false), ("bob", true)] {
        let wanted = StartsWanted {
            user: user_id(user)?,
            places: Vec::new(),
            cursor: None,
            state: wanted,
        };
        let starts = kit
            .engine()
            .starts(std::slice::from_ref(&wanted))
            .await
            .remove(0)?;
        let of = if user == "ada" {
            state.clone()
        } else {
            UserState::default()
        };
        same!(starts.state.as_deref(), wanted.state.then_some(&of), "of {user}");
        holds!(
            !wanted.state || kit.engine().starts_now(&wanted).is_none(),
            "the state needs a look"
        );
    }
    Ok(())
}

pub(super) async fn versions_rise_over_an_erase(kit: &mut Kit) -> Outcome {
    let ada = user_id("ada")?;
    let mut last = 0;
    for _ in 0..3 {
        for n in 0..4 {
            let state = change(kit, "ada", add(&[("n", n)])).await?;
            holds!(state.version() > last, "{} after {last}", state.version());
            last = state.version();
        }
        let wakes = Wakes::listen(kit, &[of_user("ada")?]).await?;
        same!(kit.engine().erase(&ada).await?, true, "something was known");
        let erased = kit.engine().state(&ada).await?;
        holds!(erased.version() > last, "{} after {last}", erased.version());
        same!(erased.map().len(), 0, "what is left");
        last = erased.version();
        wakes.tell(kit, &[format!("ada {{}} {last}")]).await?;
        kit.restart().await;
        same!(kit.engine().state(&ada).await?.version(), last, "after a restart");
        same!(kit.engine().erase(&ada).await?, false, "erasing again");
    }
    Ok(())
}

pub(super) async fn a_state_survives_a_restart(kit: &mut Kit) -> Outcome {
    let state = change(kit, "ada", merge(&[("ü", Some("\n")), ("b", Some(""))])).await?;
    kit.restart().await;
    same!(kit.engine().state(&user_id("ada")?).await?, state, "the map");
    Ok(())
}
