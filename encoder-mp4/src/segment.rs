//! The fragments of an MP4 file as separate segments, for a writer or a function.

use std::{
    io::{self, Write},
    ops::Range,
    time::Instant,
};

use encoder_core::{EncoderConfig, FrameRate, Resolution};
use encoder_media::timeline::{self, Timeline, Timing};

use super::{
    AccessUnit, Finished, Location, Sink, SinkError,
    fragment::{FragmentLength, Fragmenter},
    record::Head,
};

/// A piece of a fragmented MP4 file. All pieces of a video in a row are the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Segment {
    /// The first one: it has no pictures.
    Init(InitSegment),
    /// A fragment.
    Media(MediaSegment),
}

impl Segment {
    /// The bytes.
    pub fn data(&self) -> &[u8] {
        match self {
            Self::Init(InitSegment { data, .. }) | Self::Media(MediaSegment { data, .. }) => data,
        }
    }

    /// The bytes.
    pub fn into_data(self) -> Vec<u8> {
        match self {
            Self::Init(InitSegment { data, .. }) | Self::Media(MediaSegment { data, .. }) => data,
        }
    }
}

/// The initialization segment: `ftyp`, a private `uuid` box, and `moov`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InitSegment {
    /// The bytes.
    pub data: Vec<u8>,
    /// Ticks in a second, in the boxes of all segments.
    pub timescale: u32,
    /// Size of the pictures in pixels.
    pub size: Resolution,
    /// The codec in the form of RFC 6381: `avc3.64001f`. Parameter sets are also in front of each
    /// key frame: they may change where another encoder takes over.
    pub codec: String,
}

/// A media segment: `moof` and `mdat`. Its pictures are complete in display order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MediaSegment {
    /// The bytes.
    pub data: Vec<u8>,
    /// Its number in the `moof`, from 1.
    pub sequence: u32,
    /// The frames by their numbers in display order, from 0.
    pub frames: Range<u64>,
    /// When its first picture is displayed, in nanoseconds from the first picture of the video.
    pub start_ns: u64,
    /// From there to the first picture after it, in nanoseconds; estimated from the distance of
    /// earlier pictures if that picture is not known yet: always with B-frames, and at the end.
    pub duration_ns: u64,
    /// Its first picture is a key frame: decoding can start here.
    pub keyframe: bool,
}

/// Options of a [`FragmentSink`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FragmentOptions {
    /// How the display times of frames are chosen. Must be the timing of the session: the sink does
    /// not compare its times with [`AccessUnit::display_ns`].
    pub timing: Timing,
    /// Used for the duration of a single frame.
    pub rate: FrameRate,
    /// How many frames ahead of its display a picture may be decoded.
    pub reorder: u32,
    /// When a fragment ends. Default: after half a second.
    pub length: FragmentLength,
    /// The output, as errors name it. Default: `fragments`.
    pub location: Location,
}

impl FragmentOptions {
    /// For the stream of this encoder configuration.
    pub fn new(timing: Timing, encoder: &EncoderConfig) -> Self {
        Self {
            timing,
            rate: encoder.frame_rate,
            reorder: timeline::reorder(encoder.b_frames),
            length: FragmentLength::default(),
            location: Location::Name("fragments".into()),
        }
    }

    /// Sets when a fragment ends.
    #[must_use]
    pub fn with_length(mut self, length: FragmentLength) -> Self {
        self.length = length;
        self
    }

    /// Sets the name of the output in errors.
    #[must_use]
    pub fn with_location(mut self, location: impl Into<Location>) -> Self {
        self.location = location.into();
        self
    }
}

/// Passes a video as a fragmented MP4 file to a writer or a function, segment by segment, while it is
/// encoded: the bytes of [`Mp4Sink`](super::Mp4Sink) with
/// [`OutputMode::Fragmented`](super::OutputMode::Fragmented).
///
/// The initialization segment comes with the first fragment. The writer or the function is called on
/// the thread of the session, which waits for it. A video that is abandoned after an error ends with
/// the access units that were written until then; a sink that is dropped passes nothing more on.
pub struct FragmentSink {
    fragmenter: Fragmenter,
    put: Box<dyn FnMut(Segment) -> Result<(), SinkError> + Send>,
    location: Location,
    /// A segment may be incomplete: nothing may follow it.
    is_broken: bool,
}

impl FragmentSink {
    /// Writes the segments to `writer`, each with one `write_all` and one `flush`. An error of the
    /// writer is [`SinkError::Io`].
    pub fn new(writer: impl Write + Send + 'static, options: &FragmentOptions) -> Self {
        let (mut writer, location) = (writer, options.location.clone());
        let mut write = move |segment: Segment| -> io::Result<()> {
            writer.write_all(segment.data())?;
            writer.flush()
        };
        Self::with_function(
            move |segment| write(segment).map_err(SinkError::io(location.clone())),
            options,
        )
    }

