//! JPEG. Planes are written to the frame without a conversion to RGB: only the range changes, and
//! chroma is reduced to 4:2:0.

mod guard;
mod header;

use encoder_core::Resolution;
use rusty_jpeg::decode::{ColorTransform, Decoder, Error, PlanarComponent, PlanarImage};

use self::{
    guard::{Ending, guard},
    header::{Colours, Header, read},
};
use super::{
    PictureError, PictureOptions, bayer, broken,
    planar::{Planar, Samples},
    rgb::{self, Order},
    target::Target,
    upright::Orientation,
};

/// The first bytes of a JPEG: the start of the image, and the marker of what follows.
pub(super) const MAGIC: &[u8] = &[0xff, 0xd8];

/// Reads the size from the header.
pub(super) fn size(data: &[u8], options: &PictureOptions) -> Result<Resolution, PictureError> {
    Ok(read(data, options)?.size)
}

/// Whether the picture has one component.
pub(super) fn is_grey(data: &[u8], options: &PictureOptions) -> bool {
    read(data, options).is_ok_and(|header| header.colours == Colours::Grey)
}

/// The orientation in the EXIF data.
pub(super) fn orientation(data: &[u8], options: &PictureOptions) -> Option<Orientation> {
    read(data, options).ok()?.orientation
}

/// Writes a picture of the target's size, with red and blue exchanged if `is_swapped`. What follows
/// the end marker is ignored.
///
/// A JPEG with missing blocks or scans is broken. A JPEG of one scan that lacks only its end marker is
/// accepted. A JPEG in which other bytes replaced lost data is broken as far as that is noticed:
/// - if the end marker is missing, or the end of a scan that does not refine earlier ones contains a
///   run of 63 equal bytes: there must be no data behind the last block;
/// - 95 zeros or more in a scan that is not progressive, unless they are the code of a flat part.
///
/// Not noticed: a cut within the last code, in front of an end marker; bits that refine earlier scans
/// of a progressive JPEG, which have no codes, in front of an end marker; other bytes that replaced
/// lost data in front of an end marker.
pub(super) fn decode(
    data: &[u8],
    options: &PictureOptions,
    is_swapped: bool,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let header = read(data, options)?;
    match header.colours {
        Colours::Grey => {
            let image = planes(data, &header)?;
            Planar::grey(samples(&image.components[0])).write(target);
            Ok(())
        }
        Colours::YCbCr if !is_swapped && let Some(subsampling) = subsampling(&header) => {
            let image = planes(data, &header)?;
            let [luma, cb, cr] = [0, 1, 2].map(|i| samples(&image.components[i]));
            Planar { luma, chroma: Some([cb, cr]), subsampling, full_range: true }.write(target);
            Ok(())
        }
        _ => {
            let order = if is_swapped { Order::Bgr } else { Order::Rgb };
            rgb::write(order, &pixels(data, &header)?, 3 * target.width, target)
        }
    }
}

/// Writes a picture of one component as the mosaic that it is.
pub(super) fn decode_mosaic(
    data: &[u8],
    options: &PictureOptions,
    pattern: bayer::Pattern,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let header = read(data, options)?;
    if header.colours != Colours::Grey {
        return Err(broken("the JPEG is not grey".into()));
    }
    let image = planes(data, &header)?;
    bayer::write(pattern, samples(&image.components[0]), target)
}

/// Pixels per sample of chroma, across and down. `None` for unusual sampling factors, with which a
/// picture is converted to RGB first.
fn subsampling(header: &Header) -> Option<(usize, usize)> {
    let [luma, cb, cr] = header.components[..] else { return None };
    let simple = |luma: u8, chroma: u8| match luma.checked_div(chroma)? {
        n @ (1 | 2 | 4) if n * chroma == luma => Some(usize::from(n)),
        _ => None,
    };
    let across = simple(luma.factors.0, cb.factors.0)?;
    let down = simple(luma.factors.1, cb.factors.1)?;
    (cb.factors == cr.factors).then_some((across, down))
}

fn samples(component: &PlanarComponent) -> Samples<'_> {
    let PlanarComponent { data, stride, width, height, .. } = component;
    Samples { data, stride: *stride, step: 1, width: *width, height: *height }
}

