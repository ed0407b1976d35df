//! How a command ends, as an exit status and words on standard error.

use crate::client::Refused;
use clap::error::ErrorKind;
use postrider_server::config::ConfigFault;
use std::fmt;
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

impl Failure {
    /// The same, with what was going on before it.
    pub fn context(self, what: impl Into<String>) -> Failure {
        match self {
            Failure::Other(error) => Failure::Other(error.context(what.into())),
            usage => usage,
        }
    }

    /// What a node refused, if it is that.
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Failure::Other(error) => error.downcast_ref(),
            Failure::Configuration(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Configuration(faults) => f.write_str(&faults.join("; ")),
            Failure::Other(error) => write!(f, "{error:#}"),
        }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Other(error.into())
    }
}

/// What clap says of a bad command line, in one line; its help and version as they are.
pub fn usage(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let printed = error.print();
        return match (printed, error.exit_code()) {
            (Ok(()), 0) => ExitCode::SUCCESS,
            // Nobody reads the help to its end: `postrider --help | head`.
            (Err(error), 0) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            (Ok(()), _) => ExitCode::from(BAD_CONFIGURATION),
            (Err(_), _) => ExitCode::FAILURE,
        };
    }
    eprintln!("{}", one_line(&error.render().to_string()));
    ExitCode::from(BAD_CONFIGURATION)
}

/// The fault and the tips of clap's report, and where to read more. The usage line, which is long, is left to the help.
fn one_line(report: &str) -> String {
    let report = report.strip_prefix("error: ").unwrap_or(report);
    let fault = report.split("\n\nUsage:").next().unwrap_or(report);
    let fault = fault.split("\n\nFor more information").next().unwrap_or(fault);
    let fault = fault.replace("\n\n  tip: ", "; ");
    let words: Vec<_> = fault.split_whitespace().collect();
    let usage = report.lines().find_map(|line| line.strip_prefix("Usage: "));
    let command: Vec<_> = usage
        .unwrap_or("postrider")
        .split_whitespace()
        .take_while(|word| {
            word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !word.starts_with('-')
        })
        .collect();
    format!(
        "postrider: {}; see `{} --help`",
        words.join(" "),
        command.join(" ")
    )
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
            if closed {
                // Who read it has had enough: `postrider listen | head -1`.
                return ExitCode::SUCCESS;
            }
            eprintln!("postrider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_command_line_is_one_helpful_line() {
        let report = "error: unexpected argument '--tpic' found\n\n  tip: a similar argument exists: '--topic'\n\n\
                      Usage: postrider publish --to <USER>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(report),
            "postrider: unexpected argument '--tpic' found; a similar argument exists: '--topic'; see `postrider publish --help`"
        );
        let report = "error: the following required arguments were not provided:\n  --user <USER>\n\n\
                      Usage: postrider token --user <USER>\n\nFor more information, try '--help'.\n";
        assert_eq!(
            one_line(report),
            "postrider: the following required arguments were not provided: --user <USER>; see `postrider token --help`"
        );
    }
}
