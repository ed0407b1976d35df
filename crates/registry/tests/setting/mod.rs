//! What the tests of all tables need.

use anyhow::{Result, ensure};
use postrider_model::UserId;
use postrider_registry::{Lease, Registry};

/// These users.
pub fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| UserId::new(name).unwrap()).collect()
}

/// What their calls run on.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?)
}

/// A node that was held up may write once more after it was taken for dead. Where it dies then, its rows are found; where
/// it lives on, it is told that rows may be gone.
pub async fn writes_late(late: &dyn Registry, other: &dyn Registry) -> Result<()> {
    let both = users(&["ada", "bob"]);
    late.open().await?;
    other.open().await?;
    late.put(&both[..1]).await?;
    ensure!(late.take_over(&both).await? == 1);
    other.beat().await?;
    for user in &both {
        ensure!(other.instance_of(user).await?.is_none(), "{user:?}");
    }
    late.put(&both).await?;
    ensure!(late.beat().await? == Lease::Lapsed);
    ensure!(late.beat().await? == Lease::Held);
    late.put(&both).await?;
    ensure!(late.beat().await? == Lease::Held, "its lease is as it was");
    Ok(())
}
