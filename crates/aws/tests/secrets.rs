//! Credentials reach no log and no error: every level of every crate is recorded while calls fail in several ways.
#![cfg(feature = "sqs")]
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test: a server on a thread")]

use postrider_aws::{Account, Reach, Trouble, trouble};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECRET: &str = "s3cr3t-that-nobody-may-see";
const ANSWERS: [(&str, &str); 3] = [
    (
        "403 Forbidden",
        r#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"no"}"#,
    ),
    (
        "400 Bad Request",
        r#"{"__type":"ThrottlingException","message":"slow down"}"#,
    ),
    ("503 Service Unavailable", "{}"),
];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Answers one request a connection, as it is told, and then is gone.
fn serve(listener: TcpListener) {
    for (status, body) in ANSWERS {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut piece = [0; 4096];
        while !request.windows(2).any(|two| two == b"{}" || two == b"\"}") {
            let count = socket.read(&mut piece).unwrap();
            assert!(count > 0);
            request.extend_from_slice(&piece[..count]);
        }
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        socket.write_all(head.as_bytes()).unwrap();
    }
}

#[test]
fn no_secret_is_logged_and_errors_are_told_apart() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || serve(listener));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut found = Vec::new();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let account = Account::with_keys("AKIAEXAMPLE", SECRET);
            tracing::info!(?account, "the account");
            let reach = Reach {
                region: Some("eu-central-1".into()),
                endpoint: Some(endpoint),
                answer: Duration::from_secs(5),
                ..Reach::default()
            };
            let client = account.sqs(&reach).await;
            for _ in 0..=ANSWERS.len() {
                let asked = client.get_queue_url().queue_name("q").send().await;
                found.push(trouble(&asked.unwrap_err()));
            }
        });
    });
    server.join().unwrap();
    assert!(
        found[0].is(&["AccessDeniedException"]) && !found[0].is_transient(),
        "{found:?}"
    );
    assert!(matches!(found[1], Trouble::Throttled(_)), "{found:?}");
    assert!(matches!(found[2], Trouble::Away(_)), "{found:?}");
    assert!(matches!(found[3], Trouble::Away(_)), "nobody is there: {found:?}");
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.len() > 1_000, "something was logged: {log}");
    assert!(!log.contains(SECRET), "the secret is in the log");
    assert!(!format!("{found:?}").contains(SECRET));
}
