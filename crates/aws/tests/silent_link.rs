//! A link that breaks without a word: what was connected stays open and carries nothing any more.
#![cfg(feature = "sqs")]
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test: a server on threads, and a clock"
)]

use postrider_aws::sqs::Client;
use postrider_aws::{Account, Reach, Trouble, trouble};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::time::{Duration, Instant};

/// How long a call waits for its answer.
const ANSWER: Duration = Duration::from_secs(6);
/// Calls at the same time, each over a connection of its own.
const CALLS: usize = 4;
/// What is asked in vain, and nothing but it.
const SLOW: &str = "slow";

/// Answers every call but polls, which wait for [`Server::message`].
struct Server {
    endpoint: String,
    shared: Arc<Shared>,
    /// A poll has come.
    polled: mpsc::Receiver<()>,
}

struct Shared {
    /// Connections so far, and how many of the first of them are silent.
    connections: AtomicUsize,
    silent: AtomicUsize,
    has_message: AtomicBool,
    together: Barrier,
}

impl Server {
    fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            connections: AtomicUsize::new(0),
            silent: AtomicUsize::new(0),
            has_message: AtomicBool::new(false),
            together: Barrier::new(CALLS),
        });
        let (tell, polled) = mpsc::sync_channel(8);
        let own = shared.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, own, tell) = (socket.unwrap(), own.clone(), tell.clone());
                let nth = own.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || own.serve(nth, socket, &tell));
            }
        });
        Server {
            endpoint,
            shared,
            polled,
        }
    }

    /// Every connection that there is carries nothing from now on.
    fn fall_silent(&self) {
        let connections = self.shared.connections.load(Ordering::SeqCst);
        self.shared.silent.store(connections, Ordering::SeqCst);
    }

    fn message(&self) {
        self.shared.has_message.store(true, Ordering::SeqCst);
    }

    async fn clients(&self) -> (Client, Client) {
        let account = Account::with_keys("a", "s");
        let reach = Reach {
            region: Some("eu-central-1".into()),
            endpoint: Some(self.endpoint.clone()),
            answer: ANSWER,
            ..Reach::default()
        };
        let polls = reach.waiting(Duration::from_secs(20));
        (account.sqs(&reach).await, account.sqs(&polls).await)
    }
}

impl Shared {
    fn serve(&self, nth: usize, mut socket: TcpStream, polled: &mpsc::SyncSender<()>) {
        let is_silent = || nth < self.silent.load(Ordering::SeqCst);
        while let Some(request) = read(&mut socket) {
            if request.contains("ReceiveMessage") {
                polled.send(()).unwrap();
                while !is_silent() && !self.has_message.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            if request.contains("together") {
                self.together.wait();
            }
            if is_silent() || request.contains(SLOW) {
                continue;
            }
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: 2\r\n\r\n{}";
            if socket.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// A request with its body, which is one flat object.
fn read(socket: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while request.last() != Some(&b'}') {
        match socket.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => request.extend_from_slice(&piece[..count]),
        }
    }
    Some(String::from_utf8(request).unwrap())
}

async fn ask(client: &Client, name: &str) -> Result<(), Trouble> {
    let asked = client.get_queue_url().queue_name(name).send().await;
    asked.map(drop).map_err(|error| trouble(&error))
}

async fn poll(client: &Client) -> Result<(), Trouble> {
    let asked = client.receive_message().queue_url("http://q").send().await;
    asked.map(drop).map_err(|error| trouble(&error))
}

#[tokio::test]
async fn what_falls_silent_costs_one_call_its_time_and_ends_the_polls_over_it() {
    let server = Server::start();
    let (calls, polls) = server.clients().await;
    let (a, b, c, d) = tokio::join!(
        ask(&calls, "together"),
        ask(&calls, "together"),
        ask(&calls, "together"),
        ask(&calls, "together")
    );
    assert_eq!([a, b, c, d], [Ok(()), Ok(()), Ok(()), Ok(())]);
    assert_eq!(server.shared.connections.load(Ordering::SeqCst), CALLS);
    let began = Instant::now();
    let then_silent = async {
        while server.polled.try_recv().is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            server.shared.connections.load(Ordering::SeqCst),
            CALLS,
            "the poll shares them"
        );
        server.fall_silent();
        ask(&calls, "q").await
    };
    let (polled, asked) = tokio::join!(poll(&polls), then_silent);
    assert!(matches!(polled, Err(Trouble::Away(_))), "{polled:?}");
    assert!(matches!(asked, Err(Trouble::Away(_))), "{asked:?}");
    assert!(began.elapsed() < 2 * ANSWER, "{:?}", began.elapsed());
    for _ in 0..CALLS {
        assert_eq!(ask(&calls, "q").await, Ok(()));
    }
}

#[tokio::test]
async fn one_that_is_slow_ends_no_other() {
    let server = Server::start();
    let (calls, polls) = server.clients().await;
    let meanwhile = async {
        let slow = ask(&calls, SLOW);
        tokio::pin!(slow);
        let slow = loop {
            tokio::select! {
                biased;
                slow = &mut slow => break slow,
                asked = ask(&calls, "q") => assert_eq!(asked, Ok(())),
            }
        };
        assert!(matches!(slow, Err(Trouble::Away(_))), "{slow:?}");
        server.message();
    };
    let (polled, ()) = tokio::join!(poll(&polls), meanwhile);
    assert_eq!(polled, Ok(()));
}
