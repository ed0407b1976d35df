//! The key that tickets are signed with: 32 random bytes in the data directory, or where several nodes share them, so
//! that a ticket outlives the process that made it.
//!
//! Invariant: the file is whole or not there, and only its owner can read it. The key is never printed.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The file's name in the data directory.
const FILE: &str = "ticket.key";
/// As the key is written before it gets that name.
const FILE_NEW: &str = "ticket.key.new";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of an HMAC-SHA256.
pub(super) const MAC_BYTES: usize = 32;
/// Nobody but the owner.
const OWNER_ONLY: u32 = 0o600;

/// Signs tickets, and checks them in constant time (HMAC-SHA256, RFC 2104).
#[derive(Clone)]
pub struct TicketKey {
    sign: EncodingKey,
    verify: DecodingKey,
    /// Other nodes sign with it too.
    is_shared: bool,
}

impl std::fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKey(***)")
    }
}

impl TicketKey {
    /// A key of these bytes.
    pub(super) fn new(bytes: &[u8; KEY_BYTES]) -> TicketKey {
        TicketKey {
            sign: EncodingKey::from_secret(bytes),
            verify: DecodingKey::from_secret(bytes),
            is_shared: false,
        }
    }

    /// A key that several nodes have, who then know only of some tickets whether they started.
    pub fn of_nodes(bytes: &[u8; KEY_BYTES]) -> TicketKey {
        TicketKey {
            is_shared: true,
            ..TicketKey::new(bytes)
        }
    }

    /// What a new key is made of.
    pub fn random_bytes() -> io::Result<[u8; KEY_BYTES]> {
        random()
    }

    /// Whether tickets may have started on other nodes.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// A key that ends with the process. Fails only where the system has no randomness.
    pub fn in_memory() -> io::Result<TicketKey> {
        Ok(TicketKey::new(&random()?))
    }

    /// The key of a data directory, made at the first start. The directory must be there, and ours alone.
    pub fn in_directory(dir: &Path) -> io::Result<TicketKey> {
        let path = dir.join(FILE);
        match File::open(&path) {
            Ok(file) => read(file, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let bytes = random()?;
                write(dir, &bytes)?;
                Ok(TicketKey::new(&bytes))
            }
            Err(error) => Err(error),
        }
    }

    /// The HMAC of a message, as base64url.
    pub(super) fn sign(&self, message: &[u8]) -> Result<String, jsonwebtoken::errors::Error> {
        crypto::sign(message, &self.sign, Algorithm::HS256)
    }

    /// Whether `mac`, as base64url, is the message's. Takes as long whichever byte is wrong.
    pub(super) fn is_of(&self, mac: &str, message: &[u8]) -> bool {
        crypto::verify(mac, message, &self.verify, Algorithm::HS256).unwrap_or(false)
    }
}

fn random() -> io::Result<[u8; KEY_BYTES]> {
    let mut bytes = [0u8; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes)
}

fn read(file: File, path: &Path) -> io::Result<TicketKey> {
    let path = path.display();
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        tracing::warn!("{path} can be read by others, who could make tickets: chmod 600 it");
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let bytes: &[u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| {
        let what = format!(
            "{path} is damaged: it must have {KEY_BYTES} bytes; remove it, and a new one is made (pages then need new tickets)"
        );
        io::Error::new(io::ErrorKind::InvalidData, what)
    })?;
    Ok(TicketKey::new(bytes))
}

/// By a rename, so that a crash leaves the whole file or none.
fn write(dir: &Path, bytes: &[u8; KEY_BYTES]) -> io::Result<()> {
    let new = dir.join(FILE_NEW);
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(FILE))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, gone at the end.
    struct Dir(std::path::PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("postrider-key-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Dir(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_key_stays_and_is_its_owners() {
        let dir = Dir::new("stays");
        std::fs::write(dir.0.join(FILE_NEW), "left by a crash").unwrap();
        let first = TicketKey::in_directory(&dir.0).unwrap();
        let mode = std::fs::metadata(dir.0.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
        assert!(!dir.0.join(FILE_NEW).exists());
        let mac = first.sign(b"m").unwrap();
        assert!(TicketKey::in_directory(&dir.0).unwrap().is_of(&mac, b"m"));
        assert!(!TicketKey::in_memory().unwrap().is_of(&mac, b"m"));
        assert!(!first.is_of(&mac, b"n") && !first.is_of("", b"m") && !first.is_of("%", b"m"));
        assert_eq!(format!("{first:?}"), "TicketKey(***)");
    }

    #[test]
    fn a_damaged_key_is_no_key() {
        for (name, bytes) in [("short", 31), ("long", 33), ("empty", 0)] {
            let dir = Dir::new(name);
            std::fs::write(dir.0.join(FILE), vec![7; bytes]).unwrap();
            let error = TicketKey::in_directory(&dir.0).unwrap_err();
            assert!(error.to_string().contains("remove it"), "{error}");
        }
    }
}
