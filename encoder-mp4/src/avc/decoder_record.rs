use std::sync::Arc;

use encoder_core::{Resolution, nal_units};

use super::{Description, SampleWriter, put};
use crate::{
    StreamError,
    boxes::Writer,
    h264::nal::{self, DELIMITER, IDR, PPS, SPS},
};

/// Where the parameter sets of a track are: its four-character code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleEntry {
    /// `avc1`: in the record alone.
    Avc1,
    /// `avc3`: in the record, and in front of the pictures.
    Avc3,
}

impl SampleEntry {
    /// The four-character code.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Avc1 => "avc1",
            Self::Avc3 => "avc3",
        }
    }
}

/// The parameter sets of a stream, and the record that has them in MP4, Matroska and FLV files, and
/// as the `description` of WebCodecs: the AVCDecoderConfigurationRecord, the content of an `avcC`
/// box.
#[derive(Clone, Debug)]
pub struct DecoderRecord {
    description: Description,
    bytes: Vec<u8>,
}

impl DecoderRecord {
    /// The record of a key frame: an IDR picture with its parameter sets, as an Annex B byte stream.
    /// It is that of the whole stream, until an access unit has other parameter sets: another
    /// encoder has taken over.
    ///
    /// # Errors
    /// [`StreamError`] if the access unit has no IDR picture, or its parameter sets are missing,
    /// cannot be read, or are more than a record can hold (31 and 255).
    pub fn from_access_unit(access_unit: &[u8]) -> Result<Self, StreamError> {
        if !nal_units(access_unit).any(|unit| nal::kind(unit) == IDR) {
            return Err(StreamError("the access unit has no IDR picture".into()));
        }
        let mut writer = SampleWriter::default();
        writer.sample(access_unit, true).map_err(StreamError)?;
        let description = writer.description().filter(|description| description.fits()).cloned();
        let many = || StreamError("it has more parameter sets than a record can hold".into());
        let description = description.ok_or_else(many)?;
        let mut w = Writer::new();
        description.configuration(&mut w);
        let bytes = w.finish().map_err(StreamError)?;
        Ok(Self { description, bytes })
    }

    /// The record, as in an `avcC` box. Lengths of NAL units have four bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sequence parameter sets, as NAL units; the one of the key frame comes first.
    pub fn sequence_parameter_sets(&self) -> impl Iterator<Item = &[u8]> {
        self.description.sps.iter().map(Arc::as_ref)
    }

    /// The picture parameter sets, as NAL units.
    pub fn picture_parameter_sets(&self) -> impl Iterator<Item = &[u8]> {
        self.description.pps.iter().map(Arc::as_ref)
    }

    /// All parameter sets as an Annex B byte stream, each behind a start code of 4 bytes: the
    /// `extradata` of FFmpeg for a stream in Annex B.
    pub fn to_annex_b(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for unit in self.sequence_parameter_sets().chain(self.picture_parameter_sets()) {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(unit);
        }
        out
    }

    /// The codec in the form of RFC 6381, as in the `codecs` parameter of a media type:
    /// `avc1.64001f`.
    pub fn codec(&self, entry: SampleEntry) -> String {
        self.description.codec(entry)
    }

    /// Size of the pictures in pixels.
    pub fn size(&self) -> Resolution {
        self.description.size()
    }
}

/// The sample of an access unit, which is an Annex B byte stream: each NAL unit after its length in
/// four bytes, big endian. Access unit delimiters are left out, and parameter sets too for
/// [`SampleEntry::Avc1`].
///
/// # Errors
/// [`StreamError`] if the access unit has no picture, or a NAL unit is longer than its length field
/// can say.
pub fn sample(access_unit: &[u8], entry: SampleEntry) -> Result<Vec<u8>, StreamError> {
    let mut out = Vec::with_capacity(access_unit.len());
    let mut has_picture = false;
    for unit in nal_units(access_unit) {
        has_picture |= nal::is_slice(unit);
        match nal::kind(unit) {
            DELIMITER => {}
            SPS | PPS if entry == SampleEntry::Avc1 => {}
            _ => put(&mut out, unit).map_err(StreamError)?,
        }
    }
    if has_picture { Ok(out) } else { Err(StreamError("it has no picture".into())) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::h264::synthetic::{Slice, Stream, annex_b};

    #[test]
    fn the_record_of_a_key_frame() {
        let stream = Stream::default();
        let (sps, pps, slice) = (stream.sps(), stream.pps(0), stream.slice(&Slice::idr()));
        let unit = annex_b(&[vec![9, 0xf0], sps.clone(), pps.clone(), slice.clone()]);
        let record = DecoderRecord::from_access_unit(&unit).unwrap();
        assert_eq!(record.sequence_parameter_sets().collect::<Vec<_>>(), [&sps[..]]);
        assert_eq!(record.picture_parameter_sets().collect::<Vec<_>>(), [&pps[..]]);
        assert_eq!(record.to_annex_b(), annex_b(&[sps.clone(), pps.clone()]));
        let code = format!("{:02x}{:02x}{:02x}", sps[1], sps[2], sps[3]);
        assert_eq!(record.codec(SampleEntry::Avc1), format!("avc1.{code}"));
        assert_eq!(record.codec(SampleEntry::Avc3), format!("avc3.{code}"));
        let head =
            [&[1, sps[1], sps[2], sps[3], 0xff, 0xe1, 0, sps.len() as u8][..], &sps].concat();
        let body = [&[1, 0, pps.len() as u8][..], &pps].concat();
        assert!(record.as_bytes().starts_with(&[head, body].concat()), "{record:?}");

        let prefixed = |units: &[&[u8]]| {
            let lengths = units.iter().map(|unit| [&[0, 0, 0, unit.len() as u8], *unit].concat());
            lengths.collect::<Vec<_>>().concat()
        };
        assert_eq!(sample(&unit, SampleEntry::Avc1).unwrap(), prefixed(&[&slice]));
        assert_eq!(sample(&unit, SampleEntry::Avc3).unwrap(), prefixed(&[&sps, &pps, &slice]));
    }

    #[test]
    fn access_units_without_a_record_are_errors() {
        let stream = Stream::default();
        let (sps, pps) = (stream.sps(), stream.pps(0));
        let idr = stream.slice(&Slice::idr());
        let p = stream.slice(&Slice::p(1, 2));
        for (units, part) in [
            (vec![], "no IDR picture"),
            (vec![sps.clone(), pps.clone()], "no IDR picture"),
            (vec![sps.clone(), pps.clone(), p], "no IDR picture"),
            (vec![idr.clone()], "have not come"),
            (vec![sps, idr.clone()], "have not come"),
            (vec![vec![0x67, 0xff], pps, idr], "cannot be read"),
        ] {
            let error = DecoderRecord::from_access_unit(&annex_b(&units)).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(sample(&annex_b(&[stream.sps()]), SampleEntry::Avc3).is_err());
    }
}
