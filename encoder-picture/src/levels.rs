//! How much of their range the pictures of 16 bits of a stream use.

use super::{PictureOptions, compressed, raw, wide::Wide};
use encoder_media::Payload;

/// Samples of a picture that are looked at, at most.
const MOST_SAMPLES: usize = 1 << 17;
/// Depth closer than this, in millimetres, is measured by no camera.
const NEAREST: u16 = 100;

/// The values of the pictures of a stream with samples of 16 bits: `mono16`, `bayer_…16`, PNG.
///
/// Depth and cameras of 10 to 14 bits are recorded under these names as well, and are nearly black
/// if they are shown as 16 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    pictures: u64,
    /// How many values have each number of bits. 0 and 65535 are not counted: they mark holes.
    by_bits: [u64; 17],
    highest: u16,
    zeros: u64,
    nearer: u64,
}

impl Levels {
    /// Adds the values of a picture. Returns whether it has samples of 16 bits that are shown as a
    /// picture, not as depth.
    pub fn add(&mut self, payload: &Payload, options: &PictureOptions) -> bool {
        let mut add = |wide: Wide<'_>| self.add_samples(wide);
        let added = match payload {
            Payload::Raw(image) => raw::with_wide(image, options, &mut add),
            Payload::Compressed { format, data } => {
                compressed::with_wide(format, data, options, &mut add)
            }
            _ => None,
        };
        added.is_some()
    }

    fn add_samples(&mut self, wide: Wide<'_>) {
        self.pictures += 1;
        let rows = (MOST_SAMPLES / wide.width).clamp(1, wide.height);
        for n in 0..rows {
            for value in wide.row(n * wide.height / rows) {
                match value {
                    0 => self.zeros += 1,
                    u16::MAX => {}
                    _ => {
                        self.by_bits[16 - value.leading_zeros() as usize] += 1;
                        self.highest = self.highest.max(value);
                        self.nearer += u64::from(value < NEAREST);
                    }
                }
            }
        }
    }

    /// How many pictures were added.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// The highest value, holes aside.
    pub fn highest(&self) -> u16 {
        self.highest
    }

    /// How many bits the values need, but for a few in ten thousand. `None` if all are 0 or 65535.
    pub fn bits(&self) -> Option<u8> {
        let all: u64 = self.by_bits.iter().sum();
        let mut above = 0;
        let needed = (1..=16u8).rev().find(|&bits| {
            above += self.by_bits[usize::from(bits)];
            above * 2000 > all
        });
        needed.filter(|_| all > 0)
    }

    /// Whether the values look like depth in millimetres: with holes (0), and nothing between a
    /// hole and the nearest distance that a camera measures.
    pub fn look_like_depth(&self) -> bool {
        let values: u64 = self.by_bits.iter().sum();
        let has_holes = self.zeros * 1000 > self.zeros + values;
        has_holes && self.nearer * 10_000 <= values && self.bits().is_some_and(|bits| bits <= 14)
    }
}
