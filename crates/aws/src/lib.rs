//! Clients of AWS: one way to reach it, for whatever part of Postrider calls a service there.
//!
//! An [`Account`] is read once, when it is first needed: region and credentials by the chain that every AWS SDK follows
//! (environment, profile, web identity, container, instance). Its clients share one identity and, to each host, one pool of
//! connections, which is given up where the host falls silent. [`Reach`] says where a service is and how long it is
//! waited for; [`Trouble`] what an error means.
//!
//! Invariant: no credential is in a text or `Debug` that this crate makes. The SDK repeats a call only as often as
//! [`Reach::tries`] says: who calls decides when to try again.
//!
//! Knows nothing of notifications. Services are cargo features: `sqs`, `dynamodb`, `apigw`.

mod account;
mod connections;
mod reach;
mod trouble;

pub use account::Account;
pub use reach::Reach;
pub use trouble::{Trouble, trouble};

#[cfg(feature = "apigw")]
pub use aws_sdk_apigatewaymanagement as apigw;
#[cfg(feature = "dynamodb")]
pub use aws_sdk_dynamodb as dynamodb;
#[cfg(feature = "sqs")]
pub use aws_sdk_sqs as sqs;

pub use aws_smithy_runtime_api::client::result::SdkError;
