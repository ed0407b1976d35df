//! The source `sns`: Amazon SNS posts what a topic publishes to an address of this node.
//!
//! Whoever serves that address reads a post with [`Post::read`], has it judged by the [`Checks`], and offers what is
//! authentic to the source, which hands it on like any queue. The post is answered once its message is settled, so
//! that SNS repeats what was not.
//!
//! Invariant: what is not signed by SNS for an allowed topic, or is old, is refused before anything else is done with
//! it; nothing is fetched from a host that is not allowed. Names no HTTP server and no HTTP client: certificates come by
//! [`Fetch`].

mod certificate;
mod checks;
mod hosts;
mod inlet;
mod keys;
mod post;
mod signed;

pub use certificate::{Certificate, CertificateFault};
pub use checks::{Checks, Forged, Verified};
pub use hosts::{Hosts, HostsFault};
pub use inlet::{Offer, Sns, SnsOptions};
pub use keys::{Fetch, KeyFault, Keys};
pub use post::{Kind, Post, PostFault};

#[cfg(test)]
#[path = "sns/tests.rs"]
mod tests;
