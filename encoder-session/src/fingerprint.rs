//! Small descriptions of pictures, to recognise a picture after it was encoded and decoded.

use encoder_core::{Frame, PixelFormat, Plane};

/// Pixels on a side of a block of luma: a macroblock. Blocks of chroma have half of that.
const BLOCK: usize = 16;
/// The picture is cut into this many tiles in each direction, to find local damage.
const TILES: usize = 4;

/// How far a right picture may be off, in levels, for luma and for each plane of chroma.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// Mean difference over the picture.
    picture: [f64; 2],
    /// Mean difference over a tile.
    tile: [f64; 2],
    /// Difference from which a block of luma differs between two frames.
    block: u8,
    /// By how much blocks that differ may be further from their own frame than twice as far as from
    /// another frame.
    margin: f64,
}

impl Tolerance {
    /// For key frames: the coarsest quantiser of H.264 makes an error of up to 9 levels in the mean
    /// of a block, and more in a few of its rows.
    pub const KEY: Self =
        Self { picture: [30.0, 12.0], tile: [45.0, 24.0], block: 20, margin: 6.0 };
    /// For predicted pictures, to which a coarse quantiser adds the errors of earlier pictures: a
    /// fade may come several frames late.
    pub const PREDICTED: Self =
        Self { picture: [45.0, 30.0], tile: [80.0, 60.0], block: 60, margin: 25.0 };
}

/// Rows of a block of luma that are read. All rows would show little more, and cost memory traffic.
/// Patterns of two or four rows have the same mean in these rows as in all.
const LUMA_ROWS: [usize; 4] = [1, 6, 11, 12];
/// Rows of a block of chroma that are read.
const CHROMA_ROWS: [usize; 2] = [1, 6];
/// Mean deviation from the picture's mean, in levels, up to which a picture has a single colour.
const PLAIN: f64 = 0.5;
/// Mean deviation from which a frame has contents that no quantiser removes.
const CONTENTS: f64 = 9.0;
/// The same if the picture is black.
const CONTENTS_BEHIND_BLACK: f64 = 3.0;
/// Highest mean of luma of a black picture.
const BLACK: f64 = 20.0;
/// Blocks that must differ between two frames before their pictures can be told apart.
const FEWEST_BLOCKS: usize = 3;

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
            match (frame.format, frame.planes()) {
                (PixelFormat::Yuv420p, [plane_y, plane_u, plane_v]) => {
                    means::<BLOCK, 4>(plane_y, row, LUMA_ROWS, &mut y);
                    means::<{ BLOCK / 2 }, 2>(plane_u, row, CHROMA_ROWS, &mut u);
                    means::<{ BLOCK / 2 }, 2>(plane_v, row, CHROMA_ROWS, &mut v);
                }
                (PixelFormat::Nv12, [plane_y, plane_uv]) => {
                    means::<BLOCK, 4>(plane_y, row, LUMA_ROWS, &mut y);
                    means_of_pairs(plane_uv, row, &mut u, &mut v);
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
        let (own, shown) = (&self.planes[0], &decoded.planes[0]);
        let stale = others.filter_map(|(number, other)| {
            let excess = excess(own, &other.planes[0], shown, tolerance)?;
            (excess > 0.0).then_some((number, excess))
        });
        if let Some((number, _)) = stale.max_by(|(_, a), (_, b)| a.total_cmp(b)) {
            return Err(format!("it is the picture of frame {number}"));
        }
        for (n, (own, shown)) in self.planes.iter().zip(&decoded.planes).enumerate() {
            let kind = n.min(1);
            let off = difference(own, shown);
            if off > tolerance.picture[kind] {
                return Err(format!("it is off by {off:.0} levels on average"));
            }
            let tile = worst_tile(self.columns, own, shown);
            if tile > tolerance.tile[kind] {
                return Err(format!("a part of it is off by {tile:.0} levels on average"));
            }
        }
        let needed = if mean(shown) <= BLACK { CONTENTS_BEHIND_BLACK } else { CONTENTS };
        if deviation(shown) < PLAIN && deviation(own) > needed {
            return Err("it has a single colour".into());
        }
        Ok(())
    }
}

