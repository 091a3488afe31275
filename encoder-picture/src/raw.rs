//! Uncompressed pictures, by the names that ROS and Foxglove give to their encodings, and by those of
//! FFmpeg.

use bytes::Bytes;
use encoder_core::{FrameLayout, PixelFormat, Resolution};

use super::{
    PictureError, PictureOptions, bayer, check_size,
    depth::Grey,
    planar::{Planar, Samples},
    rgb::{self, Order},
    target::Target,
    unsupported,
    wide::Wide,
};
use encoder_media::RawImage;

/// How the samples of an encoding lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rgb(Order),
    /// Grey of 1 or 2 bytes; of two, the high byte or the upper 8 bits in use are shown.
    Grey(usize),
    /// Millimetres (1 or 2 bytes) or metres (4 bytes).
    Depth(usize),
    /// A mosaic of samples of 1 or 2 bytes, used as those of grey.
    Bayer(bayer::Pattern, usize),
    /// Two pixels in four bytes: where Y, U and V are first. Limited range.
    Packed422([usize; 3]),
    /// Planes: pixels per sample of chroma (across, down), how chroma lies, and the range.
    Planes {
        across: usize,
        down: usize,
        chroma: Chroma,
        full_range: bool,
    },
}

/// How chroma lies behind the plane of luma.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    /// A plane of U, a plane of V.
    UThenV,
    /// A plane of V, a plane of U.
    VThenU,
    /// One plane of pairs.
    UvPairs,
    /// One plane of pairs, V first.
    VuPairs,
}

const fn bayer(red_x: usize, red_y: usize, bytes: usize) -> Kind {
    Kind::Bayer(bayer::Pattern { red_x, red_y }, bytes)
}

const fn planes(across: usize, down: usize, chroma: Chroma, full_range: bool) -> Kind {
    Kind::Planes { across, down, chroma, full_range }
}

const UYVY: Kind = Kind::Packed422([1, 0, 2]);
const YUYV: Kind = Kind::Packed422([0, 1, 3]);
const I420: Kind = planes(2, 2, Chroma::UThenV, false);

/// Every encoding that is known; the case of letters does not count.
const ENCODINGS: &[(&str, Kind)] = &[
    ("rgb8", Kind::Rgb(Order::Rgb)),
    ("bgr8", Kind::Rgb(Order::Bgr)),
    ("rgba8", Kind::Rgb(Order::Rgba)),
    ("bgra8", Kind::Rgb(Order::Bgra)),
    ("mono8", Kind::Grey(1)),
    ("mono16", Kind::Grey(2)),
    ("8UC1", Kind::Grey(1)),
    ("8UC3", Kind::Rgb(Order::Bgr)),
    ("8UC4", Kind::Rgb(Order::Bgra)),
    ("16UC1", Kind::Depth(2)),
    ("32FC1", Kind::Depth(4)),
    ("bayer_rggb8", bayer(0, 0, 1)),
    ("bayer_bggr8", bayer(1, 1, 1)),
    ("bayer_gbrg8", bayer(0, 1, 1)),
    ("bayer_grbg8", bayer(1, 0, 1)),
    ("bayer_rggb16", bayer(0, 0, 2)),
    ("bayer_bggr16", bayer(1, 1, 2)),
    ("bayer_gbrg16", bayer(0, 1, 2)),
    ("bayer_grbg16", bayer(1, 0, 2)),
    ("yuv422", UYVY),
    ("uyvy", UYVY),
    ("yuv422_yuy2", YUYV),
    ("yuyv", YUYV),
    ("yuy2", YUYV),
    ("nv12", planes(2, 2, Chroma::UvPairs, false)),
    ("nv21", planes(2, 2, Chroma::VuPairs, false)),
    ("nv16", planes(2, 1, Chroma::UvPairs, false)),
    ("nv24", planes(1, 1, Chroma::UvPairs, false)),
    ("i420", I420),
    ("yuv420p", I420),
    ("yv12", planes(2, 2, Chroma::VThenU, false)),
    ("i422", planes(2, 1, Chroma::UThenV, false)),
    ("i444", planes(1, 1, Chroma::UThenV, false)),
    ("i420_full", planes(2, 2, Chroma::UThenV, true)),
    ("i422_full", planes(2, 1, Chroma::UThenV, true)),
    ("i444_full", planes(1, 1, Chroma::UThenV, true)),
];

/// Names of pixel formats in FFmpeg, with the names in the table above of the encodings that have the
/// same bytes.
const SYNONYMS: &[(&str, &str)] = &[
    ("rgb24", "rgb8"),
    ("bgr24", "bgr8"),
    ("rgba", "rgba8"),
    ("bgra", "bgra8"),
    ("gray", "mono8"),
    ("gray8", "mono8"),
    ("yuyv422", "yuv422_yuy2"),
    ("uyvy422", "yuv422"),
    ("yuv422p", "i422"),
    ("yuv444p", "i444"),
    ("yuvj420p", "i420_full"),
    ("yuvj422p", "i422_full"),
    ("yuvj444p", "i444_full"),
];

