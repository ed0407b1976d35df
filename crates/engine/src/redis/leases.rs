//! Which node does what nobody asked for: the lanes of what is due, and the house, each held by one node under the
//! node's lease.
//!
//! One book in Redis says which nodes there are, each until when, and who holds which part. A node renews its lease and
//! reads the book in one command; where the book has not changed since, it is told only that. Whoever holds more than
//! its part of the lanes lets some go, and whoever holds less takes of those that nobody holds. A part whose holder's
//! lease is over is nobody's.
//!
//! Invariant: [`moves`] is decided by the book alone, and by the same rule on each node: once nodes stop coming and
//! going each part is held by one of them, none holds more than one lane more than another, and nothing moves any more.
//! Two nodes that both believe they hold a part do each thing once all the same: leases spare work.

use super::calls::{self, array, bytes, function, int, number, part};
use super::links::{Cell, LinkFault};
use super::store::{RedisStore, one};
use crate::embedded::lanes::{LANES, Share};
use crate::embedded::store::StoreFault;
use redis::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For so long a node is taken for alive. After its death others have what it held at most this and a step later.
pub(super) const LEASE: Duration = Duration::from_secs(2);
/// The part that is no lane: what only one node should do.
const HOUSE: u8 = LANES;

/// Where the book is.
const BOOK: Cell = Cell(0);

/// The book, as a node last read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    /// Grows with every change. Zero: not read yet.
    version: u64,
    /// Those whose lease is not over.
    nodes: BTreeSet<String>,
    /// Who holds what; perhaps one who is gone.
    parts: BTreeMap<u8, String>,
}

/// What a node changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// Parts that it lets go.
    release: Vec<u8>,
    /// Lanes that it takes if nobody holds them: the first `most` of these.
    take: Vec<u8>,
    most: usize,
    /// It takes the house if nobody has it.
    house: bool,
}

impl Book {
    /// What falls to a node.
    pub fn share(&self, node: &str) -> Share {
        let held = self.held(node);
        Share::new(held.iter().copied(), held.contains(&HOUSE))
    }

    fn held(&self, node: &str) -> Vec<u8> {
        let held = self.parts.iter().filter(|(_, by)| *by == node);
        held.map(|(part, _)| *part).collect()
    }

    fn is_free(&self, part: u8) -> bool {
        self.parts.get(&part).is_none_or(|by| !self.nodes.contains(by))
    }
}

impl Moves {
    fn is_empty(&self) -> bool {
        self.release.is_empty() && self.take.is_empty() && !self.house
    }
}

/// What a node changes in the book.
fn moves(node: &str, book: &Book) -> Moves {
    let Some(rank) = book.nodes.iter().position(|one| one == node) else {
        return Moves::default();
    };
    let (lanes, nodes) = (usize::from(LANES), book.nodes.len());
    let fair = lanes / nodes + usize::from(rank < lanes % nodes);
    let mut held = book.held(node);
    held.retain(|part| *part != HOUSE);
    let most = fair.saturating_sub(held.len());
    // Each begins elsewhere, so that those who take at the same time seldom want the same.
    let begin = rank * lanes / nodes;
    let order = (0..lanes).map(|n| ((begin + n) % lanes) as u8);
    let free = order.filter(|lane| most > 0 && book.is_free(*lane));
    Moves {
        take: free.collect(),
        most,
        release: held.split_off(fair.min(held.len())),
        house: book.is_free(HOUSE),
    }
}

impl RedisStore {
    /// Renews this node's lease, and sees to its part of the work. To be called some times within a [`LEASE`]. Answers
    /// the book as it is then.
    pub(super) async fn attend(&self, known: &Book) -> Result<Book, StoreFault> {
        let book = self.turn_to_book(known, &Moves::default()).await?;
        let moves = moves(&self.name(), &book);
        match moves.is_empty() {
            true => Ok(book),
            false => self.turn_to_book(&book, &moves).await,
        }
    }

    async fn turn_to_book(&self, known: &Book, moves: &Moves) -> Result<Book, StoreFault> {
        let mut args = vec![
            self.node().to_vec(),
            number(LEASE.as_millis()),
            number(known.version),
        ];
        args.push(number(moves.release.len()));
        args.extend(moves.release.iter().map(number));
        args.extend([number(u8::from(moves.house)), number(HOUSE), number(moves.most)]);
        args.extend(moves.take.iter().map(number));
        read(&self.ask_book(function::ATTEND, args).await?, known)
    }

