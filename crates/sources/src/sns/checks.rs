//! Whether a post is what SNS sent, to this node, now.
//!
//! Invariant: the cheap questions come first, and no certificate is fetched for a post that one of them refuses.

use super::hosts::Hosts;
use super::keys::{KeyFault, Keys};
use super::post::{Kind, Post};
use super::signed::signed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_model::{Millis, Timestamp};

/// A clock of SNS may be ahead of this one by so much.
const AHEAD: Millis = Millis(5 * 60_000);

/// What is asked of a post.
pub struct Checks {
    /// The topics that are heard, as ARNs.
    pub topics: Vec<String>,
    /// From where certificates may come.
    pub hosts: Hosts,
    /// How old a post may be.
    pub window: Millis,
    /// The certificates.
    pub keys: Keys,
}

/// What an authentic post asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// To take what was published.
    Notification,
    /// To ask this address, which is of an allowed host.
    Confirm(String),
    /// Nothing: no more comes of the topic.
    Unsubscribed,
}

/// Why a post is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forged {
    /// Of a topic that is not heard.
    #[error("the topic is not one of those that this source hears")]
    Topic,
    /// Too old, or of the future.
    #[error("the timestamp is not of now")]
    Old,
    /// An unknown signature version.
    #[error("the signature version is neither 1 nor 2")]
    Version,
    /// From a place that is not allowed.
    #[error("the address in {0} is none of this topic's")]
    Host(&'static str),
    /// The key did not sign it.
    #[error("the signature is wrong")]
    Signature,
    /// The certificate's time is not now.
    #[error("the certificate is expired, or not valid yet")]
    Expired,
    /// No certificate: whether it is forged cannot be told now.
    #[error("{0}")]
    Key(#[from] KeyFault),
}

impl Forged {
    /// Whether the same post may be found authentic later.
    pub fn may_pass_later(&self) -> bool {
        matches!(self, Forged::Key(KeyFault::Away(_) | KeyFault::Busy))
    }
}

impl Checks {
    /// Judges a post.
    ///
    /// # Errors
    /// Why it is not believed.
    pub async fn verify(&self, post: &Post, now: Timestamp) -> Result<Verified, Forged> {
        self.glance(post, now)?;
        let signature = STANDARD.decode(&post.signature).map_err(|_| Forged::Signature)?;
        let certificate = self.keys.certificate(&post.signing_cert_url, now).await?;
        if !certificate.counts_at(now) {
            return Err(Forged::Expired);
        }
        if !certificate.has_signed(&post.signature_version, signed(post).as_bytes(), &signature) {
            return Err(Forged::Signature);
        }
        self.verified(post)
    }

    /// What needs no certificate.
    fn glance(&self, post: &Post, now: Timestamp) -> Result<(), Forged> {
        if !self.hears(&post.topic_arn) {
            return Err(Forged::Topic);
        }
        let then = Timestamp::parse_rfc3339(&post.timestamp).ok_or(Forged::Old)?;
        if now.since(then) > self.window || then.since(now) > AHEAD {
            return Err(Forged::Old);
        }
        if !matches!(post.signature_version.as_str(), "1" | "2") {
            return Err(Forged::Version);
        }
        if !self
            .hosts
            .allow_certificate(&post.signing_cert_url, &post.topic_arn)
        {
            return Err(Forged::Host("SigningCertURL"));
        }
        Ok(())
    }

    /// Whether posts of this topic are heard.
    pub fn hears(&self, topic: &str) -> bool {
        self.topics.iter().any(|heard| heard == topic)
    }

    fn verified(&self, post: &Post) -> Result<Verified, Forged> {
        match (post.kind, &post.subscribe_url) {
            (Kind::Notification, _) => Ok(Verified::Notification),
            (Kind::UnsubscribeConfirmation, _) => Ok(Verified::Unsubscribed),
            (Kind::SubscriptionConfirmation, Some(url))
                if self.hosts.allow_confirmation(url, &post.topic_arn) =>
            {
                Ok(Verified::Confirm(url.clone()))
            }
            (Kind::SubscriptionConfirmation, _) => Err(Forged::Host("SubscribeURL")),
        }
    }
}
