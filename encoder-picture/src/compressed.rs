//! Compressed stills. The first bytes decide the format; the `format` field of the message counts
//! where they are inconclusive, and for what they do not show: that grey is depth or a mosaic, and
//! the order of colours.

use encoder_core::{FrameLayout, PixelFormat, Resolution};

use super::{
    PictureError, PictureOptions, Remark, bayer, broken, check_size,
    depth::{self, CompressedDepth, Grey},
    jpeg, png, raw,
    target::Target,
    unsupported,
    upright::Orientation,
    wide::Wide,
};

/// What the `format` field says about the picture that was compressed, as
/// `compressed_image_transport` writes it: `ENCODING; CODEC compressed [ENCODING OF THE FILE]`.
struct Origin<'a> {
    encoding: &'a str,
    /// The rest, in small letters; empty if the field has only the name of a codec.
    file: String,
}

impl<'a> Origin<'a> {
    fn of(format: &'a str) -> Self {
        let (encoding, file) = format.split_once(';').unwrap_or((format, ""));
        Self { encoding: encoding.trim(), file: file.to_ascii_lowercase() }
    }

    /// The mosaic that a file of one channel holds.
    fn pattern(&self) -> Option<bayer::Pattern> {
        raw::bayer_pattern(self.encoding)
    }

    /// Whether red and blue of the file are exchanged: the encoder of OpenCV takes BGR, and was
    /// given RGB.
    fn is_swapped(&self) -> bool {
        self.file.contains("compressed rgb")
    }

    /// Whether nothing says in which order the encoder was given the colours. Before version 1.8.5,
    /// `compressed_image_transport` gave it RGB whatever the encoding (`rgb8`, `bgr8`), and named no
    /// order; other writers name none either, and have the colours right.
    fn has_unknown_order(&self) -> bool {
        raw::is_colour(self.encoding) && self.file.trim_end().ends_with("compressed")
    }
}

enum Kind<'a> {
    Jpeg,
    Png,
    /// Depth in PNG, of 16-bit grey.
    DepthPng(CompressedDepth<'a>),
    DepthRvl(CompressedDepth<'a>),
}

/// Unsupported formats and their first bytes, so that they are refused by name.
const OTHERS: &[(&str, &[u8])] = &[
    ("GIF", b"GIF8"),
    ("BMP", b"BM"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("JPEG 2000", b"\0\0\0\x0cjP  "),
    ("JPEG XL", b"\0\0\0\x0cJXL "),
    ("JPEG XL", b"\xff\x0a"),
    ("QOI", b"qoif"),
];

fn kind<'a>(
    format: &str,
    data: &'a [u8],
    options: &PictureOptions,
) -> Result<Kind<'a>, PictureError> {
    if data.is_empty() {
        return Err(broken("the message holds no picture data".into()));
    }
    let lower = format.to_ascii_lowercase();
    if data.starts_with(jpeg::MAGIC) {
        return match options.is_depth {
            true => Err(raw::no_depth("JPEG")),
            false => Ok(Kind::Jpeg),
        };
    }
    if data.starts_with(png::MAGIC) {
        // A plain PNG of a depth topic: "16UC1; png compressed".
        let is_depth = options.is_depth || lower.trim_start().starts_with("16uc1");
        if is_depth && png::is_grey16(data) {
            Grey::new("16UC1 in PNG", "millimetres", options)?;
            return Ok(Kind::DepthPng(CompressedDepth { data, inverse: None }));
        }
        return match options.is_depth {
            true => Err(raw::no_depth("PNG of colours or of 8 bits")),
            false => Ok(Kind::Png),
        };
    }
    if lower.contains("compresseddepth") {
        let depth = CompressedDepth::new(format, data)?;
        let unit = if depth.inverse.is_some() { "metres" } else { "millimetres" };
        Grey::new(&format!("`{format}`"), unit, options)?;
        return match depth.data {
            inner if inner.starts_with(png::MAGIC) => Ok(Kind::DepthPng(depth)),
            _ if lower.contains("rvl") => Ok(Kind::DepthRvl(depth)),
            inner => Err(broken(format!("compressed depth starts with {}", start(inner)))),
        };
    }
    let webp = data.starts_with(b"RIFF") && data.get(8..12) == Some(b"WEBP");
    let heif = data.get(4..8) == Some(b"ftyp");
    let other = match OTHERS.iter().find(|(_, magic)| data.starts_with(magic)) {
        _ if webp => Some("WebP"),
        _ if heif => Some("HEIF or AVIF"),
        found => found.map(|(name, _)| *name),
    };
    let expected = ["jpeg", "jpg", "png"].iter().any(|name| lower.contains(name));
    match other {
        Some(name) => Err(not_decoded(format!("{name} pictures are not decoded"))),
        None if expected || lower.trim().is_empty() => {
            Err(broken(format!("neither JPEG nor PNG: the data starts with {}", start(data))))
        }
        None => Err(not_decoded(format!("the format `{format}` is not decoded"))),
    }
}

fn not_decoded(reason: String) -> PictureError {
    unsupported(reason, "record JPEG or PNG (`image_transport` compressed)")
}

