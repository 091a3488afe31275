//! JPEG. Planes are written to the frame one row of blocks at a time, without a conversion to RGB:
//! only the range changes, and chroma is reduced to 4:2:0.

use std::borrow::Cow;

use encoder_core::{FrameLayout, PixelFormat, Resolution};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, RawImcuRowStatus, errors::DecodeErrors};

use super::{
    PictureError, PictureOptions, bayer, broken, check_size,
    huffman::standard_tables,
    planar::{Planar, Samples},
    rgb::{self, Order},
    target::Target,
    unsupported,
    upright::Orientation,
    with_scratch,
};

/// The first bytes of a JPEG: the start of the image, and the marker of what follows.
pub(super) const MAGIC: &[u8] = &[0xff, 0xd8];
const EOI: &[u8] = &[0xff, 0xd9];

/// Reads the size from the header.
pub(super) fn size(data: &[u8], options: &PictureOptions) -> Result<Resolution, PictureError> {
    Ok(header(data, options)?.size)
}

/// Whether the picture has one component.
pub(super) fn is_grey(data: &[u8], options: &PictureOptions) -> bool {
    header(data, options).is_ok_and(|header| header.components == 1)
}

/// The orientation in the EXIF data.
pub(super) fn orientation(data: &[u8], options: &PictureOptions) -> Option<Orientation> {
    header(data, options).ok()?.orientation
}

/// The contents of the header, up to the first scan.
struct Header {
    size: Resolution,
    components: usize,
    orientation: Option<Orientation>,
    /// The Adobe segments whose transform is wrong for the components.
    wrong_transforms: Vec<WrongTransform>,
    /// All components come in one sequential scan, and blocks can be decoded row by row. If not
    /// (progressive, one scan per component), the decoder reads everything first.
    one_scan: bool,
    /// Number of restart markers in a single scan.
    restarts: usize,
    /// Where the first scan starts, behind its marker.
    scan: usize,
    /// The header contains Huffman tables. Pictures of Motion JPEG often do not.
    tables: bool,
}

/// The Adobe segment of a JPEG names a transform of the colours. Some writers put the segment into
/// grey pictures, or name a transform that does not exist for the components.
#[derive(Clone, Copy)]
enum WrongTransform {
    /// The segment at this marker counts as if it were not there.
    Ignore(usize),
    /// The transform at this position counts as YCCK.
    Ycck(usize),
}

impl WrongTransform {
    /// Checks the transform of the Adobe segment behind the marker at `at`.
    fn check(data: &[u8], at: usize, components: usize) -> Option<Self> {
        // The length, the name, the version, two numbers of flags.
        let transform = at + 2 + 2 + 5 + 2 + 4;
        let length = u16::from_be_bytes(*data.get(at + 2..)?.first_chunk()?);
        match (components, data.get(transform).filter(|_| length >= 14)) {
            (3, Some(0 | 1)) | (4, Some(0 | 2)) => None,
            (4, Some(_)) => Some(Self::Ycck(transform)),
            _ => Some(Self::Ignore(at)),
        }
    }

    /// Corrects the transform.
    fn mend(self, data: &mut [u8]) {
        match self {
            // The marker of a segment that has no meaning to a decoder.
            Self::Ignore(marker) => data[marker + 1] = 0xef,
            Self::Ycck(transform) => data[transform] = 2,
        }
    }
}

/// Walks over the segments up to the first scan.
fn header(data: &[u8], options: &PictureOptions) -> Result<Header, PictureError> {
    let cut = || broken(format!("the JPEG ends after {} bytes, in its header", data.len()));
    let mut at = MAGIC.len();
    let mut frame = None;
    let mut interval = 0;
    let mut tables = false;
    let (mut orientation, mut adobe) = (None, Vec::new());
    loop {
        // Markers may be preceded by any number of fill bytes. Other bytes between segments are
        // skipped, as in every decoder.
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
        let segment = data.get(at..).ok_or_else(cut)?;
        match marker {
            // C4, C8 and CC lie between the frame headers and are not frame headers.
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf if frame.is_none() => {
                let (size, factors) = frame_header(marker, segment, options)?;
                frame = Some((size, factors, marker != 0xc2));
            }
            0xda => {
                let components = usize::from(*segment.get(2).ok_or_else(cut)?);
                let (size, factors, sequential) = frame.ok_or_else(no_frame)?;
                let one_scan = sequential && components == factors.len();
                if interval > 0 && sequential && !one_scan {
                    // From the second scan on, the decoder miscounts the blocks up to the next
                    // restart marker and returns wrong colours.
                    return Err(not_decodable("JPEG of several scans with restart markers"));
                }
                let restarts = match interval {
                    0 => 0,
                    n => (units(size, &factors) - 1) / n,
                };
                let components = factors.len();
                let wrong_transforms = adobe
                    .into_iter()
                    .filter_map(|marker| WrongTransform::check(data, marker, components))
                    .collect();
                return Ok(Header {
                    size,
                    components,
                    orientation,
                    wrong_transforms,
                    one_scan,
                    restarts,
                    scan: at,
                    tables,
                });
            }
            0xc4 => tables = true,
            0xe1 if segment.get(2..8) == Some(b"Exif\0\0") => {
                let length = usize::from(u16::from_be_bytes([segment[0], segment[1]]));
                orientation = segment.get(8..length).and_then(Orientation::read);
            }
            0xee if segment.get(2..7) == Some(b"Adobe") => adobe.push(at - 2),
            0xdd => {
                let number = segment.get(2..).and_then(|s| s.first_chunk()).ok_or_else(cut)?;
                interval = usize::from(u16::from_be_bytes(*number));
            }
            0xd9 => return Err(no_frame()),
            _ => {}
        }
        let length = u16::from_be_bytes(*segment.first_chunk().ok_or_else(cut)?);
        at += usize::from(length).max(2);
    }
}

