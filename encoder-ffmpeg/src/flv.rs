//! Cuts an FLV stream with H.264 into access units.
//!
//! Takes pieces of any size. Strict: FFmpeg is the only writer, so anything unexpected is an error.
//! Sizes are bounded by the format itself (24 bits per tag).

use encoder_core::NalKind;
use thiserror::Error;

/// One coded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessUnit {
    /// Annex B with start codes of four bytes; parameter sets in front of an IDR picture.
    pub data: Vec<u8>,
    /// Its presentation time in milliseconds, from an origin of the stream's own.
    pub pts_ms: i64,
    /// Whether it is an IDR picture.
    pub keyframe: bool,
}

/// A defect of a stream.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("FFmpeg's output is not the expected FLV, at byte {offset}: {what}")]
pub struct FlvError {
    /// Start of the faulty header or tag, in bytes from the start of the stream.
    pub offset: u64,
    /// The defect.
    pub what: &'static str,
}

/// The incremental parser. After an error it accepts no more bytes.
#[derive(Debug, Default)]
pub struct FlvParser {
    pending: Vec<u8>,
    /// Bytes of the stream in front of `pending`.
    offset: u64,
    header_read: bool,
    failed: Option<FlvError>,
    avc: Option<AvcConfig>,
    clock: Clock,
}

#[derive(Debug)]
struct AvcConfig {
    /// Bytes of the length in front of each NAL unit, 1 to 4.
    length_size: usize,
    /// SPS and PPS as Annex B.
    parameter_sets: Vec<u8>,
}

const FILE_HEADER: usize = 9;
const TAG_HEADER: usize = 11;
const BACK_POINTER: usize = 4;
const START_CODE: [u8; 4] = [0, 0, 0, 1];

impl FlvParser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends the access units that they complete to `out`.
    ///
    /// # Errors
    /// [`FlvError`]; then also for every later call.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<AccessUnit>) -> Result<(), FlvError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.pending.extend_from_slice(bytes);
        let mut used = 0;
        let result = loop {
            match self.step(used, out) {
                Ok(0) => break Ok(()),
                Ok(length) => used += length,
                Err(what) => break Err(FlvError { offset: self.offset + used as u64, what }),
            }
        };
        self.pending.drain(..used);
        self.offset += used as u64;
        self.failed = result.clone().err();
        result
    }

    /// Checks that the stream ended between two tags.
    ///
    /// # Errors
    /// [`FlvError`] when it was cut, or never began.
    pub fn finish(&self) -> Result<(), FlvError> {
        let what = match (&self.failed, self.header_read, self.pending.is_empty()) {
            (Some(error), ..) => return Err(error.clone()),
            (None, true, true) => return Ok(()),
            (None, true, false) => "the stream ends inside a tag",
            (None, false, _) => "the stream ends before its header",
        };
        Err(FlvError { offset: self.offset, what })
    }

    /// Reads one header or tag at `at`; returns its length, 0 when it is not complete yet.
    fn step(&mut self, at: usize, out: &mut Vec<AccessUnit>) -> Result<usize, &'static str> {
        let rest = self.pending.get(at..).unwrap_or_default();
        if !self.header_read {
            const MAGIC: &[u8] = b"FLV\x01";
            let have = rest.len().min(MAGIC.len());
            if rest.get(..have) != MAGIC.get(..have) {
                return Err("no FLV header");
            }
            let Some(header) = rest.first_chunk::<{ FILE_HEADER + BACK_POINTER }>() else {
                return Ok(0);
            };
            if header[5..] != [0, 0, 0, 9, 0, 0, 0, 0] {
                return Err("an FLV header of a wrong length");
            }
            self.header_read = true;
            return Ok(header.len());
        }
        let Some(header) = rest.first_chunk::<TAG_HEADER>() else { return Ok(0) };
        let &[kind, s2, s1, s0, t2, t1, t0, t3, stream @ ..] = header;
        let size = u32::from_be_bytes([0, s2, s1, s0]) as usize;
        if stream != [0; 3] {
            return Err("a tag of another stream");
        }
        // Checked before the body is complete, so that garbage fails early.
        if kind != 9 && kind != 18 {
            return Err("a tag that is neither video nor script data");
        }
        let whole = TAG_HEADER + size + BACK_POINTER;
        let (Some(body), Some(back)) =
            (rest.get(TAG_HEADER..TAG_HEADER + size), rest.get(TAG_HEADER + size..whole))
        else {
            return Ok(0);
        };
        if back != ((TAG_HEADER + size) as u32).to_be_bytes() {
            return Err("a back pointer that does not match its tag");
        }
        if kind == 9 {
            let time = u32::from_be_bytes([t3, t2, t1, t0]);
            match video_tag(body)? {
                // Empty if only the access units contain the parameter sets.
                Video::Config([]) => {}
                Video::Config(bytes) => self.avc = Some(AvcConfig::parse(bytes)?),
                Video::End => {}
                Video::Picture { composition_ms, units } => {
                    let avc = self.avc.as_ref().ok_or("a picture before the parameter sets")?;
                    let (data, keyframe) = avc.annex_b(units)?;
                    let pts_ms = self.clock.unwrap(time)? + i64::from(composition_ms);
                    out.push(AccessUnit { data, pts_ms, keyframe });
                }
            }
        }
        Ok(whole)
    }
}

