//! `postrider doctor`: looks at everything a node needs before it is started, or beside a running one, and says how
//! to mend what is wrong.
//!
//! Invariant: it changes nothing that stays. What it writes to measure the disk it removes again.

mod machine;
mod places;
#[cfg(feature = "redis")]
mod redis;

use crate::exit::Failure;
use crate::serve::ConfigArgs;
use crate::term::{Look, plain, wrapped};
use clap::Args;
use postrider_server::config::{Config, EngineKind, Loaded};
use postrider_server::{auth, check_tls};
use serde_json::json;
use std::io::Write as _;

/// Arguments of `doctor`.
#[derive(Args)]
#[command(after_help = HELP)]
#[command(
    about = "Look at all that a node needs, and say how to mend what is wrong",
    long_about = "Look at all that a node needs, before it is started or beside a running one, and say how to mend \
    what is wrong: the configuration, the addresses, how long the disk takes to sync, the free room, or Redis where that \
    is the engine (version, role, Cluster, eviction, memory, persistence, replicas, clock), who can receive and \
    publish, the key set's URL, the certificate, the limit of open files, the clock. Nothing that it writes stays."
)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write the findings as one JSON object
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Each line is a finding: ok, advice (it works, and could be better) or fault (it will not work). Exit status 1 where \
there is a fault, 2 where the configuration itself is wrong.

With --json: {\"healthy\":…,\"findings\":[{\"check\",\"verdict\",\"detail\",\"mend\"}]}.

Examples:
  postrider doctor --config postrider.yaml
  postrider doctor --config postrider.yaml --json | jq -r '.findings[] | select(.verdict == \"fault\") | .mend'";

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, and could be better.
    Advice,
    /// It will not work.
    Fault,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Good => "ok",
            Verdict::Advice => "advice",
            Verdict::Fault => "fault",
        }
    }
}

/// What one look found.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    verdict: Verdict,
    detail: String,
    /// What to do, where there is something to do.
    mend: Option<String>,
}

impl Finding {
    fn good(check: &'static str, detail: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Good,
            detail: detail.into(),
            mend: None,
        }
    }

    fn advice(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Advice,
            mend: Some(mend.into()),
            ..Finding::good(check, detail)
        }
    }

    fn fault(check: &'static str, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Fault,
            ..Finding::advice(check, detail, mend)
        }
    }
}

/// Looks at everything and writes what it found.
pub fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    let mut findings = configuration(&loaded);
    let config = &loaded.config;
    findings.extend(places::listeners(config));
    findings.extend(match config.engine.kind {
        #[cfg(feature = "redis")]
        EngineKind::Redis => redis::findings(config)?,
        // No configuration that loads says so.
        #[cfg(not(feature = "redis"))]
        EngineKind::Redis => Vec::new(),
        EngineKind::Embedded | EngineKind::Memory => places::data_dir(config),
    });
    findings.extend(identity(config));
    findings.push(tls(config));
    findings.push(machine::open_files());
    findings.push(machine::clock(postrider_server::now()));
    write(&findings, args.json)?;
    let faults = findings.iter().filter(|f| f.verdict == Verdict::Fault).count();
    match faults {
        0 => Ok(()),
        1 => Err(anyhow::anyhow!("there is a fault").into()),
        n => Err(anyhow::anyhow!("there are {n} faults").into()),
    }
}

fn configuration(loaded: &Loaded) -> Vec<Finding> {
    let set = match loaded.origins.len() {
        1 => "1 key is set".to_owned(),
        n => format!("{n} keys are set"),
    };
    let mut findings = vec![Finding::good(
        "configuration",
        format!("{set}, the others are at their defaults"),
    )];
    let warnings = loaded.warnings.iter();
    findings.extend(warnings.map(|warning| {
        Finding::advice(
            "configuration",
            warning,
            "`postrider config show` says where each value came from",
        )
    }));
    findings
}

/// Whether anybody can receive, and anybody publish.
fn identity(config: &Config) -> Vec<Finding> {
    let jwt = &config.auth.jwt;
    let mut findings = Vec::new();
    if let Some(url) = &jwt.jwks_url {
        findings.push(match auth::try_issuer(url) {
            Ok(keys) => Finding::good("auth.jwt.jwks_url", format!("{url}: {keys} keys that can be used")),
            Err(why) => Finding::fault(
                "auth.jwt.jwks_url",
                format!("{url}: {why}"),
                "a node starts without it, and refuses user tokens until it comes: check the name, the route and \
                 the certificate from this machine",
            ),
        });
    } else if jwt.hmac_secret.is_none() && jwt.public_key_pem.is_none() && config.is_for_channels_alone() {
        findings.push(Finding::good(
            "auth.jwt",
            "no user token can be checked, and all that sources bring goes to channels",
        ));
    } else if jwt.hmac_secret.is_none() && jwt.public_key_pem.is_none() {
        findings.push(Finding::fault(
            "auth.jwt",
            "no user token can be checked, so nobody receives",
            "set auth.jwt.hmac_secret, auth.jwt.public_key_pem or auth.jwt.jwks_url",
        ));
    } else {
        findings.push(Finding::good(
            "auth.jwt",
            "user tokens are checked with the keys of the configuration",
        ));
    }
    findings.push(match config.auth.api_keys.len() {
        0 if !config.sources.is_empty() => Finding::good(
            "auth.api_keys",
            "there is none: what is delivered comes from sources alone",
        ),
        0 => Finding::fault(
            "auth.api_keys",
            "there is none, so nobody publishes",
            "add one with scopes: [publish]",
        ),
        1 => Finding::good("auth.api_keys", "1 key"),
        n => Finding::good("auth.api_keys", format!("{n} keys")),
    });
    findings
}