/// Decodes the components as they are stored.
fn planes(data: &[u8], header: &Header) -> Result<PlanarImage, PictureError> {
    let image = planes_of(&complete(data, header)?)?;
    // As many components as the header has, and the first as large as the picture: the decoder has
    // read the same header.
    let has_size = image.components.first().is_some_and(|first| {
        (first.width, first.height) == (header.size.width as usize, header.size.height as usize)
    });
    match has_size && image.components.len() == header.components.len() {
        true => Ok(image),
        false => Err(broken("the JPEG has more than one frame header".into())),
    }
}

/// Decodes to RGB, 3 bytes a pixel.
fn pixels(data: &[u8], header: &Header) -> Result<Vec<u8>, PictureError> {
    let data = complete(data, header)?;
    let mut decoder = decoder(&data);
    decoder.set_color_transform(match header.colours {
        Colours::Grey => ColorTransform::Grayscale,
        Colours::YCbCr => ColorTransform::YCbCr,
        Colours::Rgb => ColorTransform::RGB,
        Colours::Cmyk => ColorTransform::CMYK,
        Colours::Ycck => ColorTransform::YCCK,
    });
    let pixels = decoder.decode().map_err(wrong)?;
    let (size, components) = (header.size, header.components.len());
    if pixels.len() != components * size.width as usize * size.height as usize {
        return Err(broken("the JPEG has more than one frame header".into()));
    }
    match components {
        3 => Ok(pixels),
        _ => Ok(pixels.as_chunks().0.iter().flat_map(|&ink| without_ink(ink)).collect()),
    }
}

/// RGB of cyan, magenta, yellow and black.
fn without_ink([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let paper = |ink: u8| u16::from(u8::MAX - ink);
    [cyan, magenta, yellow].map(|ink| ((paper(ink) * paper(black) + 127) / 255) as u8)
}

/// The JPEG as the decoder gets it: it is an error of the decoder if a scan lacks blocks.
fn complete(data: &[u8], header: &Header) -> Result<Vec<u8>, PictureError> {
    let size = header.size;
    let cut = || broken(format!("the JPEG of {size} is cut off after {} bytes", data.len()));
    let whole = guard(data, header, Ending::Ones)?;
    let mut suspects = whole.with_runs;
    match (whole.has_end, whole.is_covered) {
        (true, true) => {}
        (true, false) => return Err(broken(format!("the JPEG of {size} lacks scans"))),
        (false, is_covered) => {
            if !is_covered || whole.scans > 1 {
                return Err(cut());
            }
            // The last code may be cut within: then the planes depend on what follows.
            let other = guard(data, header, Ending::Zeros)?.data;
            let [one, other] = [&whole.data, &other].map(|data| planes_of(data));
            if !are_equal(&one.map_err(|_| cut())?, &other.map_err(|_| cut())?) {
                return Err(cut());
            }
            suspects = vec![0];
        }
    }
    // A baseline JPEG has no more scans than that. Each costs a decode.
    for scan in suspects.into_iter().take(4) {
        let short = guard(data, header, Ending::Short(scan))?.data;
        if let Ok(short) = planes_of(&short)
            && are_equal(&short, &planes_of(&whole.data)?)
        {
            return Err(broken(format!(
                "the JPEG of {size} has data behind its last block: other bytes replaced lost data"
            )));
        }
    }
    Ok(whole.data)
}

fn are_equal(one: &PlanarImage, other: &PlanarImage) -> bool {
    let planes = one.components.iter().zip(&other.components);
    planes.into_iter().all(|(one, other)| one.data == other.data)
}

fn planes_of(data: &[u8]) -> Result<PlanarImage, PictureError> {
    decoder(data).decode_planar().map_err(wrong)
}

fn decoder(data: &[u8]) -> Decoder<&[u8]> {
    let mut decoder = Decoder::new(data);
    // The pictures of a recording are decoded at the same time already.
    decoder.set_single_threaded(true);
    decoder
}

fn wrong(error: Error) -> PictureError {
    broken(format!("the JPEG is broken: {error}"))
}
