//! JPEG. Its planes go into the frame row of blocks by row of blocks, without a detour over RGB;
//! only the range is changed, and chroma reduced to 4:2:0.

use encoder_core::Resolution;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, RawImcuRowStatus, errors::DecodeErrors};

use super::{
    PictureError, PictureOptions, broken, check_size,
    planar::{Planar, Samples},
    rgb::{self, Order},
    target::Target,
    unsupported, with_scratch,
};

/// The first bytes of a JPEG: the start of the image, and the marker of what follows.
pub(super) const MAGIC: &[u8] = &[0xff, 0xd8];
const EOI: &[u8] = &[0xff, 0xd9];

/// Reads the size from the frame header.
pub(super) fn size(data: &[u8], options: &PictureOptions) -> Result<Resolution, PictureError> {
    let cut = || broken(format!("the JPEG ends after {} bytes, in its header", data.len()));
    let mut at = MAGIC.len();
    loop {
        // Markers may be preceded by any number of fill bytes; other bytes between segments are
        // passed over, as every decoder does.
        while *data.get(at).ok_or_else(cut)? != 0xff {
            at += 1;
        }
        while *data.get(at).ok_or_else(cut)? == 0xff {
            at += 1;
        }
        let marker = *data.get(at).ok_or_else(cut)?;
        at += 1;
        // Markers without a segment: stuffed FF, TEM, restarts, start of image.
        if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8) {
            continue;
        }
        if matches!(marker, 0xd9 | 0xda) {
            return Err(broken("the JPEG has no frame header".into()));
        }
        let segment = data.get(at..).ok_or_else(cut)?;
        let length = usize::from(u16::from_be_bytes(*segment.first_chunk().ok_or_else(cut)?));
        // C4, C8 and CC in the midst of the frame headers are something else.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return frame_header(marker, segment.get(2..8).ok_or_else(cut)?, options);
        }
        at += length.max(2);
    }
}

fn frame_header(
    marker: u8,
    header: &[u8],
    options: &PictureOptions,
) -> Result<Resolution, PictureError> {
    let &[bits, height_high, height_low, width_high, width_low, components] = header else {
        return Err(broken("the JPEG's frame header is too short".into()));
    };
    let size = check_size(
        u32::from(u16::from_be_bytes([width_high, width_low])),
        u32::from(u16::from_be_bytes([height_high, height_low])),
        options,
    )?;
    let kind = match marker {
        0xc3 | 0xc7 | 0xcb | 0xcf => "lossless".to_owned(),
        0xc5 | 0xc6 | 0xcd | 0xce => "hierarchical".to_owned(),
        0xc9 | 0xca => "arithmetic-coded".to_owned(),
        _ if bits != 8 => format!("{bits}-bit"),
        _ if !matches!(components, 1 | 3 | 4) => format!("{components}-component"),
        _ => return Ok(size),
    };
    Err(unsupported(
        format!("{kind} JPEG cannot be decoded"),
        "baseline and progressive JPEG of 8 bits can",
    ))
}

/// How far a decode came.
enum End {
    /// All blocks are there, and then the end marker.
    Proper,
    /// The bytes ended, or the end marker came, so early that blocks may be missing after the
    /// given number of bytes.
    Early(usize),
}

/// Writes a picture of the target's size. A JPEG that lacks blocks is broken; one that lacks only
/// the end marker is not, and what follows the end marker is ignored.
pub(super) fn decode(data: &[u8], target: &mut Target<'_>) -> Result<(), PictureError> {
    let End::Early(end) = decode_once(data, target)? else { return Ok(()) };
    // The decoder fills what is missing silently. So decode twice with different bytes behind
    // what is there: where no block is missing, nobody reads them and both pictures are the same.
    let entropy = data.get(..end).unwrap_or_default();
    let mut with_tail = |tail: u8| {
        let whole = [entropy, &[tail; 64], EOI].concat();
        matches!(decode_once(&whole, target), Ok(End::Proper)).then(|| target.packed())
    };
    if with_tail(0x00).is_some_and(|picture| with_tail(0x55) == Some(picture)) {
        return Ok(());
    }
    let (w, h) = (target.width, target.height);
    Err(broken(format!("the JPEG of {w}x{h} is cut off after {end} bytes")))
}

fn decode_once(data: &[u8], target: &mut Target<'_>) -> Result<End, PictureError> {
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    decoder.decode_headers().map_err(wrong)?;
    if decoder.dimensions() != Some((target.width, target.height)) {
        return Err(broken("the JPEG has more than one frame header".into()));
    }
    match Shape::of(&mut decoder) {
        Some(shape) => decode_planes(data, &mut decoder, &shape, target),
        None => decode_rgb(data, decoder, target),
    }
}

