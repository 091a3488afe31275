//! Small descriptions of pictures, to recognise a picture after it was encoded and decoded.

use encoder_core::{Frame, PixelFormat, Plane};

/// Pixels on a side of a block of luma: a macroblock. Blocks of chroma have half of that.
const BLOCK: usize = 16;
/// The picture is cut into this many tiles in each direction, to find local damage.
const TILES: usize = 4;

/// How far a right picture may be off, in levels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// Mean difference over the picture.
    picture: f64,
    /// Mean difference over a tile.
    tile: f64,
}

impl Tolerance {
    /// For key frames: the coarsest quantiser of H.264 makes an error of up to 9 levels.
    pub const KEY: Self = Self { picture: 20.0, tile: 40.0 };
    /// For predicted pictures, to which a coarse quantiser adds the errors of earlier pictures: a
    /// fade may come several frames late.
    pub const PREDICTED: Self = Self { picture: 45.0, tile: 80.0 };
}

/// Mean deviation from the picture's mean, in levels, up to which a picture has a single colour.
const PLAIN: f64 = 0.5;
/// Mean deviation from which a picture has contents.
const CONTENTS: f64 = 3.0;
/// Difference of contents in levels, from which a picture may be that of another frame.
const STALE: f64 = 3.0;

/// The mean luma and chroma of each block of a picture, from a few rows of each block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fingerprint {
    /// Blocks in a row.
    columns: usize,
    /// Y, U and V, one level for each block.
    planes: [Vec<u8>; 3],
}

impl Fingerprint {
    pub fn of(frame: &Frame<'_>) -> Self {
        let columns = (frame.width as usize).div_ceil(BLOCK);
        let rows = (frame.height as usize).div_ceil(BLOCK);
        let [mut y, mut u, mut v] = [(); 3].map(|()| Vec::with_capacity(columns * rows));
        for row in 0..rows {
            let (luma, chroma) = (row * BLOCK, row * BLOCK / 2);
            match (frame.format, frame.planes()) {
                (PixelFormat::Yuv420p, [plane_y, plane_u, plane_v]) => {
                    luma_means(plane_y, luma, &mut y);
                    u.extend(row_of(plane_u, chroma + 4).chunks(BLOCK / 2).map(mean));
                    v.extend(row_of(plane_v, chroma + 4).chunks(BLOCK / 2).map(mean));
                }
                (PixelFormat::Nv12, [plane_y, plane_uv]) => {
                    luma_means(plane_y, luma, &mut y);
                    for block in row_of(plane_uv, chroma + 4).chunks(BLOCK) {
                        u.push(mean_of_pairs(block, 0));
                        v.push(mean_of_pairs(block, 1));
                    }
                }
                _ => {}
            }
        }
        Self { columns, planes: [y, u, v] }
    }

    /// Judges the decoded picture of the frame that `self` describes. `others` are frames near it,
    /// with their numbers.
    ///
    /// # Errors
    /// What the picture shows instead.
    pub fn judge<'a>(
        &self,
        decoded: &Self,
        tolerance: Tolerance,
        others: impl Iterator<Item = (u64, &'a Self)>,
    ) -> Result<(), String> {
        let sizes = |one: &Self| (one.columns, one.planes[0].len());
        if sizes(self) != sizes(decoded) {
            return Err("it has another size".into());
        }
        let [y, u, v] = [0, 1, 2].map(|n| difference(&self.planes[n], &decoded.planes[n]));
        let off = y.max(u).max(v);
        if off > tolerance.picture {
            return Err(format!("it is off by {off:.0} levels on average"));
        }
        let tile = self.worst_tile(decoded);
        if tile > tolerance.tile {
            return Err(format!("a part of it is off by {tile:.0} levels on average"));
        }
        let (here, there) = (contents(&self.planes[0]), contents(&decoded.planes[0]));
        if deviation(&there) < PLAIN && deviation(&here) > CONTENTS {
            return Err("it has a single colour".into());
        }
        // Only contents are compared: a coarse quantiser may change the brightness of a whole
        // picture to that of a neighbour.
        let own = mean_distance(&here, &there);
        if own < STALE {
            return Ok(());
        }
        let nearest = others
            .map(|(number, other)| (number, mean_distance(&contents(&other.planes[0]), &there)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        match nearest {
            Some((number, distance)) if own > 2.0 * distance + STALE / 2.0 => {
                Err(format!("it is the picture of frame {number}"))
            }
            _ => Ok(()),
        }
    }

    /// The largest mean difference of luma in a tile of the picture.
    fn worst_tile(&self, other: &Self) -> f64 {
        let columns = self.columns.max(1);
        let rows = self.planes[0].len() / columns;
        let mut sums = [(0_u32, 0_u32); TILES * TILES];
        for (n, (&a, &b)) in self.planes[0].iter().zip(&other.planes[0]).enumerate() {
            let (x, y) = (n % columns * TILES / columns, n / columns * TILES / rows.max(1));
            let (sum, count) = &mut sums[y * TILES + x];
            *sum += u32::from(a.abs_diff(b));
            *count += 1;
        }
        let means = sums.iter().map(|&(sum, count)| f64::from(sum) / f64::from(count.max(1)));
        means.fold(0.0, f64::max)
    }
}

/// A row of a plane, without its padding; behind the last row, the last row.
fn row_of<'a>(plane: &Plane<'a>, row: usize) -> &'a [u8] {
    let start = row.min(plane.rows.saturating_sub(1)) * plane.stride;
    plane.data.get(start..start + plane.row_bytes).unwrap_or_default()
}

