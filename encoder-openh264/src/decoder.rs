//! The library's decoder, which checks the pictures of hardware encoders.

use encoder_core::{
    DecodeError, Frame, NalKind, PictureDecoder, PixelFormat, Resolution, nal_units,
};
use openh264::{
    decoder::{DecodeOptions, DecodedYUV, Decoder as Library, Flush},
    formats::YUVSource,
};

/// Profiles that the library decodes: Baseline, Main and High, all 8 bits and 4:2:0.
const PROFILES: [u8; 3] = [66, 77, 100];

/// The most macroblocks of a picture, and of its longer side: level 5.2 of H.264.
const MOST_BLOCKS: u64 = 36_864;
const MOST_BLOCKS_OF_SIDE: u64 = 543;
/// The highest level that the library decodes, as in parameter sets: 5.2.
const HIGHEST_LEVEL: u8 = 52;

/// A decoder of the library.
///
/// The library never frees a picture that is taken out by a flush, so that after a few flushes it
/// has no memory for the next picture. A decoder that fails after a flush is therefore replaced by a
/// new decoder, whose result counts.
pub struct Decoder {
    library: Library,
    /// Whether the library has returned a picture of a flush.
    has_flushed: bool,
}

impl Decoder {
    /// Opens a decoder for pictures of `size`.
    pub fn open(size: Resolution) -> Result<Self, DecodeError> {
        let [columns, rows] = [size.width, size.height].map(|side| u64::from(side.div_ceil(16)));
        if columns * rows > MOST_BLOCKS || columns.max(rows) > MOST_BLOCKS_OF_SIDE {
            let what = format!("OpenH264 does not decode pictures of {size}");
            return Err(DecodeError::Unsupported(what));
        }
        Ok(Self { library: library()?, has_flushed: false })
    }
}

fn library() -> Result<Library, DecodeError> {
    Library::new().map_err(|error| DecodeError::Unsupported(error.to_string()))
}

