//! A row's key, as the writer's memory holds it: a short one stands in place, so that comparing two touches no
//! other memory, and making one allocates nothing.
//!
//! Invariant: keys order as their bytes do.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

/// Bytes that stand in place: an id made by the server has 36, and most feeds' entries have less.
const SHORT: usize = 38;

/// A key.
#[derive(Clone)]
pub struct RowKey(Form);

#[derive(Clone)]
enum Form {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Short { length, bytes } => &bytes[..usize::from(*length)],
            Form::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for RowKey {
    fn from(key: &[u8]) -> RowKey {
        if key.len() > SHORT {
            return RowKey(Form::Long(key.into()));
        }
        let mut bytes = [0; SHORT];
        bytes[..key.len()].copy_from_slice(key);
        RowKey(Form::Short {
            length: key.len() as u8,
            bytes,
        })
    }
}

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &RowKey) -> bool {
        **self == **other
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &RowKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &RowKey) -> Ordering {
        (**self).cmp(other)
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_their_bytes_and_order_as_they_do() {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for length in [0, 1, SHORT - 1, SHORT, SHORT + 1, 300] {
            for last in [0, 1, 255] {
                let mut key = vec![7; length];
                key.extend([last]);
                keys.push(key);
            }
        }
        for a in &keys {
            assert_eq!(&*RowKey::from(&a[..]), &a[..]);
            for b in &keys {
                let order = RowKey::from(&a[..]).cmp(&RowKey::from(&b[..]));
                assert_eq!(order, a.cmp(b), "{a:?} {b:?}");
            }
        }
        assert_eq!(size_of::<RowKey>(), SHORT + 2);
    }
}
