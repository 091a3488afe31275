use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{EncodeError, Resolution};

/// Sample layout of the frames that encoders take. Always 8 bit, 4:2:0, limited range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PixelFormat {
    /// Three planes: Y, U, V; chroma at half width and half height.
    #[default]
    Yuv420p,
    /// Two planes: Y, and U and V interleaved; chroma at half width and half height.
    Nv12,
}

crate::names! {
    PixelFormat, "encoder.pixel_format":
    Yuv420p = "yuv420p",
    Nv12 = "nv12",
}

/// The memory in which a backend wants its frames.
///
/// The program decodes pictures on the CPU, so every frame is in memory that the CPU can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FrameMemory {
    /// Plain memory of the process.
    #[default]
    Host,
    /// Host memory that the system never moves or swaps out, so that a device can copy frames out
    /// of it by itself. It is an optimisation: if the program has no allocator for it, the backend
    /// gets [`Host`](Self::Host) memory and must take that too.
    PageLocked,
    /// Memory of the device, out of reach of the CPU. No frame can be there yet, so a backend that
    /// wants it is refused.
    Device,
}

impl FrameMemory {
    /// Whether the CPU can write this memory, so that host memory can stand in for it.
    pub const fn is_host(self) -> bool {
        match self {
            Self::Host | Self::PageLocked => true,
            Self::Device => false,
        }
    }
}

impl fmt::Display for FrameMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "host memory",
            Self::PageLocked => "page-locked memory",
            Self::Device => "device memory",
        })
    }
}

/// Where the planes of a frame lie in one block of memory.
///
/// Coded sizes are even: an odd picture is coded in the next even size, with its last column or row
/// repeated. Rows are padded to a multiple of 64 bytes, so `stride` is at least the row's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    /// Sample layout.
    pub format: PixelFormat,
    /// Coded width in pixels, even.
    pub width: u32,
    /// Coded height in pixels, even.
    pub height: u32,
    planes: [PlaneLayout; 3],
    count: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct PlaneLayout {
    offset: usize,
    stride: usize,
    row_bytes: usize,
    rows: usize,
}

const ROW_ALIGN: usize = 64;

impl FrameLayout {
    /// The layout for pictures of `size` (odd sides are rounded up to even ones).
    pub fn new(format: PixelFormat, size: Resolution) -> Self {
        let coded = size.even();
        let (w, h) = (coded.width as usize, coded.height as usize);
        let shapes: &[(usize, usize)] = match format {
            PixelFormat::Yuv420p => &[(w, h), (w / 2, h / 2), (w / 2, h / 2)],
            PixelFormat::Nv12 => &[(w, h), (w, h / 2)],
        };
        let mut planes = [PlaneLayout::default(); 3];
        let mut offset = 0;
        for (plane, &(row_bytes, rows)) in planes.iter_mut().zip(shapes) {
            let stride = row_bytes.next_multiple_of(ROW_ALIGN);
            *plane = PlaneLayout { offset, stride, row_bytes, rows };
            offset += stride * rows;
        }
        Self {
            format,
            width: coded.width,
            height: coded.height,
            planes,
            count: shapes.len(),
            bytes: offset,
        }
    }

    /// Bytes that one frame takes, padding included.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one frame without padding, as it is written to a pipe.
    pub fn packed_bytes(&self) -> usize {
        self.planes[..self.count].iter().map(|p| p.row_bytes * p.rows).sum()
    }