    /// Calls `put` with each segment. An error that it returns ends the video.
    pub fn with_function(
        put: impl FnMut(Segment) -> Result<(), SinkError> + Send + 'static,
        options: &FragmentOptions,
    ) -> Self {
        let FragmentOptions { timing, rate, reorder, length, ref location } = *options;
        Self {
            fragmenter: Fragmenter::new(Head { timing, rate, reorder }, length),
            put: Box::new(put),
            location: location.clone(),
            is_broken: false,
        }
    }

    fn stream_error(&self, reason: impl Into<String>) -> SinkError {
        SinkError::stream(self.location.clone(), reason)
    }

    fn pass_on(&mut self, segments: Vec<Segment>) -> Result<(), SinkError> {
        // Also set while a panic of the writer unwinds.
        self.is_broken = true;
        segments.into_iter().try_for_each(|segment| (self.put)(segment))?;
        self.is_broken = false;
        Ok(())
    }

    /// Passes the last fragment on.
    fn end(&mut self) -> Result<(), SinkError> {
        let last = self.fragmenter.finish().map_err(|text| self.stream_error(text))?;
        self.pass_on(last)
    }
}

impl Sink for FragmentSink {
    fn write(&mut self, unit: AccessUnit) -> Result<(), SinkError> {
        if self.is_broken {
            return Err(self.stream_error("nothing more can be written behind an error"));
        }
        let segments = self.fragmenter.push(&unit.chunk, &unit.times, Instant::now());
        let segments = segments.map_err(|text| self.stream_error(text))?;
        self.pass_on(segments)
    }

    fn finish(mut self: Box<Self>, timeline: &Timeline) -> Result<Finished, SinkError> {
        if self.fragmenter.is_empty() {
            return Err(self.stream_error("no picture to write"));
        }
        self.end()?;
        let (warnings, guessed) = self.fragmenter.judgement(timeline);
        Ok(Finished::default().with_warnings(warnings).with_guessed_times(guessed))
    }

