//! Secrets by reference: `file:PATH` and `env:NAME` stand for what the file or the variable holds.
//!
//! A value that begins with one of the schemes always is a reference, never the secret itself. What the file or
//! variable holds is taken as it is, so a secret that happens to begin with `file:` can stand in a file.
//! Nothing that was read is ever part of a fault.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;

/// A secret has no more bytes than this.
const SECRET_BYTES: u64 = 64 * 1024;
/// Stores that a later release will read from.
const LATER: [&str; 2] = ["vault:", "aws-sm:"];

/// Where a secret stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reference<'a> {
    /// In a file; a relative path counts from the working directory.
    File(&'a str),
    /// In a variable of the process's environment.
    Env(&'a str),
}

impl<'a> Reference<'a> {
    /// The reference that a value is; none where it is the secret itself.
    pub fn of(value: &'a str) -> Result<Option<Reference<'a>>, String> {
        if let Some(scheme) = LATER.iter().find(|scheme| value.starts_with(**scheme)) {
            return Err(format!(
                "references by {scheme} are not in this release; there are file:PATH and env:NAME"
            ));
        }
        let file = value.strip_prefix("file:").map(Reference::File);
        Ok(file.or_else(|| value.strip_prefix("env:").map(Reference::Env)))
    }

    /// What stands there, without the one line break that ends most files.
    pub fn follow(&self, env: &[(OsString, OsString)]) -> Result<String, String> {
        let text = match *self {
            Reference::File(path) => read(path)?,
            Reference::Env(name) => {
                let value = env
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value);
                let value = value.ok_or_else(|| format!("names the variable {name}, which is not set"))?;
                let text = value
                    .to_str()
                    .ok_or_else(|| format!("names the variable {name}, which is no UTF-8"))?;
                text.to_owned()
            }
        };
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err("names a place that is empty".into());
        }
        Ok(text.to_owned())
    }
}

fn read(path: &str) -> Result<String, String> {
    let unread = |error: std::io::Error| format!("names a file that cannot be read: {error}");
    let mut bytes = Vec::new();
    // A pipe would hold up whoever reads it, for as long as nobody writes.
    if !std::fs::metadata(path).map_err(unread)?.is_file() {
        return Err("names what is no regular file".into());
    }
    let file = File::open(path).map_err(unread)?;
    file.take(SECRET_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    if bytes.len() as u64 > SECRET_BYTES {
        return Err(format!("names a file of more than {SECRET_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "names a file that is no UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(value: &str) -> Result<String, String> {
        let env = [
            ("KEY".into(), "from the variable".into()),
            ("EMPTY".into(), "".into()),
        ];
        match Reference::of(value)? {
            Some(reference) => reference.follow(&env),
            None => Ok(value.to_owned()),
        }
    }

    #[test]
    fn a_reference_stands_for_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let named = format!("file:{}", path.display());
        for (held, taken) in [
            ("hush\n", "hush"),
            ("hush\r\n", "hush"),
            ("env:KEY", "env:KEY"),
            (" a\n\n", " a\n"),
        ] {
            std::fs::write(&path, held).unwrap();
            assert_eq!(followed(&named).as_deref(), Ok(taken));
        }
        assert_eq!(followed("env:KEY").as_deref(), Ok("from the variable"));
        assert_eq!(followed("plain").as_deref(), Ok("plain"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(followed(&named).unwrap_err(), "names a file that is no UTF-8");
        std::fs::write(&path, "x".repeat(SECRET_BYTES as usize + 1)).unwrap();
        assert_eq!(
            followed(&named).unwrap_err(),
            "names a file of more than 65536 bytes"
        );
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(followed(&named).unwrap_err(), "names a place that is empty");
    }

    #[test]
    fn what_is_not_there_is_a_fault() {
        for (value, fault) in [
            ("env:NONE", "names the variable NONE, which is not set"),
            ("env:EMPTY", "names a place that is empty"),
            (
                "file:/no/such",
                "names a file that cannot be read: No such file or directory (os error 2)",
            ),
            (
                "vault:kv/x",
                "references by vault: are not in this release; there are file:PATH and env:NAME",
            ),
            (
                "aws-sm:x",
                "references by aws-sm: are not in this release; there are file:PATH and env:NAME",
            ),
        ] {
            assert_eq!(followed(value).unwrap_err(), fault);
        }
    }
}
