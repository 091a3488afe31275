//! H.264 as MP4 and its relatives store it (ISO/IEC 14496-15): parameter sets in a record, and access
//! units with lengths in place of start codes. For programs with a muxer of their own.

mod decoder_record;

use std::sync::Arc;

use encoder_core::{Resolution, nal_units};

use super::{
    boxes::{Fields, Writer},
    h264::{self, HIGH_PROFILES, ParameterSets, Pps, Sps, nal},
};

pub use decoder_record::{DecoderRecord, SampleEntry, sample};

/// The most sequence and picture parameter sets of a sample description: its counts have 5 and 8
/// bits.
const MOST_SPS: usize = 31;
const MOST_PPS: usize = 255;

/// The samples of a stream: its access units, with parameter sets in front of the samples that need
/// them.
///
/// Parameter sets are merged by their ids. Each key frame carries all of them in front. A picture
/// parameter set that changes between key frames is written in front of the next sample; a sequence
/// parameter set waits for the next key frame, which activates it.
#[derive(Default)]
pub(super) struct SampleWriter {
    sets: ParameterSets,
    /// Parameter sets of the last key frame.
    description: Option<Description>,
    /// Picture parameter sets that are not in the file yet.
    pending: Vec<Arc<[u8]>>,
}

/// The bytes of a sample.
pub(super) struct SampleData {
    pub data: Vec<u8>,
    /// How many of the bytes are parameter sets, in front.
    pub sets: u32,
}

impl SampleWriter {
    /// The parameter sets of the last key frame.
    pub fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    /// Makes the sample of an Annex B access unit.
    ///
    /// # Errors
    /// A message, if the stream cannot be stored in MP4.
    pub fn sample(&mut self, access_unit: &[u8], is_keyframe: bool) -> Result<SampleData, String> {
        let mut units = Vec::with_capacity(access_unit.len());
        let mut first_slice = None;
        let mut data = Vec::new();
        for unit in nal_units(access_unit) {
            match nal::kind(unit) {
                nal::SPS | nal::PPS => {
                    let is_new = self.sets.insert(unit)?;
                    if is_new && nal::kind(unit) == nal::PPS {
                        self.pending.push(unit.into());
                    }
                }
                nal::DELIMITER => {}
                _ => {
                    if first_slice.is_none() && nal::is_slice(unit) {
                        first_slice = Some(unit);
                        // Parameter sets after the first slice apply to later pictures.
                        data = self.parameter_sets(unit, is_keyframe)?;
                    }
                    put(&mut units, unit)?;
                }
            }
        }
        if first_slice.is_none() {
            return Err("it has no picture".into());
        }
        let sets = u32::try_from(data.len()).map_err(|_| "its parameter sets are too large")?;
        data.append(&mut units);
        Ok(SampleData { data, sets })
    }

    /// The parameter sets in front of a picture.
    fn parameter_sets(&mut self, slice: &[u8], is_keyframe: bool) -> Result<Vec<u8>, String> {
        let pending = std::mem::take(&mut self.pending);
        if is_keyframe {
            let description = Description::new(&self.sets, slice)?;
            let bytes = description.in_band();
            self.description = Some(description);
            return bytes;
        }
        let Some(description) = &self.description else {
            return Err("the first picture is no key frame".into());
        };
        let active = description.active.id;
        let mut out = Vec::new();
        for unit in pending {
            // A picture parameter set of another sequence parameter set is used from the next key
            // frame on.
            if Pps::parse(&unit).is_some_and(|pps| pps.sps == active) {
                put(&mut out, &unit)?;
            }
        }
        Ok(out)
    }
}

/// Appends a NAL unit after its length.
fn put(out: &mut Vec<u8>, unit: &[u8]) -> Result<(), String> {
    out.extend_from_slice(&length_field(unit.len())?);
    out.extend_from_slice(unit);
    Ok(())
}

fn length_field(length: usize) -> Result<[u8; 4], String> {
    let bytes = u32::try_from(length).map(u32::to_be_bytes);
    bytes.map_err(|_| format!("a NAL unit has {length} bytes, MP4 takes up to {}", u32::MAX))
}

