//! A mark as it is stored: what befell an entry, or a range of them, for one user.

use super::{Reader, Writer};
use crate::embedded::StoreFault;
use postrider_model::{Mark, MarkKind};

pub(in crate::embedded) fn encode_mark(mark: &Mark) -> Vec<u8> {
    Writer::new().mark(mark).done()
}

/// A mark in `ranges`, whose key holds no kind.
pub(in crate::embedded) fn encode_range(mark: &Mark) -> Vec<u8> {
    Writer::new().u8(mark.kind as u8).mark(mark).done()
}

pub(in crate::embedded) fn decode_mark(
    offset: u64,
    kind: MarkKind,
    value: &[u8],
) -> Result<Mark, StoreFault> {
    let mut r = Reader::new("marks", value)?;
    let mark = r.mark(offset, kind)?;
    r.end(mark)
}
