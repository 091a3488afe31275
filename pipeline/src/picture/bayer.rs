use super::{
    PictureError,
    planar::Samples,
    rgb::{self, Order},
    target::Target,
};

/// Where red is in each square of 2×2 pixels; blue is diagonally opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pub red_x: usize,
    pub red_y: usize,
}

/// Fills in the missing colours of a mosaic: the mean of the nearest samples of that colour
/// (bilinear). Edges are mirrored, which keeps the pattern.
pub(super) fn write(
    pattern: Pattern,
    mosaic: Samples<'_>,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let (width, height) = (target.width, target.height);
    let mut rows = [vec![0; width + 2], vec![0; width + 2], vec![0; width + 2]];
    let mut pixels = vec![0; 2 * 3 * width];
    for top in (0..height).step_by(2) {
        let count = (height - top).min(2);
        for (y, out) in (top..top + count).zip(pixels.chunks_exact_mut(3 * width)) {
            let [above, here, below] = &mut rows;
            load(mosaic, mirrored(y as isize - 1, height), above);
            load(mosaic, y, here);
            load(mosaic, mirrored(y as isize + 1, height), below);
            // A row holds green and one of red and blue; `first` is where that one starts.
            let has_red = y % 2 == pattern.red_y;
            let first = if has_red { pattern.red_x } else { 1 - pattern.red_x };
            let (own, other) = if has_red { (0, 2) } else { (2, 0) };
            let windows = above.windows(3).zip(here.windows(3)).zip(below.windows(3));
            for (x, (((a, h), b), out)) in windows.zip(out.chunks_exact_mut(3)).enumerate() {
                if x % 2 == first {
                    out[own] = h[1];
                    out[1] = mean4(a[1], b[1], h[0], h[2]);
                    out[other] = mean4(a[0], a[2], b[0], b[2]);
                } else {
                    out[1] = h[1];
                    out[own] = mean4(h[0], h[2], h[0], h[2]);
                    out[other] = mean4(a[1], b[1], a[1], b[1]);
                }
            }
        }
        let pixels = &pixels[..count * 3 * width];
        rgb::write(Order::Rgb, pixels, 3 * width, &mut target.band(top, count))?;
    }
    Ok(())
}

fn mean4(a: u8, b: u8, c: u8, d: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) / 4) as u8
}

/// Row `y` with one mirrored sample at each end.
fn load(mosaic: Samples<'_>, y: usize, line: &mut [u8]) {
    let row = mosaic.row(y);
    let at = |x| row[mirrored(x, mosaic.width) * mosaic.step];
    let width = mosaic.width;
    for (out, &v) in line[1..].iter_mut().zip(row.iter().step_by(mosaic.step)) {
        *out = v;
    }
    line[0] = at(-1);
    line[width + 1] = at(width as isize);
}

/// -1 is 1, `len` is `len - 2`.
fn mirrored(at: isize, len: usize) -> usize {
    match at {
        -1 => 1.min(len - 1),
        at if at as usize == len => len.saturating_sub(2),
        at => at as usize,
    }
}