fn no_frame() -> PictureError {
    broken("the JPEG has no picture in it".into())
}

/// Units of a scan of all components: blocks, or groups of blocks with all components.
fn units(size: Resolution, factors: &[(u32, u32)]) -> usize {
    let (w, h) = match factors {
        [_] => (1, 1),
        all => all.iter().fold((1, 1), |(w, h), &(x, y)| (w.max(x), h.max(y))),
    };
    size.width.div_ceil(8 * w) as usize * size.height.div_ceil(8 * h) as usize
}

/// Size, and the sampling factors of each component, from the segment behind the marker of a
/// frame.
fn frame_header(
    marker: u8,
    segment: &[u8],
    options: &PictureOptions,
) -> Result<(Resolution, Vec<(u32, u32)>), PictureError> {
    let cut = || broken("the JPEG ends in its frame header".into());
    let &[_, _, bits, h0, h1, w0, w1, components] = segment.first_chunk().ok_or_else(cut)?;
    let (width, height) = (u16::from_be_bytes([w0, w1]), u16::from_be_bytes([h0, h1]));
    let size = check_size(width.into(), height.into(), options)?;
    match marker {
        0xc3 | 0xc7 | 0xcb | 0xcf => Err(not_decodable("lossless JPEG")),
        0xc5 | 0xc6 | 0xcd | 0xce => Err(not_decodable("hierarchical JPEG")),
        0xc9 | 0xca => Err(not_decodable("arithmetic-coded JPEG")),
        _ if bits != 8 => Err(not_decodable(&format!("{bits}-bit JPEG"))),
        _ if !matches!(components, 1 | 3 | 4) => {
            Err(not_decodable(&format!("JPEG of {components} components")))
        }
        _ => {
            let specs = segment.get(8..8 + 3 * usize::from(components)).ok_or_else(cut)?;
            let factor = |spec: &[u8]| (u32::from(spec[1] >> 4), u32::from(spec[1] & 15));
            Ok((size, specs.chunks_exact(3).map(factor).collect()))
        }
    }
}

fn not_decodable(what: &str) -> PictureError {
    unsupported(
        format!("{what} cannot be decoded"),
        "baseline and progressive JPEG of 8 bits, as cameras give it, can",
    )
}

/// How a decode ended.
enum End {
    /// Every block was there, and the end marker after them.
    Complete,
    /// The end marker, at this position, was read before the last row of blocks was decoded.
    Marker(usize),
    /// The bytes ended.
    Bytes,
}

/// What is written of a picture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// The picture.
    Picture,
    /// The picture with red and blue exchanged.
    Swapped,
    /// The samples of grey as they are, without a change of their range.
    Samples,
}

/// Writes a picture of the target's size, with red and blue exchanged if `is_swapped`. What follows
/// the end marker is ignored.
///
/// A JPEG with missing blocks is broken. A JPEG of one scan that lacks only its end marker is
/// accepted. Two faults are not detected: an early end marker within the last row of blocks, and an
/// early end marker in a JPEG of several scans.
pub(super) fn decode(
    data: &[u8],
    options: &PictureOptions,
    is_swapped: bool,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let output = if is_swapped { Output::Swapped } else { Output::Picture };
    decode_as(data, options, output, target)
}

/// Writes a picture of one component as the mosaic that it is.
pub(super) fn decode_mosaic(
    data: &[u8],
    options: &PictureOptions,
    pattern: bayer::Pattern,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let (width, height) = (target.width, target.height);
    let size = Resolution::new(width as u32, height as u32);
    let layout = FrameLayout::new(PixelFormat::Yuv420p, size);
    let mut memory = vec![0; layout.bytes()];
    let mut grey = Target::new(&layout, &mut memory, size)?;
    decode_as(data, options, Output::Samples, &mut grey)?;
    let mosaic = Samples { data: grey.luma, stride: grey.stride, step: 1, width, height };
    bayer::write(pattern, mosaic, target)
}