    /// Lets go of all that this node holds, so that others take it at once.
    pub(super) async fn leave(&self) -> Result<(), StoreFault> {
        let args = vec![self.node().to_vec()];
        self.ask_book(function::LEAVE, args).await.map(drop)
    }

    async fn ask_book(&self, function: &'static str, args: Vec<Vec<u8>>) -> Result<Value, StoreFault> {
        let call = calls::writing(BOOK, function, calls::keys(BOOK, &["workers", "parts"]), args);
        let answers = self.links().call(vec![call]).await;
        one(answers).map_err(|link: LinkFault| calls::fault(&link))
    }

    pub(super) fn name(&self) -> String {
        String::from_utf8_lossy(self.node()).into_owned()
    }
}

/// The book as it is told: its version; and where that is not the known one, the nodes, and the parts with who holds
/// them.
fn read(told: &Value, known: &Book) -> Result<Book, StoreFault> {
    let told = array(told)?;
    let version = u64::try_from(int(part(told, 0)?)?).map_err(|_| calls::unforeseen())?;
    if told.len() < 3 {
        return match version == known.version {
            true => Ok(known.clone()),
            false => Err(calls::unforeseen()),
        };
    }
    let name = |value| Ok::<_, StoreFault>(String::from_utf8_lossy(bytes(value)?).into_owned());
    let nodes = array(part(told, 1)?)?.iter().map(name);
    let mut parts = BTreeMap::new();
    for pair in array(part(told, 2)?)?.chunks(2) {
        // What else stands there is not a part.
        if let Ok(which) = name(part(pair, 0)?)?.parse() {
            parts.insert(which, name(part(pair, 1)?)?);
        }
    }
    Ok(Book {
        version,
        nodes: nodes.collect::<Result<_, _>>()?,
        parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::store_tests::{close, open, runtime};
    use crate::redis::testing::{Server, has_redis, wait_until};
    use proptest::prelude::*;

    /// What the function in Redis does, without time: leases end when a test says so.
    #[derive(Default)]
    struct Desk(Book);

    impl Desk {
        fn attend(&mut self, node: &str, moves: &Moves) {
            let book = &mut self.0;
            book.nodes.insert(node.to_owned());
            for part in &moves.release {
                if book.parts.get(part).is_some_and(|by| by == node) {
                    book.parts.remove(part);
                }
            }
            let free: Vec<_> = moves
                .take
                .iter()
                .copied()
                .filter(|lane| book.is_free(*lane))
                .collect();
            let house = (moves.house && book.is_free(HOUSE)).then_some(HOUSE);
            for part in free.into_iter().take(moves.most).chain(house) {
                book.parts.insert(part, node.to_owned());
            }
        }

        /// One step of a node, which decides by what it read `late` (others may have come in between).
        fn step(&mut self, node: &str) {
            self.attend(node, &Moves::default());
            let moves = moves(node, &self.0);
            self.attend(node, &moves);
        }

        fn lanes_of(&self, node: &str) -> usize {
            self.0.share(node).len()
        }
    }

    fn name(n: usize) -> String {
        format!("node-{n}")
    }

    #[test]
    fn who_comes_gets_its_part_and_who_goes_leaves_it() {
        let mut desk = Desk::default();
        desk.step("a");
        assert_eq!(desk.0.share("a"), Share::ALL);
        desk.step("b");
        assert_eq!((desk.lanes_of("a"), desk.lanes_of("b")), (64, 0), "all are held");
        desk.step("a");
        desk.step("b");
        assert_eq!((desk.lanes_of("a"), desk.lanes_of("b")), (32, 32));
        assert!(desk.0.share("a").keeps_house() && !desk.0.share("b").keeps_house());
        desk.0.nodes.remove("a");
        desk.step("b");
        assert_eq!(desk.0.share("b"), Share::ALL);
    }

    #[test]
    fn those_who_take_at_the_same_time_want_different_ones() {
        let nodes: BTreeSet<_> = (0..4).map(name).collect();
        let book = Book {
            nodes: nodes.clone(),
            ..Book::default()
        };
        let mut wanted = BTreeSet::new();
        for node in &nodes {
            let moves = moves(node, &book);
            assert!(moves.take[..moves.most].iter().all(|lane| wanted.insert(*lane)));
        }
        assert_eq!(wanted.len(), 64);
    }

    proptest! {
        /// Nodes that come, go and act on what is out of date: once that ends, each part is held by one that is alive,
        /// all have as much as the others, and nothing moves.
        #[test]
        fn it_comes_to_rest(
            story in proptest::collection::vec((0..80_usize, 0..3_u8), 0..200),
            alive in 1..80_usize,
        ) {
            let mut desk = Desk::default();
            let mut stale = Moves::default();
            for (node, what) in story {
                match what {
                    0 => drop(desk.0.nodes.remove(&name(node))),
                    1 => desk.step(&name(node)),
                    _ => {
                        desk.attend(&name(node), &stale);
                        stale = moves(&name(node), &desk.0);
                    }
                }
            }
            desk.0.nodes = (0..alive).map(name).collect();
            // Whoever has too much lets go; whoever has too little takes.
            for _ in 0..2 {
                (0..alive).for_each(|node| desk.step(&name(node)));
            }
            let held: Vec<_> = (0..alive).map(|node| desk.lanes_of(&name(node))).collect();
            prop_assert_eq!(held.iter().sum::<usize>(), 64);
            prop_assert!(held.iter().max().unwrap() - held.iter().min().unwrap() <= 1, "{:?}", held);
            let houses = (0..alive).filter(|node| desk.0.share(&name(*node)).keeps_house());
            prop_assert_eq!(houses.count(), 1);
            for node in 0..alive {
                prop_assert!(moves(&name(node), &desk.0).is_empty());
            }
        }
    }

    #[test]
    fn the_book_in_redis_is_as_the_one_of_the_test() {
        if !has_redis("redis::leases") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let stores: Vec<_> = (0..3).map(|_| open(&runtime, &server.url())).collect();
        let mut books = vec![Book::default(); 3];
        let mut step = |n: usize| {
            books[n] = runtime.block_on(stores[n].attend(&books[n])).unwrap();
            let share = books[n].share(&stores[n].name());
            (share.len(), share.keeps_house())
        };
        assert_eq!(step(0), (64, true));
        assert_eq!(step(1), (0, false));
        assert_eq!(step(0), (32, true));
        assert_eq!(step(1), (32, false));
        (0..3).for_each(|n| _ = step(n));
        let mut all: Vec<_> = (0..3).map(&mut step).collect();
        assert!(all.remove(0).1);
        assert!(
            all.iter().all(|one| *one == (21, false) || *one == (22, false)),
            "{all:?}"
        );
        // Nothing to do: one command each, and nothing is told twice.
        let commands = || format!("{:?}", server.ask_line("INFO commandstats"));
        let calls = |of: &str| {
            commands()
                .split(of)
                .nth(1)
                .and_then(|rest| rest.strip_prefix("calls=")?.split(',').next()?.parse().ok())
        };
        let before: i64 = calls("cmdstat_fcall:").unwrap();
        (0..3).for_each(|n| _ = step(n));
        assert_eq!(calls("cmdstat_fcall:").unwrap() - before, 3);

        runtime.block_on(stores[1].leave()).unwrap();
        step(0);
        assert_eq!((step(0).0, step(2).0), (32, 32));
        // As if the first had died: its lease ends by itself, and the other has all of it.
        wait_until("the other has taken all", || step(2) == (64, true));
        close(&runtime, &stores);
    }

    #[test]
    fn where_nobody_could_renew_nobody_is_taken_for_gone() {
        if !has_redis("redis::leases") {
            return;
        }
        let (server, runtime) = (Server::start(), runtime());
        let stores: Vec<_> = (0..2).map(|_| open(&runtime, &server.url())).collect();
        let mut books = vec![Book::default(); 2];
        for n in [0, 1, 0, 1, 0, 1] {
            books[n] = runtime.block_on(stores[n].attend(&books[n])).unwrap();
        }
        let before = books.clone();
        // As if Redis had been paused for ten minutes.
        for store in &stores {
            server.ask_line(&format!(
                "ZINCRBY {{pr:default:00}}:workers -600000 {}",
                store.name()
            ));
        }
        for n in [0, 1] {
            books[n] = runtime.block_on(stores[n].attend(&books[n])).unwrap();
            assert_eq!(books[n].parts, before[n].parts);
        }
        // One that begins anew finds those that are over gone at once.
        for store in &stores {
            server.ask_line(&format!(
                "ZINCRBY {{pr:default:00}}:workers -600000 {}",
                store.name()
            ));
        }
        let new = open(&runtime, &server.url());
        let book = runtime.block_on(new.attend(&Book::default())).unwrap();
        assert_eq!(book.share(&new.name()), Share::ALL);
        close(&runtime, &stores);
        close(&runtime, &[new]);
    }
}