    fn abandon(mut self: Box<Self>) -> Option<Location> {
        if !self.is_broken {
            // An error: the earlier fragments were passed on, and are complete.
            let _ = self.end();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    // Lists of ranges of frames.
    #![allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use encoder_core::EncodedChunk;
    use encoder_media::timeline::{Clock, FrameTimes, TimestampAnalysis};

    use super::*;
    use crate::h264::synthetic::{Slice, Stream};

    /// Frame `n` at `ms`.
    fn unit(n: u64, ms: i64, keyframe: bool) -> AccessUnit {
        let stream = Stream::default();
        let slice = if keyframe { Slice::idr() } else { Slice::p(1, 2) };
        let data = match keyframe {
            true => stream.unit(&[slice]),
            false => [&[0, 0, 0, 1], &stream.slice(&slice)[..]].concat(),
        };
        let chunk = EncodedChunk { data, pts: n, dts: n, keyframe };
        AccessUnit::new(chunk, FrameTimes::at(ms * 1_000_000))
    }

    fn options(length: FragmentLength) -> FragmentOptions {
        let timing = Timing::Recorded(Clock::Header);
        FragmentOptions::new(timing, &EncoderConfig::default()).with_length(length)
    }

    fn media(segments: &[Segment]) -> Vec<&MediaSegment> {
        let all = segments.iter().filter_map(|segment| match segment {
            Segment::Media(media) => Some(media),
            Segment::Init(_) => None,
        });
        all.collect()
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn a_fragment_ends_by_its_length() {
        // Frames: video time in ms, wall time in ms, key frame. Lengths, and frames in fragments.
        type Case<'a> = (FragmentLength, &'a [(i64, u64, bool)], &'a [Range<u64>]);
        let fifth = FragmentLength::Duration(Duration::from_millis(200));
        let frames: Vec<_> = (0..12).map(|n| (n * 50, 0, n % 6 == 0)).collect();
        let early: Vec<_> = (0..6).map(|n| (n * 50, 0, n == 0 || n == 2)).collect();
        let slow: Vec<_> = (0..6).map(|n| (n * 10, n as u64 * 90, n == 0)).collect();
        let cases: &[Case<'_>] = &[
            (FragmentLength::Gop, &frames, &[0..6, 6..12]),
            (FragmentLength::Gop, &slow, &[0..6]),
            (FragmentLength::default(), &frames, &[0..6, 6..12]),
            (fifth, &frames, &[0..5, 5..6, 6..10, 10..12]),
            // A key frame soon after the beginning of a fragment begins a new one.
            (fifth, &early, &[0..2, 2..6]),
            // By wall time.
            (fifth, &slow, &[0..3, 3..6]),
        ];
        for (length, frames, expected) in cases {
            let head = Head {
                timing: Timing::Recorded(Clock::Header),
                rate: FrameRate::default(),
                reorder: 0,
            };
            let mut fragmenter = Fragmenter::new(head, *length);
            let (begin, mut all) = (Instant::now(), Vec::new());
            for (n, (ms, wall, keyframe)) in (0..).zip(frames.iter()) {
                let unit = unit(n, *ms, *keyframe);
                let now = begin + Duration::from_millis(*wall);
                all.extend(fragmenter.push(&unit.chunk, &unit.times, now).unwrap());
            }
            all.extend(fragmenter.finish().unwrap());
            let found: Vec<_> = media(&all).iter().map(|media| media.frames.clone()).collect();
            assert_eq!(found, *expected, "{length:?}");
        }
    }

    #[test]
    fn segments_have_their_times_and_are_the_file() {
        let segments = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&segments);
        let options = options(FragmentLength::Gop);
        let put = move |segment| {
            log.lock().unwrap().push(segment);
            Ok(())
        };
        /// A writer whose bytes stay readable.
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let file = Shared::default();
        let mut sinks = [
            Box::new(FragmentSink::with_function(put, &options)),
            Box::new(FragmentSink::new(file.clone(), &options)),
        ];
        let mut analysis = TimestampAnalysis::new(options.timing, options.rate, 0);
        for n in 0..10u64 {
            let unit = unit(n, n as i64 * 40 + 7, n % 4 == 0);
            analysis.push(&unit.times);
            sinks.iter_mut().for_each(|sink| sink.write(unit.clone()).unwrap());
        }
        for sink in sinks {
            let finished = sink.finish(&analysis.timeline()).unwrap();
            assert_eq!(finished, Finished::default().with_guessed_times(0));
        }
        let segments = segments.lock().unwrap();
        let bytes: Vec<u8> = segments.iter().flat_map(|segment| segment.data().to_vec()).collect();
        assert_eq!(bytes, *file.0.lock().unwrap());
        let Segment::Init(init) = &segments[0] else { panic!("{segments:?}") };
        assert_eq!(init.timescale, 1_000_000);
        assert_eq!(&init.data[4..8], b"ftyp");
        assert!(init.codec.starts_with("avc3."), "{}", init.codec);
        let found: Vec<_> = media(&segments)
            .iter()
            .map(|media| {
                assert_eq!(&media.data[4..8], b"moof");
                (media.sequence, media.frames.clone(), media.start_ns, media.duration_ns)
            })
            .collect();
        let ms = |ms: u64| ms * 1_000_000;
        assert_eq!(
            found,
            [(1, 0..4, 0, ms(160)), (2, 4..8, ms(160), ms(160)), (3, 8..10, ms(320), ms(80))]
        );
        assert!(media(&segments).iter().all(|media| media.keyframe));
    }

    #[test]
    fn errors_of_the_output_are_errors_of_the_sink() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let options = options(FragmentLength::Gop).with_location(Location::Name("s3://a".into()));
        let fill = |sink: &mut FragmentSink| {
            (0..9).find_map(|n| sink.write(unit(n, n as i64 * 40, n % 2 == 0)).err())
        };
        let mut sink = FragmentSink::new(Full(2), &options);
        let error = fill(&mut sink).unwrap();
        assert_eq!(error.io_error().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        assert!(error.to_string().starts_with("s3://a: "), "{error}");
        let error = sink.write(unit(5, 200, false)).unwrap_err().to_string();
        assert!(error.contains("behind an error"), "{error}");
        // Nothing follows the incomplete segment.
        assert_eq!(Box::new(sink).abandon(), None);

        let calls = Arc::new(Mutex::new(0));
        let count = Arc::clone(&calls);
        let put = move |_: Segment| {
            *count.lock().unwrap() += 1;
            Err(SinkError::refused(Location::Name("mine".into()), "no more"))
        };
        let mut sink = FragmentSink::with_function(put, &options);
        assert_eq!(fill(&mut sink).unwrap().to_string(), "mine: no more");
        let _ = Box::new(sink).abandon();
        assert_eq!(*calls.lock().unwrap(), 1);
    }

    #[test]
    fn what_was_written_before_an_error_is_passed_on() {
        let segments = Arc::new(Mutex::new(Vec::new()));
        for is_abandoned in [true, false] {
            segments.lock().unwrap().clear();
            let log = Arc::clone(&segments);
            let put = move |segment| {
                log.lock().unwrap().push(segment);
                Ok(())
            };
            let mut sink = FragmentSink::with_function(put, &options(FragmentLength::Gop));
            (0..3).for_each(|n| sink.write(unit(n, n as i64 * 40, n == 0)).unwrap());
            if is_abandoned {
                assert_eq!(Box::new(sink).abandon(), None);
            } else {
                drop(sink);
            }
            let segments = segments.lock().unwrap();
            let frames: u64 =
                media(&segments).iter().map(|media| media.frames.end - media.frames.start).sum();
            assert_eq!(frames, if is_abandoned { 3 } else { 0 });
        }
        let options = options(FragmentLength::Gop);
        let sink = Box::new(FragmentSink::with_function(|_| Ok(()), &options));
        let timeline = TimestampAnalysis::new(options.timing, options.rate, 0).timeline();
        let error = sink.finish(&timeline).unwrap_err().to_string();
        assert_eq!(error, "fragments: no picture to write");
    }
}
