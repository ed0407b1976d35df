//! `postrider openapi`: the HTTP interface as an OpenAPI document, made from the server's routes.

use crate::exit::Failure;
use std::io::Write as _;

/// Examples of its use.
pub const HELP: &str = "\
A running node serves the same at /openapi.json, and as a page at /docs.

Examples:
  postrider openapi > openapi.json
  postrider openapi | jq -r '.paths | keys[]'";

/// Writes it.
pub fn run() -> Result<(), Failure> {
    std::io::stdout()
        .lock()
        .write_all(postrider_server::openapi().as_bytes())?;
    Ok(())
}