/// The encoding with this name or synonym: its name in the table above, and its kind.
fn encoding(name: &str) -> Option<(&'static str, Kind)> {
    let is_same = |known: &str| known.eq_ignore_ascii_case(name);
    let synonym = SYNONYMS.iter().find(|(synonym, _)| is_same(synonym));
    let is_known = |known: &str| synonym.map_or(is_same(known), |(_, name)| *name == known);
    ENCODINGS.iter().copied().find(|(known, _)| is_known(known))
}

/// The layout of a picture's bytes, checked before a sample is read.
struct Layout {
    kind: Kind,
    size: Resolution,
    /// Bytes from one row of the first plane to the next.
    stride: usize,
    /// Bytes from one row of chroma to the next, where chroma has planes of its own.
    chroma_stride: usize,
}

/// Size of a picture, after every check that needs no samples.
pub(super) fn size(image: &RawImage, options: &PictureOptions) -> Result<Resolution, PictureError> {
    Ok(layout(image, options)?.size)
}

fn layout(image: &RawImage, options: &PictureOptions) -> Result<Layout, PictureError> {
    if image.data.is_empty() && image.width > 0 && image.height > 0 {
        return Err(malformed("the message holds no picture data", DATA_HINT));
    }
    let size = check_size(image.width, image.height, options)
        .map_err(|error| malformed(error.to_string(), SIZE_HINT))?;
    let name = image.encoding.trim();
    let Some((name, kind)) = encoding(name) else {
        let all: Vec<_> = ENCODINGS.iter().map(|(name, _)| *name).collect();
        return Err(unsupported(
            format!("the encoding `{name}` is not known"),
            format!("known are {}", all.join(", ")),
        ));
    };
    let kind = match kind {
        Kind::Grey(bytes) if options.is_depth => Kind::Depth(bytes),
        Kind::Depth(_) => kind,
        _ if options.is_depth => return Err(no_depth(name)),
        _ => kind,
    };
    if let Kind::Depth(bytes) = kind {
        Grey::new(name, unit(bytes), options)?;
    }
    // Wide enough for every product, whatever limit on pixels a user has asked for.
    let (width, height) = (u128::from(size.width), u128::from(size.height));
    let row_bytes = match kind {
        Kind::Rgb(order) => width * order.bytes() as u128,
        Kind::Grey(bytes) | Kind::Depth(bytes) | Kind::Bayer(_, bytes) => width * bytes as u128,
        Kind::Packed422(_) => width * 2,
        Kind::Planes { .. } => width,
    };
    let stride = match u128::from(image.step) {
        0 => row_bytes,
        step if step < row_bytes => {
            let reason = format!(
                "a row of {width} pixels {name} has {row_bytes} bytes, the step is only {step}"
            );
            return Err(malformed(reason, STEP_HINT));
        }
        step => step,
    };
    let mut need = (height - 1) * stride + row_bytes;
    let mut chroma_stride = 0;
    if let Kind::Planes { across, down, chroma, .. } = kind {
        let (across, down) = (across as u128, down as u128);
        let (samples, rows) = (width.div_ceil(across), height.div_ceil(down));
        let row = |samples| samples * u128::from(chroma.sample_bytes());
        chroma_stride = row(stride.div_ceil(across));
        let chroma_rows = rows * (2 / u128::from(chroma.sample_bytes()));
        need = height * stride + (chroma_rows - 1) * chroma_stride + row(samples);
    }
    let have = image.data.len() as u128;
    if have < need {
        let reason = format!("{size} {name} needs {need} bytes, the message has {have}");
        return Err(malformed(reason, DATA_HINT));
    }
    Ok(Layout { kind, size, stride: stride as usize, chroma_stride: chroma_stride as usize })
}

const SIZE_HINT: &str = "`width` and `height` are the size of the picture in pixels";
const STEP_HINT: &str = "`step` is the number of bytes from one row to the next, or 0 for rows \
                         without padding";
const DATA_HINT: &str = "check that `encoding`, `width`, `height` and `step` describe `data`";

fn malformed(reason: impl Into<String>, hint: &str) -> PictureError {
    PictureError::Malformed { reason: reason.into(), hint: hint.into() }
}

/// The error for pictures that are said to be depth, and cannot be.
pub(super) fn no_depth(what: &str) -> PictureError {
    unsupported(
        format!("{what} is said to be depth, and holds none"),
        "depth is grey of one channel: mono16, 16UC1, 32FC1, or PNG of 16 bits",
    )
}

/// The pattern of a Bayer encoding; `None` for other encodings.
pub(super) fn bayer_pattern(name: &str) -> Option<bayer::Pattern> {
    if let Kind::Bayer(pattern, _) = encoding(name)?.1 { Some(pattern) } else { None }
}

/// Whether an encoding has several channels of colour.
pub(super) fn is_colour(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["rgb", "bgr"].iter().any(|start| name.starts_with(start))
}