/// By how many levels more than tolerated the picture `shown` is nearer to the frame `other` than
/// to its own frame, where these two differ; `None` if they hardly differ.
///
/// Small differences do not count: a coarse quantiser may change a picture to that of a neighbour,
/// for example the brightness in a slow fade.
fn excess(own: &[u8], other: &[u8], shown: &[u8], tolerance: Tolerance) -> Option<f64> {
    let (mut count, mut to_own, mut to_other) = (0, 0, 0);
    for ((&own, &other), &shown) in own.iter().zip(other).zip(shown) {
        if own.abs_diff(other) >= tolerance.block {
            count += 1;
            to_own += u64::from(own.abs_diff(shown));
            to_other += u64::from(other.abs_diff(shown));
        }
    }
    let mean = |sum: u64| sum as f64 / count as f64;
    (count >= FEWEST_BLOCKS).then(|| mean(to_own) - 2.0 * mean(to_other) - tolerance.margin)
}

/// The largest mean difference of two planes in a tile of the picture.
fn worst_tile(columns: usize, a: &[u8], b: &[u8]) -> f64 {
    let columns = columns.max(1);
    let rows = a.len() / columns;
    let mut sums = [(0_u32, 0_u32); TILES * TILES];
    for (n, (&a, &b)) in a.iter().zip(b).enumerate() {
        let (x, y) = (n % columns * TILES / columns, n / columns * TILES / rows.max(1));
        let (sum, count) = &mut sums[y * TILES + x];
        *sum += u32::from(a.abs_diff(b));
        *count += 1;
    }
    let means = sums.iter().map(|&(sum, count)| f64::from(sum) / f64::from(count.max(1)));
    means.fold(0.0, f64::max)
}

/// Rows of a plane, without their padding: those with these numbers in a row of blocks of `side`
/// rows. A block that ends early has the same rows again.
fn rows_of<'a, const ROWS: usize>(
    plane: &Plane<'a>,
    (row, side): (usize, usize),
    offsets: [usize; ROWS],
) -> [&'a [u8]; ROWS] {
    let first = row * side;
    let count = plane.rows.saturating_sub(first).clamp(1, side);
    offsets.map(|offset| {
        let start = (first + offset % count) * plane.stride;
        plane.data.get(start..start + plane.row_bytes).unwrap_or_default()
    })
}

/// Appends the means of a row of blocks of `SIDE` samples.
fn means<const SIDE: usize, const ROWS: usize>(
    plane: &Plane<'_>,
    row: usize,
    offsets: [usize; ROWS],
    out: &mut Vec<u8>,
) {
    let rows = rows_of(plane, (row, SIDE), offsets);
    let whole = rows.map(|row| row.as_chunks::<SIDE>().0);
    let count = whole[0].len();
    let whole = whole.map(|row| row.get(..count).unwrap_or_default());
    out.extend((0..count).map(|n| {
        let parts = whole.map(|row| &row[n]);
        // Sums of the columns first: these are vector instructions.
        let column = |x: usize| parts.iter().map(|part| u16::from(part[x])).sum::<u16>();
        let sum = (0..SIDE).map(|x| u32::from(column(x))).sum();
        rounded_mean(sum, ROWS * SIDE)
    }));
    let rest = rows.map(|row| row.as_chunks::<SIDE>().1);
    if !rest[0].is_empty() {
        let sum = rest.iter().flat_map(|row| row.iter()).map(|sample| u32::from(*sample)).sum();
        out.push(rounded_mean(sum, ROWS * rest[0].len()));
    }
}

/// The same for both planes of chroma of NV12.
fn means_of_pairs(plane: &Plane<'_>, row: usize, u: &mut Vec<u8>, v: &mut Vec<u8>) {
    let [upper, lower] = rows_of(plane, (row, BLOCK / 2), CHROMA_ROWS);
    for (upper, lower) in upper.chunks(BLOCK).zip(lower.chunks(BLOCK)) {
        for (which, out) in [(0, &mut *u), (1, &mut *v)] {
            let of = |part: &[u8]| -> u32 {
                part.chunks_exact(2).map(|pair| u32::from(pair[which])).sum()
            };
            out.push(rounded_mean(of(upper) + of(lower), upper.len()));
        }
    }
}

