use encoder_core::{FrameLayout, PixelFormat, PlaneMut, Resolution};

use super::{Clipped, PictureError, broken, check_fits};

/// The planes of the frame that receives a picture. A picture of odd size leaves the last column or
/// row to [`repeat_edges`](Self::repeat_edges). Row padding is never written.
pub(super) struct Target<'a> {
    /// Pixels in a row of the picture.
    pub width: usize,
    /// Rows of the picture.
    pub height: usize,
    /// `stride * height` bytes, one row more when the height is odd.
    pub luma: &'a mut [u8],
    /// Bytes from one row of luma to the next.
    pub stride: usize,
    /// Chroma; half the size, rounded up.
    pub chroma: Chroma<'a>,
    /// Bytes from one row of chroma to the next.
    pub chroma_stride: usize,
    /// The values that were shown as white.
    pub clipped: Option<Clipped>,
}

/// The chroma planes, as the pixel format has them.
pub(super) enum Chroma<'a> {
    Planar(&'a mut [u8], &'a mut [u8]),
    Interleaved(&'a mut [u8]),
}

impl<'a> Target<'a> {
    /// The frame in `memory`, for a picture of `size`.
    pub fn new(
        layout: &FrameLayout,
        memory: &'a mut [u8],
        size: Resolution,
    ) -> Result<Self, PictureError> {
        check_fits(size, layout)?;
        if memory.len() < layout.bytes() {
            let (have, need) = (memory.len(), layout.bytes());
            return Err(broken(format!("the frame needs {need} bytes, its memory has {have}")));
        }
        let wrong = || broken(format!("a frame of {} has other planes", layout.format));
        let mut planes = layout.planes_mut(memory).into_iter();
        let mut plane = || planes.next().ok_or_else(wrong);
        let PlaneMut { data: luma, stride, .. } = plane()?;
        let first = plane()?;
        let chroma_stride = first.stride;
        let chroma = match layout.format {
            PixelFormat::Yuv420p => Chroma::Planar(first.data, plane()?.data),
            PixelFormat::Nv12 => Chroma::Interleaved(first.data),
            other => return Err(broken(format!("frames of {other} cannot be written yet"))),
        };
        let (width, height) = (size.width as usize, size.height as usize);
        Ok(Self { width, height, luma, stride, chroma, chroma_stride, clipped: None })
    }

    /// The rows from `first`, which is even, to `first + height` as a picture of their own.
    pub fn band(&mut self, first: usize, height: usize) -> Target<'_> {
        let rows = height.next_multiple_of(2);
        let of_chroma = first / 2 * self.chroma_stride..(first + rows) / 2 * self.chroma_stride;
        Target {
            width: self.width,
            height,
            luma: &mut self.luma[first * self.stride..(first + rows) * self.stride],
            stride: self.stride,
            chroma: match &mut self.chroma {
                Chroma::Planar(u, v) => {
                    Chroma::Planar(&mut u[of_chroma.clone()], &mut v[of_chroma])
                }
                Chroma::Interleaved(uv) => Chroma::Interleaved(&mut uv[of_chroma]),
            },
            chroma_stride: self.chroma_stride,
            clipped: None,
        }
    }

    /// The picture's rows of luma.
    pub fn luma_rows(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let width = self.width;
        self.luma.chunks_mut(self.stride).take(self.height).map(move |row| &mut row[..width])
    }

    /// Writes one row of chroma; both slices have half the width, rounded up.
    pub fn write_chroma_row(&mut self, row: usize, u: &[u8], v: &[u8]) {
        let start = row * self.chroma_stride;
        match &mut self.chroma {
            Chroma::Planar(to_u, to_v) => {
                to_u[start..start + u.len()].copy_from_slice(u);
                to_v[start..start + v.len()].copy_from_slice(v);
            }
            Chroma::Interleaved(uv) => {
                let pairs = uv[start..start + 2 * u.len()].chunks_exact_mut(2);
                for ((pair, &u), &v) in pairs.zip(u).zip(v) {
                    // One by one: a copy of the pair is not vectorised.
                    pair[0] = u;
                    pair[1] = v;
                }
            }
        }
    }

    /// Makes the picture grey.
    pub fn write_no_chroma(&mut self) {
        let width = self.width.div_ceil(2);
        let fill = |plane: &mut [u8], width| {
            plane.chunks_mut(self.chroma_stride).for_each(|row| row[..width].fill(128));
        };
        match &mut self.chroma {
            Chroma::Planar(u, v) => {
                fill(u, width);
                fill(v, width);
            }
            Chroma::Interleaved(uv) => fill(uv, 2 * width),
        }
    }

    /// Repeats the last column and row of luma where the size is odd. Chroma has none left over.
    pub fn repeat_edges(&mut self) {
        let (width, height, stride) = (self.width, self.height, self.stride);
        if width % 2 == 1 {
            for row in self.luma.chunks_mut(stride).take(height) {
                row[width] = row[width - 1];
            }
        }
        if height % 2 == 1 {
            let last = (height - 1) * stride;
            self.luma.copy_within(last..last + width.next_multiple_of(2), last + stride);
        }
    }

    /// All samples, without padding.
    pub fn packed(&self) -> Vec<u8> {
        let width = self.width.next_multiple_of(2);
        let rows = |plane: &[u8], stride, width| {
            plane.chunks(stride).flat_map(|row| row[..width].to_vec()).collect::<Vec<_>>()
        };
        let mut all = rows(self.luma, self.stride, width);
        match &self.chroma {
            Chroma::Planar(u, v) => {
                all.extend(rows(u, self.chroma_stride, width / 2));
                all.extend(rows(v, self.chroma_stride, width / 2));
            }
            Chroma::Interleaved(uv) => all.extend(rows(uv, self.chroma_stride, width)),
        }
        all
    }
}
