//! What the servers are known by, and the epoch that follows from it.

use super::calls::Token;
use super::links::{CELLS, Cell};
use postrider_model::Epoch;
use xxhash_rust::xxh3::xxh3_64;

/// By cell: the token of the server that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    cells: Vec<Token>,
    /// In a Cluster, by cell: a mark that goes when its server is emptied. Elsewhere the token has it.
    marks: Vec<Vec<u8>>,
    epoch: Epoch,
}

impl Tokens {
    /// One for each cell, or one for all; and the marks of a Cluster.
    pub fn new(cells: Vec<Token>, marks: Vec<Vec<u8>>) -> Tokens {
        let mut tokens = Tokens {
            cells,
            marks,
            epoch: Epoch(0),
        };
        tokens.epoch = tokens.told();
        tokens
    }

    pub fn of(&self, cell: Cell) -> &[u8] {
        let at = usize::from(cell.0 % CELLS).min(self.cells.len().saturating_sub(1));
        self.cells.get(at).map_or(&[], Vec::as_slice)
    }

    /// The cell's mark, where it is not in the token.
    pub fn mark(&self, cell: Cell) -> &[u8] {
        self.marks.get(usize::from(cell.0)).map_or(&[], Vec::as_slice)
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
        servers.extend(self.marks.iter().map(Vec::as_slice));
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
        let marked = |names: [&[u8]; 3], mark: &[u8]| {
            let cells = (0..64).map(|cell| names[cell % 3].to_vec());
            Tokens::new(cells.collect(), vec![mark.to_vec(); 64])
        };
        let of = |names| marked(names, b"m");
        let before = of([b"a", b"b", b"c"]);
        assert_eq!(before.epoch(), of([b"c", b"a", b"b"]).epoch());
        assert_ne!(before.epoch(), of([b"a", b"d", b"c"]).epoch());
        assert_eq!(before.of(Cell(1)), b"b");
        assert_ne!(before.epoch(), marked([b"a", b"b", b"c"], b"n").epoch());
        assert_eq!(before.mark(Cell(63)), b"m");
        let single = Tokens::new(vec![b"a".to_vec()], Vec::new());
        assert_eq!(single.mark(Cell(0)), b"");
        assert_eq!((single.of(Cell(0)), single.of(Cell(63))), (&b"a"[..], &b"a"[..]));
    }
}
