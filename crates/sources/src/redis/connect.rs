//! Finds the server that has a key, and connects to it.
//!
//! Invariant: a connection that is handed out is to a master, as of now. It is never mended in place: who sees it fail
//! drops it and asks for another, and a failover is found out in the same way.

use super::address::{RedisAddress, Shape};
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT};
use crate::queue::SourceFault;
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, ProtocolVersion,
    RedisConnectionInfo, RedisError, ServerErrorKind, Value, cmd,
};
use std::future::Future;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Slots of a Cluster.
const SLOTS: u16 = 16384;

/// Makes connections to one address.
#[derive(Debug, Clone)]
pub struct Connector {
    address: RedisAddress,
    /// What the server lists the connections under (`CLIENT LIST`).
    name: String,
}

impl Connector {
    /// To this address, under this name.
    pub fn new(address: RedisAddress, name: impl Into<String>) -> Connector {
        let name = name.into();
        Connector { address, name }
    }

    /// Whether it is a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.address.is_cluster()
    }

    /// A connection to the master that has this key. An answer may take [`ANSWER_TIMEOUT`] and `wait`.
    ///
    /// # Errors
    /// It is away, or it refuses.
    pub async fn to_key(&self, key: &[u8], wait: Duration) -> Result<MultiplexedConnection, SourceFault> {
        let config = || AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT + wait));
        self.connect(Some(key), ProtocolVersion::RESP2, config).await
    }

    /// A connection for subscriptions, whose messages go to `push`: to the master, of a Cluster to any node.
    ///
    /// # Errors
    /// It is away, or it refuses.
    pub async fn to_subscribe(
        &self,
        push: impl AsyncPushSender + Clone,
    ) -> Result<MultiplexedConnection, SourceFault> {
        self.connect(None, ProtocolVersion::RESP3, || pushing(&push))
            .await
    }

    /// As [`Connector::to_subscribe`], one for each master of a Cluster, with the slots that it has.
    ///
    /// # Errors
    /// One of them is away, or refuses.
    pub async fn to_masters(&self, push: impl AsyncPushSender + Clone) -> Result<Vec<OfSlots>, SourceFault> {
        let mut known: Vec<(Host, MultiplexedConnection)> = Vec::new();
        let mut out = Vec::new();
        for (slots, host) in self.all_masters().await? {
            let found = known
                .iter()
                .find(|(other, _)| *other == host)
                .map(|(_, made)| made.clone());
            let connection = match found {
                Some(connection) => connection,
                None => {
                    let mut made = self
                        .to_host(&host, true, ProtocolVersion::RESP3, pushing(&push))
                        .await?;
                    self.named(&mut made).await.map_err(|error| fault(&error))?;
                    known.push((host, made.clone()));
                    made
                }
            };
            out.push((slots, connection));
        }
        Ok(out)
    }

    /// A connection to this master of a Cluster, for what is answered at once.
    pub(super) async fn to_master(&self, host: &Host) -> Result<MultiplexedConnection, SourceFault> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
        let mut made = self.to_host(host, true, ProtocolVersion::RESP2, config).await?;
        self.named(&mut made).await.map_err(|error| fault(&error))?;
        Ok(made)
    }

    async fn connect(
        &self,
        key: Option<&[u8]>,
        protocol: ProtocolVersion,
        config: impl Fn() -> AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, SourceFault> {
        let hosts = match &self.address.shape {
            Shape::Single => self.address.hosts.clone(),
            Shape::Sentinel(master) => vec![self.master_of(master).await?],
            Shape::Cluster => match key {
                Some(key) => vec![self.owner_of(slot(key)).await?],
                None => self.address.hosts.clone(),
            },
        };
        let mut last = SourceFault::Away("no host is known".into());
        for host in &hosts {
            match self.to_host(host, true, protocol, config()).await {
                Ok(mut connection) => match self.named(&mut connection).await {
                    Ok(()) => return Ok(connection),
                    Err(error) => last = fault(&error),
                },
                Err(found) => last = found,
            }
        }
        Err(last)
    }

    async fn named(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        cmd("CLIENT")
            .arg("SETNAME")
            .arg(&self.name)
            .query_async(connection)
            .await
    }

    /// `is_server`: not a Sentinel, which knows no database and has passwords of its own.
    async fn to_host(
        &self,
        (host, port): &Host,
        is_server: bool,
        protocol: ProtocolVersion,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, SourceFault> {
        let address = match self.address.is_tls {
            false => ConnectionAddr::Tcp(host.clone(), *port),
            true => ConnectionAddr::TcpTls {
                host: host.clone(),
                port: *port,
                insecure: false,
                tls_params: None,
            },
        };
        let mut login = RedisConnectionInfo::default().set_protocol(protocol);
        if is_server {
            login = login.set_db(self.address.db);
            if let Some(username) = &self.address.username {
                login = login.set_username(username);
            }
            if let Some(password) = &self.address.password {
                login = login.set_password(password);
            }
        }
        let info = address.into_connection_info().map_err(|error| fault(&error))?;
        let client = Client::open(info.set_redis_settings(login)).map_err(|error| fault(&error))?;
        let config = config.set_connection_timeout(Some(CONNECT_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        within(CONNECT_TIMEOUT + ANSWER_TIMEOUT, connecting).await
    }

    /// Where the master of this name is: whichever Sentinel answers first in order says.
    async fn master_of(&self, master: &str) -> Result<Host, SourceFault> {
        let mut asking = cmd("SENTINEL");
        asking.arg("get-master-addr-by-name").arg(master);
        let mut last = SourceFault::Refused(format!("no Sentinel knows the master {master}"));
        for sentinel in &self.address.hosts {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
            let asked = async {
                let mut connection = self
                    .to_host(sentinel, false, ProtocolVersion::RESP2, config)
                    .await?;
                let known: Option<Host> = asking
                    .query_async(&mut connection)
                    .await
                    .map_err(|error| fault(&error))?;
                Ok::<_, SourceFault>(known)
            };
            match asked.await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(found) => last = found,
            }
        }
        Err(last)
    }

    /// The master that has this slot.
    async fn owner_of(&self, slot: u16) -> Result<Host, SourceFault> {
        let mut masters = self.all_masters().await?.into_iter();
        let found = masters.find(|(slots, _)| slots.contains(&slot));
        found
            .map(|(_, host)| host)
            .ok_or_else(|| SourceFault::Away("no master has the slot".into()))
    }

    /// The masters, as the first host says that knows any.
    pub(super) async fn all_masters(&self) -> Result<Vec<Master>, SourceFault> {
        let mut last = SourceFault::Away("no host of the Cluster knows a master".into());
        for seed in &self.address.hosts {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
            let asked = async {
                let mut connection = self.to_host(seed, true, ProtocolVersion::RESP2, config).await?;
                let slots: Value = cmd("CLUSTER")
                    .arg("SLOTS")
                    .query_async(&mut connection)
                    .await
                    .map_err(|error| fault(&error))?;
                Ok::<_, SourceFault>(masters(slots, &seed.0))
            };
            match asked.await {
                Ok(masters) if masters.is_empty() => {}
                Ok(masters) => return Ok(masters),
                Err(found) => last = found,
            }
        }
        Err(last)
    }
}

/// A connection, and slots that its master has.
pub type OfSlots = (RangeInclusive<u16>, MultiplexedConnection);

/// A server's name and port.
pub(super) type Host = (String, u16);

type Master = (RangeInclusive<u16>, Host);

fn pushing(push: &(impl AsyncPushSender + Clone)) -> AsyncConnectionConfig {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
    config.set_push_sender(push.clone())
}

/// The masters in an answer to `CLUSTER SLOTS`; one that does not say its host is where it was asked.
fn masters(answer: Value, asked: &str) -> Vec<Master> {
    let read = |entry: Value| -> Option<Master> {
        let Value::Array(entry) = entry else { return None };
        let mut entry = entry.into_iter();
        let first: u16 = redis::from_redis_value(entry.next()?).ok()?;
        let last: u16 = redis::from_redis_value(entry.next()?).ok()?;
        let Some(Value::Array(node)) = entry.next() else {
            return None;
        };
        let mut node = node.into_iter();
        let host: Option<String> = redis::from_redis_value(node.next()?).ok()?;
        let port: u16 = redis::from_redis_value(node.next()?).ok()?;
        let host = host.filter(|host| !host.is_empty() && host != "?");
        Some((first..=last, (host.unwrap_or_else(|| asked.to_owned()), port)))
    };
    let Value::Array(entries) = answer else {
        return Vec::new();
    };
    entries.into_iter().filter_map(read).collect()
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, SourceFault> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| fault(&error)),
        Err(_) => Err(SourceFault::Away("it does not answer".into())),
    }
}

