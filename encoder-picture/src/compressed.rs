//! Compressed stills. The first bytes decide the format; the `format` field of the message counts
//! only where they are inconclusive.

use encoder_core::Resolution;

use super::{
    PictureError, PictureOptions, broken, check_size,
    depth::{self, CompressedDepth, Grey},
    jpeg, png,
    target::Target,
    unsupported,
};

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
        return Ok(Kind::Jpeg);
    }
    if data.starts_with(png::MAGIC) {
        // A plain PNG of a depth topic: "16UC1; png compressed".
        if lower.trim_start().starts_with("16uc1") && png::is_grey16(data) {
            Grey::new("16UC1 in PNG", "millimetres", options)?;
            return Ok(Kind::DepthPng(CompressedDepth { data, inverse: None }));
        }
        return Ok(Kind::Png);
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
        Kind::Jpeg => jpeg::size(data, options),
        Kind::Png => png::size(data, options),
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

/// Writes a picture of the target's size.
pub(super) fn decode(
    format: &str,
    data: &[u8],
    options: &PictureOptions,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let (width, height) = (target.width, target.height);
    match kind(format, data, options)? {
        Kind::Jpeg => jpeg::decode(data, options, target),
        Kind::Png => png::decode(data, target),
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
