//! What an answer means for the one who asked. Pure.

use super::fault::LinkFault;
use super::url::Address;
use super::wire::refused;
use redis::{ServerError, Value};

/// What becomes of a command that was answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// This is its answer.
    Done(Value),
    /// The server is against it.
    Refused(LinkFault),
    /// It did not run. It may be asked again, when this was seen to.
    NotRun(Remedy, LinkFault),
}

/// What must happen before a command that did not run is asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Some time must pass.
    Time,
    /// The slot has moved for good: look where all are.
    Look(Option<Address>),
    /// The slot is moving: ask the other server, once.
    Ask(Address),
    /// The server lacks the library.
    Library,
    /// The connection is to a server that is no longer the master, or no longer knows us.
    Reconnect,
}

impl Verdict {
    /// Of one answer that came from `asked`.
    pub fn of(value: Value, asked: &Address) -> Verdict {
        let Value::ServerError(error) = value else {
            return Verdict::Done(value);
        };
        match remedy(&error, asked) {
            Some(remedy) => Verdict::NotRun(remedy, turned_away(&error)),
            None => Verdict::Refused(refused(&error)),
        }
    }
}

/// For the errors by which a server turns a command away before it runs.
fn remedy(error: &ServerError, asked: &Address) -> Option<Remedy> {
    let details = error.details().unwrap_or_default();
    match error.code() {
        "MOVED" => Some(Remedy::Look(redirection(details, asked))),
        "ASK" => Some(redirection(details, asked).map_or(Remedy::Time, Remedy::Ask)),
        "CLUSTERDOWN" => Some(Remedy::Look(None)),
        "READONLY" | "MASTERDOWN" | "NOAUTH" => Some(Remedy::Reconnect),
        "LOADING" | "TRYAGAIN" | "BUSY" | "NOREPLICAS" => Some(Remedy::Time),
        "ERR" if details.starts_with("Function not found") => Some(Remedy::Library),
        _ => None,
    }
}

/// The address in `MOVED 3999 host:port`; no host means the one that was asked.
fn redirection(details: &str, asked: &Address) -> Option<Address> {
    let (host, port) = details.split_whitespace().nth(1)?.rsplit_once(':')?;
    let host = if host.is_empty() {
        asked.host.as_str()
    } else {
        host
    };
    Some(Address {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

fn turned_away(error: &ServerError) -> LinkFault {
    let details = error.details().unwrap_or_default();
    LinkFault::NotSent(format!("the server turned it away: {} {details}", error.code()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(line: &str) -> Verdict {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).expect("an error line");
        Verdict::of(
            value,
            &Address {
                host: "asked".into(),
                port: 1,
            },
        )
    }

    fn remedy_of(line: &str) -> Remedy {
        match verdict(line) {
            Verdict::NotRun(remedy, fault) if fault.did_not_run() => remedy,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn what_did_not_run_has_a_remedy() {
        assert_eq!(
            remedy_of("MOVED 3999 10.0.0.1:7000"),
            Remedy::Look(Some(at("10.0.0.1", 7000)))
        );
        assert_eq!(
            remedy_of("MOVED 3999 :7000"),
            Remedy::Look(Some(at("asked", 7000)))
        );
        assert_eq!(
            remedy_of("MOVED 3999 ::1:7000"),
            Remedy::Look(Some(at("::1", 7000)))
        );
        assert_eq!(remedy_of("MOVED 3999"), Remedy::Look(None));
        assert_eq!(remedy_of("ASK 3999 h:7000"), Remedy::Ask(at("h", 7000)));
        assert_eq!(remedy_of("CLUSTERDOWN Hash slot not served"), Remedy::Look(None));
        assert_eq!(
            remedy_of("READONLY You can't write against a read only replica."),
            Remedy::Reconnect
        );
        assert_eq!(
            remedy_of("MASTERDOWN Link with MASTER is down"),
            Remedy::Reconnect
        );
        assert_eq!(
            remedy_of("LOADING Redis is loading the dataset in memory"),
            Remedy::Time
        );
        assert_eq!(
            remedy_of("TRYAGAIN Multiple keys request during rehashing of slot"),
            Remedy::Time
        );
        assert_eq!(
            remedy_of("NOREPLICAS Not enough good replicas to write."),
            Remedy::Time
        );
        assert_eq!(remedy_of("ERR Function not found"), Remedy::Library);
    }

    #[test]
    fn what_may_have_run_is_never_asked_again() {
        for line in [
            "ERR user_script:3: boom",
            "OOM command not allowed",
            "NOPERM no",
            "WRONGTYPE Operation",
        ] {
            assert!(
                matches!(verdict(line), Verdict::Refused(LinkFault::Refused { .. })),
                "{line}"
            );
        }
        assert_eq!(
            Verdict::of(Value::Int(1), &at("h", 1)),
            Verdict::Done(Value::Int(1))
        );
    }
}
