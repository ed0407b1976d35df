//! Where a service is, and how patient a client is.

use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use std::time::Duration;

/// A connection has to stand within this.
const CONNECT: Duration = Duration::from_secs(3);
/// An answer that is not waited for on purpose comes within this.
const ANSWER: Duration = Duration::from_secs(10);

/// How one service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The region; else the chain's.
    pub region: Option<String>,
    /// Where the service is, such as `http://127.0.0.1:4566`; else where the chain or AWS says.
    pub endpoint: Option<String>,
    /// A try that has no whole answer within this has failed. What waits on purpose adds its wait.
    pub answer: Duration,
    /// How often the SDK tries at most, the first time included. 1 where the caller has pauses of its own.
    pub tries: u32,
}

impl Default for Reach {
    fn default() -> Self {
        Reach {
            region: None,
            endpoint: None,
            answer: ANSWER,
            tries: 1,
        }
    }
}

impl Reach {
    /// The same, with this much more time for an answer.
    pub fn waiting(&self, more: Duration) -> Reach {
        Reach {
            answer: self.answer + more,
            ..self.clone()
        }
    }

    pub(crate) fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            // A little sooner: what is broken off says nothing of its connection. See `connections`.
            .read_timeout(self.answer * 9 / 10)
            .operation_attempt_timeout(self.answer)
            .build()
    }

    pub(crate) fn retries(&self) -> RetryConfig {
        match self.tries {
            0 | 1 => RetryConfig::disabled(),
            tries => RetryConfig::standard().with_max_attempts(tries),
        }
    }
}
