//! Who calls AWS.

use crate::Reach;
use crate::connections::Connections;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::SdkConfig;
use aws_types::sdk_config::StalledStreamProtectionConfig;
use tokio::sync::OnceCell;

/// The identity that this process has at AWS. Made for nothing: it is read when the first client is.
#[derive(Default)]
pub struct Account {
    keys: Option<Credentials>,
    /// Who answers in the place of AWS.
    stand_in: Option<SharedHttpClient>,
    chain: OnceCell<SdkConfig>,
}

impl Account {
    /// One whose region and credentials are found when they are needed.
    pub fn new() -> Account {
        Account::default()
    }

    /// One with this access key and secret, whatever the chain has; regions are to be in every [`Reach`].
    pub fn with_keys(access_key: &str, secret: &str) -> Account {
        let keys = Credentials::new(access_key, secret, None, None, "given");
        Account {
            keys: Some(keys),
            ..Account::default()
        }
    }

    /// The same, whose calls are answered by this and go over no network: for tests.
    pub fn answered_by(self, stand_in: SharedHttpClient) -> Account {
        Account {
            stand_in: Some(stand_in),
            ..self
        }
    }

    /// What the chain says. Where it has to ask an instance or container for its region, that takes a moment, once.
    async fn chain(&self) -> &SdkConfig {
        let load = || {
            let connections = || SharedHttpClient::new(Connections::default());
            let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
                .http_client(self.stand_in.clone().unwrap_or_else(connections))
                // It takes a poll that waits on purpose for a stalled one. Every try has its time limit.
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
            match &self.keys {
                // Where no region is set, nobody is asked for one either.
                Some(keys) => loader.credentials_provider(keys.clone()).region(None::<Region>),
                None => loader,
            }
            .load()
        };
        self.chain.get_or_init(load).await
    }

    #[cfg(any(feature = "sqs", feature = "dynamodb", feature = "apigw"))]
    async fn reaching(&self, reach: &Reach) -> SdkConfig {
        let mut config = self
            .chain()
            .await
            .to_builder()
            .timeout_config(reach.timeouts())
            .retry_config(reach.retries());
        if let Some(region) = &reach.region {
            config = config.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &reach.endpoint {
            config = config.endpoint_url(endpoint);
            // Said for this service: `AWS_ENDPOINT_URL`, which is for all, does not go before it.
            config.insert_origin("endpoint_url", aws_types::origin::Origin::shared_config());
        }
        config.build()
    }

    /// A client of SQS.
    #[cfg(feature = "sqs")]
    pub async fn sqs(&self, reach: &Reach) -> crate::sqs::Client {
        crate::sqs::Client::new(&self.reaching(reach).await)
    }

    /// A client of DynamoDB.
    #[cfg(feature = "dynamodb")]
    pub async fn dynamodb(&self, reach: &Reach) -> crate::dynamodb::Client {
        crate::dynamodb::Client::new(&self.reaching(reach).await)
    }

    /// A client of API Gateway's connections. Its [`Reach::endpoint`] has to be given: the stage's own address.
    #[cfg(feature = "apigw")]
    pub async fn apigw(&self, reach: &Reach) -> crate::apigw::Client {
        crate::apigw::Client::new(&self.reaching(reach).await)
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Nothing of the identity.
        f.write_str("Account")
    }
}
