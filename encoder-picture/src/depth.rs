//! Depth as grey.

use super::{PictureError, PictureOptions, broken, target::Target, unsupported};

/// The mapping of depth to grey: `near` is black, `far` is white. `near` may exceed `far`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grey {
    near: f32,
    scale: f32,
}

impl Grey {
    /// The range of the options. Without one, depth is refused: `what` names the encoding, `unit`
    /// the unit of its samples.
    pub fn new(what: &str, unit: &str, options: &PictureOptions) -> Result<Self, PictureError> {
        let Some((near, far)) = options.depth_range else {
            return Err(unsupported(
                format!("{what} is depth, not a picture"),
                format!("`PictureOptions::depth_range` (in {unit}) shows it in grey"),
            ));
        };
        let scale = 219.0 / (far - near);
        if !near.is_finite() || !far.is_finite() || !scale.is_finite() {
            return Err(unsupported(
                format!("the depth range {near}:{far} is empty"),
                "`PictureOptions::depth_range` takes two different numbers",
            ));
        }
        Ok(Self { near, scale })
    }

    /// Luma of a depth, limited range; holes (0, NaN) are black.
    fn luma(self, depth: f32) -> u8 {
        let grey = ((depth - self.near) * self.scale).clamp(0.0, 219.0);
        // NaN becomes 0 in the cast.
        if depth == 0.0 { 16 } else { 16 + (grey + 0.5) as u8 }
    }

    /// Writes a picture of the target's size: `row(y)` gives the depths of a row.
    pub fn write<I: Iterator<Item = f32>>(self, target: &mut Target<'_>, row: impl Fn(usize) -> I) {
        for (y, out) in target.luma_rows().enumerate() {
            for (out, depth) in out.iter_mut().zip(row(y)) {
                *out = self.luma(depth);
            }
        }
        target.repeat_edges();
        target.write_no_chroma();
    }
}

/// A message of `compressed_depth_image_transport`: 12 bytes of parameters, then the data.
pub(super) struct CompressedDepth<'a> {
    /// PNG or RVL.
    pub data: &'a [u8],
    /// For 32FC1 in metres the stored number is `a / depth + b`; `None`: millimetres.
    pub inverse: Option<(f32, f32)>,
}

impl<'a> CompressedDepth<'a> {
    pub fn new(format: &str, data: &'a [u8]) -> Result<Self, PictureError> {
        let short = || broken(format!("compressed depth with {} bytes has no header", data.len()));
        let float = |at: usize| Some(f32::from_le_bytes(*data.get(at..)?.first_chunk()?));
        let (a, b) = float(4).zip(float(8)).ok_or_else(short)?;
        let data = data.get(12..).filter(|data| !data.is_empty()).ok_or_else(short)?;
        let metres = format.trim_start().to_ascii_lowercase().starts_with("32fc1");
        Ok(Self { data, inverse: metres.then_some((a, b)) })
    }

    /// Converts a stored number to a depth.
    pub fn depth(&self, stored: u16) -> f32 {
        match self.inverse {
            Some((a, b)) if stored != 0 => a / (f32::from(stored) - b),
            _ => f32::from(stored),
        }
    }
}

/// Size in the header of RVL data.
pub(super) fn rvl_size(data: &[u8]) -> Result<(u32, u32), PictureError> {
    let number = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
    number(0).zip(number(4)).ok_or_else(|| broken("RVL depth without its size".into()))
}

/// Decodes RVL (run lengths of zeros and of differences, in groups of three bits) to `count`
/// numbers.
pub(super) fn rvl(data: &[u8], count: usize) -> Result<Vec<u16>, PictureError> {
    let wrong = |what: &str| broken(format!("RVL depth {what}"));
    // Words are little-endian, and their upper four bits come first.
    let words = data.get(8..).unwrap_or_default().chunks_exact(4);
    let mut nibbles = words.flat_map(|word| word.iter().rev().flat_map(|b| [b >> 4, b & 15]));
    let mut number = || -> Result<u32, PictureError> {
        let mut value = 0;
        for shift in (0..32).step_by(3) {
            let nibble = nibbles.next().ok_or_else(|| wrong("is cut off"))?;
            value |= u32::from(nibble & 7) << shift;
            if nibble & 8 == 0 {
                return Ok(value);
            }
        }
        Err(wrong("holds a number of more than 32 bits"))
    };
    let mut out = Vec::with_capacity(count);
    let mut previous = 0u16;
    while out.len() < count {
        let (zeros, values) = (number()? as usize, number()? as usize);
        if zeros.saturating_add(values) > count - out.len() {
            return Err(wrong("holds more than its size says"));
        }
        if zeros == 0 && values == 0 {
            return Err(wrong("makes no progress"));
        }
        out.resize(out.len() + zeros, 0);
        for _ in 0..values {
            let coded = number()?;
            let difference = (coded >> 1) as i32 ^ -((coded & 1) as i32);
            previous = previous.wrapping_add(difference as u16);
            out.push(previous);
        }
    }
    Ok(out)
}
