//! A request that is refused for another reason has not used its ticket up.

use crate::*;
use postrider_harness::token::user;

#[test]
fn a_refused_request_keeps_its_ticket() {
    check(&[("limits.sessions_per_user", "1")], |node| {
        let addr = node.endpoint.addr()?;
        let token = user("ada")?;
        let issued = once(addr, &Request::new("POST", "/v1/tickets").bearer(&token))?;
        ensure!(issued.status() == 201, "{}", said(&issued));
        ensure!(issued.head.header("cache-control") == Some("no-store"));
        let ticket = issued.json()?["ticket"].as_str().unwrap_or_default().to_owned();
        let with = |query: &str| {
            once(
                addr,
                &Request::new("GET", &format!("/v1/inbox?wait=0&ticket={ticket}{query}")),
            )
        };
        for (query, expected) in [
            ("&limit=0", "400 invalid_request"),
            ("&ack=maybe", "400 invalid_request"),
            ("&topics=closed", "403 scope"),
        ] {
            let answer = with(query)?;
            ensure!(said(&answer) == expected, "{query}: {}", said(&answer));
        }
        let other = postrider_harness::inbox::Connect::new(&node.endpoint, &token)
            .open(postrider_harness::inbox::Transport::Sse)?;
        let full = with("")?;
        ensure!(full.status() == 429, "{}", said(&full));
        drop(other);
        postrider_harness::wait::until_true("there is room", postrider_harness::wait::within(60), || {
            let answer = with("")?;
            ensure!(
                answer.status() == 200 || answer.status() == 429,
                "{}",
                said(&answer)
            );
            Ok(answer.status() == 200)
        })?;
        ensure!(said(&with("")?) == "401 token_expired", "it starts one session");
        ensure!(!node.log().contains(&ticket), "the ticket was logged");
        Ok(())
    });
}
