//! SIGHUP: keys, origins, rates and the log level change at once; a bad configuration changes nothing.

use crate::*;
use postrider_harness::inbox::{Connect, Transport, next_notification};
use postrider_harness::node::KEY;
use postrider_harness::publish::Publisher;
use postrider_harness::token::{signed, user};
use postrider_harness::wait::{until_true, within};
use std::path::Path;

fn hang_up(node: &Node) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(node.pid()?.try_into()?).unwrap();
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::HUP)?)
}

/// Hangs up, and waits until the log tells of `what` once more than before.
fn reload(node: &Node, what: &str) -> Result<()> {
    let before = node.log().matches(what).count();
    hang_up(node)?;
    until_true(what, within(60), || Ok(node.log().matches(what).count() > before))
}

fn token_by(secret: &str) -> Result<String> {
    let claims = json!({"sub": "ada", "exp": now_seconds() + 3600}).to_string();
    signed(&json!({"alg": "HS256"}), claims.as_bytes(), secret.as_bytes())
}

fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_key_is_rotated_and_a_bad_one_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, pem) = (dir.path().join("secret"), dir.path().join("key.pem"));
    let (old, new) = (
        "the-old-secret-of-at-least-32-bytes!",
        "the-new-secret-of-at-least-32-bytes!",
    );
    put(&secret, old);
    put(&pem, P256.public);
    let file = |path: &Path| format!("file:{}", path.display());
    let sets = [
        ("auth.jwt.hmac_secret", &*file(&secret)),
        ("auth.jwt.public_key_pem", &*file(&pem)),
    ];
    check(&sets, |node| {
        let live = Connect::new(&node.endpoint, &token_by(old)?);
        let mut live = live.open(Transport::WebSocket)?;
        expect(node, &P256.token(Algorithm::ES256, None)?, "200", "the first key")?;

        put(&pem, "not a key");
        put(&secret, new);
        reload(node, "the configuration in force is kept")?;
        ensure!(
            node.log().contains("auth.jwt.public_key_pem"),
            "the fault is named"
        );
        expect(node, &token_by(old)?, "200", "a bad part keeps the whole")?;
        expect(
            node,
            &token_by(new)?,
            "401 token_signature",
            "a bad part keeps the whole",
        )?;

        put(&pem, RSA.public);
        reload(node, "the configuration was read again")?;
        expect(node, &token_by(new)?, "200", "the new secret")?;
        expect(node, &token_by(old)?, "401 token_signature", "the old secret")?;
        expect(node, &RSA.token(Algorithm::RS256, None)?, "200", "the new key")?;
        expect(
            node,
            &P256.token(Algorithm::ES256, None)?,
            "401 token_signature",
            "the old key",
        )?;

        // A session that was let in goes on by its own token.
        let id = Publisher::new(&node.endpoint, KEY).accepted(&json!({"users": ["ada"], "data": 1}))?;
        ensure!(next_notification(&mut *live, within(30))?.id == id);
        let log = node.log();
        ensure!(!log.contains(old) && !log.contains(new), "a secret was logged");
        Ok(())
    });
}

#[test]
fn api_keys_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api-key");
    put(&path, "first-api-key-0123456789abcdef");
    let keys = json!([{"name": "one", "key": format!("file:{}", path.display()), "scopes": ["publish"]}]);
    check(&[("auth.api_keys", &keys.to_string())], |node| {
        let publish =
            |key: &str| Publisher::new(&node.endpoint, key).one(&json!({"users": ["ada"], "data": 1}));
        ensure!(publish("first-api-key-0123456789abcdef")?.status() == 202);
        put(&path, "second-api-key-0123456789abcdef");
        reload(node, "the configuration was read again")?;
        ensure!(said(&publish("first-api-key-0123456789abcdef")?) == "401 key_invalid");
        ensure!(publish("second-api-key-0123456789abcdef")?.status() == 202);
        ensure!(node.log().contains("auth.api_keys"), "what changed is named");
        Ok(())
    });
}

#[test]
fn a_hang_up_without_a_change_changes_nothing() {
    check(&[], |node| {
        for _ in 0..3 {
            reload(node, "the configuration was read again")?;
        }
        expect(node, &user("ada")?, "200", "the same")?;
        ensure!(!node.log().contains("restart"), "nothing needs one");
        Ok(())
    });
}