/// Luma of full size, and two chroma planes at a simple fraction of it, or none.
struct Shape {
    /// Width of each component, and its rows in one row of blocks.
    components: Vec<(usize, usize)>,
    subsampling: (usize, usize),
}

impl Shape {
    /// `None` for what goes by way of RGB: RGB and CMYK inside, and odd samplings.
    fn of(decoder: &mut JpegDecoder<ZCursor<&[u8]>>) -> Option<Self> {
        let colours = decoder.input_colorspace()?;
        let raw = decoder.raw_output();
        let (layout, count) = (raw.layout()?, raw.num_components()?);
        let planes = layout.get(..count)?;
        let factors = |i: usize| {
            planes.get(i).map(|p| (p.horizontal_sampling_factor, p.vertical_sampling_factor))
        };
        let subsampling = match (colours, count) {
            (ColorSpace::Luma, 1) => (1, 1),
            (ColorSpace::YCbCr, 3) if factors(1) == factors(2) => {
                let ((w, h), (chroma_w, chroma_h)) = (factors(0)?, factors(1)?);
                let simple = |luma: usize, chroma: usize| match (luma.checked_div(chroma)?, luma) {
                    (n @ (1 | 2 | 4), luma) if n * chroma == luma => Some(n),
                    _ => None,
                };
                (simple(w, chroma_w)?, simple(h, chroma_h)?)
            }
            _ => return None,
        };
        let components = planes.iter().map(|p| (p.width, 8 * p.vertical_sampling_factor)).collect();
        Some(Self { components, subsampling })
    }
}

fn decode_planes(
    data: &[u8],
    decoder: &mut JpegDecoder<ZCursor<&[u8]>>,
    shape: &Shape,
    target: &mut Target<'_>,
) -> Result<End, PictureError> {
    let strides: Vec<_> = shape.components.iter().map(|(width, _)| *width).collect();
    let lengths: Vec<_> = shape.components.iter().map(|(width, rows)| width * rows).collect();
    let mut early = None;
    with_scratch(lengths.iter().sum(), |scratch| {
        let mut done = 0;
        while done < target.height {
            let mut rest = &mut scratch[..];
            let mut planes: Vec<&mut [u8]> = Vec::with_capacity(lengths.len());
            for &length in &lengths {
                let (plane, tail) = rest.split_at_mut(length);
                planes.push(plane);
                rest = tail;
            }
            let status = decoder.raw_output().decode_next_imcu_row(&mut planes, &strides);
            let rows = match status.map_err(wrong)? {
                RawImcuRowStatus::RowReady { rows_written } => rows_written,
                // At its end, or one of its blocks behind it.
                _ => return Ok(End::Early(data.len())),
            };
            let count = rows[0];
            if count == 0 || count > target.height - done || done % 2 == 1 {
                return Err(broken("the JPEG's rows of blocks do not fit its size".into()));
            }
            let samples = |i: usize| Samples {
                data: &planes[i][..],
                stride: strides[i],
                step: 1,
                width: strides[i],
                height: rows[i].max(1),
            };
            Planar {
                luma: samples(0),
                chroma: (planes.len() == 3).then(|| [samples(1), samples(2)]),
                subsampling: shape.subsampling,
                full_range: true,
            }
            .write(&mut target.band(done, count));
            done += count;
            if done < target.height && early.is_none() {
                early = end_marker_before(data, decoder);
            }
        }
        Ok(early.map_or(End::Proper, End::Early))
    })
}

/// Where the end marker is, if it is what the decoder read last.
fn end_marker_before(data: &[u8], decoder: &mut JpegDecoder<ZCursor<&[u8]>>) -> Option<usize> {
    let position = usize::try_from(decoder.inner_reader().position().ok()?).ok()?;
    data.get(..position)?.ends_with(EOI).then(|| position - EOI.len())
}

fn decode_rgb(
    data: &[u8],
    mut decoder: JpegDecoder<ZCursor<&[u8]>>,
    target: &mut Target<'_>,
) -> Result<End, PictureError> {
    // Without it, the end of the bytes would be no error.
    decoder.set_incremental_mode(true);
    let stride = 3 * target.width;
    with_scratch(stride * target.height, |pixels| {
        match decoder.decode_into(pixels) {
            Ok(()) => {}
            Err(error) if error.is_recoverable_eof() => return Ok(End::Early(data.len())),
            Err(error) => return Err(wrong(error)),
        }
        rgb::write(Order::Rgb, pixels, stride, target)?;
        Ok(End::Proper)
    })
}

fn wrong(error: DecodeErrors) -> PictureError {
    broken(format!("the JPEG is broken: {error}"))
}
