//! From where certificates are taken, and where subscriptions are confirmed.
//!
//! Invariant: a forged post can make this node ask nobody but SNS, in the region of a topic that is heard, and there
//! nothing but its file of certificates; plain `http` and another port only where the operator wrote them out.

/// Hosts of SNS, and those that the operator names beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Each `scheme://host[:port]`, in lower case.
    named: Vec<String>,
}

/// What names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be https://HOST or http://HOST, with a port where it is not the usual one, and nothing behind it, not {0:?}"
)]
pub struct HostsFault(pub String);

impl Hosts {
    /// The hosts of SNS, and these: `https://HOST[:PORT]` or `http://HOST[:PORT]`.
    ///
    /// # Errors
    /// One names no host.
    pub fn with(named: &[String]) -> Result<Hosts, HostsFault> {
        let read = |text: &String| {
            let lower = text.to_ascii_lowercase();
            let is_one = lower.split_once("://").is_some_and(|(scheme, authority)| {
                matches!(scheme, "http" | "https") && is_authority(authority)
            });
            // What stands before an @ may be a password.
            let shown = text.rsplit_once('@').map_or(text.as_str(), |(_, host)| host);
            is_one
                .then_some(lower)
                .ok_or_else(|| HostsFault(shown.to_owned()))
        };
        let named = named.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Hosts { named })
    }

    /// Whether a certificate may be fetched from this address, for a message of this topic. Of SNS that is the file of
    /// certificates of the topic's own region and nothing else: its API answers on the same host, with what others
    /// wrote into it.
    pub fn allow_certificate(&self, url: &str, topic: &str) -> bool {
        let Some((origin, path)) = split(url) else {
            return false;
        };
        if self.named.contains(&origin) {
            return path.ends_with(".pem") && !path.contains(['?', '#', '%']);
        }
        let file = path
            .strip_prefix("/SimpleNotificationService-")
            .and_then(|rest| rest.strip_suffix(".pem"));
        let is_file = file.is_some_and(|name| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit())
        });
        is_file && of_sns(&origin).is_some_and(|region| topic.split(':').nth(3) == Some(region))
    }

    /// Whether a subscription of this topic may be confirmed by asking this address: the API of its own region, for a
    /// confirmation and nothing else.
    pub fn allow_confirmation(&self, url: &str, topic: &str) -> bool {
        let Some((origin, path)) = split(url) else {
            return false;
        };
        let query = path.strip_prefix("/?").unwrap_or_default();
        let mut parts = query.split('&');
        let is_confirmation = parts.any(|part| part == "Action=ConfirmSubscription");
        let region = topic.split(':').nth(3);
        let is_there = of_sns(&origin).is_some_and(|found| Some(found) == region);
        is_confirmation && !path.contains('#') && (is_there || self.named.contains(&origin))
    }
}

/// Whether this is `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            return is_v6(host) && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').unzip(),
    };
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b".-".contains(&b);
    let host = host.unwrap_or(text);
    !host.is_empty() && host.bytes().all(is_plain) && port.is_none_or(is_port)
}

fn is_v6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `scheme://host[:port]` in lower case, and what follows. What a client could read another way is refused: users, spaces,
/// backslashes, other bytes.
fn split(url: &str) -> Option<(String, &str)> {
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"@\\\"<>^`{|}".contains(&b);
    let (scheme, rest) = url.split_once("://").filter(|_| url.bytes().all(is_plain))?;
    let (authority, _) = rest.split_once('/')?;
    let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
    Some((origin, &rest[authority.len()..]))
}