fn rounded_mean(sum: u32, count: usize) -> u8 {
    let count = count.max(1) as u32;
    ((sum + count / 2) / count) as u8
}

/// Mean absolute difference of two planes of one size.
fn difference(a: &[u8], b: &[u8]) -> f64 {
    let sum: u32 = a.iter().zip(b).map(|(&a, &b)| u32::from(a.abs_diff(b))).sum();
    f64::from(sum) / a.len().max(1) as f64
}

fn mean(plane: &[u8]) -> f64 {
    let sum: u32 = plane.iter().map(|&level| u32::from(level)).sum();
    f64::from(sum) / plane.len().max(1) as f64
}

/// Mean deviation of a plane from its mean.
fn deviation(plane: &[u8]) -> f64 {
    let mean = mean(plane);
    let sum: f64 = plane.iter().map(|&level| (f64::from(level) - mean).abs()).sum();
    sum / plane.len().max(1) as f64
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
        let frames: Vec<_> = (0..12).map(|n| (n, of(scene(n as usize * 12)))).collect();
        let others = |n: u64| frames.iter().filter(move |(m, _)| *m != n).map(|(m, f)| (*m, f));
        for (n, frame) in &frames {
            assert_eq!(frame.judge(frame, Tolerance::KEY, others(*n)), Ok(()));
        }
        for (shown, frame) in [(8, 9), (7, 9), (10, 9)] {
            let (frame, shown_picture) = (frame as u64, &frames[shown].1);
            let own = &frames[frame as usize].1;
            let judged = own.judge(shown_picture, Tolerance::KEY, others(frame));
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

    #[test]
    fn a_small_moving_object_shows_an_old_picture() {
        // A gripper of 48x48 pixels over a scene that does not move.
        let at = |left: usize| {
            of(move |plane, x, y| match plane {
                0 if (left..left + 48).contains(&x) && (64..112).contains(&y) => 220,
                0 => (40 + (x / 24 + y / 24) % 5 * 20) as u8,
                _ => 128,
            })
        };
        let frames: Vec<_> = (0..10).map(|n| (n, at(n as usize * 16))).collect();
        let others = |n: u64| frames.iter().filter(move |(m, _)| *m != n).map(|(m, f)| (*m, f));
        for (n, frame) in &frames {
            assert_eq!(frame.judge(frame, Tolerance::KEY, others(*n)), Ok(()));
        }
        let judged = frames[9].1.judge(&frames[4].1, Tolerance::KEY, others(9));
        assert_eq!(judged, Err("it is the picture of frame 4".into()));
    }

    #[test]
    fn contents_that_a_quantiser_removes_are_not_missed() {
        // Fog: six levels of contents become a single colour, which is not black.
        let fog = of(|plane, x, _| if plane == 0 { 150 + (x / 16 % 2 * 12) as u8 } else { 128 });
        let plain = of(|plane, _, _| if plane == 0 { 156 } else { 128 });
        assert_eq!(fog.judge(&plain, Tolerance::KEY, std::iter::empty()), Ok(()));
        // Fine lines of two and of four rows become grey.
        let of = |level: &dyn Fn(usize, usize, usize) -> u8| {
            picture(PixelFormat::Yuv420p, (320, 176), level)
        };
        for half in [1, 2] {
            let lines = of(&|plane, _, y| match plane {
                0 if y / half % 2 == 0 => 230,
                0 => 30,
                _ => 128,
            });
            let grey = of(&|plane, _, _| if plane == 0 { 130 } else { 128 });
            assert_eq!(lines.judge(&grey, Tolerance::KEY, std::iter::empty()), Ok(()), "{half}");
        }
    }

    #[test]
    fn weak_colours_that_are_exchanged_or_lost_are_wrong() {
        let with = |u: u8, v: u8| {
            of(move |plane, x, y| match plane {
                0 => scene(0)(0, x, y),
                1 => u,
                _ => v,
            })
        };
        for (u, v) in [(140, 118), (128, 128)] {
            let judged = with(116, 142).judge(&with(u, v), Tolerance::KEY, std::iter::empty());
            let expected = if u == 140 { "off by 24 levels" } else { "off by 14 levels" };
            let what = judged.err().unwrap_or_default();
            assert!(what.contains(expected), "{u} {v}: {what}");
        }
    }
}
