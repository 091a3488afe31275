//! Constant quality: computes the quantiser of each picture from its motion.
//!
//! x264 spends more bits on content that stays visible for long, so at one CRF its pictures of a
//! still scene are far better than those of a moving scene. A fixed quantiser does not do that, so
//! no single quantiser matches a CRF. Here the share of the picture that moves sets the quantiser.
//! It is known when a picture is encoded: no look-ahead is needed, and the same frames produce the
//! same stream. `docs/quality.md` has the measurement.

use encoder_core::{Frame, Resolution};

/// If everything moves, a quantiser this much above the CRF matches the quality of x264.
const MOVING: f32 = 1.0;
/// If nothing moves, the quantiser is lower by this much.
const STILL: f32 = 7.0;
/// The shares of moving blocks that count as "nothing moves" and "everything moves".
const SHARES: [f32; 2] = [0.06, 0.25];
/// A block counts as moving if the sum of the changes of its samples is above this: 1.5 per sample.
const CHANGE: u32 = 96;
/// The weight of the newest picture in the smoothed share: the last ten pictures count most.
const NEWEST: f32 = 0.1;
/// Side of a block in samples of the picture at half its size.
const BLOCK: usize = 8;

/// Measures the motion of a stream.
pub struct Quality {
    crf: f32,
    /// Width of the picture at half its size, in whole blocks.
    width: usize,
    /// The last picture at half its size, band by band of blocks.
    last: Vec<u8>,
    /// The same for the band that is being compared.
    band: Vec<u8>,
    pictures: u64,
    /// Share of the blocks that move, smoothed; known from the second picture on.
    moving: Option<f32>,
}

impl Quality {
    /// For a stream of this size.
    pub fn new(crf: u8, size: Resolution) -> Self {
        let [width, height] =
            [size.width, size.height].map(|side| side as usize / (2 * BLOCK) * BLOCK);
        Self {
            crf: f32::from(crf),
            width,
            last: vec![0; width * height],
            band: vec![0; width * BLOCK],
            pictures: 0,
            moving: None,
        }
    }

    /// The quantiser of the next picture, 0 to 51.
    pub fn quantiser(&mut self, frame: &Frame<'_>) -> i32 {
        let share = self.moving_share(frame);
        self.pictures += 1;
        if self.pictures > 1 {
            let before = self.moving.unwrap_or(share);
            self.moving = Some(before + NEWEST * (share - before));
        }
        quantiser(self.crf, self.moving.unwrap_or(1.0))
    }

    /// Returns the share of blocks that differ from the last picture, and stores this picture as
    /// the last.
    fn moving_share(&mut self, frame: &Frame<'_>) -> f32 {
        let Some(luma) = frame.planes().first() else { return 1.0 };
        let (width, stride) = (self.width, luma.stride);
        if self.last.is_empty() {
            return 1.0;
        }
        let (mut moving, mut blocks) = (0_usize, 0_usize);
        let bands = self.last.chunks_exact_mut(width * BLOCK);
        for (last, rows) in bands.zip(luma.data.chunks(2 * BLOCK * stride)) {
            for (out, pair) in self.band.chunks_exact_mut(width).zip(rows.chunks(2 * stride)) {
                let (upper, lower) = pair.split_at(stride.min(pair.len()));
                halve(out, upper, lower);
            }
            for x in (0..width).step_by(BLOCK) {
                let rows = self.band.chunks_exact(width).zip(last.chunks_exact(width));
                let change: u32 = rows.map(|(a, b)| difference(&a[x..], &b[x..])).sum();
                moving += usize::from(change > CHANGE);
                blocks += 1;
            }
            last.copy_from_slice(&self.band);
        }
        moving as f32 / blocks.max(1) as f32
    }
}

/// The quantiser for a picture with this share of moving blocks.
fn quantiser(crf: f32, moving: f32) -> i32 {
    let [still, all] = SHARES;
    let stillness = ((all - moving) / (all - still)).clamp(0.0, 1.0);
    (crf + MOVING - STILL * stillness).round().clamp(0.0, 51.0) as i32
}

/// One row of the picture at half its size.
fn halve(out: &mut [u8], upper: &[u8], lower: &[u8]) {
    // Both samples of a pair at once: that becomes vector instructions everywhere.
    let pair = |pair: &[u8; 2]| u16::from_le_bytes(*pair);
    let sum = |pair: u16| (pair & 0xff) + (pair >> 8);
    let (upper, lower) = (upper.as_chunks().0, lower.as_chunks().0);
    for ((out, a), b) in out.iter_mut().zip(upper).zip(lower) {
        *out = ((sum(pair(a)) + sum(pair(b)) + 2) / 4) as u8;
    }
}

/// Sum of the differences of one row of a block.
fn difference(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).take(BLOCK).map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
}

#[cfg(test)]
mod tests {
    use encoder_core::{FrameLayout, PixelFormat};

    use super::*;

    #[test]
    fn quantisers_by_crf_and_motion() {
        let table = [
            (23.0, 1.0, 24),
            (23.0, 0.25, 24),
            (23.0, 0.155, 21),
            (23.0, 0.06, 17),
            (23.0, 0.0, 17),
            (0.0, 1.0, 1),
            (0.0, 0.0, 0),
            (51.0, 1.0, 51),
            (51.0, 0.0, 45),
        ];
        for (crf, moving, expected) in table {
            assert_eq!(quantiser(crf, moving), expected, "{crf} {moving}");
        }
    }

    /// Adds a frame whose part left of `edge` changes each time.
    fn push(quality: &mut Quality, size: Resolution, n: u64, edge: usize) -> i32 {
        let layout = FrameLayout::new(PixelFormat::Yuv420p, size);
        let mut memory = vec![100; layout.bytes()];
        if let Some(luma) = layout.planes_mut(&mut memory).first_mut() {
            for row in luma.data.chunks_mut(luma.stride) {
                row[..edge].fill(if n.is_multiple_of(2) { 60 } else { 70 });
            }
        }
        quality.quantiser(&layout.frame(&memory, n))
    }

    fn quantisers(size: Resolution, edge: usize, count: u64) -> Vec<i32> {
        let mut quality = Quality::new(23, size);
        (0..count).map(|n| push(&mut quality, size, n, edge)).collect()
    }

    #[test]
    fn still_scenes_get_a_lower_quantiser() {
        let size = Resolution::new(162, 98);
        // The motion is not known at the first picture.
        assert_eq!(quantisers(size, 0, 4), [24, 17, 17, 17]);
        assert_eq!(quantisers(size, 160, 4), [24, 24, 24, 24]);
        // One of ten columns of blocks moves.
        assert_eq!(quantisers(size, 16, 3), [24, 18, 18]);
    }

    #[test]
    fn the_quantiser_follows_a_scene_slowly() {
        let size = Resolution::new(64, 64);
        let mut quality = Quality::new(23, size);
        let mut all = Vec::new();
        for n in 0..60 {
            let edge = if n < 30 { 0 } else { 64 };
            all.push(push(&mut quality, size, n, edge));
        }
        assert_eq!((all[29], all[59]), (17, 24));
        assert!(all[30..].windows(2).all(|pair| pair[0] <= pair[1]), "{all:?}");
    }

    #[test]
    fn pictures_smaller_than_a_block_count_as_moving() {
        for size in [Resolution::new(16, 16), Resolution::new(14, 64), Resolution::new(64, 14)] {
            let expected = if size.width < 16 || size.height < 16 { 24 } else { 17 };
            assert_eq!(quantisers(size, 0, 3), [24, expected, expected], "{size}");
        }
    }
}
