//! Boxes of the ISO base media file format (ISO/IEC 14496-12, 14496-15).

/// A box that is being written: its size is filled in when it ends.
pub(super) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Writes a box around what `content` writes.
    pub fn nest(&mut self, kind: &[u8; 4], content: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.u32(0);
        self.0.extend_from_slice(kind);
        content(self);
        let size = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&size.to_be_bytes());
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
        self.0.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// The unity matrix of `mvhd` and `tkhd`.
    pub fn matrix(&mut self) {
        for value in [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000] {
            self.u32(value);
        }
    }

    /// A table of runs: how many in a row have the same value.
    pub fn runs(&mut self, values: impl Iterator<Item = u32>) {
        let count_at = self.0.len();
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
        self.0[count_at..count_at + 4].copy_from_slice(&entries.to_be_bytes());
    }
}

/// Reads numbers from the front of bytes that may end anywhere.
pub(super) trait Fields<'a> {
    /// The next bytes; `None`, and nothing taken, where there are fewer.
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
