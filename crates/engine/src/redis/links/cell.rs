//! The cells that the rows of an engine are spread over: each is one hash slot of Redis.
//!
//! Invariant: the tag of a cell never changes, for it stands in the keys of what is stored.

use std::sync::LazyLock;

/// How many cells there are. Part of what is stored: another number would find nothing again.
pub const CELLS: u8 = 64;

/// How many hash slots Redis has; fixed by its Cluster specification.
const SLOTS: u16 = 16_384;

/// One cell: keys and channels that carry its tag are in one hash slot, and so on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell(pub u8);

static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    (0..CELLS)
        .map(|cell| format!("{{pr:default:{cell:02x}}}"))
        .collect()
});

impl Cell {
    /// All cells, in order.
    pub fn all() -> impl Iterator<Item = Cell> {
        (0..CELLS).map(Cell)
    }

    /// The hash tag, braces and all, with which every key and channel of the cell begins.
    pub fn tag(self) -> &'static str {
        &TAGS[self.index()]
    }

    /// A key or channel of this cell: its tag, a colon, the name.
    pub fn key(self, name: &str) -> Vec<u8> {
        format!("{}:{name}", self.tag()).into_bytes()
    }

    /// The cell whose tag a key or channel begins with.
    pub fn of_key(key: &[u8]) -> Option<Cell> {
        let digits = key.strip_prefix(b"{pr:default:")?;
        let (&[high, low], rest) = digits.split_first_chunk::<2>()?;
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        let cell = digit(high)? * 16 + digit(low)?;
        (rest.first() == Some(&b'}') && cell < CELLS).then_some(Cell(cell))
    }

    /// The hash slot.
    pub fn slot(self) -> u16 {
        slot_of(self.tag().as_bytes())
    }

    /// Its place among all cells, for tables.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0 % CELLS)
    }
}

/// The hash slot of a key, by the rule of the Cluster specification: what stands between the first `{` and the next `}`
/// if there is anything, else the whole key.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16(hashed_part(key)) % SLOTS
}

fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// CRC16/XMODEM: polynomial 1021, start 0.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_slots_are_those_of_redis() {
        // The check value of CRC16/XMODEM, then what `CLUSTER KEYSLOT` answers.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"123456789"), 12_739);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"user1000"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b"foo{bar}{zap}"), slot_of(b"bar"));
        assert_eq!(slot_of(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
        assert_eq!(slot_of(b""), 0);
    }

    #[test]
    fn a_key_tells_its_cell() {
        for cell in Cell::all() {
            assert_eq!(Cell::of_key(&cell.key("x")), Some(cell));
        }
        for key in [
            "",
            "{pr:default:0",
            "{pr:default:00",
            "{pr:default:40}",
            "{pr:default:0A}",
            "x{pr:default:00}",
        ] {
            assert_eq!(Cell::of_key(key.as_bytes()), None, "{key}");
        }
    }

    #[test]
    fn cells_have_their_own_tags_and_slots() {
        assert_eq!(Cell(0).tag(), "{pr:default:00}");
        assert_eq!(Cell(63).tag(), "{pr:default:3f}");
        assert_eq!(Cell(9).key("rows"), b"{pr:default:09}:rows");
        assert_eq!(slot_of(&Cell(9).key("rows")), Cell(9).slot());
        assert_eq!(Cell::all().map(Cell::slot).collect::<HashSet<_>>().len(), 64);
    }
}