/// Passes on the samples of a picture that has samples of 16 bits and is no depth.
pub(super) fn with_wide<R>(
    image: &RawImage,
    options: &PictureOptions,
    use_samples: impl FnOnce(Wide<'_>) -> R,
) -> Option<R> {
    let layout = layout(image, options).ok()?;
    let (Kind::Grey(2) | Kind::Bayer(_, 2)) = layout.kind else { return None };
    Some(use_samples(wide(image, &layout)))
}

fn wide<'a>(image: &'a RawImage, layout: &Layout) -> Wide<'a> {
    Wide {
        data: &image.data,
        stride: layout.stride,
        step: 2,
        width: layout.size.width as usize,
        height: layout.size.height as usize,
        is_bigendian: image.is_bigendian,
    }
}

impl Chroma {
    /// Bytes from one sample to the next.
    const fn sample_bytes(self) -> u8 {
        match self {
            Self::UThenV | Self::VThenU => 1,
            Self::UvPairs | Self::VuPairs => 2,
        }
    }
}

const fn unit(bytes: usize) -> &'static str {
    if bytes == 4 { "metres" } else { "millimetres" }
}

/// The bytes of a picture that has this layout as it is.
pub(super) fn ready(
    image: &RawImage,
    options: &PictureOptions,
    target: &FrameLayout,
) -> Option<Bytes> {
    let Layout { kind, size, stride, .. } = layout(image, options).ok()?;
    let chroma = match target.format {
        PixelFormat::Yuv420p => Chroma::UThenV,
        PixelFormat::Nv12 => Chroma::UvPairs,
        _ => return None,
    };
    let is_packed = stride == size.width as usize && target.packed_bytes() == target.bytes();
    let is_same = kind == planes(2, 2, chroma, false)
        && (size.width, size.height) == (target.width, target.height);
    (is_packed && is_same).then(|| image.data.slice(..target.bytes()))
}

/// Writes a picture of the target's size.
pub(super) fn decode(
    image: &RawImage,
    options: &PictureOptions,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let layout = layout(image, options)?;
    let (data, stride) = (&image.data[..], layout.stride);
    let (width, height) = (target.width, target.height);
    let samples = |start: usize, step, width, height, stride| Samples {
        data: &data[start..],
        stride,
        step,
        width,
        height,
    };
    match layout.kind {
        Kind::Rgb(order) => rgb::write(order, data, stride, target)?,
        Kind::Grey(2) => {
            wide(image, &layout)
                .narrow(options.bits, target, |samples, to| Planar::grey(samples).write(to));
        }
        Kind::Grey(_) => Planar::grey(samples(0, 1, width, height, stride)).write(target),
        Kind::Bayer(pattern, 2) => {
            wide(image, &layout)
                .narrow(options.bits, target, |samples, to| bayer::write(pattern, samples, to))?
        }
        Kind::Bayer(pattern, _) => {
            bayer::write(pattern, samples(0, 1, width, height, stride), target)?;
        }
        Kind::Depth(bytes) => {
            let grey = Grey::new(&image.encoding, unit(bytes), options)?;
            let big = image.is_bigendian;
            let row = |y: usize| data[y * stride..].chunks_exact(bytes).take(width);
            grey.write(target, |y| row(y).map(|sample| depth(sample, big)));
        }
        Kind::Packed422([y, u, v]) => {
            // An odd row ends with Y and U: its last pixel takes V from the pair before.
            let chroma = (width > 1).then(|| {
                let u = samples(u, 4, width.div_ceil(2), height, stride);
                [u, samples(v, 4, width / 2, height, stride)]
            });
            let luma = samples(y, 2, width, height, stride);
            Planar { luma, chroma, subsampling: (2, 1), full_range: false }.write(target);
        }
        Kind::Planes { across, down, chroma, full_range } => {
            let (chroma_width, rows) = (width.div_ceil(across), height.div_ceil(down));
            let step = usize::from(chroma.sample_bytes());
            let plane = |start| samples(start, step, chroma_width, rows, layout.chroma_stride);
            let first = height * stride;
            let second = if step == 2 { first + 1 } else { first + rows * layout.chroma_stride };
            let (u, v) = match chroma {
                Chroma::UThenV | Chroma::UvPairs => (first, second),
                Chroma::VThenU | Chroma::VuPairs => (second, first),
            };
            Planar {
                luma: samples(0, 1, width, height, stride),
                chroma: Some([plane(u), plane(v)]),
                subsampling: (across, down),
                full_range,
            }
            .write(target);
        }
    }
    Ok(())
}

/// A sample of mono8 (1 byte), 16UC1 (2 bytes) or 32FC1 (4 bytes).
fn depth(sample: &[u8], big_endian: bool) -> f32 {
    match (sample, big_endian) {
        (&[a], _) => f32::from(a),
        (&[a, b], true) => f32::from(u16::from_be_bytes([a, b])),
        (&[a, b], false) => f32::from(u16::from_le_bytes([a, b])),
        (&[a, b, c, d], true) => f32::from_be_bytes([a, b, c, d]),
        (&[a, b, c, d], false) => f32::from_le_bytes([a, b, c, d]),
        _ => f32::NAN,
    }
}
