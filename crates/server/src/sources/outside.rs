//! A source whose channels follow the sessions of this node, as the hub sees it.

use async_trait::async_trait;
use futures_util::future::join_all;
use postrider_model::{FeedId, Topic, UserId};
use postrider_sources::redis_pubsub::{RedisPubSub, Template};
use postrider_transports::{Follow, Unavailable, Welcome};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tells a source who comes and goes.
pub(super) struct Following(pub Arc<RedisPubSub>);

impl Follow for Following {
    fn follow(&self, feed: &FeedId) {
        self.0.follow(feed);
    }

    fn unfollow(&self, feed: &FeedId) {
        self.0.unfollow(feed);
    }
}

/// Greets users with the state that their back-ends keep in Redis.
pub(super) struct Greeting {
    pub source: Arc<RedisPubSub>,
    /// The key of a user's state.
    pub state: Template,
}

#[async_trait]
impl Welcome for Greeting {
    async fn welcome(
        &self,
        whom: &[(UserId, Vec<Topic>)],
    ) -> Vec<Result<BTreeMap<String, String>, Unavailable>> {
        let feeds = whom.iter().flat_map(|(user, topics)| {
            let of_topics = topics.iter().cloned().map(FeedId::Topic);
            std::iter::once(FeedId::User(user.clone())).chain(of_topics)
        });
        if let Err(fault) = self.source.heard(&feeds.collect::<Vec<_>>()).await {
            return whom.iter().map(|_| Err(Unavailable(fault.to_string()))).collect();
        }
        let states = whom.iter().map(|(user, _)| async {
            let state = self.source.hash(&self.state.name(user.as_str())).await;
            state.map_err(|fault| Unavailable(fault.to_string()))
        });
        // They leave in one go.
        join_all(states).await
    }
}
