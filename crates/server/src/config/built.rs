//! What a binary may be built without, said where a configuration asks for it.
//!
//! Invariant: every build reads the same configuration, with the same keys and the same rules. What this one cannot do is
//! a fault that names the cargo feature, and never an unknown key.

/// A part of Postrider that has a cargo feature of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The engine over Redis, the sources that read from it, and the registry there.
    Redis,
    /// Sources and channels of AWS, and the registry in DynamoDB.
    Aws,
    /// The registry in PostgreSQL.
    Postgres,
}

impl Part {
    /// Its cargo feature.
    fn feature(self) -> &'static str {
        match self {
            Part::Redis => "redis",
            Part::Aws => "aws",
            Part::Postgres => "postgres",
        }
    }

    fn is_built(self) -> bool {
        match self {
            Part::Redis => cfg!(feature = "redis"),
            Part::Aws => cfg!(feature = "aws"),
            Part::Postgres => cfg!(feature = "postgres"),
        }
    }

    /// Why it cannot be used here; `None` where it can.
    pub(crate) fn lack(self) -> Option<String> {
        let feature = self.feature();
        let lack = || {
            format!(
                "is not in this binary, which was built without the cargo feature `{feature}`: take one that has it, or \
                 build with `--features {feature}`"
            )
        };
        (!self.is_built()).then(lack)
    }
}

#[cfg(test)]
mod tests {
    use super::Part;
    use crate::config::{Given, load};

    /// In every build: what it lacks is the only fault, and what it has is none.
    #[test]
    fn what_is_not_built_is_a_fault_that_names_its_feature() {
        let url = "redis://127.0.0.1:6379";
        let engine = ["engine.type=redis".into(), format!("engine.redis.url={url}")];
        let source = [
            "sources.s.type=redis_streams".into(),
            format!("sources.s.url={url}"),
        ];
        let source = [&source[..], &["sources.s.stream=s".into()]].concat();
        for (key, sets) in [("engine.type", engine.to_vec()), ("sources.s.type", source)] {
            let loaded = load(&Given {
                sets,
                ..Given::default()
            });
            let faults = loaded.err().unwrap_or_default();
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            match (Part::Redis.is_built(), &faults[..]) {
                (true, []) => {}
                (false, [fault]) => assert!(fault.contains("cargo feature `redis`"), "{key}: {fault}"),
                (_, faults) => panic!("{key}: {faults:?}"),
            }
        }
    }
}
