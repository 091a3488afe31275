//! The segments in front of the first scan of a JPEG.

use encoder_core::Resolution;

use super::MAGIC;
use crate::{PictureError, PictureOptions, broken, check_size, unsupported, upright::Orientation};

/// What the components of a JPEG are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    Grey,
    YCbCr,
    Rgb,
    /// Inverted, as Adobe writes it.
    Cmyk,
    /// The same, with the first three as luma and chroma.
    Ycck,
}

/// A component, as the frame header lists it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    pub id: u8,
    /// Sampling factors, across and down.
    pub factors: (u8, u8),
}

/// The contents of the header, up to the first scan.
pub(super) struct Header {
    pub size: Resolution,
    pub components: Vec<Component>,
    pub colours: Colours,
    pub orientation: Option<Orientation>,
    /// A scan may hold a part of the coefficients of its components, or of their bits.
    pub is_progressive: bool,
    /// The header contains Huffman tables. Pictures of Motion JPEG often do not.
    pub has_tables: bool,
}

/// A marker: its second byte, and where its segment starts.
pub(super) struct Marker {
    pub code: u8,
    pub segment: usize,
}

impl Marker {
    /// The next marker. Fill bytes in front of a marker and other bytes between segments are
    /// skipped, as in every decoder, and so are markers without a segment, except the start and the
    /// end of an image.
    pub fn next(data: &[u8], mut at: usize) -> Option<Self> {
        loop {
            at += data.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            at += data.get(at..)?.iter().position(|&byte| byte != 0xff)?;
            let code = data[at];
            at += 1;
            // Stuffed FF, TEM, restarts.
            if !matches!(code, 0x00 | 0x01 | 0xd0..=0xd7) {
                return Some(Self { code, segment: at });
            }
        }
    }

    /// The segment behind the marker, from its length on. Its contents may be cut off.
    pub fn segment<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        let rest = data.get(self.segment..)?;
        let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?)).max(2);
        Some(&rest[..length.min(rest.len())])
    }
}

/// Reads the segments up to the first scan.
pub(super) fn read(data: &[u8], options: &PictureOptions) -> Result<Header, PictureError> {
    let cut = || broken(format!("the JPEG ends after {} bytes, in its header", data.len()));
    let mut at = MAGIC.len();
    let mut frame = None;
    let mut has_tables = false;
    let (mut orientation, mut adobe) = (None, None);
    loop {
        let marker = Marker::next(data, at).ok_or_else(cut)?;
        match marker.code {
            EOI => return Err(no_frame()),
            // Segments of two pictures must not be mixed.
            SOI => return Err(second_start()),
            _ => {}
        }
        let segment = marker.segment(data).ok_or_else(cut)?;
        match marker.code {
            code if is_frame(code) && frame.is_none() => {
                let (size, components) = frame_header(marker.code, segment, options)?;
                frame = Some((size, components, marker.code == 0xc2));
            }
            SOS => {
                let (size, components, is_progressive) = frame.ok_or_else(no_frame)?;
                let colours = colours(&components, adobe);
                return Ok(Header {
                    size,
                    components,
                    colours,
                    orientation,
                    is_progressive,
                    has_tables,
                });
            }
            DHT => has_tables = true,
            0xe1 if segment.get(2..8) == Some(b"Exif\0\0") => {
                orientation = Orientation::read(&segment[8..]);
            }
            // Behind the name: the version and two numbers of flags, 2 bytes each.
            0xee if segment.get(2..7) == Some(b"Adobe") => {
                adobe = segment.get(13).copied().or(adobe);
            }
            _ => {}
        }
        at = marker.segment + segment.len();
    }
}

pub(super) const SOS: u8 = 0xda;
pub(super) const DHT: u8 = 0xc4;
pub(super) const SOI: u8 = 0xd8;
pub(super) const EOI: u8 = 0xd9;
pub(super) const DRI: u8 = 0xdd;
pub(super) const APP0: u8 = 0xe0;
pub(super) const APP15: u8 = 0xef;
pub(super) const COMMENT: u8 = 0xfe;

/// Whether the marker is that of a frame header. C4, C8 and CC lie between them.
pub(super) fn is_frame(code: u8) -> bool {
    matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc)
}

/// The restart interval in a segment.
pub(super) fn interval(segment: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*segment.get(2..)?.first_chunk()?))
}

pub(super) fn second_start() -> PictureError {
    broken("another JPEG starts in front of the end of the JPEG".into())
}

fn no_frame() -> PictureError {
    broken("the JPEG has no picture in it".into())
}

/// The meaning of the components, with the transform that an Adobe segment names. Some writers put
/// the segment into grey pictures, or name a transform that does not exist for the components.
fn colours(components: &[Component], adobe: Option<u8>) -> Colours {
    let are_rgb = components.iter().map(|component| component.id).eq(*b"RGB");
    match (components.len(), adobe) {
        (1, _) => Colours::Grey,
        (3, Some(0)) => Colours::Rgb,
        (3, Some(1)) => Colours::YCbCr,
        (3, _) if are_rgb => Colours::Rgb,
        (3, _) => Colours::YCbCr,
        (_, None | Some(0)) => Colours::Cmyk,
        (_, Some(_)) => Colours::Ycck,
    }
}

/// Size and components, from the segment behind the marker of a frame.
fn frame_header(
    marker: u8,
    segment: &[u8],
    options: &PictureOptions,
) -> Result<(Resolution, Vec<Component>), PictureError> {
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
            let component =
                |spec: &[u8]| Component { id: spec[0], factors: (spec[1] >> 4, spec[1] & 15) };
            Ok((size, specs.chunks_exact(3).map(component).collect()))
        }
    }
}

fn not_decodable(what: &str) -> PictureError {
    unsupported(
        format!("{what} cannot be decoded"),
        "baseline and progressive JPEG of 8 bits, as cameras give it, can",
    )
}
