use std::{
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    fragment_reader::{FragmentReader, PartError},
    progressive, record,
};
use encoder_media::timeline::{Timeline, TimestampAnalysis};

/// Extensions of raw H.264 streams.
pub(super) const STREAM_EXTENSIONS: [&str; 3] = ["h264", "264", "annexb"];

/// The complete frames of a file whose writing was interrupted.
pub struct Recovery<R> {
    fragments: FragmentReader<R>,
    timeline: Timeline,
    frames: u64,
    torn: Option<usize>,
    rest: u64,
}

impl<R: Read + Seek> Recovery<R> {
    /// Reads a file up to its first truncated or damaged frame. Needs memory for the table of one
    /// fragment.
    ///
    /// # Errors
    /// [`PartError`], if nothing can be recovered, or nothing needs to be.
    pub fn find(reader: R) -> Result<Self, PartError> {
        let mut fragments = FragmentReader::open(reader)?;
        let head = fragments.head();
        let mut analysis = TimestampAnalysis::new(head.timing, head.rate, head.reorder);
        while let Some(fragment) = fragments.next(true)? {
            for n in record::display_order(&fragment.samples) {
                analysis.push(&fragment.samples[n].times);
            }
        }
        let (frames, rest) = (analysis.frames(), fragments.unread());
        if frames == 0 {
            return Err(PartError::Empty);
        }
        let torn = fragments.torn();
        fragments.rewind();
        Ok(Self { fragments, timeline: analysis.timeline(), frames, torn, rest })
    }

    /// How many of the frames come from a fragment that is incomplete or damaged. Each of them has
    /// its checksum.
    pub fn of_torn_fragment(&self) -> usize {
        self.torn.unwrap_or(0)
    }

    /// Frames that can be recovered.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Number of bytes at the end of the file that cannot be used.
    pub fn rest(&self) -> u64 {
        self.rest
    }

    /// The timing of the frames.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Writes the progressive MP4 file of the frames that can be recovered.
    ///
    /// # Errors
    /// When reading or writing fails, or the file was changed in the meantime.
    pub fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        match progressive::write(&mut self.fragments, &self.timeline, to)? {
            frames if frames == self.frames => Ok(()),
            _ => Err(io::Error::other("the file was changed while it was read")),
        }
    }
}

/// The default name of a repaired file: `NAME.mp4` for `NAME.mp4.part`, `NAME.mp4.2.part` and the
/// temporary file `.NAME.mp4.RANDOM.part`, otherwise `NAME.repaired.mp4`.
pub fn repaired_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(part) = name.strip_suffix(".part") else {
        let stem = name.strip_suffix(".mp4").unwrap_or(&name);
        return path.with_file_name(format!("{stem}.repaired.mp4"));
    };
    let video = part.rsplit_once('.').and_then(|(name, end)| {
        let is_number = end.bytes().all(|byte| byte.is_ascii_digit());
        let is_random = end.len() == 6 && end.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match name.strip_prefix('.') {
            Some(hidden) if is_random && is_video_name(hidden) => Some(hidden),
            _ => (is_number && is_video_name(name)).then_some(name),
        }
    });
    path.with_file_name(video.unwrap_or(part))
}