    /// Borrows the planes of a frame that lies in `memory`.
    ///
    /// # Panics
    /// If `memory` is shorter than [`bytes`](Self::bytes).
    pub fn frame<'a>(&self, memory: &'a [u8], index: u64) -> Frame<'a> {
        assert!(memory.len() >= self.bytes, "frame memory too short");
        let mut planes = [Plane::default(); 3];
        for (out, p) in planes.iter_mut().zip(&self.planes[..self.count]) {
            *out = Plane {
                data: &memory[p.offset..p.offset + p.stride * p.rows],
                stride: p.stride,
                row_bytes: p.row_bytes,
                rows: p.rows,
            };
        }
        Frame {
            format: self.format,
            width: self.width,
            height: self.height,
            planes,
            count: self.count,
            index,
            force_idr: false,
            is_stable: false,
        }
    }

    /// Borrows the planes of a frame in `memory` for writing: as many as the format has.
    ///
    /// # Panics
    /// If `memory` is shorter than [`bytes`](Self::bytes).
    pub fn planes_mut<'a>(&self, memory: &'a mut [u8]) -> Vec<PlaneMut<'a>> {
        assert!(memory.len() >= self.bytes, "frame memory too short");
        let mut rest = memory;
        self.planes[..self.count]
            .iter()
            .map(|p| {
                let (data, tail) = std::mem::take(&mut rest).split_at_mut(p.stride * p.rows);
                rest = tail;
                PlaneMut { data, stride: p.stride, row_bytes: p.row_bytes, rows: p.rows }
            })
            .collect()
    }
}

/// One plane of a frame: `rows` rows of `row_bytes` bytes, `stride` bytes apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plane<'a> {
    /// The samples, `stride * rows` bytes.
    pub data: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes of a row that are picture.
    pub row_bytes: usize,
    /// Number of rows.
    pub rows: usize,
}

impl<'a> Plane<'a> {
    /// The rows without their padding.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let row_bytes = self.row_bytes;
        self.data.chunks(self.stride.max(1)).take(self.rows).map(move |r| &r[..row_bytes])
    }
}

/// One plane of a frame, for writing. Fields as in [`Plane`].
#[derive(Debug)]
pub struct PlaneMut<'a> {
    /// The samples, `stride * rows` bytes.
    pub data: &'a mut [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
    /// Bytes of a row that are picture.
    pub row_bytes: usize,
    /// Number of rows.
    pub rows: usize,
}

/// A picture that an encoder reads. The encoder must not use the samples after the call, unless
/// [`is_stable`](Self::is_stable) is set.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Sample layout.
    pub format: PixelFormat,
    /// Coded width in pixels, even.
    pub width: u32,
    /// Coded height in pixels, even.
    pub height: u32,
    planes: [Plane<'a>; 3],
    count: usize,
    /// Number of this frame, counted from 0 without gaps; becomes the `pts` of its chunk.
    pub index: u64,
    /// Makes this frame an IDR picture, also in the middle of a GOP. Only for an encoder that
    /// [can do that](crate::VideoEncoder::can_force_idr), or at the beginning of a GOP.
    pub force_idr: bool,
    /// The samples do not change until the access unit of this frame is out, so the encoder may
    /// share them with another process instead of copying them. If this is set and the samples
    /// change earlier, pictures are wrong.
    pub is_stable: bool,
}

