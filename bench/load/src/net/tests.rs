use super::*;
use std::net::{TcpListener, TcpStream as Plain};

/// What happened, in order: the tag of each, and whether it was a close.
#[derive(Default)]
struct Seen(Vec<(usize, bool)>);

impl Load for Seen {
    fn message(&mut self, _: &mut Net, _: Conn, tag: usize, _: Message<'_>) -> Result<()> {
        self.0.push((tag, false));
        Ok(())
    }

    fn closed(&mut self, _: Conn, tag: usize) -> Result<()> {
        self.0.push((tag, true));
        Ok(())
    }
}

/// Connections with these tags, and the server's ends of them.
fn opened(tags: &[usize], preferred: Range<usize>) -> (Net, Vec<Conn>, Vec<Plain>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut net = Net::new(listener.local_addr().unwrap()).unwrap();
    if !preferred.is_empty() {
        net.prefer(preferred).unwrap();
    }
    let mut ends = Vec::new();
    let open = |tag: &usize| {
        let conn = net.open(*tag, Wire::Lines, b"").unwrap();
        ends.push(listener.accept().unwrap().0);
        conn
    };
    let conns = tags.iter().map(open).collect();
    (net, conns, ends)
}

fn turn_until(net: &mut Net, seen: &mut Seen, count: usize) -> Result<Instant> {
    let limit = Duration::from_secs(10);
    net.run(seen, limit, "what the servers did", |_, seen| {
        Ok(seen.0.len() >= count)
    })
}

#[test]
fn a_close_between_messages_is_told_and_one_within_is_an_error() {
    let (mut net, conns, mut ends) = opened(&[7, 8], 0..0);
    let mut seen = Seen::default();
    ends[0].write_all(b"PING\r\n").unwrap();
    turn_until(&mut net, &mut seen, 1).unwrap();
    ends.remove(0);
    turn_until(&mut net, &mut seen, 2).unwrap();
    assert_eq!(seen.0, [(7, false), (7, true)]);
    assert!(net.send(conns[0], b"more").is_err());
    ends[0].write_all(b"PI").unwrap();
    ends.remove(0);
    assert!(turn_until(&mut net, &mut seen, 3).is_err());
}

#[test]
fn the_preferred_are_looked_at_first_and_wake_a_load_that_sleeps() {
    let (mut net, _, mut ends) = opened(&[5, 0, 6, 1], 0..2);
    let mut seen = Seen::default();
    // What opening them brought is over.
    net.turn(Duration::ZERO, &mut seen).unwrap();
    ends.iter_mut()
        .for_each(|end| end.write_all(b"PING\r\n").unwrap());
    turn_until(&mut net, &mut seen, 4).unwrap();
    let mut tags: Vec<_> = seen.0.iter().map(|(tag, _)| *tag).collect();
    tags[..2].sort_unstable();
    tags[2..].sort_unstable();
    assert_eq!(tags, [0, 1, 5, 6]);
    ends[3].write_all(b"PING\r\n").unwrap();
    net.turn(Duration::from_secs(10), &mut seen).unwrap();
    assert_eq!(seen.0[4..], [(1, false)]);
}