/// Appends the means of the blocks of luma whose first row is `first`. Two rows of sixteen are
/// read: more would tell little, and cost memory traffic.
fn luma_means(plane: &Plane<'_>, first: usize, out: &mut Vec<u8>) {
    let (upper, lower) = (row_of(plane, first + 4), row_of(plane, first + 12));
    let blocks = upper.chunks(BLOCK).zip(lower.chunks(BLOCK));
    out.extend(blocks.map(|(upper, lower)| mean_of(sum(upper) + sum(lower), 2 * upper.len())));
}

fn mean(samples: &[u8]) -> u8 {
    mean_of(sum(samples), samples.len())
}

fn mean_of_pairs(samples: &[u8], which: usize) -> u8 {
    let picked = samples.chunks_exact(2).map(|pair| u32::from(pair[which]));
    mean_of(picked.sum(), samples.len() / 2)
}

fn mean_of(sum: u32, count: usize) -> u8 {
    let count = count.max(1) as u32;
    ((sum + count / 2) / count) as u8
}

fn sum(samples: &[u8]) -> u32 {
    // A fixed size lets the compiler use vector instructions.
    match <&[u8; BLOCK]>::try_from(samples) {
        Ok(block) => block.iter().map(|&sample| u32::from(sample)).sum(),
        Err(_) => samples.iter().map(|&sample| u32::from(sample)).sum(),
    }
}

/// Mean absolute difference of two planes of one size.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    let sum: u32 = a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b))).sum();
    f64::from(sum) / a.len().max(1) as f64
}

/// The plane without its mean.
fn contents(plane: &[u8]) -> Vec<f32> {
    let sum: u32 = plane.iter().map(|&level| u32::from(level)).sum();
    let mean = sum as f32 / plane.len().max(1) as f32;
    plane.iter().map(|&level| f32::from(level) - mean).collect()
}

fn deviation(contents: &[f32]) -> f64 {
    let sum: f64 = contents.iter().map(|level| f64::from(level.abs())).sum();
    sum / contents.len().max(1) as f64
}

