//! `limits.publish_rate` and `limits.sessions_per_address`.

use crate::*;
use postrider_harness::inbox::{Connect, TRANSPORTS, Transport};
use postrider_harness::node::{KEY, KEY_PUBLISH};
use postrider_harness::publish::Publisher;
use postrider_harness::token::user;
use postrider_harness::wait::{until_true, within};
use std::time::Instant;

/// One that no disk has to take, however slow it is.
fn notification() -> Value {
    json!({"users": ["ada"], "data": 1, "durability": "transient"})
}

#[test]
fn a_key_over_its_rate_waits_and_the_others_do_not() {
    check(&[("limits.publish_rate", "5")], |node| {
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let mut refused = None;
        for _ in 0..50 {
            let answer = publisher.one(&notification())?;
            if answer.status() == 429 {
                refused = Some(answer);
                break;
            }
            ensure!(answer.status() == 202, "{}", said(&answer));
        }
        let refused = refused.expect("fifty in a moment are over five a second");
        ensure!(said(&refused) == "429 rate_limited", "{}", said(&refused));
        ensure!(
            refused.head.header("retry-after") == Some("1"),
            "{:?}",
            refused.head
        );
        ensure!(
            Publisher::new(&node.endpoint, KEY_PUBLISH)
                .one(&notification())?
                .status()
                == 202,
            "another key"
        );
        until_true("it may again", within(30), || {
            Ok(publisher.one(&notification())?.status() == 202)
        })
    });
}

#[test]
fn an_arrays_items_count_one_by_one() {
    check(&[("limits.publish_rate", "5")], |node| {
        let mut publisher = Publisher::new(&node.endpoint, KEY);
        let all = Value::Array(vec![notification(); 20]);
        let began = Instant::now();
        let answer = publisher.raw("application/json", all.to_string())?;
        ensure!(answer.status() == 202, "{}", said(&answer));
        let told = answer.json()?;
        let accepted = told["accepted"].as_array().map_or(0, Vec::len);
        let rejected = told["rejected"].as_array().cloned().unwrap_or_default();
        ensure!(
            accepted == 5 && rejected.len() == 15,
            "{accepted} accepted, {} rejected",
            rejected.len()
        );
        ensure!(rejected.iter().all(|item| item["code"] == "rate_limited"));
        ensure!(
            rejected[0]["index"] == 5,
            "those in front go first: {}",
            rejected[0]
        );
        // Nothing of it passes: the request as a whole is refused.
        let answer = publisher.raw("application/json", all.to_string())?;
        // Or what came back meanwhile, at five a second.
        let come_back = (began.elapsed().as_secs_f64() * 5.0) as usize;
        let accepted = answer.json()?["accepted"].as_array().map_or(0, Vec::len);
        ensure!(
            said(&answer) == "429 rate_limited" || accepted <= come_back.min(5),
            "{accepted} accepted after {come_back} came back: {}",
            answer.text()
        );
        Ok(())
    });
}

#[test]
fn a_streams_lines_wait_and_none_is_refused() {
    check(&[("limits.publish_rate", "20")], |node| {
        const LINES: usize = 50;
        let start = Instant::now();
        let lines: String = (0..LINES).map(|_| format!("{}\n", notification())).collect();
        let answer = Publisher::new(&node.endpoint, KEY).raw("application/x-ndjson", lines)?;
        let accepted = answer
            .text()
            .lines()
            .filter(|line| line.contains("\"accepted\":true"))
            .count();
        ensure!(accepted == LINES, "{accepted} of {LINES}: {}", answer.text());
        let took = start.elapsed().as_secs_f64();
        // Twenty at once, and thirty more at twenty a second.
        ensure!(took > 1.4, "{LINES} lines took {took:.2} s");
        Ok(())
    });
}

#[test]
fn an_address_has_so_many_sessions() {
    check(&[("limits.sessions_per_address", "3")], |node| {
        let tokens: Vec<String> = (0..5)
            .map(|n| user(&format!("user-{n}")))
            .collect::<Result<_>>()?;
        let mut open = Vec::new();
        for token in &tokens[..3] {
            open.push(Connect::new(&node.endpoint, token).open(Transport::Sse)?);
        }
        for transport in TRANSPORTS {
            let refused = Connect::new(&node.endpoint, &tokens[3]).refusal(transport)?;
            ensure!(
                said(&refused) == "429 rate_limited",
                "{transport}: {}",
                said(&refused)
            );
            ensure!(refused.head.header("retry-after").is_some());
        }
        // A connection that the API holds does not get round it.
        let addr = node.endpoint.addr()?;
        let mut conn = postrider_harness::http::Conn::open(addr, None)?;
        let tickets = Request::new("POST", "/v1/tickets").bearer(&tokens[3]);
        ensure!(conn.call(&tickets, within(10))?.status() == 201);
        let bridged = conn.call(
            &Request::new("GET", "/v1/inbox?wait=0").bearer(&tokens[3]),
            within(10),
        )?;
        ensure!(
            said(&bridged) == "429 rate_limited",
            "bridged: {}",
            said(&bridged)
        );
        drop(open.pop());
        until_true("who left made room", within(60), || {
            Ok(poll(node, &tokens[4])?.status() == 200)
        })?;
        // A poll is a session only while it is answered.
        for _ in 0..10 {
            expect(node, &tokens[4], "200", "poll after poll")?;
        }
        Ok(())
    });
}
