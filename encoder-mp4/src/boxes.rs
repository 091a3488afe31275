//! Boxes of the ISO base media file format (ISO/IEC 14496-12, 14496-15).

/// Writes boxes. A value that does not fit its field is reported as an error by
/// [`finish`](Self::finish), and is never wrapped.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// The first value that did not fit.
    overflow: Option<String>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    /// The boxes.
    ///
    /// # Errors
    /// A message, if a value did not fit its field.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        self.overflow.map_or(Ok(self.bytes), Err)
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes a box around the output of `content`.
    pub fn nest(&mut self, kind: &[u8; 4], content: impl FnOnce(&mut Self)) {
        let start = self.len();
        self.u32(0);
        self.bytes(kind);
        content(self);
        let size = self.narrow(self.len() - start, "a box");
        self.patch(start, size);
    }

    /// Replaces the 32 bits at `at`.
    pub fn patch(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// A value for a narrower field; `what` names it in the error.
    pub fn narrow<T: Copy + TryInto<N> + std::fmt::Display, N: Default>(
        &mut self,
        value: T,
        what: &str,
    ) -> N {
        value.try_into().unwrap_or_else(|_| {
            let bits = 8 * size_of::<N>();
            self.overflow.get_or_insert(format!("{what} of {value} does not fit {bits} bits"));
            N::default()
        })
    }

    /// A size or count that must fit 16 bits.
    pub fn narrow16<T: Copy + TryInto<u16> + std::fmt::Display>(&mut self, value: T) {
        let value = self.narrow(value, "a size");
        self.u16(value);
    }

    /// A count that must fit 32 bits.
    pub fn count(&mut self, count: usize) {
        let count = self.narrow(count, "a count");
        self.u32(count);
    }

    /// Writes a full box: version and flags come first.
    pub fn full(
        &mut self,
        kind: &[u8; 4],
        version: u8,
        flags: u32,
        content: impl FnOnce(&mut Self),
    ) {
        self.nest(kind, |w| {
            w.u32(u32::from(version) << 24 | flags);
            content(w);
        });
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn zeros(&mut self, count: usize) {
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    /// The unity matrix of `mvhd` and `tkhd`.
    pub fn matrix(&mut self) {
        for value in [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000] {
            self.u32(value);
        }
    }

    /// A table of runs: a count of equal values in a row, and the value.
    pub fn runs(&mut self, values: impl Iterator<Item = u32>) {
        let count_at = self.len();
        self.u32(0);
        let mut entries = 0u32;
        let mut values = values.peekable();
        while let Some(value) = values.next() {
            let mut count = 1;
            while values.next_if_eq(&value).is_some() {
                count += 1;
            }
            self.u32(count);
            self.u32(value);
            entries += 1;
        }
        self.patch(count_at, entries);
    }
}

/// Reads numbers from the front of bytes that may end anywhere.
pub(super) trait Fields<'a> {
    /// Reads `count` bytes; reads nothing and returns `None` if there are fewer.
    fn front(&mut self, count: usize) -> Option<&'a [u8]>;

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.front(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_be_bytes)
    }
}

impl<'a> Fields<'a> for &'a [u8] {
    fn front(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.split_at_checked(count)?;
        *self = rest;
        Some(front)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_does_not_fit_is_an_error() {
        let mut w = Writer::new();
        w.nest(b"abcd", |w| w.narrow16(65_535u32));
        assert_eq!(w.finish(), Ok(b"\0\0\0\x0aabcd\xff\xff".to_vec()));
        let mut w = Writer::new();
        w.nest(b"abcd", |w| w.narrow16(65_536u32));
        assert_eq!(w.finish(), Err("a size of 65536 does not fit 16 bits".into()));
        let mut w = Writer::new();
        w.count(1 << 32);
        assert_eq!(w.finish(), Err("a count of 4294967296 does not fit 32 bits".into()));
    }
}
