//! What the fuzz targets in `fuzz/` do with an input: one function each, which the tests call as
//! well, with the seeds. Not for users: hidden, and it may change in any version.
//!
//! A function panics on a finding. It tells whether the input is good to the end, so that tests
//! can see that a seed still is what it is meant to be.

use std::{
    cell::RefCell,
    io::{Cursor, Seek, Write},
    path::Path,
};

use bytes::Bytes;
use encoder_core::{FrameLayout, NalKind, PixelFormat, Settings, nal_units};
use encoder_ffmpeg::{AccessUnit, FlvError, FlvParser};
use tempfile::NamedTempFile;

use encoder_mp4::{Recovery, StreamReader, UnitSplitter};
use encoder_picture::{self as picture, PictureOptions};
// Registers the backends.
use encoder_pipeline as _;
use encoder_recording::{
    Event, Limits, McapSource, Moment, Payload, RosbagSource, Source, SourceError, SourceOptions,
    message::{self, CameraSchema, Serialization},
};

/// What a target does with an input.
pub type Target = fn(&[u8]) -> bool;

/// The targets, by the names of their programs and of their folders of seeds.
pub const TARGETS: &[(&str, Target)] = &[
    ("message", message),
    ("mcap", mcap),
    ("bag", bag),
    ("flv", flv),
    ("config", config),
    ("part", part),
    ("stream", stream),
];

/// Low, so that inputs are quick and a claim that is believed stands out.
const LIMITS: Limits = Limits {
    message_bytes: 1 << 16,
    pixels: 1 << 16,
    held_bytes: 1 << 12,
    temporary_bytes: 1 << 16,
};

/// How the messages of `message` are serialised, by the lowest two bits of its first byte.
const SERIALIZATIONS: [Serialization; 4] =
    [Serialization::Cdr, Serialization::Ros1, Serialization::Protobuf, Serialization::Json];

/// The types of the messages of `message`, by the next three bits.
pub const SCHEMAS: [&str; 8] = [
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "foxglove.RawImage",
    "foxglove.CompressedImage",
    "foxglove.CompressedVideo",
    "sensor_msgs::msg::dds_::Image_",
    "sensor_msgs/CompressedImage",
    "foxglove_msgs/msg/CompressedVideo",
];

/// Bit of the first byte of `message`: the frame is NV12, not YUV 4:2:0 in planes.
pub const NV12: u8 = 1 << 5;

/// Bit of the first byte of `message`: depth is shown.
pub const DEPTH: u8 = 1 << 6;

/// One message, behind a byte that says what it is, and the picture in it: good when there is one.
///
/// A picture that is decoded twice must be the same twice, whatever was in memory before.
pub fn message(input: &[u8]) -> bool {
    let Some((&choice, data)) = input.split_first() else { return false };
    let serialization = SERIALIZATIONS[usize::from(choice & 3)];
    let name = SCHEMAS[usize::from(choice >> 2 & 7)];
    let schema = CameraSchema::from_name(name).unwrap_or_else(|| panic!("{name} is a camera type"));
    let Ok(message) = message::decode(schema, serialization, &Bytes::copy_from_slice(data)) else {
        return false;
    };
    let depth_range = (choice & DEPTH != 0).then_some((300.0, 5000.0));
    let format = if choice & NV12 != 0 { PixelFormat::Nv12 } else { PixelFormat::Yuv420p };
    picture(
        &message.payload,
        &PictureOptions { depth_range, limits: LIMITS, ..Default::default() },
        format,
    )
}

