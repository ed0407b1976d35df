//! The connections to AWS, kept from call to call; and given up where nothing comes over them any more.
//!
//! A link can break without a word: packets vanish, or a NAT forgets. Every connection that was kept then looks alive, and
//! each costs some call its whole time. So after one call without an answer in its time the next calls to its host have fresh
//! connections. Where nothing else came from that host for [`QUIET`] either, the others that are under way over the old ones
//! fail: a poll is to wait for a message, not for a link.
//!
//! Invariant: a host's calls concern no other host. Connections are given up at most once in the time of a call. As many
//! hosts are known as the configuration names. How long a call takes at most is its caller's to say.

use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector, proxy::ProxyConfig};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::{RuntimeComponents, RuntimeComponentsBuilder};
use aws_smithy_types::config_bag::ConfigBag;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A host of which nothing was heard for so long, or for half the time of a call that had no answer, has fallen silent.
const QUIET: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_host: Arc<ByHost>,
}

#[derive(Debug, Default)]
struct ByHost(Mutex<HashMap<String, Arc<Pool>>>);

/// The connections to one host, until they are given up.
#[derive(Debug)]
struct Pool {
    client: SharedHttpClient,
    /// When anything came from the host, over these connections or those before and after them.
    heard: Arc<Mutex<Instant>>,
    has_fallen_silent: watch::Sender<bool>,
}

impl HttpClient for Connections {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // How long an answer may take is watched here: whoever has another patience has the same connections.
        let mut shared = HttpConnectorSettings::builder();
        shared.set_connect_timeout(settings.connect_timeout());
        SharedHttpConnector::new(Line {
            by_host: self.by_host.clone(),
            settings: shared.build(),
            answer: settings.read_timeout(),
            components: components.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        // It reads the roots of trust, before the first call would.
        client().validate_base_client_config(components, config)
    }
}

/// What a call goes over.
#[derive(Debug)]
struct Line {
    by_host: Arc<ByHost>,
    settings: HttpConnectorSettings,
    answer: Option<Duration>,
    components: RuntimeComponents,
}

impl HttpConnector for Line {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let by_host = self.by_host.clone();
        let host = host_of(request.uri()).to_owned();
        let pool = by_host.pool(&host);
        let connector = pool.client.http_connector(&self.settings, &self.components);
        let asked = connector.call(request);
        let Some(time) = self.answer else {
            return asked;
        };
        HttpConnectorFuture::new(async move {
            tokio::pin!(asked);
            let answer = tokio::select! {
                answer = &mut asked => answer,
                () = pool.silence() => {
                    return Err(ConnectorError::io("the host has fallen silent".into()));
                }
                () = tokio::time::sleep(time) => {
                    by_host.give_up(&host, &pool, time);
                    // Who asked breaks it off by then, if nothing comes after all; or has no other limit than this.
                    match tokio::time::timeout(time / 4, asked).await {
                        Ok(answer) => answer,
                        Err(late) => Err(ConnectorError::timeout(late.into())),
                    }
                }
            };
            if answer.is_ok() {
                pool.hears();
            }
            answer
        })
    }
}

impl ByHost {
    fn pool(&self, host: &str) -> Arc<Pool> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(host) {
            return pool.clone();
        }
        let pool = Arc::new(Pool::new(Arc::new(Mutex::new(now()))));
        pools.insert(host.to_owned(), pool.clone());
        pool
    }

    /// A call over this pool had no answer in its time.
    fn give_up(&self, host: &str, pool: &Arc<Pool>, time: Duration) {
        let is_silent = pool.quiet() >= QUIET.min(time / 2);
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = pools.get_mut(host)
            && Arc::ptr_eq(current, pool)
        {
            *current = Arc::new(Pool::new(pool.heard.clone()));
            drop(pools);
            tracing::info!(
                host,
                is_silent,
                "a call had no answer in its time: the next ones have fresh connections"
            );
        }
        if is_silent {
            pool.has_fallen_silent.send_replace(true);
        }
    }
}

impl Pool {
    fn new(heard: Arc<Mutex<Instant>>) -> Pool {
        Pool {
            client: client(),
            heard,
            has_fallen_silent: watch::Sender::new(false),
        }
    }

    fn hears(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = now();
    }

    /// Returns once the host has fallen silent.
    async fn silence(&self) {
        let mut told = self.has_fallen_silent.subscribe();
        // Who tells is this pool: it is not closed before.
        drop(told.wait_for(|has_fallen| *has_fallen).await);
    }

    /// For how long nothing was heard of the host.
    fn quiet(&self) -> Duration {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        now().duration_since(heard)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a driver: for how long nothing was heard of a host"
)]
fn now() -> Instant {
    Instant::now()
}

/// TLS by rustls with ring, as everywhere in Postrider; a proxy where the environment names one.
fn client() -> SharedHttpClient {
    let tls = Provider::Rustls(CryptoMode::Ring);
    Builder::new().build_with_connector_fn(move |settings, _components| {
        let mut connector = Connector::builder()
            .proxy_config(ProxyConfig::from_env())
            .tls_provider(tls.clone());
        if let Some(settings) = settings {
            connector = connector.connector_settings(settings.clone());
        }
        connector.build()
    })
}

/// The host and port of an address.
fn host_of(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address() {
        for (uri, host) in [
            ("https://sqs.region.amazonaws.com/", "sqs.region.amazonaws.com"),
            ("http://127.0.0.1:4566/0/q?a=://b", "127.0.0.1:4566"),
            ("http://host?x", "host"),
            ("/path", ""),
        ] {
            assert_eq!(host_of(uri), host);
        }
    }
}
