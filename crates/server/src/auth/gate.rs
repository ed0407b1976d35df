//! The door to inboxes: a token in a header, a ticket in the URL, or a cookie with a proof of where the
//! request comes from. Where several are given, that order decides.

use super::{Auth, Rules, bearer, matches_any};
use postrider_model::{Timestamp, Topic, UserId};
use postrider_transports::{Credentials, Gate, Identity, Problem};

impl Gate for Auth {
    fn identify(&self, credentials: &Credentials<'_>, now: Timestamp) -> Result<Identity, Problem> {
        let rules = self.rules();
        self.listen(credentials.client)?;
        self.identity(&rules, credentials, now)
            .inspect_err(|problem| self.count_failure(credentials.client, problem.code))
    }

    fn spend(&self, ticket: &str, resumes: bool, now: Timestamp) -> Result<(), Problem> {
        self.tickets().redeem(ticket, resumes, now).map(drop)
    }

    fn renew(&self, user: &UserId, token: &str, now: Timestamp) -> Result<Timestamp, Problem> {
        let identity = self.rules().jwt.verify(token, now)?;
        if identity.user != *user {
            return Err(Problem::token_claims());
        }
        Ok(identity.expires_at.unwrap_or(Timestamp::MAX))
    }

    fn may_subscribe(&self, identity: &Identity, topic: &Topic) -> bool {
        matches_any(&self.rules().open_topics, topic.as_str())
            || matches_any(&identity.topics, topic.as_str())
    }

    fn cookie<'c>(&self, cookies: &'c str) -> Option<&'c str> {
        let rules = self.rules();
        cookie(cookies, rules.cookie.as_deref()?)
    }

    fn cors(&self, origin: &str) -> Option<Vec<(&'static str, String)>> {
        self.rules().origins.headers(origin)
    }
}

impl Auth {
    fn identity(
        &self,
        rules: &Rules,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Identity, Problem> {
        if let Some(authorization) = credentials.authorization {
            let token = bearer(authorization).ok_or_else(Problem::token_malformed)?;
            return rules.jwt.verify(token, now);
        }
        if let Some(ticket) = credentials.ticket {
            return self.tickets().look(ticket, credentials.resumes, now);
        }
        let token = rules
            .cookie
            .as_deref()
            .and_then(|name| cookie(credentials.cookie?, name));
        let token = token.ok_or_else(Problem::token_missing)?;
        let same_origin = credentials.sec_fetch_site == Some("same-origin");
        if !same_origin
            && !credentials
                .origin
                .is_some_and(|origin| rules.origins.names(origin))
        {
            return Err(Problem::origin());
        }
        rules.jwt.verify(token, now)
    }
}

/// The value of a cookie in a `Cookie` header (RFC 6265, 4.2.1); quotes around it are taken off.
pub(super) fn cookie<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').find_map(|pair| {
        let (given, value) = pair.trim().split_once('=')?;
        let value = value.trim();
        let value = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .unwrap_or(value);
        (given == name && !value.is_empty()).then_some(value)
    })
}
