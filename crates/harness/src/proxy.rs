//! A bad network: a TCP proxy on loopback whose connections a test can delay, throttle, hold, cut, or let fall silent.
//!
//! Invariant: bytes of a direction come out in the order in which they went in, or not at all; once a connection has
//! lost bytes it never carries any again in that direction, as TCP would never skip some.
//!
//! It does not know what it carries. With several targets it is a plain round robin over those that take connections.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::SockRef;

/// How often a connection that carries nothing looks whether it was cut.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a target may take to accept.
const CONNECT: Duration = Duration::from_secs(2);
/// Most that is read at once.
const PIECE: usize = 64 << 10;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the target.
    There,
    /// From the target to the client.
    Back,
}

/// What the network is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Each piece comes later by at least this.
    pub delay: Duration,
    /// Most bytes a second and direction.
    pub bytes_per_second: Option<u64>,
    /// Nothing moves, and nothing is lost: what was held goes on once this is over.
    pub holds: bool,
    /// What goes these ways vanishes, and the connection stays open; both ways make it half-open. A connection that
    /// lost something stays silent when the weather is fair again.
    pub swallows: Vec<Way>,
    /// New connections are reset.
    pub refuses: bool,
}

/// The proxy. Its connections are reset when it is dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    is_over: AtomicBool,
    next: AtomicUsize,
    swallowed: AtomicUsize,
}

#[derive(Default)]
struct State {
    targets: Vec<SocketAddr>,
    weather: Weather,
    links: Vec<Arc<AtomicBool>>,
}

