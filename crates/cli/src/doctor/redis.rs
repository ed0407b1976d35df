//! Redis, where it is the engine: the same looks and words as a node's own before it starts.

use super::{Finding, Verdict};
use crate::exit::Failure;
use postrider_server::checkup;
use postrider_server::config::Config;

/// Looks at Redis, and changes nothing there.
pub fn findings(config: &Config) -> Result<Vec<Finding>, Failure> {
    let found = crate::serve::runtime()?.block_on(postrider_server::check_redis(config));
    Ok(match found {
        Ok(found) => found.into_iter().map(Finding::from).collect(),
        Err(fault) => vec![Finding::fault(
            "redis",
            fault.to_string(),
            "put it there, and let the user that runs the node read it",
        )],
    })
}

impl From<checkup::Finding> for Finding {
    fn from(found: checkup::Finding) -> Finding {
        Finding {
            check: found.check,
            verdict: match found.weight {
                checkup::Weight::Good => Verdict::Good,
                checkup::Weight::Advice => Verdict::Advice,
                checkup::Weight::Fault => Verdict::Fault,
            },
            detail: found.detail,
            mend: found.mend,
        }
    }
}