/// The parameter sets of a key frame.
#[derive(Clone, Debug)]
pub(super) struct Description {
    /// The sequence parameter sets; the active one comes first.
    sps: Vec<Arc<[u8]>>,
    pps: Vec<Arc<[u8]>>,
    active: Sps,
}

impl Description {
    /// The parameter sets of the key frame that contains this slice.
    fn new(sets: &ParameterSets, slice: &[u8]) -> Result<Self, String> {
        let pps = h264::picture_parameter_set(slice);
        let by_slice = pps.and_then(|pps| sets.of_picture(pps)).map(|(sps, _)| sps.id);
        let mut all_pps = sets.pps().peekable();
        let (Some(first), Some(_)) = (by_slice.or(sets.only_sps()), all_pps.peek()) else {
            return Err("the parameter sets of the picture have not come".into());
        };
        Self::checked(sets.sps(first).cloned().collect(), all_pps.cloned().collect())
    }

    fn checked(sps: Vec<Arc<[u8]>>, pps: Vec<Arc<[u8]>>) -> Result<Self, String> {
        let active = sps.first().and_then(|unit| Sps::parse(unit));
        let active = active.filter(|_| !pps.is_empty()).ok_or("there are no parameter sets")?;
        let size = active.size;
        if size.width > u16::MAX.into() || size.height > u16::MAX.into() {
            return Err(format!("the pictures are {size}, MP4 takes up to 65535x65535"));
        }
        Ok(Self { sps, pps, active })
    }

