//! API Gateway's interface for the connections of a WebSocket API: `POST {endpoint}/@connections/{connection}`, signed.

use super::{Answer, Endpoint};
use async_trait::async_trait;
use bytes::Bytes;
use postrider_aws::apigw::Client;
use postrider_aws::apigw::primitives::Blob;
use postrider_aws::{Account, Reach, SdkError, trouble};
use postrider_model::Millis;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// One stage.
pub struct Management {
    account: Arc<Account>,
    reach: Reach,
    client: OnceCell<Client>,
}

impl Management {
    /// The stage whose address is the endpoint of `reach`. Nothing is reached before the first call.
    pub fn new(account: Arc<Account>, reach: Reach) -> Management {
        Management {
            account,
            // Whoever posts has pauses of his own.
            reach: Reach { tries: 1, ..reach },
            client: OnceCell::new(),
        }
    }

    async fn client(&self) -> &Client {
        let make = || self.account.apigw(&self.reach);
        self.client.get_or_init(make).await
    }
}

#[async_trait]
impl Endpoint for Management {
    async fn post(&self, connection: &str, data: &Bytes) -> Answer {
        let post = self
            .client()
            .await
            .post_to_connection()
            .connection_id(connection)
            .data(Blob::new(&data[..]));
        let error = match post.send().await {
            Ok(_) => return Answer::Pushed,
            Err(error) => error,
        };
        let what = trouble(&error).to_string();
        if let Some(response) = error.raw_response() {
            let status = response.status().as_u16();
            let after = response.headers().get("retry-after").and_then(seconds);
            return Answer::of_status(status, format!("HTTP {status}, {what}"), after);
        }
        match error {
            // The answer took too long: whether the connection has it nobody knows.
            SdkError::TimeoutError(_) => Answer::Unwell { what, after: None },
            SdkError::ConstructionFailure(_) => Answer::Refused(what),
            _ => Answer::Away(what),
        }
    }
}

/// `Retry-After` in seconds. A date, which API Gateway never sends, counts as none.
fn seconds(text: &str) -> Option<Millis> {
    text.trim().parse().ok().map(Millis::from_secs)
}
