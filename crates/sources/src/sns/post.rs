//! What SNS posts: a JSON envelope.
//!
//! Invariant: reading is total; nothing of it is believed yet.

use serde::Deserialize;

/// What a post is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// Something was published.
    Notification,
    /// The topic asks whether this address wants to be subscribed.
    SubscriptionConfirmation,
    /// The address was unsubscribed.
    UnsubscribeConfirmation,
}

impl Kind {
    /// As SNS writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Notification => "Notification",
            Kind::SubscriptionConfirmation => "SubscriptionConfirmation",
            Kind::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

/// A post as it came.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Post {
    /// What it is about.
    #[serde(rename = "Type")]
    pub kind: Kind,
    /// Names the message within SNS, the same whenever it comes again.
    pub message_id: String,
    /// The topic.
    pub topic_arn: String,
    /// What was published.
    pub message: String,
    /// The line for people, where there is one.
    pub subject: Option<String>,
    /// When SNS made it, as RFC 3339.
    pub timestamp: String,
    /// `1` is SHA-1, `2` is SHA-256. Empty where there is none, which is not believed.
    #[serde(default)]
    pub signature_version: String,
    /// Base64.
    #[serde(default)]
    pub signature: String,
    /// Where the certificate is whose key signed it.
    #[serde(default, alias = "SigningCertUrl", rename = "SigningCertURL")]
    pub signing_cert_url: String,
    /// Where to say that the address wants to be subscribed.
    #[serde(alias = "SubscribeUrl", rename = "SubscribeURL")]
    pub subscribe_url: Option<String>,
    /// Proves to SNS that the address was reached.
    pub token: Option<String>,
}

/// What is no post of SNS.
#[derive(Debug, thiserror::Error)]
#[error("this is no message of Amazon SNS: {0}")]
pub struct PostFault(#[from] serde_json::Error);

impl Post {
    /// Reads a body.
    ///
    /// # Errors
    /// It is none of SNS.
    pub fn read(body: &[u8]) -> Result<Post, PostFault> {
        Ok(serde_json::from_slice(body)?)
    }
}