enum Video<'a> {
    Config(&'a [u8]),
    Picture { composition_ms: i32, units: &'a [u8] },
    End,
}

fn video_tag(body: &[u8]) -> Result<Video<'_>, &'static str> {
    let (&[flags, packet, c2, c1, c0], rest) =
        body.split_first_chunk().ok_or("a video tag without its header")?;
    // High bits: 1 key frame, 2 other frame; low bits: the codec, 7 is H.264.
    if !matches!(flags, 0x17 | 0x27) {
        return Err("a video tag that is not H.264");
    }
    match packet {
        0 => Ok(Video::Config(rest)),
        // The composition time is a signed number of 24 bits.
        1 => Ok(Video::Picture {
            composition_ms: i32::from_be_bytes([c2, c1, c0, 0]) >> 8,
            units: rest,
        }),
        2 => Ok(Video::End),
        _ => Err("a video tag of an unknown kind"),
    }
}

impl AvcConfig {
    /// Reads an `AVCDecoderConfigurationRecord`.
    fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        const CUT: &str = "parameter sets that are cut off";
        let (&[version, _, _, _, lengths], mut rest) = bytes.split_first_chunk().ok_or(CUT)?;
        if version != 1 {
            return Err("parameter sets of an unknown version");
        }
        let mut parameter_sets = Vec::with_capacity(bytes.len() + 16);
        for mask in [0x1f, 0xff] {
            let (&count, mut tail) = rest.split_first().ok_or(CUT)?;
            for _ in 0..count & mask {
                let (size, after) = tail.split_first_chunk().ok_or(CUT)?;
                let size = usize::from(u16::from_be_bytes(*size));
                let (unit, after) = after.split_at_checked(size).ok_or(CUT)?;
                parameter_sets.extend_from_slice(&START_CODE);
                parameter_sets.extend_from_slice(unit);
                tail = after;
            }
            rest = tail;
        }
        Ok(Self { length_size: usize::from(lengths & 3) + 1, parameter_sets })
    }

    /// Turns length-prefixed NAL units into Annex B; also returns whether it is an IDR picture.
    fn annex_b(&self, units: &[u8]) -> Result<(Vec<u8>, bool), &'static str> {
        let (mut idr, mut in_band, mut slices) = (false, false, 0usize);
        for unit in self.units(units) {
            match unit?.first().map(|&header| NalKind::of(header)) {
                Some(NalKind::Idr) => (idr, slices) = (true, slices + 1),
                Some(NalKind::Slice) => slices += 1,
                Some(NalKind::Sps) => in_band = true,
                _ => {}
            }
        }
        if slices == 0 {
            return Err("an access unit without a slice");
        }
        let mut missing = idr && !in_band;
        let mut data = Vec::with_capacity(units.len() + self.parameter_sets.len() + 32);
        for unit in self.units(units) {
            let unit = unit?;
            let Some(&header) = unit.first() else { continue };
            // An access unit delimiter stays first.
            if missing && NalKind::of(header) != NalKind::Aud {
                data.extend_from_slice(&self.parameter_sets);
                missing = false;
            }
            data.extend_from_slice(&START_CODE);
            data.extend_from_slice(unit);
        }
        Ok((data, idr))
    }

    fn units<'a>(
        &self,
        mut rest: &'a [u8],
    ) -> impl Iterator<Item = Result<&'a [u8], &'static str>> + use<'a> {
        let length_size = self.length_size;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let unit = rest.split_at_checked(length_size).and_then(|(length, after)| {
                let length = length.iter().fold(0usize, |n, &b| n << 8 | usize::from(b));
                after.split_at_checked(length)
            });
            let Some((unit, after)) = unit else {
                rest = &[];
                return Some(Err("a NAL unit that is longer than its tag"));
            };
            rest = after;
            Some(Ok(unit))
        })
    }
}