impl<'a> Frame<'a> {
    /// The frame 0 of coded `size` in planes that lie apart: for each plane of the format the
    /// samples and the stride in bytes. `None` if the number of planes is wrong, or a plane is too
    /// short.
    pub fn from_planes(
        format: PixelFormat,
        size: Resolution,
        samples: &[(&'a [u8], usize)],
    ) -> Option<Self> {
        let layout = FrameLayout::new(format, size);
        if samples.len() != layout.count || size != size.even() {
            return None;
        }
        let mut planes = [Plane::default(); 3];
        for ((out, shape), &(data, stride)) in planes.iter_mut().zip(&layout.planes).zip(samples) {
            let least = stride * shape.rows.saturating_sub(1) + shape.row_bytes;
            if stride < shape.row_bytes || data.len() < least {
                return None;
            }
            let (row_bytes, rows) = (shape.row_bytes, shape.rows);
            *out = Plane { data, stride, row_bytes, rows };
        }
        Some(Self {
            format,
            width: layout.width,
            height: layout.height,
            planes,
            count: layout.count,
            index: 0,
            force_idr: false,
            is_stable: false,
        })
    }

    /// The planes: Y, U, V or Y, UV.
    pub fn planes(&self) -> &[Plane<'a>] {
        &self.planes[..self.count]
    }

    /// Checks that the frame has the format and the coded size for which the encoder was opened.
    ///
    /// # Errors
    /// [`EncodeError::Mismatch`] if it does not.
    pub fn check(&self, format: PixelFormat, size: Resolution) -> Result<(), EncodeError> {
        let Resolution { width, height } = size;
        if (self.format, self.width, self.height) == (format, width, height) {
            return Ok(());
        }
        Err(EncodeError::Mismatch {
            index: self.index,
            got_format: self.format,
            got_width: self.width,
            got_height: self.height,
            format,
            width,
            height,
        })
    }

    /// The same frame, to be coded as an IDR picture.
    pub fn with_idr(mut self) -> Self {
        self.force_idr = true;
        self
    }

    /// The same frame, marked as [`is_stable`](Self::is_stable).
    pub fn stable(mut self) -> Self {
        self.is_stable = true;
        self
    }

    /// Writes the frame's samples without padding, plane after plane, to `out`.
    pub fn append_packed(&self, out: &mut Vec<u8>) {
        for row in self.planes().iter().flat_map(Plane::rows) {
            out.extend_from_slice(row);
        }
    }
}

/// The rows of a plane for writing, without padding.
fn plane_rows<'p>(plane: &'p mut PlaneMut<'_>) -> impl Iterator<Item = &'p mut [u8]> {
    let row_bytes = plane.row_bytes;
    plane.data.chunks_mut(plane.stride).map(move |row| &mut row[..row_bytes])
}

/// A frame with memory of its own: for probes, tests and repeated pictures.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    layout: FrameLayout,
    memory: Vec<u8>,
}

impl FrameBuffer {
    /// A frame of zeros.
    pub fn new(layout: FrameLayout) -> Self {
        Self { layout, memory: vec![0; layout.bytes()] }
    }

    /// A picture in which decoding faults show, and which differs from one `index` to the next: a
    /// ramp that moves and jumps under a fine check pattern, with other values in U and V.
    pub fn test_picture(layout: FrameLayout, index: u64) -> Self {
        let mut frame = Self::new(layout);
        let shift = index as usize * 4;
        for (n, plane) in layout.planes_mut(&mut frame.memory).into_iter().enumerate() {
            for (y, row) in plane.data.chunks_mut(plane.stride).enumerate() {
                for (x, sample) in row[..plane.row_bytes].iter_mut().enumerate() {
                    // U and V differ, so that a swap shows: the same picture in both formats.
                    let chroma = |x: usize, v: usize| 96 + ((x / 16 + y / 16 + v * 16) % 64) as u8;
                    *sample = match (n, layout.format) {
                        (0, _) => {
                            let ramp = ((x + shift) / 8 + y / 8 + index as usize * 24) % 168;
                            let check = (x / 2 + y / 2) % 2 * 24;
                            (32 + ramp + check) as u8
                        }
                        (n, PixelFormat::Yuv420p) => chroma(x, n - 1),
                        (_, PixelFormat::Nv12) => chroma(x / 2, x % 2),
                    };
                }
            }
        }
        frame
    }

