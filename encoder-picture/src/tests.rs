#![allow(clippy::unwrap_used)]

mod depth;
mod format;
mod jpeg;
mod png;
mod raw;

use encoder_core::{FrameBuffer, PixelFormat};

use super::*;

const FORMATS: [PixelFormat; 2] = [PixelFormat::Yuv420p, PixelFormat::Nv12];
const SIZES: [(usize, usize); 6] = [(641, 479), (1, 1), (3, 5), (2, 1), (1, 4), (848, 480)];

/// A picture in RGB, from which everything else is made.
#[derive(Clone)]
struct Scene {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Scene {
    fn new(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        let pixels = (0..width * height).map(|i| pixel(i % width, i / width)).collect();
        Self { width, height, pixels }
    }

    /// Six flat patches above a gradient.
    fn patches(width: usize, height: usize) -> Self {
        const COLOURS: [[u8; 3]; 6] =
            [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]];
        Self::new(width, height, |x, y| match 2 * y < height {
            true => COLOURS[x * 6 / width],
            false => [(x * 255 / width) as u8, (y * 255 / height) as u8, (x * 31 + y * 17) as u8],
        })
    }

    /// Slow changes only, so that coarse chroma and DCT do no harm.
    fn smooth(width: usize, height: usize) -> Self {
        Self::new(width, height, |x, y| {
            let (r, g) = (x * 255 / width, y * 255 / height);
            [r as u8, g as u8, (255 - (r + g) / 2) as u8]
        })
    }

    fn at(&self, x: usize, y: usize) -> [f64; 3] {
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        self.pixels[y * self.width + x].map(f64::from)
    }

    /// The mean of `w`×`h` pixels, the edges of the picture repeated to even sizes.
    fn mean(&self, x: usize, y: usize, w: usize, h: usize) -> [f64; 3] {
        let mut sum = [0.0; 3];
        for (x, y) in (0..w * h).map(|i| (x + i % w, y + i / w)) {
            self.at(x, y).iter().zip(&mut sum).for_each(|(v, sum)| *sum += v);
        }
        sum.map(|v| v / (w * h) as f64)
    }

    fn bytes(&self, pixel: impl Fn([u8; 3]) -> Vec<u8>) -> Vec<u8> {
        self.pixels.iter().flat_map(|&p| pixel(p)).collect()
    }
}

/// Y, Cb, Cr by the definition of BT.601, limited range.
fn bt601([r, g, b]: [f64; 3]) -> [f64; 3] {
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    [
        16.0 + y * 219.0 / 255.0,
        128.0 + (b - y) / 1.772 * 224.0 / 255.0,
        128.0 + (r - y) / 1.402 * 224.0 / 255.0,
    ]
}

/// A decoded frame in three tight planes, Y, U and V.
struct Decoded {
    width: usize,
    height: usize,
    planes: [Vec<u8>; 3],
}

impl Decoded {
    fn at(&self, plane: usize, x: usize, y: usize) -> u8 {
        self.planes[plane][y * if plane == 0 { self.width } else { self.width / 2 } + x]
    }

    /// Largest distance to the scene in each plane; the chroma sample for which `skip` says so is
    /// left out.
    fn distance(&self, scene: &Scene, skip: impl Fn(usize, usize, usize) -> bool) -> [f64; 3] {
        let mut worst = [0.0f64; 3];
        for (plane, worst) in worst.iter_mut().enumerate() {
            let n = if plane == 0 { 1 } else { 2 };
            for y in 0..self.height / n {
                for x in (0..self.width / n).filter(|&x| !skip(plane, x, y)) {
                    let expected = bt601(scene.mean(x * n, y * n, n, n))[plane];
                    let found = f64::from(self.at(plane, x, y));
                    *worst = worst.max((expected - found).abs());
                }
            }
        }
        worst
    }
}

