//! What the servers are known by, and the epoch that follows from it.

use super::calls::Token;
use super::links::{CELLS, Cell};
use postrider_model::Epoch;
use xxhash_rust::xxh3::xxh3_64;

/// By cell: the token of the server that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    cells: Vec<Token>,
    epoch: Epoch,
}

impl Tokens {
    /// One for each cell, or one for all.
    pub fn new(cells: Vec<Token>) -> Tokens {
        let mut tokens = Tokens {
            cells,
            epoch: Epoch(0),
        };
        tokens.epoch = tokens.told();
        tokens
    }

    pub fn of(&self, cell: Cell) -> &[u8] {
        let at = usize::from(cell.0 % CELLS).min(self.cells.len().saturating_sub(1));
        self.cells.get(at).map_or(&[], Vec::as_slice)
    }

    /// In which epoch entries are numbered on these servers: another as soon as one of them may have lost something,
    /// the same wherever the cells lie.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn told(&self) -> Epoch {
        let mut servers: Vec<&[u8]> = self.cells.iter().map(Vec::as_slice).collect();
        servers.sort_unstable();
        servers.dedup();
        let hash = xxh3_64(&servers.concat());
        // 0 is that of an empty feed.
        Epoch(((hash >> 32) as u32 ^ hash as u32).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_that_of_the_servers() {
        let of = |names: [&[u8]; 3]| Tokens::new((0..64).map(|cell| names[cell % 3].to_vec()).collect());
        let before = of([b"a", b"b", b"c"]);
        assert_eq!(before.epoch(), of([b"c", b"a", b"b"]).epoch());
        assert_ne!(before.epoch(), of([b"a", b"d", b"c"]).epoch());
        assert_eq!(before.of(Cell(1)), b"b");
        let single = Tokens::new(vec![b"a".to_vec()]);
        assert_eq!((single.of(Cell(0)), single.of(Cell(63))), (&b"a"[..], &b"a"[..]));
    }
}
