//! The orientation of a picture by its EXIF data.

use super::target::{Chroma, Target};

/// How the stored picture lies, by the numbers of EXIF, 1 to 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation(u8);

impl Orientation {
    /// As it is stored.
    pub const UPRIGHT: Self = Self(1);

    /// Reads the tag from EXIF data, which begins with the header of TIFF. Broken data has none.
    pub fn read(exif: &[u8]) -> Option<Self> {
        let big = match exif.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        let short = |at: usize| {
            let bytes = *exif.get(at..)?.first_chunk()?;
            Some(if big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
        };
        let long = *exif.get(4..)?.first_chunk()?;
        let first = if big { u32::from_be_bytes(long) } else { u32::from_le_bytes(long) };
        let directory = usize::try_from(first).ok().filter(|&at| at < exif.len())?;
        let entries = (0..usize::from(short(directory)?)).map(|n| directory + 2 + 12 * n);
        for at in entries {
            // The tag, the type (a number of 16 bits), the count, the value.
            if short(at)? == 0x112 && short(at + 2)? == 3 {
                let number = u8::try_from(short(at + 8)?).ok()?;
                return (1..=8).contains(&number).then_some(Self(number));
            }
        }
        None
    }

    /// The number of EXIF.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Whether width and height change places.
    pub fn is_sideways(self) -> bool {
        self.0 >= 5
    }

    /// Where the sample at (`x`, `y`) of the upright picture is stored; `width` and `height` are
    /// those of the stored picture.
    fn stored(self, x: usize, y: usize, width: usize, height: usize) -> (usize, usize) {
        match self.0 {
            2 => (width - 1 - x, y),
            3 => (width - 1 - x, height - 1 - y),
            4 => (x, height - 1 - y),
            5 => (y, x),
            6 => (y, height - 1 - x),
            7 => (width - 1 - y, height - 1 - x),
            8 => (width - 1 - y, x),
            _ => (x, y),
        }
    }

    /// Writes the stored picture upright. `stored` is planar.
    pub fn write(self, stored: &Target<'_>, target: &mut Target<'_>) {
        let (width, height) = (stored.width, stored.height);
        for (y, row) in target.luma_rows().enumerate() {
            for (x, out) in row.iter_mut().enumerate() {
                let (x, y) = self.stored(x, y, width, height);
                *out = stored.luma[y * stored.stride + x];
            }
        }
        target.repeat_edges();
        let Chroma::Planar(u, v) = &stored.chroma else { return };
        let (width, height) = (width.div_ceil(2), height.div_ceil(2));
        let mut rows = [vec![0; target.width.div_ceil(2)], vec![0; target.width.div_ceil(2)]];
        for y in 0..target.height.div_ceil(2) {
            for (plane, row) in [&**u, &**v].into_iter().zip(&mut rows) {
                for (x, out) in row.iter_mut().enumerate() {
                    let (x, y) = self.stored(x, y, width, height);
                    *out = plane[y * stored.chroma_stride + x];
                }
            }
            target.write_chroma_row(y, &rows[0], &rows[1]);
        }
    }
}