fn decode_as(
    format: PixelFormat,
    payload: &Payload,
    options: &PictureOptions,
) -> Result<Decoded, PictureError> {
    let layout = FrameLayout::new(format, size(payload, options)?);
    let mut frame = FrameBuffer::new(layout);
    frame.memory_mut().fill(0x5a);
    decode(payload, options, &layout, frame.memory_mut())?;
    let frame = frame.frame(0);
    for plane in frame.planes() {
        let mut padding = plane.data.chunks(plane.stride).flat_map(|row| &row[plane.row_bytes..]);
        assert!(padding.all(|&v| v == 0x5a), "row padding was written");
    }
    let mut planes: Vec<Vec<u8>> =
        frame.planes().iter().map(|p| p.rows().flatten().copied().collect()).collect();
    if format == PixelFormat::Nv12 {
        let pairs = planes.pop().unwrap();
        planes.push(pairs.iter().step_by(2).copied().collect());
        planes.push(pairs.iter().skip(1).step_by(2).copied().collect());
    }
    let planes = planes.try_into().unwrap();
    Ok(Decoded { width: layout.width as usize, height: layout.height as usize, planes })
}

/// Decodes into both formats, which must agree.
fn decode_both(payload: &Payload, options: &PictureOptions) -> Result<Decoded, PictureError> {
    let [planar, interleaved] = FORMATS.map(|format| decode_as(format, payload, options));
    match (planar, interleaved) {
        (Ok(one), Ok(other)) => {
            assert!(one.planes == other.planes, "yuv420p and nv12 differ");
            Ok(one)
        }
        (one, other) => {
            assert_eq!(one.as_ref().err(), other.as_ref().err());
            one
        }
    }
}

fn compressed(format: &str, data: Vec<u8>) -> Payload {
    Payload::Compressed { format: format.into(), data: data.into() }
}

fn error(payload: &Payload, options: &PictureOptions) -> String {
    match size(payload, options) {
        Ok(size) => panic!("{size} was taken"),
        Err(PictureError::Broken(reason)) => format!("broken: {reason}"),
        Err(PictureError::Malformed { reason, .. }) => format!("malformed: {reason}"),
        Err(error) => format!("unsupported: {error}"),
    }
}