fn picture(payload: &Payload, options: &PictureOptions, format: PixelFormat) -> bool {
    let Ok(size) = picture::size(payload, options) else { return false };
    let layout = FrameLayout::new(format, size);
    let decoded = |rubbish: u8| {
        picture::spoil_scratch(rubbish);
        let mut memory = vec![rubbish; layout.bytes()];
        let result = picture::decode(payload, options, &layout, &mut memory);
        let frame = layout.frame(&memory, 0);
        for plane in frame.planes() {
            for row in plane.data.chunks(plane.stride) {
                let padding = &row[plane.row_bytes..];
                assert!(padding.iter().all(|&b| b == rubbish), "padding of a row was written");
            }
        }
        let rows = frame.planes().iter().flat_map(|plane| {
            plane.data.chunks(plane.stride).map(|row| row[..plane.row_bytes].to_vec())
        });
        result.map(|_| rows.collect::<Vec<_>>())
    };
    let (first, second) = (decoded(0x5a), decoded(0xc3));
    assert!(first == second, "the picture depends on what was in memory");
    first.is_ok()
}

/// An MCAP file: good when it has a picture in each camera message, and nothing to warn of.
pub fn mcap(input: &[u8]) -> bool {
    with_file(input, McapSource::open)
}

/// A ROS 1 bag, like `mcap`.
pub fn bag(input: &[u8]) -> bool {
    with_file(input, RosbagSource::open)
}

type Open = fn(&Path, &SourceOptions) -> Result<Box<dyn Source>, SourceError>;

/// Writes the input to a file, which is read as a whole, from a moment on, and with all messages.
fn with_file(input: &[u8], open: Open) -> bool {
    thread_local! {
        // In memory, where there is such a folder: a disk would take most of the time.
        static FILE: RefCell<NamedTempFile> = RefCell::new(
            NamedTempFile::new_in("/dev/shm")
                .or_else(|_| NamedTempFile::new())
                .expect("a temporary file"),
        );
    }
    FILE.with_borrow_mut(|file| {
        file.as_file_mut().set_len(0).expect("it is ours");
        file.rewind().expect("it is a file");
        file.write_all(input).expect("there is room");
        let whole = SourceOptions { limits: LIMITS, ..Default::default() };
        let late = SourceOptions { start: Some(Moment::FromStart(1)), ..whole.clone() };
        let all = SourceOptions { all_messages: true, ..whole.clone() };
        read(open(file.path(), &late));
        read(open(file.path(), &all));
        read(open(file.path(), &whole))
    })
}

