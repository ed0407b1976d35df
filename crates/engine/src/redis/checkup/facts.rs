//! What the servers say of themselves. Asks, and judges nothing.

use super::super::links::{LinkFault, Links};
use postrider_model::Timestamp;
use redis::Value;
use std::collections::BTreeMap;

/// The parameters of `CONFIG GET` that are looked at.
const PARAMETERS: [&str; 6] = [
    "appendonly",
    "appendfsync",
    "save",
    "maxmemory",
    "maxmemory-policy",
    "client-output-buffer-limit",
];

/// What one master said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: String,
    /// The lines of `INFO`.
    pub info: BTreeMap<String, String>,
    /// The answer to `CONFIG GET`; `None` where that is not allowed, as with many hosted ones.
    pub config: Option<BTreeMap<String, String>>,
    /// The lines of `CLUSTER INFO`, where it is part of one.
    pub cluster: Option<BTreeMap<String, String>>,
    /// Its clock beside ours, in milliseconds: more than zero where its is ahead.
    pub ahead_ms: Option<i64>,
    /// The function libraries of ours that it has.
    pub libraries: Vec<String>,
}

/// Asks every master. `now` tells our time.
///
/// # Errors
/// Where one does not answer.
pub async fn look(links: &Links, now: &(dyn Fn() -> Timestamp + Sync)) -> Result<Vec<Server>, LinkFault> {
    let told = settings(links).await.into_iter();
    let told: Result<BTreeMap<_, _>, _> = told.map(|(address, told)| Ok((address, told?))).collect();
    let mut servers = told?;
    let before = now();
    for (address, said) in links.each(redis::cmd("TIME")).await {
        if let (Some(server), Some(said)) = (servers.get_mut(&address.to_string()), allowed(said)?) {
            server.ahead_ms = time_ms(&said).map(|at| ahead(at, before, now()));
        }
    }
    let mut functions = redis::cmd("FUNCTION");
    functions.arg("LIST").arg("LIBRARYNAME").arg("postrider*");
    for (address, said) in links.each(functions).await {
        if let (Some(server), Some(said)) = (servers.get_mut(&address.to_string()), allowed(said)?) {
            server.libraries = libraries(&said);
        }
    }
    let is_cluster = |server: &Server| server.info.get("cluster_enabled").is_some_and(|on| on == "1");
    if servers.values().any(is_cluster) {
        let mut cluster = redis::cmd("CLUSTER");
        cluster.arg("INFO");
        for (address, said) in links.each(cluster).await {
            if let Some(server) = servers.get_mut(&address.to_string()) {
                server.cluster = allowed(said)?.map(|said| lines(&said));
            }
        }
    }
    Ok(servers.into_values().collect())
}

/// Asks every master what it says of itself, and what it was told to be, by address. Two short commands each, for whoever
/// asks again and again. One that does not answer is an error of its own.
pub(in crate::redis) async fn settings(links: &Links) -> BTreeMap<String, Result<Server, LinkFault>> {
    let mut servers = BTreeMap::new();
    for (address, said) in links.each(redis::cmd("INFO").clone()).await {
        let address = address.to_string();
        let server = said.map(|said| Server {
            address: address.clone(),
            info: lines(&said),
            ..Server::default()
        });
        servers.insert(address, server);
    }
    let mut config = redis::cmd("CONFIG");
    config.arg("GET").arg(&PARAMETERS[..]);
    for (address, said) in links.each(config).await {
        let Some(told) = servers.get_mut(&address.to_string()) else {
            continue;
        };
        match (&mut *told, allowed(said)) {
            (Ok(server), Ok(said)) => server.config = said.map(|said| pairs(&said)),
            (Ok(_), Err(fault)) => *told = Err(fault),
            (Err(_), _) => {}
        }
    }
    servers
}

/// What may be forbidden without harm.
fn allowed(said: Result<Value, LinkFault>) -> Result<Option<Value>, LinkFault> {
    match said {
        Ok(value) => Ok(Some(value)),
        Err(LinkFault::Refused { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// How far a clock is ahead of ours, which was asked between these two moments; 0 where it can be either's.
fn ahead(theirs: u64, before: Timestamp, after: Timestamp) -> i64 {
    let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    match theirs {
        at if at > after.0 => signed(at) - signed(after.0),
        at if at < before.0 => signed(at) - signed(before.0),
        _ => 0,
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// `name:value` on each line; what begins with # is a heading.
fn lines(value: &Value) -> BTreeMap<String, String> {
    let text = text(value).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
    pairs
        .filter(|(name, _)| !name.starts_with('#'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// A map, by either version of the protocol.
fn pairs(value: &Value) -> BTreeMap<String, String> {
    let pair = |name: &Value, value: &Value| Some((text(name)?, text(value)?));
    match value {
        Value::Map(all) => all.iter().filter_map(|(name, value)| pair(name, value)).collect(),
        Value::Array(all) => all
            .chunks_exact(2)
            .filter_map(|two| pair(&two[0], &two[1]))
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn time_ms(value: &Value) -> Option<u64> {
    let Value::Array(parts) = value else { return None };
    let number = |at: usize| text(parts.get(at)?)?.parse::<u64>().ok();
    Some(number(0)?.saturating_mul(1000).saturating_add(number(1)? / 1000))
}

fn libraries(value: &Value) -> Vec<String> {
    let Value::Array(all) = value else {
        return Vec::new();
    };
    all.iter()
        .filter_map(|library| pairs(library).remove("library_name"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn answers_of_either_protocol_are_read() {
        let info = lines(&bulk("# Server\r\nredis_version:7.0.15\r\nrun_id:ab:c\r\n\r\n"));
        assert_eq!(info["redis_version"], "7.0.15");
        assert_eq!(info["run_id"], "ab:c");
        assert_eq!(info.len(), 2);
        let flat = Value::Array(["save", "", "maxmemory", "0"].map(bulk).into());
        let map = Value::Map(vec![
            (bulk("save"), bulk("")),
            (Value::SimpleString("maxmemory".into()), bulk("0")),
        ]);
        assert_eq!(pairs(&flat), pairs(&map));
        assert_eq!(pairs(&flat)["maxmemory"], "0");
        let time = Value::Array(vec![bulk("1700000000"), bulk("123456")]);
        assert_eq!(time_ms(&time), Some(1_700_000_000_123));
        assert_eq!(time_ms(&Value::Nil), None);
        let library = |name: &str| Value::Array(["library_name", name, "engine", "LUA"].map(bulk).into());
        let list = Value::Array(vec![library("postrider_1"), library("postrider_2")]);
        assert_eq!(libraries(&list), ["postrider_1", "postrider_2"]);
    }

    #[test]
    fn a_clock_is_ahead_only_where_the_way_cannot_explain_it() {
        let between = |theirs| ahead(theirs, Timestamp(100), Timestamp(110));
        assert_eq!([90, 100, 105, 110, 115].map(between), [-10, 0, 0, 0, 5]);
    }
}
