//! State maps: merged, incremented, cleared; and told to sessions in the order of their changes.

use crate::{check, start};
use anyhow::{Context, Result, bail, ensure};
use postrider_harness::http::Request;
use postrider_harness::inbox::{Connect, Inbox, Received, TRANSPORTS};
use postrider_harness::node::KEY;
use postrider_harness::people::People;
use postrider_harness::token;
use postrider_harness::user::User;
use postrider_harness::wait::{until_true, within};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[test]
fn a_map_is_changed_whole_or_not_at_all() {
    check(|| {
        let (mut node, mut people) = start(&[])?;
        ensure!(people.state("ada")? == (json!({}), 0), "never set");
        let first = people
            .merge("ada", &json!({"theme": "dark", "unread": "7", "ü\"": ""}))?
            .json()?;
        let state = json!({"theme": "dark", "unread": "7", "ü\"": ""});
        let version = first["version"].as_u64().context("version")?;
        ensure!(first["state"] == state && version > 0, "{first}");
        ensure!(people.state("ada")? == (state, version));
        let second = people
            .merge("ada", &json!({"theme": null, "ü\"": null, "gone": null}))?
            .json()?;
        ensure!(second["state"] == json!({"unread": "7"}), "{second}");
        let third = people
            .increment("ada", &json!({"unread": -9, "total": 2}))?
            .json()?;
        ensure!(third["state"] == json!({"unread": "-2", "total": "2"}), "{third}");
        let versions = [&first, &second, &third].map(|answer| answer["version"].as_u64());
        ensure!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");

        people.merge("ada", &json!({"word": "seven", "most": i64::MAX.to_string()}))?;
        let before = people.state("ada")?;
        let faults = [
            (json!({"total": 1, "word": 1}), 409, "state_conflict", "/word"),
            (json!({"total": 1, "most": 1}), 409, "state_conflict", "/most"),
            (json!({"total": 1, "": 1}), 400, "invalid_request", "/"),
            (json!({"total": 1, "x": 1.5}), 400, "invalid_request", "/x"),
        ];
        for (change, status, code, pointer) in faults {
            let answer = people.increment("ada", &change)?;
            let told = (answer.status(), answer.code(), answer.json()?["pointer"].clone());
            ensure!(
                told == (status, Some(code.to_owned()), json!(pointer)),
                "{change}: {}",
                answer.text()
            );
        }
        let long = json!({"a": "x".repeat(10_000), "b": "x".repeat(10_000)});
        for change in [
            long,
            (0..300).map(|i| (format!("k{i}"), json!(""))).collect::<Value>(),
        ] {
            let answer = people.merge("ada", &change)?;
            ensure!(
                answer.status() == 413 && answer.code().as_deref() == Some("too_large"),
                "{}",
                answer.text()
            );
        }
        ensure!(people.state("ada")? == before, "nothing of all that was done");

        node.kill9()?;
        node.restart()?;
        let mut people = People::new(&node.endpoint, KEY);
        ensure!(people.state("ada")? == before);
        let cleared = people.ask("DELETE", "/v1/users/ada/state")?;
        ensure!(
            cleared["state"] == json!({}) && cleared["version"].as_u64() > Some(before.1),
            "{cleared}"
        );
        Ok(())
    });
}

#[test]
fn users_see_their_own() {
    check(|| {
        let (node, mut people) = start(&[])?;
        people.merge("ada", &json!({"theme": "dark"}))?;
        let own = |user: &str| -> Result<Value> {
            let answer = User::new(&node.endpoint, user)?.call(Request::new("GET", "/v1/inbox/state"))?;
            ensure!(answer.status() == 200, "{}", answer.text());
            Ok(answer.json()?["state"].clone())
        };
        ensure!(own("ada")? == json!({"theme": "dark"}) && own("bob")? == json!({}));
        let answer = people.call(Request::new("GET", "/v1/inbox/state"))?;
        ensure!(answer.status() == 401, "a key is no user: {}", answer.text());
        let ada = User::new(&node.endpoint, "ada")?;
        let answer = ada.call(Request::new("GET", "/v1/users/ada/state"))?;
        ensure!(answer.status() == 401, "a user is no key: {}", answer.text());
        Ok(())
    });
}

/// Back-ends that add at the same time, and the changes of each.
const ADDERS: usize = 6;
const CHANGES: usize = 40;

fn number(state: &Value, key: &str) -> Result<usize> {
    state[key]
        .as_str()
        .unwrap_or("0")
        .parse()
        .with_context(|| format!("{key} of {state}"))
}

