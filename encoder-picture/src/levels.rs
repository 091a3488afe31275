//! How much of their range the pictures of 16 bits of a stream use.

use super::{
    PictureOptions, compressed, raw,
    wide::{FEW, HOLE, Wide},
};
use encoder_media::Payload;

/// Samples of a picture that are looked at, at most.
const MOST_SAMPLES: usize = 1 << 17;
/// Depth closer than this, in millimetres, is measured by no camera.
const NEAREST: u16 = 100;
/// Bits of depth in millimetres: more than a metre, and less than 16 metres.
const BITS_OF_DEPTH: std::ops::RangeInclusive<u8> = 11..=14;

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
    /// How many values lie in the range of depth that is shown.
    shown: u64,
}

impl Levels {
    /// Adds the values of a picture. Returns whether it has samples of 16 bits that are shown as a
    /// picture, not as depth.
    pub fn add(&mut self, payload: &Payload, options: &PictureOptions) -> bool {
        let mut add = |wide: Wide<'_>| self.add_samples(wide, options.depth_range);
        let added = match payload {
            Payload::Raw(image) => raw::with_wide(image, options, &mut add),
            Payload::Compressed { format, data } => {
                compressed::with_wide(format, data, options, &mut add)
            }
            _ => None,
        };
        added.is_some()
    }

    fn add_samples(&mut self, wide: Wide<'_>, depth_range: Option<(f32, f32)>) {
        self.pictures += 1;
        let shown = depth_range.map(|(near, far)| near.min(far)..=near.max(far));
        let rows = (MOST_SAMPLES / wide.width).clamp(1, wide.height);
        for n in 0..rows {
            for value in wide.row(n * wide.height / rows) {
                match value {
                    0 => self.zeros += 1,
                    HOLE => {}
                    _ => {
                        self.by_bits[16 - value.leading_zeros() as usize] += 1;
                        self.highest = self.highest.max(value);
                        self.nearer += u64::from(value < NEAREST);
                        let is_shown = shown.as_ref().is_some_and(|s| s.contains(&value.into()));
                        self.shown += u64::from(is_shown);
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
        let all = self.values();
        let mut above = 0;
        let needed = (1..=16u8).rev().find(|&bits| {
            above += self.by_bits[usize::from(bits)];
            above * FEW as u64 > all
        });
        needed.filter(|_| all > 0)
    }

    /// Whether the values look like depth in millimetres: with holes (0), and nothing between a
    /// hole and the nearest distance that a camera measures.
    pub fn look_like_depth(&self) -> bool {
        let values = self.values();
        let has_holes = self.zeros * 1000 > self.zeros + values;
        let has_bits = self.bits().is_some_and(|bits| BITS_OF_DEPTH.contains(&bits));
        has_holes && has_bits && self.nearer * 10_000 <= values
    }

    /// Whether nearly all values, holes aside, lie in the range of depth that is shown.
    pub fn lie_in_range(&self) -> bool {
        self.shown > 0 && self.shown * 100 >= self.values() * 99
    }

    /// How many values were added, holes aside.
    fn values(&self) -> u64 {
        self.by_bits.iter().sum()
    }
}
