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
    let mut means = Means::new(width);
    let mut pixels = vec![0; 2 * 3 * width];
    for top in (0..height).step_by(2) {
        let count = (height - top).min(2);
        for (y, out) in (top..top + count).zip(pixels.chunks_exact_mut(3 * width)) {
            let [above, here, below] = &mut rows;
            load(mosaic, mirrored(y as isize - 1, height), above);
            load(mosaic, y, here);
            load(mosaic, mirrored(y as isize + 1, height), below);
            means.fill(above, here, below);
            // A row holds green and one of red and blue; `first` is where that one starts.
            let has_red = y % 2 == pattern.red_y;
            let first = if has_red { pattern.red_x } else { 1 - pattern.red_x };
            match (has_red, first) {
                (true, 0) => means.weave::<0, 0>(&here[1..], out),
                (true, _) => means.weave::<0, 1>(&here[1..], out),
                (false, 0) => means.weave::<2, 0>(&here[1..], out),
                (false, _) => means.weave::<2, 1>(&here[1..], out),
            }
        }
        let pixels = &pixels[..count * 3 * width];
        rgb::write(Order::Rgb, pixels, 3 * width, &mut target.band(top, count))?;
    }
    Ok(())
}

/// The means around each sample of a row: computed for all of them, needed or not, so that the loop
/// becomes vector instructions.
struct Means {
    /// Of the samples left and right.
    beside: Vec<u8>,
    /// Of those above and below.
    upright: Vec<u8>,
    /// Of these four.
    cross: Vec<u8>,
    /// Of the four at the corners.
    corners: Vec<u8>,
}

impl Means {
    fn new(width: usize) -> Self {
        let line = || vec![0; width];
        Self { beside: line(), upright: line(), cross: line(), corners: line() }
    }

    /// From three rows that have one more sample at each end.
    fn fill(&mut self, above: &[u8], here: &[u8], below: &[u8]) {
        let width = self.beside.len();
        fn three(row: &[u8], width: usize) -> [&[u8]; 3] {
            [0, 1, 2].map(|at| &row[at..at + width])
        }
        let ([a0, a1, a2], [h0, _, h2], [b0, b1, b2]) =
            (three(above, width), three(here, width), three(below, width));
        for (out, (l, r)) in self.beside.iter_mut().zip(h0.iter().zip(h2)) {
            *out = mean2(*l, *r);
        }
        for (out, (a, b)) in self.upright.iter_mut().zip(a1.iter().zip(b1)) {
            *out = mean2(*a, *b);
        }
        let sides = a1.iter().zip(b1).zip(h0.iter().zip(h2));
        for (out, ((a, b), (l, r))) in self.cross.iter_mut().zip(sides) {
            *out = mean4(*a, *b, *l, *r);
        }
        let ends = a0.iter().zip(a2).zip(b0.iter().zip(b2));
        for (out, ((a, b), (c, d))) in self.corners.iter_mut().zip(ends) {
            *out = mean4(*a, *b, *c, *d);
        }
    }

    /// The pixels of a row: its own colour (`OWN`: 0 red, 2 blue) stands at every second place, from
    /// `FIRST` on.
    fn weave<const OWN: usize, const FIRST: usize>(&self, here: &[u8], out: &mut [u8]) {
        let other = 2 - OWN;
        let (pairs, last) = out.as_chunks_mut::<6>();
        let whole = here.as_chunks::<2>().0.iter().zip(self.beside.as_chunks::<2>().0);
        let whole = whole.zip(self.upright.as_chunks::<2>().0);
        let whole = whole.zip(self.cross.as_chunks::<2>().0);
        let whole = whole.zip(self.corners.as_chunks::<2>().0);
        for (out, ((((here, beside), upright), cross), corners)) in pairs.iter_mut().zip(whole) {
            let [own, green] = [FIRST, 1 - FIRST];
            out[3 * own + OWN] = here[own];
            out[3 * own + 1] = cross[own];
            out[3 * own + other] = corners[own];
            out[3 * green + OWN] = beside[green];
            out[3 * green + 1] = here[green];
            out[3 * green + other] = upright[green];
        }
        // The last one of an odd row.
        if let [a, b, c] = last {
            let x = self.beside.len() - 1;
            let (own, green, opposite) = match FIRST {
                0 => (here[x], self.cross[x], self.corners[x]),
                _ => (self.beside[x], here[x], self.upright[x]),
            };
            *b = green;
            (*a, *c) = if OWN == 0 { (own, opposite) } else { (opposite, own) };
        }
    }
}

fn mean2(a: u8, b: u8) -> u8 {
    (u16::from(a) + u16::from(b)).div_ceil(2) as u8
}

fn mean4(a: u8, b: u8, c: u8, d: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) / 4) as u8
}

/// Row `y` with one mirrored sample at each end.
fn load(mosaic: Samples<'_>, y: usize, line: &mut [u8]) {
    let row = mosaic.row(y);
    let at = |x| row[mirrored(x, mosaic.width) * mosaic.step];
    let width = mosaic.width;
    mosaic.pick(row, &mut line[1..=width], |v| v);
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