    /// Copies the picture of `frame`, which has the same size, and converts its format.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn copy_from(&mut self, frame: &Frame<'_>) {
        let layout = self.layout;
        assert_eq!((layout.width, layout.height), (frame.width, frame.height), "sizes differ");
        let mut to = layout.planes_mut(&mut self.memory);
        let from = frame.planes();
        let rows = |to: &mut PlaneMut<'_>, from: &Plane<'_>| {
            plane_rows(to).zip(from.rows()).for_each(|(to, from)| to.copy_from_slice(from));
        };
        match (layout.format, frame.format, to.as_mut_slice(), from) {
            (PixelFormat::Nv12, PixelFormat::Yuv420p, [y, uv], [from_y, from_u, from_v]) => {
                rows(y, from_y);
                for ((to, u), v) in plane_rows(uv).zip(from_u.rows()).zip(from_v.rows()) {
                    for ((pair, &u), &v) in to.chunks_exact_mut(2).zip(u).zip(v) {
                        pair.copy_from_slice(&[u, v]);
                    }
                }
            }
            (PixelFormat::Yuv420p, PixelFormat::Nv12, [y, u, v], [from_y, from_uv]) => {
                rows(y, from_y);
                for ((to_u, to_v), from) in plane_rows(u).zip(plane_rows(v)).zip(from_uv.rows()) {
                    for ((u, v), pair) in to_u.iter_mut().zip(to_v).zip(from.chunks_exact(2)) {
                        (*u, *v) = (pair[0], pair[1]);
                    }
                }
            }
            // The same format.
            (_, _, to, from) => to.iter_mut().zip(from).for_each(|(to, from)| rows(to, from)),
        }
    }

    /// The layout.
    pub fn layout(&self) -> &FrameLayout {
        &self.layout
    }

    /// The whole memory, padding included.
    pub fn memory(&self) -> &[u8] {
        &self.memory
    }

    /// The whole memory for writing, padding included.
    pub fn memory_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }

    /// The frame as an encoder sees it.
    pub fn frame(&self, index: u64) -> Frame<'_> {
        self.layout.frame(&self.memory, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_pad_rows_and_round_odd_sizes_up() {
        let table = [
            (PixelFormat::Yuv420p, (640, 480), (640, 480), 640 * 480 * 3 / 2),
            (PixelFormat::Yuv420p, (641, 479), (642, 480), 642 * 480 * 3 / 2),
            (PixelFormat::Nv12, (848, 481), (848, 482), 848 * 482 * 3 / 2),
            (PixelFormat::Yuv420p, (1, 1), (2, 2), 6),
        ];
        for (format, (w, h), coded, packed) in table {
            let layout = FrameLayout::new(format, Resolution::new(w, h));
            assert_eq!((layout.width, layout.height), coded);
            assert_eq!(layout.packed_bytes(), packed);
            let buffer = FrameBuffer::test_picture(layout, 3);
            let frame = buffer.frame(7);
            assert_eq!(frame.index, 7);
            for plane in frame.planes() {
                assert_eq!(plane.stride % ROW_ALIGN, 0);
                assert_eq!(plane.rows().count(), plane.rows);
            }
            let mut out = Vec::new();
            frame.append_packed(&mut out);
            assert_eq!(out.len(), packed);
        }
    }

    #[test]
    fn reading_and_writing_planes_agree() {
        let layout = FrameLayout::new(PixelFormat::Nv12, Resolution::new(70, 20));
        let mut memory = vec![0; layout.bytes()];
        for (n, plane) in layout.planes_mut(&mut memory).into_iter().enumerate() {
            plane.data.fill(n as u8 + 1);
        }
        let frame = layout.frame(&memory, 0);
        assert!(frame.planes()[0].data.iter().all(|&b| b == 1));
        assert!(frame.planes()[1].data.iter().all(|&b| b == 2));
        assert_eq!(frame.planes().len(), 2);
    }

    #[test]
    fn a_picture_changes_its_format_and_back() {
        for (from, to) in [
            (PixelFormat::Yuv420p, PixelFormat::Nv12),
            (PixelFormat::Nv12, PixelFormat::Yuv420p),
            (PixelFormat::Nv12, PixelFormat::Nv12),
        ] {
            let layout = |format| FrameLayout::new(format, Resolution::new(322, 178));
            let mut copy = FrameBuffer::new(layout(to));
            copy.copy_from(&FrameBuffer::test_picture(layout(from), 3).frame(0));
            assert_eq!(
                copy.memory(),
                FrameBuffer::test_picture(layout(to), 3).memory(),
                "{from} {to}"
            );
        }
    }
}