/// Reads a recording to its end, or to an error.
fn read(source: Result<Box<dyn Source>, SourceError>) -> bool {
    let refused = |error: SourceError| {
        assert!(!error.to_string().is_empty());
        // The system does not fail here: that would be a read past the end.
        assert!(!matches!(error, SourceError::Io { .. }), "{error}");
        false
    };
    let mut source = match source {
        Ok(source) => source,
        Err(error) => return refused(error),
    };
    // Number of the last message of each stream.
    let mut streams: Vec<Option<u64>> = Vec::new();
    let mut channels = 0;
    let mut good = true;
    loop {
        match source.next_event() {
            Ok(Some(Event::Stream(info))) => {
                assert_eq!(info.id, streams.len(), "streams are counted");
                streams.push(None);
            }
            Ok(Some(Event::Packet(packet))) => {
                let last = streams.get_mut(packet.stream).expect("streams come before packets");
                assert!(last.is_none_or(|last| last < packet.number), "numbers grow");
                *last = Some(packet.number);
                good &= packet.payload.is_ok();
                assert!(packet.message.is_none_or(|message| message.channel < channels));
            }
            Ok(Some(Event::Channel(info))) => {
                assert_eq!(info.id, channels, "channels are counted");
                assert!(info.stream.is_none_or(|stream| stream < streams.len()));
                channels += 1;
            }
            Ok(Some(Event::Message(message))) => assert!(message.channel < channels),
            Ok(Some(Event::Warning(warning))) => {
                assert!(!warning.text.is_empty());
                good = false;
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => return refused(error),
        }
    }
    assert!(matches!(source.next_event(), Ok(None)), "an end is an end");
    source.other_topics();
    good && streams.iter().any(Option::is_some)
}

/// What FFmpeg writes: a byte with the number of pieces, their lengths, and the stream. Good when
/// there is an access unit and nothing wrong.
///
/// The same must come out in pieces and in one.
pub fn flv(input: &[u8]) -> bool {
    let Some((&count, rest)) = input.split_first() else { return false };
    let (lengths, stream) = rest.split_at(rest.len().min(count.into()));
    let mut rest = stream;
    let mut pieces: Vec<_> = lengths
        .iter()
        .map(|&length| {
            let (piece, tail) = rest.split_at(rest.len().min(length.into()));
            rest = tail;
            piece
        })
        .collect();
    pieces.push(rest);
    let (units, result) = parse(&[stream]);
    assert!((&units, &result) == (&parse(&pieces).0, &parse(&pieces).1), "pieces count");
    for unit in &units {
        assert!(unit.data.starts_with(&[0, 0, 0, 1]), "Annex B");
    }
    result.is_ok() && !units.is_empty()
}

fn parse(pieces: &[&[u8]]) -> (Vec<AccessUnit>, Result<(), FlvError>) {
    let (mut parser, mut units) = (FlvParser::new(), Vec::new());
    let pushed = pieces.iter().try_for_each(|piece| parser.push(piece, &mut units));
    let finished = parser.finish();
    if pushed.is_err() {
        assert_eq!(pushed, finished, "an error stays");
    }
    (units, finished)
}

/// A TOML document: good when it is accepted. Then it is accepted by each check as well.
pub fn config(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    match Settings::from_toml(text) {
        Ok(settings) => {
            assert_eq!(settings.check(), Ok(()));
            assert_eq!(settings.encoder.check(), Ok(()));
            assert_eq!(settings.gpu.check(), Ok(()));
            let rate = settings.encoder.frame_rate;
            assert_eq!(rate.to_string().parse(), Ok(rate), "a rate reads as it is written");
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// A file that this program was writing: good when all of it is of use.
///
/// What can be recovered becomes a file of which nothing more is to be recovered. (A fuzzer passes
/// the checksums by, and so meets fragments that are not as they were written.)
pub fn part(input: &[u8]) -> bool {
    let found = match Recovery::find(Cursor::new(input)) {
        Ok(found) => found,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let is_whole = found.rest() == 0;
    assert!(found.frames() > 0 && found.rest() < input.len() as u64);
    assert!(found.timeline().duration_s() >= 0.0);
    let mut whole = Vec::new();
    let written = found.write(&mut whole);
    if !cfg!(fuzzing) {
        written.as_ref().expect("what is as it was written makes a file");
    }
    if written.is_ok() {
        assert!(Recovery::find(Cursor::new(&whole)).is_err(), "there is nothing more to recover");
    }
    is_whole && written.is_ok()
}

/// A recorded H.264 stream: good when each of its frames can be read, and they are in display order.
///
/// Messages begin at delimiters.
pub fn stream(input: &[u8]) -> bool {
    let mut reader = StreamReader::new();
    let mut frames = Vec::new();
    let mut message = 0;
    // By lengths as well, if they are that.
    let _ = UnitSplitter::default().split(input);
    for unit in nal_units(input) {
        if NalKind::of(unit[0]) == NalKind::Aud {
            message += 1;
            reader.begin_message();
        }
        frames.extend(reader.read(unit, &message));
    }
    // What was stored is read again as it is.
    let sets = reader.parameter_sets();
    let mut again = StreamReader::new();
    nal_units(&sets).for_each(|unit| assert!(again.read(unit, &()).is_none()));
    assert!(again.parameter_sets().len() == sets.len());
    frames.extend(reader.finish());
    let mut is_good = !frames.is_empty();
    let (mut has_key_frame, mut last) = (false, 0);
    for (message, frame) in frames {
        assert!(message >= last, "frames come in the order of their messages");
        last = message;
        match frame {
            Ok(picture) => {
                assert!(picture.size.width > 0 && picture.size.height > 0);
                assert!(picture.is_keyframe != picture.parameter_sets.is_empty());
                has_key_frame |= picture.is_keyframe;
                assert!(has_key_frame, "nothing can be decoded before a key frame");
                is_good &= !picture.is_reordered && picture.damage.is_none();
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                is_good = false;
            }
        }
    }
    is_good
}