/// Reads states until the last one has come; they must go on in the order of the changes.
fn watch(session: &mut dyn Inbox) -> Result<usize> {
    let mut seen = 0;
    let mut before = json!({});
    loop {
        let received = session.next(within(60))?.context("no state in time")?;
        let Received::State(state) = received else {
            if let Received::End(end) = received {
                bail!("the session ended: {end:?}");
            }
            continue;
        };
        seen += 1;
        // The sum, and the part of each: whatever is older than what was told shows in one of them.
        let mut sum = 0;
        for adder in 0..ADDERS {
            let key = format!("of{adder}");
            ensure!(
                number(&state, &key)? >= number(&before, &key)?,
                "{state} after {before}"
            );
            sum += number(&state, &key)?;
        }
        ensure!(
            number(&state, "all")? == sum,
            "a change was told in parts: {state}"
        );
        if sum == ADDERS * CHANGES {
            return Ok(seen);
        }
        before = state;
    }
}

#[test]
fn sessions_are_told_in_the_order_of_the_changes() {
    check(|| {
        let (node, mut people) = start(&[])?;
        people.merge("ada", &json!({"all": "0"}))?;
        let token = token::user("ada")?;
        let mut sessions = Vec::new();
        for transport in TRANSPORTS {
            let mut session = Connect::new(&node.endpoint, &token)
                .query("state", "1")
                .open(transport)?;
            // The first thing it is told.
            loop {
                match session.next(within(60))?.context("no state")? {
                    Received::State(state) => {
                        ensure!(state == json!({"all": "0"}), "{transport}: {state}");
                        break;
                    }
                    Received::Hello(_) | Received::Retry(_) | Received::KeepAlive => {}
                    other => bail!("{transport}: the state was to come first, not {other:?}"),
                }
            }
            sessions.push((transport, session));
        }
        thread::scope(|scope| {
            let adders: Vec<_> = (0..ADDERS)
                .map(|adder| {
                    let mut people = People::new(&node.endpoint, KEY);
                    scope.spawn(move || -> Result<()> {
                        for at in 1..=CHANGES {
                            let key = format!("of{adder}");
                            let answer = people.increment("ada", &json!({"all": 1, key.as_str(): 1}))?;
                            ensure!(answer.status() == 200, "{}", answer.text());
                            let own = number(&answer.json()?["state"], &key)?;
                            ensure!(own == at, "the answer holds this change: {own}");
                        }
                        Ok(())
                    })
                })
                .collect();
            let watchers: Vec<_> = sessions
                .into_iter()
                .map(|(transport, mut session)| {
                    scope.spawn(move || watch(&mut *session).with_context(|| transport.to_string()))
                })
                .collect();
            for adder in adders {
                adder.join().unwrap()?;
            }
            for watcher in watchers {
                watcher.join().unwrap()?;
            }
            anyhow::Ok(())
        })?;
        ensure!(people.state("ada")?.0["all"] == (ADDERS * CHANGES).to_string());
        Ok(())
    });
}

/// What was answered before a crash is there after it, and at most what was under way beside it.
#[test]
fn what_was_answered_survives_a_crash() {
    check(|| {
        let (mut node, _) = start(&[])?;
        let answered = AtomicUsize::new(0);
        for round in 1..=3 {
            let before = answered.load(Ordering::SeqCst);
            thread::scope(|scope| -> Result<()> {
                for _ in 0..ADDERS {
                    let mut people = People::new(&node.endpoint, KEY);
                    let answered = &answered;
                    // Until the node is gone.
                    scope.spawn(move || {
                        while let Ok(answer) = people.increment("ada", &json!({"all": 1})) {
                            assert_eq!(answer.status(), 200, "{}", answer.text());
                            answered.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                }
                let enough = before + 60 * round;
                let is_enough = || Ok(answered.load(Ordering::SeqCst) >= enough);
                let reached = until_true("increments", within(30), is_enough);
                node.kill9()?;
                reached
            })?;
            node.restart()?;
            let mut people = People::new(&node.endpoint, KEY);
            let (state, _) = people.state("ada")?;
            let (held, told) = (number(&state, "all")?, answered.load(Ordering::SeqCst));
            ensure!(
                (told..=told + ADDERS).contains(&held),
                "{held} of {told} that were answered"
            );
            answered.store(held, Ordering::SeqCst);
        }
        Ok(())
    });
}
