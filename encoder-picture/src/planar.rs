use super::{range, target::Target};

/// The samples of one component, wherever they lie: in a plane of their own or among others.
#[derive(Clone, Copy)]
pub(super) struct Samples<'a> {
    /// From the first sample on; long enough for all rows.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes from one sample to the next.
    pub step: usize,
    /// Samples in a row, at least 1.
    pub width: usize,
    /// Rows, at least 1.
    pub height: usize,
}

impl<'a> Samples<'a> {
    /// Row `y`, or the last one if there are fewer; from its first sample to its last.
    pub fn row(&self, y: usize) -> &'a [u8] {
        let start = y.min(self.height - 1) * self.stride;
        &self.data[start..start + (self.width - 1) * self.step + 1]
    }

    /// Row `y` with its samples side by side, in `line` if they are not so already.
    fn packed_row<'b>(&self, y: usize, line: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        let row = self.row(y);
        if self.step == 1 {
            return row;
        }
        line.resize(self.width, 0);
        self.pick(row, line, |v| v);
        line
    }

    /// Writes the samples of row `y`, mapped by `function`.
    pub fn pick(&self, row: &[u8], out: &mut [u8], function: impl Fn(u8) -> u8) {
        // Loads of two and four bytes become vector instructions, every second byte does not.
        let two = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) as u8;
        let four = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as u8;
        let (done, rest) = match self.step {
            1 => chunks(row, out, |&[v]| function(v)),
            2 => chunks(row, out, |bytes| function(two(bytes))),
            4 => chunks(row, out, |bytes| function(four(bytes))),
            _ => (0, row),
        };
        for (out, &v) in out[done..].iter_mut().zip(rest.iter().step_by(self.step)) {
            *out = function(v);
        }
    }
}

/// Whole chunks of a row, each to one sample: how many there were, and the rest.
fn chunks<'a, const N: usize>(
    row: &'a [u8],
    out: &mut [u8],
    function: impl Fn(&[u8; N]) -> u8,
) -> (usize, &'a [u8]) {
    let (whole, _) = row.as_chunks::<N>();
    let count = whole.len().min(out.len());
    for (out, chunk) in out.iter_mut().zip(whole) {
        *out = function(chunk);
    }
    (count, &row[count * N..])
}

/// A picture in luma and chroma.
pub(super) struct Planar<'a> {
    /// Luma, one sample per pixel.
    pub luma: Samples<'a>,
    /// Cb and Cr; `None` for a grey picture.
    pub chroma: Option<[Samples<'a>; 2]>,
    /// Pixels per sample of chroma, across and down: 1, 2, 4.
    pub subsampling: (usize, usize),
    /// Full range: black is 0 and white is 255. Limited range (16 and 235) is copied unchanged.
    pub full_range: bool,
}

impl<'a> Planar<'a> {
    /// A grey picture of full range.
    pub fn grey(luma: Samples<'a>) -> Self {
        Self { luma, chroma: None, subsampling: (1, 1), full_range: true }
    }

    /// Writes the picture, which has the target's size. Chroma is averaged over the pixels that
    /// share a sample.
    pub fn write(&self, target: &mut Target<'_>) {
        for (y, out) in target.luma_rows().enumerate() {
            let row = self.luma.row(y);
            match (self.luma.step, self.full_range) {
                (1, false) => out.copy_from_slice(row),
                (_, false) => self.luma.pick(row, out, |v| v),
                (_, true) => self.luma.pick(row, out, range::luma),
            }
        }
        target.repeat_edges();
        let Some(chroma) = &self.chroma else {
            target.write_no_chroma();
            return;
        };
        let (across, down) = self.subsampling;
        let width = target.width.div_ceil(2);
        let has_size = chroma.iter().all(|samples| samples.width == width);
        if self.subsampling == (2, 2) && !self.full_range && has_size {
            let [mut u, mut v] = [Vec::new(), Vec::new()];
            for y in 0..target.height.div_ceil(2) {
                let [of_u, of_v] = chroma;
                target.write_chroma_row(y, of_u.packed_row(y, &mut u), of_v.packed_row(y, &mut v));
            }
            return;
        }
        let mut lines = [vec![0; width], vec![0; width]];
        let [mut upper, mut lower] = [Vec::new(), Vec::new()];
        for y in 0..target.height.div_ceil(2) {
            for (samples, out) in chroma.iter().zip(&mut lines) {
                let upper = samples.packed_row(2 * y / down, &mut upper);
                let lower = samples.packed_row((2 * y + 1) / down, &mut lower);
                halve(upper, lower, across, out);
                if self.full_range {
                    out.iter_mut().for_each(|v| *v = range::chroma(*v));
                }
            }
            let [u, v] = &lines;
            target.write_chroma_row(y, u, v);
        }
    }
}

/// Two rows of chroma, `across` pixels per sample, to one with two pixels per sample. Where the
/// rows end early, their last sample is repeated.
fn halve(upper: &[u8], lower: &[u8], across: usize, out: &mut [u8]) {
    let mean = |a: u8, b: u8| (u16::from(a) + u16::from(b)).div_ceil(2) as u8;
    let done = match across {
        1 => {
            let pairs = upper.chunks_exact(2).zip(lower.chunks_exact(2));
            for (out, (a, b)) in out.iter_mut().zip(pairs) {
                let sum = [a[0], a[1], b[0], b[1]].map(u16::from);
                *out = ((sum[0] + sum[1] + sum[2] + sum[3] + 2) / 4) as u8;
            }
            upper.len() / 2
        }
        2 => {
            for ((out, &a), &b) in out.iter_mut().zip(upper).zip(lower) {
                *out = mean(a, b);
            }
            upper.len()
        }
        n => {
            let wide = upper.iter().zip(lower).map(|(&a, &b)| mean(a, b));
            for (out, v) in out.chunks_mut(n / 2).zip(wide) {
                out.fill(v);
            }
            upper.len() * (n / 2)
        }
    };
    if let (Some(rest), Some(&a), Some(&b)) = (out.get_mut(done..), upper.last(), lower.last()) {
        rest.fill(mean(a, b));
    }
}