/// The region of `https://sns.REGION.amazonaws.com`, or `https://sns.REGION.amazonaws.com.cn`.
fn of_sns(origin: &str) -> Option<&str> {
    let rest = origin.strip_prefix("https://sns.")?;
    let region = rest
        .strip_suffix(".amazonaws.com")
        .or_else(|| rest.strip_suffix(".amazonaws.com.cn"))?;
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    ((3..=32).contains(&region.len()) && region.bytes().all(is_plain)).then_some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:notes";

    #[test]
    fn certificates_lie_in_one_file_of_the_topics_region() {
        let hosts = Hosts::default();
        let sns = "https://sns.eu-central-1.amazonaws.com";
        let file = "/SimpleNotificationService-0a1F.pem";
        assert!(hosts.allow_certificate(&format!("{sns}{file}"), TOPIC));
        let loud = format!("https://SNS.eu-central-1.AMAZONAWS.com{file}");
        assert!(hosts.allow_certificate(&loud, TOPIC));
        let china = format!("https://sns.cn-north-1.amazonaws.com.cn{file}");
        assert!(hosts.allow_certificate(&china, "arn:aws-cn:sns:cn-north-1:1:notes"));
        for url in [
            // The API of the same host answers with what others wrote.
            format!("{sns}/?Action=GetEndpointAttributes&x=.pem"),
            format!("{sns}{file}?Action=GetEndpointAttributes"),
            format!("{sns}/?{file}"),
            format!("{sns}{file}#x"),
            format!("{sns}//SimpleNotificationService-0.pem"),
            format!("{sns}/x/SimpleNotificationService-0.pem"),
            format!("{sns}/SimpleNotificationService-.pem"),
            format!("{sns}/SimpleNotificationService-..%2f0.pem"),
            format!("{sns}/other.pem"),
            // Another region, port, scheme or host.
            format!("https://sns.us-east-1.amazonaws.com{file}"),
            format!("http://sns.eu-central-1.amazonaws.com{file}"),
            format!("{sns}:444{file}"),
            format!("{sns}.evil.example{file}"),
            format!("https://evil.example/sns.eu-central-1.amazonaws.com{file}"),
            format!("https://evil.example#sns.eu-central-1.amazonaws.com{file}"),
            format!("https://sns.eu-central-1.amazonaws.com@evil.example{file}"),
            format!("https://evil.example\\@sns.eu-central-1.amazonaws.com{file}"),
            format!("https://sns.a.b.amazonaws.com{file}"),
            format!("https://bucket.s3.amazonaws.com{file}"),
            format!("https://sns..amazonaws.com{file}"),
            format!("http://127.0.0.1:4566{file}"),
            "file:///etc/passwd".into(),
            sns.into(),
            String::new(),
        ] {
            assert!(!hosts.allow_certificate(&url, TOPIC), "{url}");
        }
    }

    #[test]
    fn confirmations_are_asked_of_the_topics_region() {
        let hosts = Hosts::default();
        let sns = "https://sns.eu-central-1.amazonaws.com";
        for (url, allowed) in [
            (
                format!("{sns}/?Action=ConfirmSubscription&TopicArn=x&Token=y"),
                true,
            ),
            (
                format!("{sns}/?Action=Publish&Message=ConfirmSubscription"),
                false,
            ),
            (format!("{sns}/?Token=y"), false),
            (format!("{sns}/x?Action=ConfirmSubscription"), false),
            (
                "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription".into(),
                false,
            ),
            ("https://evil.example/?Action=ConfirmSubscription".into(), false),
            ("http://169.254.169.254/?Action=ConfirmSubscription".into(), false),
        ] {
            assert_eq!(hosts.allow_confirmation(&url, TOPIC), allowed, "{url}");
        }
    }

    #[test]
    fn hosts_that_the_operator_named() {
        let hosts = Hosts::with(&["http://127.0.0.1:4566".into(), "https://Sns.Example".into()]).unwrap();
        for (url, allowed) in [
            ("http://127.0.0.1:4566/_aws/sns/x.pem", true),
            ("http://127.0.0.1:4566/_aws/sns/x.pem?y", false),
            ("http://127.0.0.1:4566/_aws/sns/x", false),
            ("http://127.0.0.1:4567/x.pem", false),
            ("https://127.0.0.1:4566/x.pem", false),
            ("https://sns.example/x.pem", true),
            ("http://sns.example/x.pem", false),
        ] {
            assert_eq!(hosts.allow_certificate(url, TOPIC), allowed, "{url}");
        }
        assert!(hosts.allow_confirmation("http://127.0.0.1:4566/?Action=ConfirmSubscription", TOPIC));
        for odd in [
            "",
            "127.0.0.1:4566",
            "https://",
            "https://a/b",
            "ftp://a",
            "https://a b",
            "https://a:port",
            "https://a:70000",
            "https://:443",
            "https://a:1:2",
            "https://[a]:1",
            "http://[::1]1",
        ] {
            assert_eq!(Hosts::with(&[odd.into()]), Err(HostsFault(odd.into())));
        }
        let hidden = Hosts::with(&["https://me:hush@b".into()]);
        assert_eq!(hidden, Err(HostsFault("b".into())));
        assert!(Hosts::with(&["http://[::1]:4566".into(), "http://[::1]".into()]).is_ok());
    }
}
