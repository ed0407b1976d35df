//! From the configuration of the registry to what keeps it.

use crate::config::{RegistryConfig, RegistryKind};
use postrider_registry::{Registry, RegistryFault};
use std::sync::Arc;

/// What it is made by.
pub(super) struct By<'a> {
    pub config: &'a RegistryConfig,
    #[cfg_attr(
        not(any(feature = "postgres", feature = "redis", feature = "aws")),
        allow(dead_code, reason = "this build has no registry")
    )]
    pub instance: &'a str,
    #[cfg(feature = "aws")]
    pub account: &'a Arc<postrider_aws::Account>,
}

impl By<'_> {
    /// Most rows of one statement.
    pub fn rows(&self) -> usize {
        match self.config.kind {
            #[cfg(feature = "aws")]
            RegistryKind::Dynamodb => postrider_registry::dynamodb::ROWS,
            _ => postrider_registry::MOST_ROWS,
        }
    }

    /// What keeps the table, if there is to be one. Nothing is reached yet.
    pub fn make(&self) -> Result<Option<Arc<dyn Registry>>, RegistryFault> {
        // The check of the configuration has said what this build lacks.
        match self.config.kind {
            // The engine knows who is here: nothing is written.
            RegistryKind::None | RegistryKind::Engine => Ok(None),
            #[cfg(feature = "postgres")]
            RegistryKind::Postgres => self.postgres().map(Some),
            #[cfg(feature = "redis")]
            RegistryKind::Redis => self.redis().map(Some),
            #[cfg(feature = "aws")]
            RegistryKind::Dynamodb => self.dynamodb().map(Some),
            #[cfg(not(all(feature = "postgres", feature = "redis", feature = "aws")))]
            other => {
                let lack = other.part().and_then(crate::config::Part::lack);
                Err(RegistryFault::Refused(lack.unwrap_or_default()))
            }
        }
    }

    #[cfg(feature = "postgres")]
    fn postgres(&self) -> Result<Arc<dyn Registry>, RegistryFault> {
        use postrider_registry::postgres::{Address, Options, Postgres};
        let config = self.config;
        let options = Options {
            address: Address {
                host: config.host.clone(),
                port: config.port,
                user: config.user.clone(),
                password: config
                    .password
                    .as_ref()
                    .map(|password| password.expose().to_owned()),
                database: config.database.clone(),
                tls: config.tls,
                ca: config.ca.clone(),
            },
            table: self.table()?,
            create: config.create,
            instance: self.instance.to_owned(),
            lease: config.lease,
        };
        Ok(Arc::new(Postgres::new(options)?))
    }

    #[cfg(feature = "redis")]
    fn redis(&self) -> Result<Arc<dyn Registry>, RegistryFault> {
        use postrider_registry::redis::{Options, Redis, RedisAddress};
        let url = self.config.url.as_ref().map(|url| url.expose());
        let address = RedisAddress::parse(url.unwrap_or_default());
        Ok(Arc::new(Redis::new(Options {
            address: address.map_err(|what| RegistryFault::Refused(format!("registry.url: {what}")))?,
            key: self.table()?,
            instance: self.instance.to_owned(),
            lease: self.config.lease,
            steady: crate::steady_clock(),
        })))
    }

    #[cfg(feature = "aws")]
    fn dynamodb(&self) -> Result<Arc<dyn Registry>, RegistryFault> {
        use postrider_registry::dynamodb::{ANSWER, DynamoDb, Names, Options};
        let config = self.config;
        Ok(Arc::new(DynamoDb::new(Options {
            account: self.account.clone(),
            reach: postrider_aws::Reach {
                region: config.region.clone(),
                endpoint: config.endpoint.clone(),
                answer: ANSWER,
                ..postrider_aws::Reach::default()
            },
            names: Names {
                table: self.table()?,
                user: config.user_key.clone(),
                instance: config.instance_key.clone(),
            },
            create: config.create,
            instance: self.instance.to_owned(),
            lease: config.lease,
            steady: crate::steady_clock(),
            random: crate::clock::fresh_number,
        })))
    }

    #[cfg(any(feature = "postgres", feature = "redis", feature = "aws"))]
    fn table<T>(&self) -> Result<T, RegistryFault>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let table = self.config.table.parse();
        table.map_err(|fault: T::Err| RegistryFault::Refused(format!("registry.table {fault}")))
    }
}