impl PictureDecoder for Decoder {
    fn decode(&mut self, unit: &[u8], show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError> {
        let is_sps =
            |nal: &&[u8]| nal.first().is_some_and(|&head| NalKind::of(head) == NalKind::Sps);
        if let Some([_, profile, _, level, ..]) = nal_units(unit).find(is_sps) {
            let what = match (PROFILES.contains(profile), *level <= HIGHEST_LEVEL) {
                (true, true) => None,
                (true, false) => Some(format!("level {}.{}", level / 10, level % 10)),
                (false, _) => Some(format!("profile {profile}")),
            };
            if let Some(what) = what {
                let what = format!("OpenH264 does not decode H.264 {what}");
                return Err(DecodeError::Unsupported(what));
            }
        }
        match decode(&mut self.library, unit, show) {
            Err(DecodeError::Broken(_)) if self.has_flushed => {
                (self.library, self.has_flushed) = (library()?, false);
                decode(&mut self.library, unit, show)
            }
            decoded => decoded,
        }
    }

    fn flush(&mut self, show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError> {
        let rest = self.library.flush_remaining().map_err(|error| broken(&error))?;
        self.has_flushed |= !rest.is_empty();
        rest.iter().try_for_each(|picture| pass(picture, show))
    }
}

fn decode(
    library: &mut Library,
    unit: &[u8],
    show: &mut dyn FnMut(&Frame<'_>),
) -> Result<(), DecodeError> {
    // A flush after each picture would use up the memory. Without it, a picture of the profiles Main
    // and High comes with the next access unit.
    let options = DecodeOptions::new().flush_after_decode(Flush::NoFlush);
    let decoded = library.decode_with_options(unit, options).map_err(|error| broken(&error))?;
    decoded.map_or(Ok(()), |picture| pass(&picture, show))
}

fn pass(picture: &DecodedYUV<'_>, show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError> {
    let ((width, height), (y, u, v)) = (picture.dimensions(), picture.strides());
    let planes = [(picture.y(), y), (picture.u(), u), (picture.v(), v)];
    let size = Resolution::new(width as u32, height as u32);
    let frame = Frame::from_planes(PixelFormat::Yuv420p, size, &planes).ok_or_else(|| {
        DecodeError::Broken(format!("a picture of {width}x{height} has planes that are too short"))
    })?;
    show(&frame);
    Ok(())
}

/// The first sentence of an error of the library: the others are about backtraces.
fn broken(error: &openh264::Error) -> DecodeError {
    let text = error.to_string();
    let end = text.find(" Decoding State").unwrap_or(text.len());
    DecodeError::Broken(text[..end].trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use encoder_core::{
        EncoderConfig, EncoderType, FrameBuffer, FrameLayout, OpenRequest, RateControl, Settings,
        VideoEncoder, mean_absolute_difference,
    };

    use super::*;
    use crate::OpenH264;

    const SIZE: Resolution = Resolution::new(160, 120);

    /// 100 test pictures, and their access units.
    fn stream(preset: &str, gop_size: u32) -> Vec<(FrameBuffer, Vec<u8>)> {
        let encoder = EncoderConfig {
            resolution: Some(SIZE),
            preset: preset.parse().unwrap(),
            gop_size,
            rate_control: RateControl::Crf(10),
            ..EncoderConfig::default()
        };
        let settings = Settings { encoder, ..Settings::default() };
        let request = OpenRequest::new(&settings, EncoderType::OPENH264, 1);
        let mut encoder = OpenH264::open(&request).unwrap();
        let layout = FrameLayout::new(PixelFormat::Yuv420p, SIZE);
        let mut encode = |n| {
            let picture = FrameBuffer::test_picture(layout, n);
            let unit = encoder.encode_frame(&picture.frame(n)).unwrap().unwrap();
            (picture, unit.data)
        };
        (0..100).map(&mut encode).collect()
    }

    fn luma(frame: &Frame<'_>) -> Vec<u8> {
        frame.planes()[0].rows().flatten().copied().collect()
    }

    fn assert_shows(shown: &[u8], picture: &FrameBuffer, what: &str) {
        let off = mean_absolute_difference(shown, &luma(&picture.frame(0)));
        assert!(off < 6.0, "{what}: {off}");
    }

    #[test]
    fn pictures_come_in_order_at_most_one_access_unit_late_however_many_there_are() {
        for preset in ["ultrafast", "veryfast"] {
            let stream = stream(preset, 7);
            let mut decoder = Decoder::open(SIZE).unwrap();
            let mut shown = Vec::new();
            for (n, (_, unit)) in stream.iter().enumerate() {
                decoder.decode(unit, &mut |frame| shown.push(luma(frame))).unwrap();
                let late = n + 1 - shown.len();
                assert!(late <= encoder_core::MAX_DECODE_DELAY, "{preset} {n}");
            }
            decoder.flush(&mut |frame| shown.push(luma(frame))).unwrap();
            assert_eq!(shown.len(), stream.len());
            for (n, ((picture, _), shown)) in stream.iter().zip(&shown).enumerate() {
                assert_shows(shown, picture, &format!("{preset} {n}"));
            }
        }
    }

    #[test]
    fn key_frames_are_decoded_one_by_one_however_many_there_are() {
        // `ultrafast` is Baseline, whose pictures come at once; `veryfast` is Main.
        for preset in ["ultrafast", "veryfast"] {
            let stream = stream(preset, 1);
            let mut decoder = Decoder::open(SIZE).unwrap();
            for (n, (picture, unit)) in stream.iter().enumerate() {
                let mut shown = Vec::new();
                decoder.decode(unit, &mut |frame| shown.push(luma(frame))).unwrap();
                decoder.flush(&mut |frame| shown.push(luma(frame))).unwrap();
                let [shown] = &shown[..] else { panic!("{preset} {n}: {} pictures", shown.len()) };
                assert_shows(shown, picture, &format!("{preset} {n}"));
            }
            let (_, last) = &stream[99];
            let broken = decoder.decode(&last[..last.len() / 2], &mut |_| {});
            assert!(matches!(broken, Err(DecodeError::Broken(_))), "{preset}: {broken:?}");
        }
    }

    #[test]
    fn what_is_not_decoded_is_told_from_what_is_broken() {
        let size = Resolution::new(640, 480);
        let sps = |profile, level| [0, 0, 0, 1, 0x67, profile, 0, level, 0xac];
        for (profile, level, expected) in [
            (110, 40, "profile 110"),
            (122, 40, "profile 122"),
            (244, 40, "profile 244"),
            (100, 60, "level 6.0"),
        ] {
            let refused =
                Decoder::open(size).unwrap().decode(&sps(profile, level), &mut |_| panic!());
            let Err(DecodeError::Unsupported(what)) = refused else { panic!("{refused:?}") };
            assert!(what.ends_with(expected), "{what}");
        }
        let garbage = [0, 0, 0, 1, 0x67, 100, 0, 40, 0xff, 0, 0, 0, 1, 0x65, 0x12, 0x34];
        let broken = Decoder::open(size).unwrap().decode(&garbage, &mut |_| panic!());
        assert!(matches!(&broken, Err(DecodeError::Broken(text)) if !text.contains("Backtrace")));
        for (width, height, is_open) in
            [(4096, 2304, true), (4096, 4096, false), (8688, 16, true), (16, 8704, false)]
        {
            let opened = Decoder::open(Resolution::new(width, height));
            assert_eq!(opened.is_ok(), is_open, "{width}x{height}");
        }
    }
}
