//! Just enough DER (X.690) to find a public key: values with definite, minimal lengths, one after another.
//!
//! Invariant: nothing outside the given bytes is looked at, and what does not fit ends the reading.

/// Bytes of which values are read from the front.
#[derive(Clone, Copy)]
pub(super) struct Der<'a>(&'a [u8]);

/// Tags.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
/// The explicit version of a certificate.
pub(super) const CONTEXT_0: u8 = 0xa0;

impl<'a> Der<'a> {
    /// Reads from these.
    pub fn new(bytes: &'a [u8]) -> Der<'a> {
        Der(bytes)
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The content of the next value, if it has this tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.next()?;
        (found == tag).then_some(content)
    }

    /// The values inside the next one, if that has this tag.
    pub fn inside(&mut self, tag: u8) -> Option<Der<'a>> {
        self.take(tag).map(Der)
    }

    /// The next value, whole: with its tag and length.
    pub fn whole(&mut self) -> Option<&'a [u8]> {
        let before = self.0;
        self.next()?;
        Some(&before[..before.len() - self.0.len()])
    }

    /// The tag of the next value.
    pub fn tag(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match *first {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => match rest {
                [length @ 0x80..=0xff, rest @ ..] => (usize::from(*length), rest),
                _ => return None,
            },
            0x82 => match rest {
                [high @ 1..=0xff, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
                _ => return None,
            },
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }
}

/// A whole, positive number without its leading zeros.
pub(super) fn positive(integer: &[u8]) -> Option<&[u8]> {
    let sign = *integer.first()?;
    let magnitude = &integer[integer.iter().take_while(|byte| **byte == 0).count()..];
    (sign < 0x80 && !magnitude.is_empty()).then_some(magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_one_after_another() {
        let mut der = Der::new(&[0x30, 3, 2, 1, 5, 6, 0]);
        let mut inside = der.inside(SEQUENCE).unwrap();
        assert_eq!(inside.take(INTEGER), Some(&[5][..]));
        assert!(inside.is_empty() && inside.tag().is_none());
        assert_eq!(der.tag(), Some(OID));
        assert_eq!(der.whole(), Some(&[6, 0][..]));
    }

    #[test]
    fn a_length_is_definite_minimal_and_within_the_bytes() {
        for bytes in [
            &[][..],
            &[2],
            &[2, 1],
            &[2, 0x80, 0, 0],
            &[2, 0x81, 1, 5],
            &[2, 0x81, 0x80],
            &[2, 0x82, 0, 0x81],
            &[2, 0x82, 1, 0],
            &[2, 0x83, 1, 0, 0],
        ] {
            assert_eq!(Der::new(bytes).take(INTEGER), None, "{bytes:?}");
        }
        let long = [&[2, 0x82, 1, 0][..], &[7; 256]].concat();
        assert_eq!(Der::new(&long).take(INTEGER).map(<[u8]>::len), Some(256));
    }

    #[test]
    fn numbers_have_no_sign_and_no_zeros_before_them() {
        assert_eq!(positive(&[0, 0x80, 1]), Some(&[0x80, 1][..]));
        for none in [&[][..], &[0], &[0, 0], &[0x80]] {
            assert_eq!(positive(none), None);
        }
    }
}