fn start(data: &[u8]) -> String {
    data.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Size of a picture, from its header.
pub(super) fn size(
    format: &str,
    data: &[u8],
    options: &PictureOptions,
) -> Result<Resolution, PictureError> {
    match kind(format, data, options)? {
        Kind::Jpeg => Ok(turned(jpeg::size(data, options)?, orientation(data, options))),
        Kind::Png => Ok(turned(png::size(data, options)?, orientation(data, options))),
        Kind::DepthPng(depth) => {
            let size = png::size(depth.data, options)?;
            match png::is_grey16(depth.data) {
                true => Ok(size),
                false => Err(broken("the depth's PNG is not grey of 16 bits".into())),
            }
        }
        Kind::DepthRvl(depth) => {
            let (width, height) = depth::rvl_size(depth.data)?;
            check_size(width, height, options)
        }
    }
}

/// The orientation of a JPEG or PNG, if it is turned upright.
fn orientation(data: &[u8], options: &PictureOptions) -> Option<Orientation> {
    options.turn_upright.then(|| stored_orientation(data, options)).flatten()
}

fn stored_orientation(data: &[u8], options: &PictureOptions) -> Option<Orientation> {
    let found = match data.starts_with(jpeg::MAGIC) {
        true => jpeg::orientation(data, options),
        false => png::orientation(data),
    };
    found.filter(|&orientation| orientation != Orientation::UPRIGHT)
}

/// The size of an upright picture from that of the stored picture, and the other way round.
fn turned(size: Resolution, orientation: Option<Orientation>) -> Resolution {
    match orientation.is_some_and(Orientation::is_sideways) {
        true => Resolution::new(size.height, size.width),
        false => size,
    }
}

/// What is guessed or ignored in a picture.
pub(super) fn remarks(format: &str, data: &[u8], options: &PictureOptions) -> Vec<Remark> {
    let Ok(Kind::Jpeg | Kind::Png) = kind(format, data, options) else { return Vec::new() };
    let is_grey = || match data.starts_with(jpeg::MAGIC) {
        true => jpeg::is_grey(data, options),
        false => png::is_grey(data),
    };
    let has_unknown_order = Origin::of(format).has_unknown_order() && !is_grey();
    let orientation = if options.turn_upright { None } else { stored_orientation(data, options) };
    let order = has_unknown_order.then_some(Remark::UnknownOrder);
    let orientation = orientation.map(|found| Remark::Orientation(found.number()));
    order.into_iter().chain(orientation).collect()
}

/// Passes on the samples of a PNG of 16-bit grey that is no depth.
pub(super) fn with_wide<R>(
    format: &str,
    data: &[u8],
    options: &PictureOptions,
    use_samples: impl FnOnce(Wide<'_>) -> R,
) -> Option<R> {
    let Ok(Kind::Png) = kind(format, data, options) else { return None };
    let size = png::size(data, options).ok()?;
    png::is_grey16(data).then(|| png::with_wide(data, size, use_samples)).flatten()
}

/// Writes a picture of the target's size.
pub(super) fn decode(
    format: &str,
    data: &[u8],
    options: &PictureOptions,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let kind = kind(format, data, options)?;
    let is_still = matches!(kind, Kind::Jpeg | Kind::Png);
    let Some(orientation) = orientation(data, options).filter(|_| is_still) else {
        return decode_stored(format, data, kind, options, target);
    };
    let size = Resolution::new(target.width as u32, target.height as u32);
    let size = turned(size, Some(orientation));
    let layout = FrameLayout::new(PixelFormat::Yuv420p, size);
    let mut memory = vec![0; layout.bytes()];
    let mut stored = Target::new(&layout, &mut memory, size)?;
    decode_stored(format, data, kind, options, &mut stored)?;
    orientation.write(&stored, target);
    target.clipped = stored.clipped;
    Ok(())
}

/// Writes a picture as it is stored.
fn decode_stored(
    format: &str,
    data: &[u8],
    kind: Kind<'_>,
    options: &PictureOptions,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let (width, height) = (target.width, target.height);
    let origin = Origin::of(format);
    match kind {
        Kind::Jpeg => match origin.pattern().filter(|_| jpeg::is_grey(data, options)) {
            Some(pattern) => jpeg::decode_mosaic(data, options, pattern, target),
            None => jpeg::decode(data, options, origin.is_swapped(), target),
        },
        Kind::Png => png::decode(data, options, origin.pattern(), origin.is_swapped(), target),
        Kind::DepthPng(depth) => {
            let grey = Grey::new(format, "", options)?;
            png::with_grey16(depth.data, (width, height), |rows, stride| {
                let row = |y: usize| rows[y * stride..].chunks_exact(2).take(width);
                let value = |v: &[u8]| v.first_chunk().copied().map_or(0, u16::from_be_bytes);
                grey.write(target, |y| row(y).map(|v| depth.depth(value(v))));
            })
        }
        Kind::DepthRvl(depth) => {
            let grey = Grey::new(format, "", options)?;
            let values = depth::rvl(depth.data, width * height)?;
            grey.write(target, |y| values[y * width..].iter().map(|&v| depth.depth(v)));
            Ok(())
        }
    }
}