/// Timestamps of 31 bits, continued beyond them.
#[derive(Debug, Default)]
struct Clock {
    last: Option<i64>,
}

impl Clock {
    fn unwrap(&mut self, time: u32) -> Result<i64, &'static str> {
        const WRAP: i64 = 1 << 31;
        let time = i64::from(time) % WRAP;
        let full = match self.last {
            None => time,
            Some(last) => {
                let step = (time - last).rem_euclid(WRAP);
                if step > WRAP / 2 {
                    return Err("decoding times that go back");
                }
                last + step
            }
        };
        self.last = Some(full);
        Ok(full)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 1, 2, 3];
    const PPS: &[u8] = &[0x68, 4];

    fn tag(kind: u8, time: u32, body: &[u8]) -> Vec<u8> {
        let size = (body.len() as u32).to_be_bytes();
        let t = time.to_be_bytes();
        let mut out = vec![kind, size[1], size[2], size[3], t[1], t[2], t[3], t[0], 0, 0, 0];
        out.extend_from_slice(body);
        out.extend_from_slice(&(body.len() as u32 + 11).to_be_bytes());
        out
    }

    fn header() -> Vec<u8> {
        b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec()
    }

    fn config() -> Vec<u8> {
        let mut body = vec![0x17, 0, 0, 0, 0, 1, 100, 0, 30, 0xff, 0xe1, 0, 4];
        body.extend_from_slice(SPS);
        body.extend_from_slice(&[1, 0, 2]);
        body.extend_from_slice(PPS);
        // High profile adds fields that are of no use here.
        body.extend_from_slice(&[0xfd, 0xf8, 0xf8, 0]);
        tag(9, 0, &body)
    }

    fn picture(time: u32, composition: i32, units: &[&[u8]]) -> Vec<u8> {
        let c = composition.to_be_bytes();
        let mut body = vec![0x27, 1, c[1], c[2], c[3]];
        for unit in units {
            body.extend_from_slice(&(unit.len() as u32).to_be_bytes());
            body.extend_from_slice(unit);
        }
        tag(9, time, &body)
    }

    fn annex_b(units: &[&[u8]]) -> Vec<u8> {
        units.iter().flat_map(|u| [&START_CODE, *u].concat()).collect()
    }

    fn stream() -> Vec<u8> {
        [
            header(),
            tag(18, 0, b"onMetaData"),
            config(),
            picture(0, 67, &[&[6, 9], &[0x65, 1, 2]]),
            picture(33, 100, &[&[0x41, 3]]),
            picture(67, -1, &[&[0x01, 4], &[], &[0x01, 5]]),
            picture(100, 0, &[&[9, 0xf0], &[0x65, 6]]),
            picture(133, 0, &[SPS, PPS, &[0x65, 7]]),
            tag(9, 133, &[0x17, 2, 0, 0, 0]),
        ]
        .concat()
    }

    fn expected() -> Vec<AccessUnit> {
        let unit = |units: &[&[u8]], pts_ms, keyframe| AccessUnit {
            data: annex_b(units),
            pts_ms,
            keyframe,
        };
        vec![
            unit(&[SPS, PPS, &[6, 9], &[0x65, 1, 2]], 67, true),
            unit(&[&[0x41, 3]], 133, false),
            unit(&[&[0x01, 4], &[0x01, 5]], 66, false),
            unit(&[&[9, 0xf0], SPS, PPS, &[0x65, 6]], 100, true),
            unit(&[SPS, PPS, &[0x65, 7]], 133, true),
        ]
    }

    fn parse(pieces: &[&[u8]]) -> Result<Vec<AccessUnit>, FlvError> {
        let mut parser = FlvParser::new();
        let mut out = Vec::new();
        for piece in pieces {
            parser.push(piece, &mut out)?;
        }
        parser.finish()?;
        Ok(out)
    }

    #[test]
    fn access_units_come_out_as_annex_b_with_parameter_sets() {
        assert_eq!(parse(&[&stream()]).unwrap(), expected());
    }

    #[test]
    fn faults_have_a_name_and_a_place() {
        let good = [header(), config()].concat();
        let after = |tail: &[u8]| [&good, tail].concat();
        let at = good.len() as u64;
        let mut torn = picture(0, 0, &[&[0x65, 1]]);
        *torn.last_mut().unwrap() ^= 1;
        let table: &[(Vec<u8>, u64, &str)] = &[
            (vec![], 0, "before its header"),
            (b"FLV".to_vec(), 0, "before its header"),
            (b"Fx".to_vec(), 0, "no FLV header"),
            (b"\0\0\0\x01g".to_vec(), 0, "no FLV header"),
            (b"FLV\x01\x01\0\0\0\x0a\0\0\0\0".to_vec(), 0, "wrong length"),
            (after(&[9, 0]), at, "inside a tag"),
            (after(&tag(8, 0, &[1])), at, "neither video nor script"),
            (after(&torn), at, "back pointer"),
            (after(&tag(9, 0, &[0x17, 1])), at, "without its header"),
            (after(&tag(9, 0, &[0x12, 1, 0, 0, 0])), at, "not H.264"),
            (after(&tag(9, 0, &[0x17, 3, 0, 0, 0])), at, "unknown kind"),
            (after(&tag(9, 0, &[0x17, 1, 0, 0, 0])), at, "without a slice"),
            (after(&tag(9, 0, &[0x17, 1, 0, 0, 0, 0, 0, 0, 9, 0x65])), at, "longer than its tag"),
            (after(&tag(9, 0, &[0x17, 1, 0, 0, 0, 0, 0])), at, "longer than its tag"),
            (after(&tag(9, 0, &[0x17, 0, 0, 0, 0, 1])), at, "cut off"),
            (after(&tag(9, 0, &[0x17, 0, 0, 0, 0, 2, 0, 0, 0, 3])), at, "unknown version"),
            (after(&tag(9, 0, &[0x17, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1, 0, 9, 7])), at, "cut off"),
            ([header(), picture(0, 0, &[&[0x65]])].concat(), 13, "before the parameter sets"),
            (
                [header(), tag(9, 0, &[0x17, 0, 0, 0, 0]), picture(0, 0, &[&[0x65]])].concat(),
                33,
                "before the parameter sets",
            ),
        ];
        for (bytes, offset, what) in table {
            let error = parse(&[bytes]).expect_err(what);
            assert!(error.what.contains(what), "{error}, expected {what}");
            assert_eq!(error.offset, *offset, "{what}");
        }
    }

    #[test]
    fn timestamps_continue_after_31_bits_and_never_decrease() {
        let mut clock = Clock::default();
        assert_eq!(clock.unwrap(0x7fff_fff0), Ok(0x7fff_fff0));
        assert_eq!(clock.unwrap(16), Ok(0x8000_0010));
        assert_eq!(clock.unwrap(16), Ok(0x8000_0010));
        assert!(clock.unwrap(15).is_err());
    }

    proptest::proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in proptest::collection::vec(0usize..400, 0..30)) {
            let stream = stream();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            proptest::prop_assert_eq!(parse(&pieces), Ok(expected()));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(
            bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600),
            keep in 0usize..300,
        ) {
            let _ = parse(&[&stream()[..keep.min(stream().len())], &bytes]);
            proptest::prop_assume!(!bytes.starts_with(b"FLV"));
            proptest::prop_assert!(parse(&[&bytes]).is_err());
        }

        #[test]
        fn a_changed_byte_is_never_a_panic(at in 0usize..400, value: u8) {
            let mut stream = stream();
            let at = at % stream.len();
            stream[at] = value;
            let _ = parse(&[&stream]);
        }
    }
}
