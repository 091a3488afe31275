//! PNG, and the depth images that are stored in PNG.

use encoder_core::Resolution;
use png::{BitDepth, ColorType, DecodingError, Limits, Transformations};

use super::{
    PictureError, PictureOptions, bayer, broken, check_size,
    planar::{Planar, Samples},
    rgb::{self, Order},
    target::Target,
    upright::Orientation,
    wide::Wide,
    with_scratch,
};

/// The first bytes of a PNG.
pub(super) const MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Reads the size from the header.
pub(super) fn size(data: &[u8], options: &PictureOptions) -> Result<Resolution, PictureError> {
    let header = || {
        let number = |at: usize| Some(u32::from_be_bytes(*data.get(at..)?.first_chunk()?));
        data.get(12..16).filter(|name| name == b"IHDR")?;
        number(16).zip(number(20))
    };
    let (width, height) = header().ok_or_else(|| broken("the PNG has no header".into()))?;
    check_size(width, height, options)
}

/// Whether the samples are grey of 16 bits, as depth is stored.
pub(super) fn is_grey16(data: &[u8]) -> bool {
    // Bits of a sample, then the colour type: both behind the size.
    data.get(24..26) == Some(&[16, 0])
}

/// Whether the picture has one channel, without alpha.
pub(super) fn is_grey(data: &[u8]) -> bool {
    data.get(25) == Some(&0)
}

/// The orientation in the EXIF data in front of the pixels.
pub(super) fn orientation(data: &[u8]) -> Option<Orientation> {
    let mut at = MAGIC.len();
    loop {
        // Length and name, the content, a checksum.
        let length = usize::try_from(u32::from_be_bytes(*data.get(at..)?.first_chunk()?)).ok()?;
        match data.get(at + 4..at + 8)? {
            b"eXIf" => return Orientation::read(data.get(at + 8..)?.get(..length)?),
            b"IDAT" => return None,
            _ => at = at.checked_add(12)?.checked_add(length)?,
        }
    }
}

/// Writes a picture of the target's size: a mosaic if a `pattern` is given and the picture is grey,
/// with red and blue exchanged if `is_swapped`. Of 16-bit grey, the high byte or the upper 8 bits in
/// use are shown, of other 16-bit samples the high byte; alpha is ignored.
pub(super) fn decode(
    data: &[u8],
    options: &PictureOptions,
    pattern: Option<bayer::Pattern>,
    is_swapped: bool,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let (width, height) = (target.width, target.height);
    let order = |plain, swapped| if is_swapped { swapped } else { plain };
    with_pixels(data, width, height, |pixels, colour, bytes, stride| {
        let channels = match colour {
            ColorType::Grayscale => 1,
            ColorType::GrayscaleAlpha => 2,
            ColorType::Rgb if bytes == 1 => {
                return rgb::write(order(Order::Rgb, Order::Bgr), pixels, stride, target);
            }
            ColorType::Rgba if bytes == 1 => {
                return rgb::write(order(Order::Rgba, Order::Bgra), pixels, stride, target);
            }
            colour => return Err(broken(format!("the PNG decodes to {colour:?}"))),
        };
        let step = channels * bytes;
        let pattern = pattern.filter(|_| channels == 1);
        let grey = |samples: Samples<'_>, target: &mut Target<'_>| match pattern {
            Some(pattern) => bayer::write(pattern, samples, target),
            None => {
                Planar::grey(samples).write(target);
                Ok(())
            }
        };
        match bytes {
            2 => wide(pixels, stride, step, (width, height)).narrow(options.bits, target, grey),
            _ => grey(Samples { data: pixels, stride, step, width, height }, target),
        }
    })
}

fn wide(data: &[u8], stride: usize, step: usize, (width, height): (usize, usize)) -> Wide<'_> {
    Wide { data, stride, step, width, height, is_bigendian: true }
}

/// Passes on the samples of a picture of 16-bit grey.
pub(super) fn with_wide<R>(
    data: &[u8],
    size: Resolution,
    use_samples: impl FnOnce(Wide<'_>) -> R,
) -> Option<R> {
    let size = (size.width as usize, size.height as usize);
    with_grey16(data, size, |rows, stride| use_samples(wide(rows, stride, 2, size))).ok()
}

/// Decodes grey of 16 bits and hands out its rows of big-endian samples and their stride.
pub(super) fn with_grey16<R>(
    data: &[u8],
    (width, height): (usize, usize),
    use_rows: impl FnOnce(&[u8], usize) -> R,
) -> Result<R, PictureError> {
    with_pixels(data, width, height, |pixels, colour, bytes, stride| match (colour, bytes) {
        (ColorType::Grayscale, 2) => Ok(use_rows(pixels, stride)),
        _ => Err(broken("the depth's PNG is not grey of 16 bits".into())),
    })
}

/// Decodes and hands out the pixels, their colour, the bytes of a sample (2 only in grey) and the
/// stride.
fn with_pixels<R>(
    data: &[u8],
    width: usize,
    height: usize,
    use_pixels: impl FnOnce(&[u8], ColorType, usize, usize) -> Result<R, PictureError>,
) -> Result<R, PictureError> {
    // The decoder itself needs little more than two rows of at most 8 bytes for a pixel; the
    // rest is for chunks of metadata.
    let limits = Limits { bytes: (16 << 20) + 64 * width };
    let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(data), limits);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let colour = decoder.read_header_info().map_err(wrong)?.color_type;
    // To whole bytes and without a palette; 16 bits stay only in grey.
    decoder.set_transformations(match colour {
        ColorType::Grayscale | ColorType::GrayscaleAlpha => Transformations::EXPAND,
        _ => Transformations::EXPAND | Transformations::STRIP_16,
    });
    let mut reader = decoder.read_info().map_err(wrong)?;
    let (width_there, height_there) = reader.info().size();
    if (width_there as usize, height_there as usize) != (width, height) {
        return Err(broken(format!("the PNG has {width_there}x{height_there} pixels")));
    }
    let length = reader.output_buffer_size().ok_or_else(|| broken("the PNG is too big".into()))?;
    with_scratch(length, |pixels| {
        let info = reader.next_frame(pixels).map_err(wrong)?;
        if (info.width as usize, info.height as usize) != (width, height) {
            return Err(broken("the PNG's first frame is smaller than its picture".into()));
        }
        let bytes = if info.bit_depth == BitDepth::Sixteen { 2 } else { 1 };
        use_pixels(pixels, info.color_type, bytes, info.line_size)
    })
}

fn wrong(error: DecodingError) -> PictureError {
    broken(format!("the PNG is broken: {error}"))
}
