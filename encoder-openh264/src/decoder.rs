//! The library's decoder, which checks the pictures of hardware encoders.

use encoder_core::{
    DecodeError, Frame, NalKind, PictureDecoder, PixelFormat, Resolution, nal_units,
};
use openh264::{decoder::Decoder as Library, formats::YUVSource};

/// Profiles that the library decodes: Baseline, Main and High, all 8 bits and 4:2:0.
const PROFILES: [u8; 3] = [66, 77, 100];

/// A decoder of the library.
pub struct Decoder(Library);

impl Decoder {
    /// Opens a decoder.
    pub fn open() -> Result<Self, DecodeError> {
        Library::new().map(Self).map_err(|error| DecodeError::Unsupported(error.to_string()))
    }
}

impl PictureDecoder for Decoder {
    fn decode(&mut self, unit: &[u8], show: &mut dyn FnMut(&Frame<'_>)) -> Result<(), DecodeError> {
        let is_sps =
            |nal: &&[u8]| nal.first().is_some_and(|&head| NalKind::of(head) == NalKind::Sps);
        let profile = nal_units(unit).find(is_sps).and_then(|nal| nal.get(1).copied());
        if let Some(profile) = profile.filter(|profile| !PROFILES.contains(profile)) {
            let what = format!("OpenH264 does not decode H.264 profile {profile}");
            return Err(DecodeError::Unsupported(what));
        }
        let broken = |what: String| DecodeError::Broken(what);
        let picture = self.0.decode(unit).map_err(|error| broken(error.to_string()))?;
        let picture = picture.ok_or_else(|| broken("it has no complete picture".into()))?;
        let ((width, height), (y, u, v)) = (picture.dimensions(), picture.strides());
        let planes = [(picture.y(), y), (picture.u(), u), (picture.v(), v)];
        let size = Resolution::new(width as u32, height as u32);
        let frame = Frame::from_planes(PixelFormat::Yuv420p, size, &planes).ok_or_else(|| {
            broken(format!("its picture is {width}x{height}, with planes too short"))
        })?;
        show(&frame);
        Ok(())
    }
}