    /// Parses the output of [`in_band`](Self::in_band).
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let (mut sps, mut pps) = (Vec::new(), Vec::new());
        while !bytes.is_empty() {
            let length = bytes.u32()? as usize;
            let unit = bytes.front(length).filter(|unit| unit.len() <= u16::MAX.into())?;
            match nal::kind(unit) {
                nal::SPS => sps.push(unit.into()),
                nal::PPS => pps.push(unit.into()),
                _ => return None,
            }
        }
        Self::checked(sps, pps).ok()
    }

    /// The parameter sets as they are written in front of a key frame.
    pub fn in_band(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        self.sps.iter().chain(&self.pps).try_for_each(|unit| put(&mut out, unit))?;
        Ok(out)
    }

    /// Size of the pictures.
    pub fn size(&self) -> Resolution {
        self.active.size
    }

    /// The codec in the form of RFC 6381: `avc1.64001f`.
    pub fn codec(&self, entry: SampleEntry) -> String {
        let [profile, constraints, level] = [1, 2, 3].map(|n| self.sps[0][n]);
        format!("{}.{profile:02x}{constraints:02x}{level:02x}", entry.as_str())
    }

    /// Whether a sample description can hold all of them. Otherwise it holds those of the key
    /// frame, and all are written in front of the pictures.
    pub fn fits(&self) -> bool {
        self.sps.len() <= MOST_SPS && self.pps.len() <= MOST_PPS
    }

    /// Writes a sample entry: `avc1`, or `avc3` if parameter sets are also written in front of
    /// pictures.
    pub fn sample_entry(&self, w: &mut Writer, kind: &[u8; 4]) {
        let sps = &self.active;
        w.nest(kind, |w| {
            w.zeros(6);
            w.u16(1);
            w.zeros(16);
            w.narrow16(sps.size.width);
            w.narrow16(sps.size.height);
            w.u32(0x48_0000); // 72 dpi
            w.u32(0x48_0000);
            w.u32(0);
            w.u16(1);
            w.zeros(32);
            w.u16(24);
            w.u16(0xffff);
            w.nest(b"avcC", |w| self.configuration(w));
            if let Some(colour) = sps.colour {
                w.nest(b"colr", |w| {
                    w.bytes(b"nclx");
                    w.u16(u16::from(colour.primaries));
                    w.u16(u16::from(colour.transfer));
                    w.u16(u16::from(colour.matrix));
                    w.u8(u8::from(colour.full_range) << 7);
                });
            }
        });
    }

    fn configuration(&self, w: &mut Writer) {
        let active = &self.active;
        let of_active =
            |unit: &&Arc<[u8]>| Pps::parse(unit).is_some_and(|pps| pps.sps == active.id);
        let (sps, pps): (Vec<_>, Vec<_>) = if self.fits() {
            (self.sps.iter().collect(), self.pps.iter().collect())
        } else {
            let pps = self.pps.iter().filter(of_active).take(MOST_PPS);
            (self.sps.iter().take(1).collect(), pps.collect())
        };
        w.u8(1);
        w.bytes(&self.sps[0][1..4]);
        w.u8(0xff); // lengths of four bytes
        for (units, reserved) in [(sps, 0xe0), (pps, 0)] {
            w.u8(reserved | units.len() as u8); // `fits`
            for unit in units {
                w.narrow16(unit.len());
                w.bytes(unit);
            }
        }
        if HIGH_PROFILES.contains(&active.profile) {
            w.u8(0xfc | active.chroma_format);
            w.u8(0xf8 | (active.luma_bits - 8));
            w.u8(0xf8 | (active.chroma_bits - 8));
            w.u8(0);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::h264::synthetic::{Slice, Stream, annex_b},
        *,
    };

    fn idr(pps: u32) -> Slice {
        Slice { pps, ..Slice::idr() }
    }

    /// The NAL units of a sample: its parameter sets, and the other units.
    fn units(sample: &SampleData) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let split = |mut bytes: &[u8]| {
            let mut units = Vec::new();
            while let Some(length) = bytes.u32() {
                units.push(bytes.front(length as usize).unwrap().to_vec());
            }
            units
        };
        let (sets, pictures) = sample.data.split_at(sample.sets as usize);
        (split(sets), split(pictures))
    }

    /// The parameter sets of an `avcC` box.
    fn configured(description: &Description) -> Vec<Vec<u8>> {
        let mut w = Writer::new();
        description.sample_entry(&mut w, b"avc1");
        let entry = w.finish().unwrap();
        let at = entry.windows(4).position(|w| w == b"avcC").unwrap();
        let mut bytes = &entry[at + 9..];
        let mut sets = Vec::new();
        for mask in [0x1f, 0xff] {
            for _ in 0..bytes.u8().unwrap() & mask {
                let length = u16::from_be_bytes(bytes.array().unwrap());
                sets.push(bytes.front(length.into()).unwrap().to_vec());
            }
        }
        sets
    }

    #[test]
    fn parameter_sets_are_merged_by_their_ids() {
        let stream = Stream::default();
        let (sps, pps, slice) = (stream.sps(), stream.pps(0), |s: &Slice| stream.slice(s));
        let mut writer = SampleWriter::default();
        let sample = writer.sample(&stream.unit(&[idr(0)]), true).unwrap();
        assert_eq!(units(&sample), (vec![sps.clone(), pps.clone()], vec![slice(&idr(0))]));
        // A key frame with only a picture parameter set, of another id and of the same id.
        let second = stream.pps(1);
        let sample = writer.sample(&annex_b(&[second.clone(), slice(&idr(1))]), true).unwrap();
        assert_eq!(units(&sample).0, [&sps, &pps, &second].map(Vec::clone));
        let other = stream.pps_with(0, 30);
        let sample = writer.sample(&annex_b(&[other.clone(), slice(&idr(0))]), true).unwrap();
        assert_eq!(units(&sample).0, [&sps, &other, &second].map(Vec::clone));
        // A key frame without parameter sets.
        let sample = writer.sample(&annex_b(&[slice(&idr(0))]), true).unwrap();
        assert_eq!(units(&sample).0, [&sps, &other, &second].map(Vec::clone));
        // A key frame with only a sequence parameter set, of another id: it describes the file.
        let large = Stream { id: 3, size: (20, 16), ..Stream::default() };
        let unit = annex_b(&[large.sps(), large.pps(9), large.slice(&idr(9))]);
        writer.sample(&unit, true).unwrap();
        let description = writer.description().unwrap();
        assert_eq!(description.size(), Resolution::new(320, 256));
        let all = [large.sps(), sps, other, second, large.pps(9)];
        assert_eq!(configured(description), all);
        let read = Description::read(&description.in_band().unwrap()).unwrap();
        assert_eq!(configured(&read), all);
    }

    #[test]
    fn parameter_sets_between_key_frames_stand_where_they_apply() {
        let stream = Stream::default();
        let (pps, changed) = (stream.pps(0), stream.pps_with(0, 30));
        let p = |n| stream.slice(&Slice::p(n, 2 * n));
        let mut writer = SampleWriter::default();
        let none: [Vec<u8>; 0] = [];
        writer.sample(&stream.unit(&[idr(0)]), true).unwrap();
        // In front of a picture: written there. The same sets again: not written.
        let sample = writer.sample(&annex_b(&[changed.clone(), p(1)]), false).unwrap();
        assert_eq!(units(&sample), (vec![changed.clone()], vec![p(1)]));
        let sample = writer.sample(&annex_b(&[stream.sps(), changed, p(2)]), false).unwrap();
        assert_eq!(units(&sample), (none.to_vec(), vec![p(2)]));
        // After a picture: written in front of the next picture.
        let sample = writer.sample(&annex_b(&[p(3), pps.clone()]), false).unwrap();
        assert_eq!(units(&sample), (none.to_vec(), vec![p(3)]));
        let sample = writer.sample(&annex_b(&[p(4)]), false).unwrap();
        assert_eq!(units(&sample), (vec![pps.clone()], vec![p(4)]));
        // Sets of another sequence parameter set wait for the key frame that activates it.
        let other = Stream { id: 5, ..Stream::default() };
        let unit = annex_b(&[other.sps(), other.pps(6), p(5)]);
        assert_eq!(units(&writer.sample(&unit, false).unwrap()).0, none);
        let sample = writer.sample(&annex_b(&[other.slice(&idr(6))]), true).unwrap();
        assert_eq!(units(&sample).0, [other.sps(), stream.sps(), pps, other.pps(6)]);
    }

    #[test]
    fn more_parameter_sets_than_a_description_holds_stand_in_front_of_the_pictures() {
        let mut writer = SampleWriter::default();
        let mut last = Vec::new();
        for id in 0..32 {
            let stream = Stream { id, ..Stream::default() };
            let unit = annex_b(&[stream.sps(), stream.pps(id), stream.slice(&idr(id))]);
            last = units(&writer.sample(&unit, true).unwrap()).0;
            assert_eq!(writer.description().unwrap().fits(), id < 31);
        }
        assert_eq!(last.len(), 64);
        let stream = Stream { id: 31, ..Stream::default() };
        assert_eq!(configured(writer.description().unwrap()), [stream.sps(), stream.pps(31)]);

        let mut writer = SampleWriter::default();
        let stream = Stream::default();
        let sets = (0..256).map(|id| stream.pps(id));
        let unit = [stream.sps()].into_iter().chain(sets).chain([stream.slice(&idr(255))]);
        let sample = writer.sample(&annex_b(&unit.collect::<Vec<_>>()), true).unwrap();
        assert_eq!(units(&sample).0.len(), 257);
        assert_eq!(configured(writer.description().unwrap()).len(), 256);
    }

    #[test]
    fn what_mp4_cannot_hold_is_an_error() {
        let good = Stream::default();
        let wide = Stream { size: (4096, 8), ..Stream::default() };
        let oversized = [&good.pps(1)[..], &[1; 65_536]].concat();
        let other = Stream { id: 1, ..Stream::default() };
        for (unit, is_keyframe, text) in [
            (annex_b(&[good.slice(&idr(0))]), true, "have not come"),
            (annex_b(&[good.sps(), good.slice(&idr(0))]), true, "have not come"),
            (annex_b(&[good.pps(0), good.slice(&idr(0))]), true, "have not come"),
            (
                annex_b(&[good.sps(), other.sps(), good.pps(0), good.slice(&idr(1))]),
                true,
                "not come",
            ),
            (
                annex_b(&[good.sps(), good.pps(0), good.slice(&Slice::p(1, 2))]),
                false,
                "no key frame",
            ),
            (annex_b(&[good.sps(), good.pps(0)]), true, "no picture"),
            (wide.unit(&[idr(0)]), true, "65536x128"),
            (annex_b(&[good.sps(), oversized, good.slice(&idr(0))]), true, "up to 65535"),
            (annex_b(&[vec![0x67, 0xff]]), true, "(SPS) cannot be read"),
        ] {
            let error = SampleWriter::default().sample(&unit, is_keyframe).err().unwrap();
            assert!(error.contains(text), "{text}: {error}");
        }
        assert!(length_field(u32::MAX as usize).is_ok());
        assert!(length_field(1 << 32).unwrap_err().contains("4294967296 bytes"));
    }
}
