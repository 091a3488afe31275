//! ROS 2 messages as CDR, little endian.

/// Writes the fields of one message, each aligned to its own size as CDR wants.
pub struct Cdr(Vec<u8>);

impl Cdr {
    /// The four bytes in front of every message: little-endian CDR. Alignment counts from behind
    /// them.
    const HEAD: [u8; 4] = [0, 1, 0, 0];

    /// A message that begins with a `std_msgs/Header`.
    pub fn with_header(stamp_ns: u64, frame_id: &str) -> Self {
        Self::new()
            .u32((stamp_ns / 1_000_000_000) as u32)
            .u32((stamp_ns % 1_000_000_000) as u32)
            .string(frame_id)
    }

    /// An empty message.
    pub fn new() -> Self {
        Self(Self::HEAD.to_vec())
    }

    pub fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        while !(self.0.len() - Self::HEAD.len()).is_multiple_of(4) {
            self.0.push(0);
        }
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Length with the final NUL, then the text and the NUL.
    pub fn string(self, text: &str) -> Self {
        let mut this = self.u32(text.len() as u32 + 1);
        this.0.extend(text.as_bytes());
        this.u8(0)
    }

    /// A sequence of octets.
    pub fn bytes(self, data: &[u8]) -> Self {
        let mut this = self.u32(data.len() as u32);
        this.0.extend(data);
        this
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_aligned_behind_the_head() {
        let message = Cdr::new().string("ab").u32(7).u8(1).bytes(&[9]).finish();
        let expected = [
            0, 1, 0, 0, // head
            3, 0, 0, 0, b'a', b'b', 0, 0, // string and one byte of padding
            7, 0, 0, 0, 1, 0, 0, 0, // number, octet, padding
            1, 0, 0, 0, 9, // sequence
        ];
        assert_eq!(message, expected);
    }
}