/// What an error of Redis means for a source.
pub fn fault(error: &RedisError) -> SourceFault {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
            SourceFault::Refused(text)
        }
        ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError) => {
            SourceFault::Refused(text)
        }
        ErrorKind::Extension if matches!(error.code(), Some("WRONGTYPE" | "NOAUTH" | "WRONGPASS")) => {
            SourceFault::Refused(text)
        }
        _ => SourceFault::Away(text),
    }
}

/// Whether a connection is of no use any more: it is broken, or its server is not the master of the key now.
pub fn is_gone(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, ClusterDown, MasterDown, Moved, ReadOnly};
    let elsewhere = matches!(
        error.kind(),
        ErrorKind::Server(Moved | Ask | ReadOnly | ClusterDown | MasterDown)
    );
    elsewhere || error.is_io_error() || error.is_unrecoverable_error() || error.is_timeout()
}

/// The slot of a key in a Cluster: CRC16 (XMODEM) of it, or of its hash tag.
pub fn slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{');
    let tag = open.and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let mut crc = 0u16;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
        }
    }
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_as_redis_counts_them() {
        // By CLUSTER KEYSLOT.
        for (key, slot_of_it) in [
            ("foo", 12182),
            ("bar", 5061),
            ("{foo}x", 12182),
            ("x{foo}y", 12182),
            ("123456789", 12739),
        ] {
            assert_eq!(slot(key.as_bytes()), slot_of_it, "{key}");
        }
        assert_eq!(slot(b"{}a"), slot(b"{}a"));
        assert_ne!(slot(b"{}a"), slot(b"{}b"));
    }

    #[test]
    fn a_cluster_that_is_told() {
        let node =
            |host: Value, port| Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let answer = Value::Array(vec![
            Value::Array(vec![
                Value::Int(0),
                Value::Int(99),
                node(Value::BulkString(b"a".to_vec()), 1),
                node(Value::Nil, 2),
            ]),
            Value::Array(vec![Value::Int(100), Value::Int(16383), node(Value::Nil, 3)]),
            Value::Nil,
        ]);
        let found = masters(answer, "seed");
        assert_eq!(
            found,
            [
                (0..=99, ("a".to_owned(), 1)),
                (100..=16383, ("seed".to_owned(), 3))
            ]
        );
    }
}
