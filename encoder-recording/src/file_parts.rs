//! The parts of a file: recordings that were written one behind the other.

/// Where the parts of a file start. A usual file is one part.
pub(crate) struct FileParts(Vec<u64>);

impl FileParts {
    /// `starts`: the offsets at which the parts start, rising.
    pub(crate) fn new(starts: Vec<u64>) -> Self {
        Self(starts)
    }

    /// The number of the part that the byte at `at` belongs to.
    pub(crate) fn of(&self, at: u64) -> usize {
        self.0.partition_point(|start| *start <= at).saturating_sub(1)
    }

    /// The offset at which a part starts.
    pub(crate) fn start(&self, part: usize) -> u64 {
        self.0.get(part).copied().unwrap_or_default()
    }

    /// The offset at which a part ends, in a file of `len` bytes.
    pub(crate) fn end(&self, part: usize, len: u64) -> u64 {
        self.0.get(part + 1).copied().unwrap_or(len)
    }
}

impl Default for FileParts {
    fn default() -> Self {
        Self::new(vec![0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_belongs_to_one_part() {
        let parts = FileParts::new(vec![0, 100, 250]);
        for (at, part) in [(0, 0), (99, 0), (100, 1), (249, 1), (250, 2), (9000, 2)] {
            assert_eq!(parts.of(at), part, "{at}");
            assert!((parts.start(part)..parts.end(part, 9001)).contains(&at), "{at}");
        }
        let whole = FileParts::default();
        assert_eq!((whole.of(7), whole.start(0), whole.end(0, 8)), (0, 0, 8));
    }
}