impl Proxy {
    /// A proxy on a free port, in fair weather.
    pub fn start(targets: &[SocketAddr]) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        shared.lock().targets = targets.to_vec();
        let own = shared.clone();
        let acceptor = std::thread::spawn(move || accept(&listener, &own));
        Ok(Proxy {
            addr,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// New connections go to these from now on.
    pub fn aim(&self, targets: &[SocketAddr]) {
        self.shared.lock().targets = targets.to_vec();
    }

    /// Changes the weather for all connections.
    pub fn weather(&self, weather: Weather) {
        self.shared.lock().weather = weather;
        self.shared.changed.notify_all();
    }

    /// Fair weather. What has lost bytes stays silent.
    pub fn clear(&self) {
        self.weather(Weather::default());
    }

    /// Resets all connections that there are.
    pub fn cut(&self) {
        for link in self.shared.lock().links.drain(..) {
            link.store(true, Ordering::Relaxed);
        }
        self.shared.changed.notify_all();
    }

    /// How many pieces have vanished so far.
    pub fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::Relaxed)
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        let mut state = self.shared.lock();
        state.links.retain(|link| Arc::strong_count(link) > 1);
        state.links.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the acceptor.
        if let Err(e) = TcpStream::connect(self.addr) {
            eprintln!("harness: a proxy could not be woken: {e}");
            return;
        }
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
        {
            eprintln!("harness: a proxy panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first target that takes a connection, beginning with the one whose turn it is.
    fn connect(&self) -> Option<TcpStream> {
        let targets = self.lock().targets.clone();
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        (0..targets.len()).find_map(|step| {
            TcpStream::connect_timeout(&targets[(turn + step) % targets.len()], CONNECT).ok()
        })
    }

    /// Waits while everything is held; then what the weather is.
    fn weather(&self, is_cut: &AtomicBool) -> Weather {
        let mut state = self.lock();
        while state.weather.holds && !is_cut.load(Ordering::Relaxed) {
            let waited = self.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.weather.clone()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let opened = stream.map_err(anyhow::Error::from).and_then(|client| {
            // Whatever ends it without an orderly end is a reset.
            SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
            if shared.lock().weather.refuses {
                return Ok(());
            }
            match shared.connect() {
                Some(target) => open(client, target, shared),
                None => Ok(()),
            }
        });
        if let Err(e) = opened {
            eprintln!("harness: a proxy could not take a connection: {e:#}");
        }
    }
}

fn open(client: TcpStream, target: TcpStream, shared: &Arc<Shared>) -> Result<()> {
    SockRef::from(&target).set_linger(Some(Duration::ZERO))?;
    let is_cut = Arc::new(AtomicBool::new(false));
    {
        let mut state = shared.lock();
        state.links.retain(|link| Arc::strong_count(link) > 1);
        state.links.push(is_cut.clone());
    }
    for (from, to, way) in [
        (client.try_clone()?, target.try_clone()?, Way::There),
        (target, client, Way::Back),
    ] {
        from.set_read_timeout(Some(LOOK_EVERY))?;
        to.set_write_timeout(Some(LOOK_EVERY))?;
        to.set_nodelay(true)?;
        let (shared, is_cut) = (shared.clone(), is_cut.clone());
        std::thread::spawn(move || {
            let mut is_silent = false;
            let end = carry(&from, &to, way, &shared, &is_cut, &mut is_silent);
            // The end of a direction that fell silent is lost as well; one in order is passed on; any other ends both.
            let passed = matches!(end, Ok(true)) && to.shutdown(Shutdown::Write).is_ok();
            if !is_silent && !passed {
                is_cut.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(())
}

/// Carries one direction to its end, or until it is cut; whether the end was in order.
fn carry(
    mut from: &TcpStream,
    to: &TcpStream,
    way: Way,
    shared: &Shared,
    is_cut: &AtomicBool,
    is_silent: &mut bool,
) -> std::io::Result<bool> {
    let mut piece = vec![0; PIECE];
    while !is_cut.load(Ordering::Relaxed) {
        let read = match from.read(&mut piece) {
            Ok(0) => return Ok(true),
            Ok(read) => read,
            Err(e) if is_pause(&e) => continue,
            Err(e) => return Err(e),
        };
        let weather = shared.weather(is_cut);
        *is_silent |= weather.swallows.contains(&way);
        if *is_silent {
            shared.swallowed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let pace = weather.bytes_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(read as f64 / rate.max(1) as f64)
        });
        rest(weather.delay + pace, is_cut);
        write(to, &piece[..read], is_cut)?;
    }
    Ok(false)
}

fn rest(time: Duration, is_cut: &AtomicBool) {
    let until = Instant::now() + time;
    while !is_cut.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left.min(LOOK_EVERY));
    }
}

fn write(mut to: &TcpStream, mut bytes: &[u8], is_cut: &AtomicBool) -> std::io::Result<()> {
    while !bytes.is_empty() && !is_cut.load(Ordering::Relaxed) {
        match to.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(e) if is_pause(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn is_pause(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A target that says back what it is told.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                // A connection that was cut has nobody to complain to.
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).ok());
            }
        });
        addr
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// Whether nothing comes, for as long as it would take by far.
    fn is_silent(mut stream: &TcpStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let got = stream.read(&mut [0; 1]);
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        got.is_err_and(|e| is_pause(&e))
    }

    fn said_back(mut stream: &TcpStream, word: &[u8]) -> std::io::Result<bool> {
        stream.write_all(word)?;
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back)?;
        Ok(back == word)
    }

    #[test]
    fn fair_weather_carries_and_passes_on_an_end() {
        let proxy = Proxy::start(&[echo()]).unwrap();
        let stream = connect(&proxy);
        assert!(said_back(&stream, &[7; 300_000]).unwrap());
        assert_eq!(proxy.connections(), 1);
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!((&stream).read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_cut_is_a_reset_and_spares_who_comes_later() {
        let proxy = Proxy::start(&[echo()]).unwrap();
        let stream = connect(&proxy);
        assert!(said_back(&stream, b"one").unwrap());
        proxy.cut();
        let gone = (&stream).read(&mut [0; 1]).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::ConnectionReset);
        assert!(said_back(&connect(&proxy), b"two").unwrap());
    }

    #[test]
    fn what_was_swallowed_is_lost_and_what_was_held_is_not() {
        let proxy = Proxy::start(&[echo()]).unwrap();
        let [lossy, held] = [connect(&proxy), connect(&proxy)];
        assert!(said_back(&lossy, b"one").unwrap() && said_back(&held, b"one").unwrap());
        proxy.weather(Weather {
            swallows: vec![Way::Back],
            ..Weather::default()
        });
        (&lossy).write_all(b"two").unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while proxy.swallowed() == 0 {
            assert!(Instant::now() < until, "nothing was swallowed");
            std::thread::park_timeout(LOOK_EVERY);
        }
        assert!(is_silent(&lossy));
        proxy.weather(Weather {
            holds: true,
            ..Weather::default()
        });
        (&held).write_all(b"three").unwrap();
        assert!(is_silent(&held));
        proxy.clear();
        let mut word = [0; 5];
        (&held).read_exact(&mut word).unwrap();
        assert_eq!(&word, b"three");
        (&lossy).write_all(b"four").unwrap();
        assert!(is_silent(&lossy), "it speaks again though it lost something");
        assert!(said_back(&connect(&proxy), b"five").unwrap());
    }

    #[test]
    fn delays_refusals_and_targets() {
        let proxy = Proxy::start(&[echo()]).unwrap();
        proxy.weather(Weather {
            delay: Duration::from_millis(60),
            ..Weather::default()
        });
        let began = Instant::now();
        assert!(said_back(&connect(&proxy), b"late").unwrap());
        assert!(began.elapsed() >= Duration::from_millis(120));
        proxy.weather(Weather {
            refuses: true,
            ..Weather::default()
        });
        assert!(said_back(&connect(&proxy), b"no").is_err());
        // The first of two targets is down: the other one is taken.
        let down = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap();
        proxy.aim(&[down, echo()]);
        proxy.clear();
        for _ in 0..2 {
            assert!(said_back(&connect(&proxy), b"yes").unwrap());
        }
    }
}