fn tls(config: &Config) -> Finding {
    match check_tls(config) {
        Err(fault) => Finding::fault(
            "http.tls",
            fault.to_string(),
            "put a chain and its key there, both as PEM",
        ),
        Ok(Some(word)) => Finding::advice(
            "http.tls",
            word,
            "renew it; a running node takes the new one by itself",
        ),
        Ok(None) if config.http.tls.cert.is_some() => Finding::good("http.tls", "the certificate is valid"),
        Ok(None) if config.http.listen.ip().is_loopback() => Finding::good("http.tls", "off, on loopback"),
        Ok(None) => Finding::advice(
            "http.tls",
            format!("off, and {} is no loopback address", config.http.listen),
            "let a proxy end TLS before it, or set http.tls.cert and http.tls.key: tokens go over it",
        ),
    }
}

fn write(findings: &[Finding], as_json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"check": f.check, "verdict": f.verdict.word(), "detail": f.detail, "mend": f.mend}))
            .collect();
        let healthy = findings.iter().all(|f| f.verdict != Verdict::Fault);
        writeln!(out, "{}", json!({"healthy": healthy, "findings": list}))?;
        return Ok(());
    }
    let look = Look::stdout();
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    for finding in findings {
        writeln!(out, "{}", lines(finding, width, look).join("\n"))?;
    }
    Ok(())
}

/// What was found, beside what was looked at, and below what to do.
fn lines(finding: &Finding, width: usize, look: Look) -> Vec<String> {
    let word = format!("{:<6}", finding.verdict.word());
    let word = match finding.verdict {
        Verdict::Good => look.good(word),
        Verdict::Advice => look.warn(word),
        Verdict::Fault => look.bad(word),
    };
    let check = look.bold(format!("{:<width$}", finding.check));
    let beside = "advice".len() + width + 4;
    let room = |taken: usize| look.width.map(|columns| columns.saturating_sub(beside + taken));
    let detail = wrapped(&plain(&finding.detail), room(0)).into_iter().enumerate();
    let mut lines: Vec<_> = detail
        .map(|(nth, line)| match nth {
            0 => format!("{word}  {check}  {line}"),
            _ => format!("{:beside$}{line}", ""),
        })
        .collect();
    let mend = finding.mend.as_deref().map(|mend| wrapped(&plain(mend), room(2)));
    lines.extend(mend.into_iter().flatten().enumerate().map(|(nth, line)| {
        let arrow = if nth == 0 { "→ " } else { "  " };
        format!("{:beside$}{arrow}{line}", "")
    }));
    lines
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;
    use postrider_server::config::{self, Given};

    fn found(sets: &[&str]) -> Vec<(&'static str, Verdict)> {
        let given = Given {
            sets: sets.iter().map(|&set| set.to_owned()).collect(),
            ..Given::default()
        };
        let loaded = config::load(&given).unwrap_or_else(|faults| panic!("{faults:?}"));
        let findings = identity(&loaded.config).into_iter();
        let warned = loaded.warnings.iter().map(|_| ("warning", Verdict::Advice));
        findings
            .map(|found| (found.check, found.verdict))
            .chain(warned)
            .collect()
    }

    #[test]
    fn a_node_without_keys_is_at_fault_but_where_sources_bring_what_is_delivered() {
        let (good, bad) = (Verdict::Good, Verdict::Fault);
        let nothing = found(&[]);
        assert_eq!(nothing[..2], [("auth.jwt", bad), ("auth.api_keys", bad)]);
        assert_eq!(nothing.len(), 4, "and a warning for each");
        let queue = ["sources.q.type=sqs", "sources.q.queue_name=q"];
        let secret = "auth.jwt.hmac_secret=a-secret-of-more-than-thirty-two-bytes";
        assert_eq!(
            found(&[&queue[..], &[secret]].concat()),
            [("auth.jwt", good), ("auth.api_keys", good)]
        );
        assert_eq!(found(&queue)[0], ("auth.jwt", bad), "its users cannot connect");
        let pushed = [
            "channels.push.type=api_gateway",
            "channels.push.endpoint=https://a.execute-api.eu-central-1.amazonaws.com/prod",
            "channels.push.table=connections",
            r#"sources.q.deliver_to=["push"]"#,
        ];
        assert_eq!(
            found(&[&queue[..], &pushed].concat()),
            [("auth.jwt", good), ("auth.api_keys", good)]
        );
    }
}