fn decode_as(
    data: &[u8],
    options: &PictureOptions,
    output: Output,
    target: &mut Target<'_>,
) -> Result<(), PictureError> {
    let header = header(data, options)?;
    if !header.tables {
        let (before, scan) = data.split_at(header.scan - MAGIC.len());
        let whole = [before, &standard_tables(), scan].concat();
        return decode_as(&whole, options, output, target);
    }
    let mut data = Cow::Borrowed(data);
    for wrong in header.wrong_transforms {
        wrong.mend(data.to_mut());
    }
    let data = &data[..];
    let end = match decode_once(data, output, target)? {
        End::Complete => return Ok(()),
        End::Marker(_) if !header.one_scan => return Ok(()),
        End::Marker(at) => at,
        End::Bytes => data.len(),
    };
    let scan = data.get(header.scan..end).unwrap_or_default();
    let restarts = scan.windows(2).filter(|w| w[0] == 0xff && matches!(w[1], 0xd0..=0xd7)).count();
    if header.one_scan
        && restarts >= header.restarts
        && is_complete(data.get(..end).unwrap_or_default(), output, target)
    {
        return Ok(());
    }
    Err(broken(format!("the JPEG of {} is cut off after {end} bytes", header.size)))
}

/// Whether a JPEG without an end marker has all its blocks, so that the target is correct.
///
/// The decoder fills missing blocks without an error. The data is therefore decoded a second time
/// with different bytes appended: if the picture changes, the bytes were read, so blocks are missing.
fn is_complete(data: &[u8], output: Output, target: &mut Target<'_>) -> bool {
    // A last FF is half of the end marker.
    let stripped = data.len() - data.iter().rev().take_while(|&&byte| byte == 0xff).count();
    let mut with_tail = |seed: u8| {
        // Without FF, which would be a marker.
        let tail: [u8; 64] =
            std::array::from_fn(|i| seed.wrapping_add((i as u8).wrapping_mul(89)) & 0xfe);
        let whole = [&data[..stripped], &tail, EOI].concat();
        match decode_once(&whole, output, target) {
            Ok(End::Complete | End::Marker(_)) => Some(target.packed()),
            Ok(End::Bytes) | Err(_) => None,
        }
    };
    let first = with_tail(0);
    first.is_some() && [67, 134, 201].into_iter().all(|seed| with_tail(seed) == first)
}

fn decode_once(data: &[u8], output: Output, target: &mut Target<'_>) -> Result<End, PictureError> {
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    decoder.decode_headers().map_err(wrong)?;
    if decoder.dimensions() != Some((target.width, target.height)) {
        return Err(broken("the JPEG has more than one frame header".into()));
    }
    match Shape::of(&mut decoder).filter(|_| output != Output::Swapped) {
        Some(shape) => decode_planes(data, &mut decoder, &shape, output == Output::Picture, target),
        None if output == Output::Samples => Err(broken("the JPEG is not grey".into())),
        None => {
            let order = if output == Output::Swapped { Order::Bgr } else { Order::Rgb };
            decode_rgb(data, decoder, order, target)
        }
    }
}

/// Luma of full size, and two chroma planes at a simple fraction of it, or none.
struct Shape {
    /// Width of each component, and its rows in one row of blocks.
    components: Vec<(usize, usize)>,
    subsampling: (usize, usize),
}

impl Shape {
    /// `None` for pictures that are converted to RGB first: RGB and CMYK components, and unusual
    /// sampling factors.
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
    full_range: bool,
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
                _ => return Ok(End::Bytes),
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
                full_range,
            }
            .write(&mut target.band(done, count));
            done += count;
            if done < target.height && early.is_none() {
                early = end_marker_before(data, decoder);
            }
        }
        Ok(early.map_or(End::Complete, End::Marker))
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
    order: Order,
    target: &mut Target<'_>,
) -> Result<End, PictureError> {
    // Without it, the end of the bytes would be no error.
    decoder.set_incremental_mode(true);
    let stride = 3 * target.width;
    with_scratch(stride * target.height, |pixels| {
        match decoder.decode_into(pixels) {
            Ok(()) => {}
            Err(error) if error.is_recoverable_eof() => return Ok(End::Bytes),
            Err(error) => return Err(wrong(error)),
        }
        rgb::write(order, pixels, stride, target)?;
        // The progress of the rows is not visible here.
        Ok(end_marker_before(data, &mut decoder).map_or(End::Complete, End::Marker))
    })
}

fn wrong(error: DecodeErrors) -> PictureError {
    broken(format!("the JPEG is broken: {error}"))
}
