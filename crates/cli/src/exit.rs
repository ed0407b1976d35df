//! How a command ends, as an exit status and words on standard error.

use postrider_server::config::ConfigFault;
use std::process::ExitCode;

/// A bad configuration or usage.
const BAD_CONFIGURATION: u8 = 2;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong: one line per fault.
    Configuration(Vec<String>),
    /// Anything else.
    Other(anyhow::Error),
}

impl Failure {
    /// What a configuration's layers have wrong.
    pub fn faults(faults: Vec<ConfigFault>) -> Failure {
        Failure::Configuration(faults.iter().map(ToString::to_string).collect())
    }

    /// A usage fault that clap cannot see.
    pub fn usage(what: impl Into<String>) -> Failure {
        Failure::Configuration(vec![what.into()])
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Other(error.into())
    }
}

/// Prints what went wrong and chooses the status.
pub fn report(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(faults)) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            ExitCode::from(BAD_CONFIGURATION)
        }
        Err(Failure::Other(error)) => {
            let closed = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
            if !closed {
                eprintln!("postrider: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