fn mean_distance(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum();
    sum / a.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use encoder_core::{FrameLayout, Resolution};

    use super::*;

    /// A picture by a function of plane, column and row.
    fn picture(
        format: PixelFormat,
        (width, height): (u32, u32),
        level: impl Fn(usize, usize, usize) -> u8,
    ) -> Fingerprint {
        let layout = FrameLayout::new(format, Resolution::new(width, height));
        let mut memory = vec![0; layout.bytes()];
        for (n, plane) in layout.planes_mut(&mut memory).into_iter().enumerate() {
            for (y, row) in plane.data.chunks_mut(plane.stride).enumerate() {
                for (x, sample) in row[..plane.row_bytes].iter_mut().enumerate() {
                    *sample = match (n, format) {
                        (1, PixelFormat::Nv12) => level(1 + x % 2, x / 2, y),
                        _ => level(n, x, y),
                    };
                }
            }
        }
        Fingerprint::of(&layout.frame(&memory, 0))
    }

    /// Something like a scene, `n` pixels further to the right.
    fn scene(n: usize) -> impl Fn(usize, usize, usize) -> u8 {
        move |plane, x, y| match plane {
            0 => (40 + ((x + n) / 24 + y / 24) % 5 * 36) as u8,
            plane => (80 + plane * 20 + (x / 16 + y / 16) % 3 * 10) as u8,
        }
    }

    const SIZE: (u32, u32) = (322, 178);

    fn of(level: impl Fn(usize, usize, usize) -> u8) -> Fingerprint {
        picture(PixelFormat::Yuv420p, SIZE, level)
    }

    #[test]
    fn both_formats_and_all_sizes_have_the_same_fingerprint() {
        for size in [(2, 2), (16, 16), (18, 34), SIZE, (640, 360), (1918, 1078)] {
            let planar = picture(PixelFormat::Yuv420p, size, scene(3));
            assert_eq!(planar, picture(PixelFormat::Nv12, size, scene(3)), "{size:?}");
            let blocks = size.0.div_ceil(16) * size.1.div_ceil(16);
            assert!(planar.planes.iter().all(|plane| plane.len() == blocks as usize), "{size:?}");
        }
    }

    #[test]
    fn a_fingerprint_has_the_means_of_the_blocks() {
        // Each block has a level of its own.
        let levels = of(|plane, x, y| match plane {
            0 => (x / 16 * 4 + y / 16) as u8,
            plane => (x / 8 * 4 + y / 8 + plane) as u8,
        });
        assert_eq!(levels.columns, 21);
        for (n, plane) in levels.planes.iter().enumerate() {
            for (block, &level) in plane.iter().enumerate() {
                assert_eq!(usize::from(level), block % 21 * 4 + block / 21 + n, "{n} {block}");
            }
        }
    }

    /// Levels of a scene without movement.
    fn still(plane: usize, x: usize, y: usize) -> u8 {
        scene(0)(plane, x, y)
    }

    /// The scene at an eighth of its contrast, near black.
    fn dark(plane: usize, x: usize, y: usize) -> u8 {
        if plane == 0 { still(0, x, y) / 8 + 16 } else { 128 }
    }

    #[test]
    fn a_picture_is_judged_by_its_frame() {
        type Level = fn(usize, usize, usize) -> u8;
        // frame | decoded | what is wrong, or nothing
        let table: &[(Level, Level, &str)] = &[
            (still, still, ""),
            (dark, dark, ""),
            // Errors as large as the coarsest quantiser makes them.
            (still, |n, x, y| still(n, x, y) + 9, ""),
            (still, |n, x, y| still(n, x, y) + (x / 16 * 7 + y / 16 * 5) as u8 % 19 - 9, ""),
            (|_, _, _| 120, |_, _, _| 129, ""),
            // Black, green, nearly black.
            (still, |n, _, _| [16, 128, 128][n], "off by 9"),
            (still, |n, _, _| [80, 0, 0][n], "levels on average"),
            (|_, _, _| 120, |_, _, _| 16, "off by 104 levels on average"),
            (dark, |n, _, _| [16, 128, 128][n], "single colour"),
            // The planes of chroma are exchanged.
            (|n, _, _| [100, 90, 160][n], |n, _, _| [100, 160, 90][n], "off by 70 levels"),
            // A corner is missing: a sixteenth of the picture.
            (
                |n, x, y| if n == 0 { 90 + (x / 20 + y / 20) as u8 } else { 128 },
                |n, x, y| match n {
                    0 if x >= 242 && y >= 134 => 16,
                    0 => 90 + (x / 20 + y / 20) as u8,
                    _ => 128,
                },
                "a part of it is off by",
            ),
        ];
        for (n, &(frame, decoded, expected)) in table.iter().enumerate() {
            match of(frame).judge(&of(decoded), Tolerance::KEY, std::iter::empty()) {
                Ok(()) => assert_eq!(expected, "", "row {n}"),
                Err(what) => {
                    assert!(!expected.is_empty() && what.contains(expected), "row {n}: {what}");
                }
            }
        }
        let small = picture(PixelFormat::Yuv420p, (160, 120), still);
        let judged = of(still).judge(&small, Tolerance::KEY, std::iter::empty());
        assert_eq!(judged, Err("it has another size".into()));
    }

    #[test]
    fn the_picture_of_another_frame_is_recognised() {
        let frames: Vec<_> = (0..12).map(|n| (n, of(scene(n as usize * 4)))).collect();
        let others = |n: u64| frames.iter().filter(move |(m, _)| *m != n).map(|(m, f)| (*m, f));
        for (n, frame) in &frames {
            assert_eq!(frame.judge(frame, Tolerance::KEY, others(*n)), Ok(()));
        }
        for (shown, frame) in [(8, 9), (7, 9), (10, 9)] {
            let (frame, shown_picture) = (frame as u64, &frames[shown].1);
            let own = &frames[frame as usize].1;
            let judged = own.judge(shown_picture, Tolerance::PREDICTED, others(frame));
            assert_eq!(judged, Err(format!("it is the picture of frame {shown}")));
        }
    }

    #[test]
    fn a_slow_fade_is_right_whatever_the_quantiser_does_to_its_brightness() {
        let at = |level: u8| of(move |n, x, _| if n == 0 { level + (x / 64) as u8 } else { 128 });
        let frames: Vec<_> = (0..10).map(|n| (n, at(100 + n as u8))).collect();
        let others = || frames.iter().filter(|(n, _)| *n != 9).map(|(n, f)| (*n, f));
        // Nine levels too dark: exactly the brightness of frame 0.
        assert_eq!(frames[9].1.judge(&at(100), Tolerance::KEY, others()), Ok(()));
    }
}
