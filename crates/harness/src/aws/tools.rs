//! Where the emulators and boto3 are installed, and what is said where they are not.
//!
//! `cargo xtask test` installs them beside the target directory's profiles. A test by plain `cargo test` finds them there
//! as well, if they were installed once.
//!
//! It does not install anything.

use std::path::{Path, PathBuf};

/// The folder of their environments.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("POSTRIDER_AWS_TOOLS") {
        return Some(folder.into());
    }
    let test = std::env::current_exe().ok()?;
    // …/target/<profile>/{deps,examples}/<test>
    let profile = test
        .ancestors()
        .find(|dir| dir.ends_with("debug") || dir.ends_with("release"))?;
    Some(profile.parent()?.join("e2e-tools/aws"))
}

/// A program of an environment.
pub fn program(environment: &str, name: &str) -> Option<PathBuf> {
    let path = folder()?.join(environment).join("bin").join(name);
    path.is_file().then_some(path)
}

/// A program of ours that lies beside the suites.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/e2e/aws")
        .join(name)
}

/// What to say where there is no LocalStack.
pub fn missing_localstack() -> Option<&'static str> {
    program("localstack", "python").is_none().then_some("LocalStack")
}

/// What to say where there is no moto, or no boto3, which lies beside it.
pub fn missing_moto() -> Option<&'static str> {
    program("moto", "moto_server").is_none().then_some("moto")
}
