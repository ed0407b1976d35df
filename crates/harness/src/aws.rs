//! What of AWS can be had on one machine: emulators of SQS, SNS and DynamoDB, a stand-in for API Gateway's connections,
//! PostgreSQL, and boto3, by which a test speaks as a producer does.
//!
//! The reading order is [`Emulator`] (LocalStack or moto) and [`Postgres`] (one process each), [`Boto`] (how a test sends,
//! publishes and looks), [`ApiGateway`] (a stand-in of our own that keeps the service's contract) and [`Trouble`] (a
//! stand-in before an emulator that throttles, tarries, fails, and answers batches in part). [`Module`] is a module of Terraform,
//! applied to an emulator.
//!
//! Invariant: every server listens on loopback alone, which is looked up and not believed; it keeps its data in a directory
//! of its own, is ended by its process id, and never outlives what started it.
//!
//! It does not know Postrider, and it shares no code with it: what is judged here must not judge itself. Nobody here was
//! asked to behave as AWS does in what AWS does not document.

use std::time::Duration;

mod api_gateway;
mod boto;
mod emulator;
mod postgres;
mod process;
mod serving;
mod signature;
mod sockets;
mod terraform;
mod tools;
mod trouble;

pub use api_gateway::{ApiGateway, Mood, Posted};
pub use boto::{Boto, Refusal};
pub use emulator::Emulator;
pub use postgres::{Postgres, missing as missing_postgres};
pub use terraform::{Module, missing as missing_provider};
pub use tools::{missing_localstack, missing_moto};
pub use trouble::{Fault, Trouble};

/// Who everybody here says to be. The emulators take any name; [`ApiGateway`] checks what was signed with the key.
pub const ACCESS_KEY: &str = "AKIAPOSTRIDERHARNESS";
/// The key that goes with [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "harness/secret+key";
/// Where everything is.
pub const REGION: &str = "eu-central-1";

/// How long a server may take to answer first, and to end when it is told to. LocalStack loads for seconds where the
/// machine has other work.
const PATIENCE: Duration = Duration::from_secs(240);
/// On how many ports a server is tried before it is given up.
const TRIES: usize = 10;

/// The variables by which the SDKs, boto3 and a node learn who they are and where the service is.
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", REGION),
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_ENDPOINT_URL", endpoint),
        // Nothing of the machine's own, and no look for a role of a virtual machine.
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}