#[test]
fn refusals() {
    let options = PictureOptions::default();
    let table = [
        ("jpeg", &b""[..], "broken: the message holds no picture data"),
        ("jpeg", &[0; 100], "broken: neither JPEG nor PNG: the data starts with 00 00 00 00"),
        ("", b"xyz", "broken: neither"),
        ("webp", b"RIFF1234WEBPVP8 ", "unsupported: WebP"),
        ("jpeg", b"BM123456", "unsupported: BMP"),
        ("avif", b"\0\0\0\x1cftypavif", "unsupported: HEIF or AVIF"),
        ("tga", b"abcdefgh", "unsupported: the format `tga`"),
        ("16UC1; compressedDepth png", &[0; 30], "unsupported: `16UC1; compressedDepth png` is"),
        ("jpeg", b"\xff\xd8", "broken: the JPEG ends after 2 bytes, in its header"),
        ("jpeg", b"\xff\xd8\xff\xd9", "broken: the JPEG has no picture in it"),
        ("png", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0", "broken: the PNG has no header"),
        (
            "png",
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0",
            "broken: 60000x60000 is more than the limit of 134217728 pixels (`--max-pixels`)",
        ),
        (
            "jpeg",
            b"\xff\xd8\xff\xff\xc0\0\x11\x08\0\0\0\x10\x03",
            "broken: a picture of 16x0 has no pixels",
        ),
        ("jpeg", b"\xff\xd8\xff\xc3\0\x11\x08\0\x10\0\x10\x03", "unsupported: lossless JPEG"),
        ("jpeg", b"\xff\xd8\xff\xc1\0\x11\x0c\0\x10\0\x10\x03", "unsupported: 12-bit JPEG"),
        ("jpeg", b"\xff\xd8\xff\xc9\0\x11\x08\0\x10\0\x10\x03", "unsupported: arithmetic-coded"),
    ];
    for (format, data, expected) in table {
        let found = error(&compressed(format, data.to_vec()), &options);
        assert!(found.starts_with(expected), "{format} {data:x?}: {found}");
    }
    let video = Payload::Video { format: "h264".into(), data: vec![0, 0, 1].into() };
    assert!(error(&video, &options).contains("h264 is a video stream, not a picture"));
}

#[test]
fn a_frame_of_another_size_is_refused() {
    let payload = raw::image("mono8", 6, 4, 0, vec![0; 24]);
    let layout = FrameLayout::new(PixelFormat::Nv12, Resolution::new(4, 4));
    let mut memory = vec![0; layout.bytes()];
    let error = decode(&payload, &PictureOptions::default(), &layout, &mut memory).unwrap_err();
    let (size, frame) = (Resolution::new(6, 4), Resolution::new(4, 4));
    assert_eq!(error, PictureError::Size { size, frame });
    assert_eq!(error.to_string(), "the picture has 6x4 pixels, the frame 4x4");
    let layout = FrameLayout::new(PixelFormat::Nv12, Resolution::new(6, 4));
    let mut memory = vec![0; layout.bytes() - 1];
    assert!(decode(&payload, &PictureOptions::default(), &layout, &mut memory).is_err());
}

/// What [`check`] finds in a picture for a frame of 16x16.
#[test]
fn a_picture_that_can_never_fit_is_found_without_decoding() {
    let layout = FrameLayout::new(PixelFormat::Yuv420p, Resolution::new(16, 16));
    let raw = |encoding, width, step, bytes| raw::image(encoding, width, 16, step, vec![0; bytes]);
    let jpeg = |data: &[u8]| compressed("jpeg", data.to_vec());
    let header = |width: u8| {
        let sizes = [0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0, 16, 0, width, 3];
        let components = [1, 0x11, 0, 2, 0x11, 1, 3, 0x11, 1];
        let scan = [0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0];
        jpeg(&[&sizes[..], &components, &scan].concat())
    };
    let video = Payload::Video { format: "h264".into(), data: vec![0, 0, 1].into() };
    // picture | the error, `None`: it passes | a part of its text
    let table: [(Payload, Option<&str>, &str); 13] = [
        (raw("rgb8", 16, 48, 768), None, ""),
        (raw("rgb24", 15, 0, 768), None, ""),
        (raw("rgb8", 14, 0, 768), Some("size"), "the picture has 14x16 pixels, the frame 16x16"),
        (raw("rgb8", 16, 48, 767), Some("malformed"), "needs 768 bytes, the message has 767"),
        (raw("rgb8", 16, 47, 999), Some("malformed"), "has 48 bytes, the step is only 47"),
        (raw("rgb8", 0, 48, 999), Some("malformed"), "has no pixels"),
        (raw("rgb8", 16, 48, 0), Some("malformed"), "holds no picture data"),
        (raw("rgb", 16, 48, 768), Some("unsupported"), "the encoding `rgb` is not known"),
        (raw("16UC1", 16, 32, 512), Some("unsupported"), "16UC1 is depth"),
        (header(16), None, ""),
        (header(32), Some("size"), "the picture has 32x16 pixels"),
        (compressed("webp", b"RIFF1234WEBPVP8 ".to_vec()), Some("unsupported"), "WebP"),
        (video, Some("unsupported"), "h264 is a video stream"),
    ];
    let options = PictureOptions::default();
    for (payload, kind, text) in table {
        let found = check(&payload, &options, &layout).err();
        let found_kind = found.as_ref().map(|error| match error {
            PictureError::Unsupported { .. } => "unsupported",
            PictureError::Malformed { .. } => "malformed",
            PictureError::Size { .. } => "size",
            PictureError::Broken(_) => "broken",
        });
        assert_eq!(found_kind, kind, "{payload:?}");
        if let Some(error) = found {
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.hint().is_some(), "{error}");
        }
    }
    // Damaged pictures pass, whatever is wrong with them.
    for data in [&b""[..], b"\xff\xd8", b"\xff\xd8\xff\xd9", b"no picture"] {
        assert_eq!(check(&jpeg(data), &options, &layout), Ok(()), "{data:x?}");
    }
}