/// Whether a file with this name is written by this crate: MP4, or a raw H.264 stream.
fn is_video_name(name: &str) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default().to_ascii_lowercase();
    extension == "mp4" || STREAM_EXTENSIONS.iter().any(|stream| extension == *stream)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        io::Cursor,
        time::{Duration, Instant},
    };

    use encoder_core::{EncodedChunk, FrameRate};

    use super::{
        super::{
            fragment::{FragmentLength, Fragmenter},
            record::Head,
            segment::Segment,
        },
        *,
    };
    use encoder_media::timeline::{Clock, FrameTimes, Timing};

    const SETS: [u8; 22] = [
        0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x47, 0xfe, 0x88, //
        0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80,
    ];

    fn chunk(pts: u64, keyframe: bool, bytes: usize) -> EncodedChunk {
        let mut data = if keyframe { SETS.to_vec() } else { Vec::new() };
        data.extend([0, 0, 0, 1, if keyframe { 0x65 } else { 0x41 }]);
        data.extend((0..bytes).map(|n| (n as u64 * 31 + pts) as u8 | 1));
        EncodedChunk { data, pts, dts: 0, keyframe }
    }

    fn head(reorder: u32) -> Head {
        Head { timing: Timing::Recorded(Clock::Header), rate: FrameRate::default(), reorder }
    }

    fn at(n: u64) -> FrameTimes {
        let ns = 7 + n as i64 * 100_000_000 + n as i64 % 3;
        FrameTimes { header_ns: Some(ns), log_ns: ns + 5 }
    }

    /// A file of 30 frames at 10 fps, and for each length how many frames are complete: the ends of
    /// its fragments, and of the frames in them.
    pub(in super::super) fn file(
        b_frames: bool,
    ) -> (Vec<u8>, Vec<(usize, u64)>, Vec<(usize, u64)>) {
        let mut fragments =
            Fragmenter::new(head(if b_frames { 2 } else { 0 }), FragmentLength::default());
        let (mut bytes, mut whole, now) = (Vec::new(), vec![(0, 0)], Instant::now());
        let mut ends = vec![(0, 0)];
        // Sizes of the samples, and how many frames are complete in display order with each.
        let mut sizes = Vec::new();
        let mut add = |piece: Vec<Segment>, frames: u64, sizes: &mut Vec<(usize, u64)>| {
            if piece.is_empty() {
                return;
            }
            piece.into_iter().for_each(|segment| bytes.extend(segment.into_data()));
            let count = (frames - whole.last().map_or(0, |(_, frames)| *frames)) as usize;
            let mut end = bytes.len() - sizes[..count].iter().map(|(size, _)| size).sum::<usize>();
            for (size, frames) in sizes.drain(..count) {
                end += size;
                ends.push((end, frames));
            }
            whole.push((bytes.len(), frames));
        };
        let mut highest = 0;
        for n in 0..30u64 {
            // With B-frames: 0, 2, 1, 4, 3 …
            let pts = match (b_frames, n) {
                (false, n) => n,
                (true, 0 | 29) => n,
                (true, n) if n % 2 == 1 => n + 1,
                (true, n) => n - 1,
            };
            let keyframe = n == 0 || pts == 15;
            let piece = fragments.push(&chunk(pts, keyframe, 40), &at(pts), now).unwrap();
            add(piece, fragments.frames(), &mut sizes);
            highest = highest.max(pts + 1);
            let complete = if highest == n + 1 { highest } else { n };
            // Length fields instead of start codes.
            sizes.push((chunk(pts, keyframe, 40).data.len(), complete));
        }
        let last = fragments.finish().unwrap();
        add(last, 30, &mut sizes);
        (bytes, whole, ends)
    }

    fn found(bytes: &[u8]) -> Result<(u64, u64), PartError> {
        Recovery::find(Cursor::new(bytes)).map(|found| (found.frames(), found.rest()))
    }

    #[test]
    fn every_cut_leaves_the_complete_frames() {
        for b_frames in [false, true] {
            let (bytes, whole, ends) = file(b_frames);
            assert!(whole.len() > 5 && ends.len() == 31, "{whole:?} {ends:?}");
            for end in 0..=bytes.len() {
                let (_, frames) = *ends.iter().rfind(|(length, _)| *length <= end).unwrap();
                let (length, _) = *ends.iter().find(|(_, n)| *n == frames).unwrap();
                let (begin, before) = *whole.iter().rfind(|(length, _)| *length <= end).unwrap();
                let length = if frames == before { begin } else { length };
                for tail in [&[][..], &[0; 100], b"garbage that is no box of any kind at all"] {
                    let cut = [&bytes[..end], tail].concat();
                    // After a truncated head, garbage may look like its rest.
                    match Recovery::find(Cursor::new(&cut)) {
                        Ok(found) => {
                            let got =
                                (found.frames(), found.of_torn_fragment() as u64, found.rest());
                            let rest = (cut.len() - length) as u64;
                            assert_eq!(got, (frames, frames - before, rest), "{end}");
                            let mut out = Vec::new();
                            found.write(&mut out).unwrap();
                        }
                        Err(PartError::Foreign | PartError::Empty | PartError::NoBytes) => {
                            assert_eq!(frames, 0, "{end}");
                        }
                        Err(other) => panic!("{end}: {other}"),
                    }
                }
            }
        }
    }

    #[test]
    fn recovery_ends_at_a_damaged_byte() {
        let (bytes, whole, ends) = file(true);
        for at in whole[1].0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 0x10;
            let (_, frames) = *ends.iter().rfind(|(length, _)| *length <= at).unwrap();
            assert_eq!(found(&broken).unwrap().0, frames, "{at}");
        }
    }

    #[test]
    fn a_recovered_file_is_complete() {
        let (bytes, whole, _) = file(true);
        let recovery = Recovery::find(Cursor::new(&bytes[..whole[3].0 + 9])).unwrap();
        let frames = recovery.frames();
        assert_eq!(recovery.timeline().timescale(), 1_000_000_000 / 10);
        assert_eq!(recovery.timeline().first_ns, Some(7));
        assert_eq!(recovery.timeline().last_ns, at(frames - 1).header_ns);
        let mut out = Vec::new();
        recovery.write(&mut out).unwrap();
        assert!(matches!(found(&out), Err(PartError::Progressive)));
        let short = &out[..out.len() - 3];
        assert!(matches!(found(short), Err(PartError::Cut { missing: 3 })));
        let pictures = out.windows(4).filter(|w| *w == [0, 0, 0, 41]).count() as u64;
        assert_eq!(pictures, frames);
        // One set of parameters: in the description alone.
        assert!(out.windows(4).any(|w| w == b"avc1") && !out.windows(4).any(|w| w == b"avc3"));
        assert_eq!(out.windows(10).filter(|w| *w == &SETS[4..14]).count(), 1);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(found(b""), Err(PartError::NoBytes)));
        assert!(matches!(found(&chunk(0, true, 9).data), Err(PartError::RawStream)));
        for other in
            [&b"\0\0\0\x01"[..], b"ftyp", b"\0\0\0\x08ftyp", b"\0\0\0\0ftyp", &[0xff; 64], &[0; 64]]
        {
            assert!(matches!(found(other), Err(PartError::Foreign)), "{other:?}");
        }
    }

    #[test]
    fn files_of_another_version_are_named_as_that() {
        let (bytes, ..) = file(false);
        for name in [&b"encoder:file\0\0\0"[..], b"encoder:frames\0"] {
            let mut other = bytes.clone();
            let at = other.windows(name.len()).position(|found| found == name).unwrap();
            other[at + name.len()] ^= 3;
            assert!(matches!(found(&other), Err(PartError::OtherVersion)), "{name:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_in_a_file_panics(
            changes in proptest::collection::vec((0..4000usize, proptest::num::u8::ANY), 1..20),
            end in 0..6000usize,
        ) {
            let (mut bytes, ..) = file(true);
            bytes.truncate(end);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            if let Ok(found) = Recovery::find(Cursor::new(&bytes)) {
                let _ = found.write(&mut Vec::new());
            }
        }
    }

    #[test]
    fn fragments_end_by_video_time_wall_time_bytes_and_key_frames() {
        // For each frame: its time, the wall clock in ms, key frame, bytes; frames returned then.
        type Row<'a> = (&'a str, &'a [(i64, u64, bool, usize, u64)]);
        let table: &[Row<'_>] = &[
            (
                "half a second of video",
                &[
                    (0, 0, true, 9, 0),
                    (250, 0, false, 9, 0),
                    (499, 0, false, 9, 0),
                    (510, 0, false, 9, 0),
                    (520, 0, false, 9, 4),
                ],
            ),
            (
                "half a second of time",
                &[
                    (0, 0, true, 9, 0),
                    (10, 499, false, 9, 0),
                    (20, 500, false, 9, 2),
                    (30, 999, false, 9, 2),
                    (40, 1000, false, 9, 4),
                ],
            ),
            (
                "a slow source does not wait for the next frame",
                &[(0, 0, true, 9, 0), (5000, 0, false, 9, 2), (10_000, 0, false, 9, 3)],
            ),
            (
                "a key frame",
                &[
                    (0, 0, true, 9, 0),
                    (90, 0, true, 9, 0),
                    (110, 0, false, 9, 0),
                    (120, 0, true, 9, 3),
                    (130, 0, true, 9, 3),
                ],
            ),
            ("bytes", &[(0, 0, true, 5 << 20, 0), (1, 0, false, 5 << 20, 0), (2, 0, false, 9, 2)]),
        ];
        let begin = Instant::now();
        for (what, frames) in table {
            let mut fragments = Fragmenter::new(head(0), FragmentLength::default());
            for (n, (ms, wall, key, bytes, out)) in (0u64..).zip(frames.iter()) {
                let now = begin + Duration::from_millis(*wall);
                let times = FrameTimes::at(ms * 1_000_000);
                fragments.push(&chunk(n, *key, *bytes), &times, now).unwrap();
                assert_eq!(fragments.frames(), *out, "{what}: frame {n}");
            }
        }
    }

    #[test]
    fn names_of_repaired_files() {
        for (file, name) in [
            ("d/a.mp4.part", "d/a.mp4"),
            ("d/a.mp4.2.part", "d/a.mp4"),
            ("d/A.MP4.2.part", "d/A.MP4"),
            ("d/a.h264.2.part", "d/a.h264"),
            // A temporary file, and part files of a hidden video.
            ("d/.a.mp4.x7yZ09.part", "d/a.mp4"),
            ("d/.a.mp4.2.part", "d/.a.mp4"),
            ("d/.a.mp4.part", "d/.a.mp4"),
            ("a.b.part", "a.b"),
            ("a.2.part", "a.2"),
            ("a.mp4", "a.repaired.mp4"),
            ("a", "a.repaired.mp4"),
        ] {
            assert_eq!(repaired_name(Path::new(file)), Path::new(name));
        }
    }
}
