#![allow(clippy::unwrap_used)]

mod memory;
mod unindexed;

use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;
use crate::{Moment, Payload, Warning};

use encoder_testbed::fixtures::bag::{Bag, CAMERA, image, ns, record};

/// Three chunks of one camera and a topic that is none: frames 0 to 9, 10 to 19, 20 to 29, one in
/// a millisecond.
fn sample(compressions: [&str; 3]) -> Bag {
    let mut bag = Bag::new(&[(0, "/cam", CAMERA), (1, "/imu", "sensor_msgs/Imu")]);
    for (chunk, compression) in (0..).zip(compressions) {
        let frames = (chunk * 10..chunk * 10 + 10).map(|n| (0, n, image(n)));
        let messages: Vec<_> = frames.chain([(1, chunk * 10 + 5, vec![1; 20])]).collect();
        bag.chunk(compression, &messages);
    }
    bag
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    streams: Vec<(String, Option<u64>)>,
    /// Stream, number, milliseconds, number within the picture.
    frames: Vec<(usize, u64, i64, u32)>,
    bad: usize,
    warnings: Vec<Warning>,
    others: Vec<(String, String)>,
}

impl Read {
    fn numbers(&self) -> Vec<u32> {
        self.frames.iter().map(|f| f.3).collect()
    }

    fn loss(&self) -> bool {
        self.warnings.iter().any(|w| w.loss)
    }
}

fn read(bytes: &[u8], options: &SourceOptions) -> Result<Read, SourceError> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    read_path(file.path(), options)
}

fn read_path(path: &Path, options: &SourceOptions) -> Result<Read, SourceError> {
    let mut source = RosbagSource::open(path, options)?;
    let mut read = Read::default();
    loop {
        let event = match source.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(SourceError::NoCamera { topics, .. }) => {
                assert_eq!(topics, source.other_topics());
                break;
            }
            Err(error) => return Err(error),
        };
        match event {
            Event::Stream(info) => {
                assert_eq!(info.id, read.streams.len());
                read.streams.push((info.topic, info.messages));
            }
            Event::Warning(warning) => read.warnings.push(warning),
            Event::Packet(packet) => {
                assert!(packet.stream < read.streams.len());
                match packet.payload {
                    Ok(Payload::Compressed { data, .. }) => read.frames.push((
                        packet.stream,
                        packet.number,
                        (packet.log_ns - ns(0)) / 1_000_000,
                        data.first().copied().unwrap_or(0).into(),
                    )),
                    _ => read.bad += 1,
                }
            }
            other => panic!("{other:?}"),
        }
    }
    read.others = source.other_topics();
    Ok(read)
}

fn all(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn a_clock_that_is_set_back_does_not_interleave_messages() {
    // In the middle of a chunk, by half a distance more than a multiple of it.
    let at = |n: u32| 10_000 + n * 50 - if n < 70 { 0 } else { 2475 };
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    for chunk in 0..4 {
        let messages: Vec<_> =
            (chunk * 40..chunk * 40 + 40).map(|n| (0, at(n), image(n))).collect();
        bag.chunk("none", &messages);
    }
    let read = read(&bag.finish(), &SourceOptions::default()).unwrap();
    assert_eq!(read.numbers(), (0..160).map(|n| n % 256).collect::<Vec<_>>());
    let said: Vec<_> = read.warnings.iter().map(|warning| warning.text.as_str()).collect();
    assert!(
        matches!(said[..], [text] if text.contains("step back by 2.425 s at message 70")),
        "{said:?}"
    );
}

#[test]
fn the_clock_is_that_of_all_connections() {
    // Two connections of one camera, one of them rare, with and without the index, and cut.
    let at = |n: u32| 60_000 + n * 50 - if n < 70 { 0 } else { 2475 };
    let mut bag = Bag::new(&[(0, "/cam", CAMERA), (1, "/cam", CAMERA), (2, "/slow", CAMERA)]);
    for chunk in 0..4 {
        let connection = |n: u32| if n % 20 == 7 { 2 } else { n % 2 };
        let numbers = chunk * 40..chunk * 40 + 40;
        let messages: Vec<_> = numbers.map(|n| (connection(n), at(n), image(n))).collect();
        bag.chunk("none", &messages);
    }
    let bytes = bag.finish();
    let cut = bytes.len() * 6 / 10;
    for bytes in [bytes.clone(), unindexed(&bytes), bytes[..cut].to_vec()] {
        let read = read(&bytes, &SourceOptions::default()).unwrap();
        let mut said = read.warnings.iter().filter(|w| w.text.contains("step back by"));
        assert!(said.next().is_some_and(|w| w.text.starts_with('/')), "{read:?}");
        for stream in 0..2 {
            let of_stream = read.frames.iter().filter(|frame| frame.0 == stream);
            assert!(of_stream.map(|frame| frame.3).is_sorted(), "{read:?}");
        }
    }
}

#[test]
fn a_step_within_a_chunk_of_a_long_bag_is_reported() {
    let at = |n: u32| 60_000 + n * 50 - if n < 1035 { 0 } else { 400 };
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    for chunk in 0..260 {
        let numbers = chunk * 30..chunk * 30 + 30;
        bag.chunk("none", &numbers.map(|n| (0, at(n), image(n))).collect::<Vec<_>>());
    }
    let read = read(&bag.finish(), &SourceOptions::default()).unwrap();
    let [warning] = &read.warnings[..] else { panic!("{:?}", read.warnings) };
    assert!(warning.loss && warning.text.contains("within the chunk at offset"), "{warning:?}");
}

#[test]
fn a_step_between_chunks_of_a_long_bag_without_an_index_is_reported() {
    let at = |n: u32| 60_000 + n * 50 - if n < 3000 { 0 } else { 400 };
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    for chunk in 0..260 {
        let numbers = chunk * 30..chunk * 30 + 30;
        bag.chunk("none", &numbers.map(|n| (0, at(n), image(n))).collect::<Vec<_>>());
    }
    let found = read(&unindexed(&bag.finish()), &SourceOptions::default()).unwrap();
    let lost = found.warnings.iter().find(|w| w.loss && w.text.contains("s before the chunk at"));
    assert!(lost.is_some(), "{:?}", found.warnings);
}

#[test]
fn every_compression() {
    let read = read(&sample(["none", "bz2", "lz4"]).finish(), &Default::default()).unwrap();
    assert_eq!(read.streams, [("/cam".into(), Some(30))]);
    let expected: Vec<_> = (0..30).map(|n| (0, n as u64, n as i64, n as u32)).collect();
    assert_eq!(read.frames, expected);
    assert_eq!(read.warnings, []);
    assert_eq!(read.others, [("/imu".into(), "sensor_msgs/Imu".into())]);
}

#[test]
fn overlapping_chunks_come_in_order_and_connections_join() {
    let mut bag =
        Bag::new(&[(0, "/a", CAMERA), (7, "/a", CAMERA), (9, "/b", CAMERA), (3, "/c", "x/Y")]);
    bag.chunk("none", &[(0, 30, image(30)), (7, 10, image(10)), (9, 50, image(50))]);
    bag.chunk("lz4", &[(7, 20, image(20)), (0, 5, image(5)), (9, 40, image(40))]);
    let bytes = bag.finish();
    let read = read(&bytes, &Default::default()).unwrap();
    assert_eq!(read.streams, [("/a".into(), Some(4)), ("/b".into(), Some(2))]);
    let frames = [(0, 0, 5, 5), (0, 1, 10, 10), (0, 2, 20, 20), (0, 3, 30, 30), (1, 0, 40, 40)];
    assert_eq!(read.frames[..5], frames);
    assert_eq!(read.warnings, []);
}

#[test]
fn a_message_does_not_keep_its_chunk_in_memory() {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), sample(["none", "bz2", "lz4"]).finish()).unwrap();
    let mut source = RosbagSource::open(file.path(), &Default::default()).unwrap();
    let mut pictures = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        if let Event::Packet(packet) = event {
            let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
            pictures.push(data);
        }
    }
    assert_eq!(pictures.len(), 30);
    assert!(pictures.iter().all(Bytes::is_unique));
}

#[test]
fn windows_and_topics() {
    let bytes = sample(["none", "bz2", "lz4"]).finish();
    let window = |start, end| SourceOptions { start, end, ..Default::default() };
    use Moment::{Absolute, FromStart};
    let table = [
        (window(Some(FromStart(12_000_000)), None), 12..30),
        (window(None, Some(FromStart(12_000_000))), 0..13),
        (window(Some(Absolute(ns(25))), Some(Absolute(ns(27)))), 25..28),
        (window(Some(Absolute(ns(100))), None), 0..0),
    ];
    for (options, numbers) in table {
        // With the index and without it.
        for bytes in [bytes.clone(), unindexed(&bytes)] {
            let read = read(&bytes, &options).unwrap();
            assert_eq!(read.numbers(), all(numbers.clone()), "{options:?}");
            // Numbers count from the start of the recording.
            assert!(read.frames.iter().all(|f| f.1 == u64::from(f.3)), "{options:?}");
        }
    }
    let other = SourceOptions { topics: vec!["/other".into()], ..Default::default() };
    let error = read(&bytes, &other).unwrap_err().to_string();
    assert!(error.contains("its camera topics are: /cam"), "{error}");
}

fn unindexed(bytes: &[u8]) -> Vec<u8> {
    let at = bytes.windows(10).position(|w| w == b"index_pos=").unwrap() + 10;
    let mut bytes = bytes.to_vec();
    bytes[at..at + 8].fill(0);
    bytes
}

#[test]
fn a_wrong_index_loses_nothing() {
    let good = sample(["none", "lz4", "bz2"]).finish();
    let positions: Vec<_> = good
        .windows(10)
        .enumerate()
        .filter(|(_, w)| w == b"chunk_pos=")
        .map(|(at, _)| at + 10)
        .collect();
    let mut late = good.clone();
    for at in &positions {
        late[*at] ^= 49;
    }
    let mut one_late = good.clone();
    one_late[positions[1]] ^= 49;
    let mut behind = good.clone();
    let at = good.windows(10).position(|w| w == b"index_pos=").unwrap() + 10;
    behind[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    for bytes in [late, one_late, unindexed(&good), behind] {
        let read = read(&bytes, &Default::default()).unwrap();
        assert_eq!(read.numbers(), all(0..30));
        assert!(matches!(read.warnings.as_slice(), [Warning { loss: false, .. }]), "{read:?}");
    }
}

#[test]
fn cut_anywhere_gives_what_is_whole() {
    let bytes = sample(["none", "none", "none"]).finish();
    let mut most = 0;
    for len in MAGIC.len()..bytes.len() {
        let read = read(&bytes[..len], &Default::default()).unwrap();
        assert_eq!(read.numbers(), all(0..read.frames.len() as u32), "cut at {len}");
        assert!(!read.warnings.is_empty(), "cut at {len}");
        assert!(read.frames.len() >= most);
        most = read.frames.len();
        if most < 30 && len > 200 {
            // A cut between two records cannot be seen, but for the index that is missing.
            assert!(read.loss() || read.frames.len().is_multiple_of(10), "cut at {len}");
        }
    }
    assert_eq!(most, 30);
}

#[test]
fn a_chunk_that_was_never_closed() {
    let mut bag = sample(["none", "lz4", "none"]);
    bag.header(0);
    let bytes = bag.out.clone();
    let open = bytes.windows(5).rposition(|w| w == b"size=").unwrap() + 5;
    let mut bytes = bytes;
    // `size`, then the length of the data.
    bytes[open..open + 8].fill(0);
    let read = read(&bytes, &Default::default()).unwrap();
    assert_eq!(read.numbers(), all(0..30));
    assert!(read.loss());
}

#[test]
fn damage_in_the_middle_leaves_the_rest() {
    let good = sample(["lz4", "bz2", "none"]).finish();
    let chunks: Vec<_> = good
        .windows(12)
        .enumerate()
        .filter(|(_, w)| w == b"compression=")
        .map(|(at, _)| at)
        .collect();
    // In the compressed bytes; in the header, where only the walk or the index helps.
    for (at, with_index) in [(chunks[1] + 200, true), (chunks[1], true), (chunks[1], false)] {
        let mut bytes = if with_index { good.clone() } else { unindexed(&good) };
        bytes[at..at + 8].fill(0xff);
        let read = read(&bytes, &Default::default()).unwrap();
        let (front, back) = (all(0..10), all(20..30));
        assert_eq!(read.numbers(), [front, back].concat(), "{at} {with_index}");
        assert!(read.loss());
    }
}

#[test]
fn absurd_sizes_are_refused_before_they_are_used() {
    let mut bytes = sample(["bz2", "lz4", "none"]).finish();
    let at = bytes.windows(5).position(|w| w == b"size=").unwrap() + 5;
    bytes[at..at + 4].fill(0xff);
    let read1 = read(&bytes, &Default::default()).unwrap();
    assert_eq!(read1.numbers(), all(10..30));
    assert!(read1.warnings[0].text.contains("limit"), "{:?}", read1.warnings);
    // A claim that is too small ends the decompression there.
    bytes[at..at + 4].copy_from_slice(&1000u32.to_le_bytes());
    let read2 = read(&bytes, &Default::default()).unwrap();
    assert!(read2.loss() && read2.frames.len() < 30 && read2.numbers().ends_with(&all(10..30)));
}

#[test]
fn what_is_no_bag() {
    for (bytes, part) in [
        (&b""[..], "empty"),
        (b"#ROSBAG V1.2\nxxxx", "V1.2"),
        (b"\x89MCAP0\r\n", "not a ROS 1 bag"),
    ] {
        let error = read(bytes, &Default::default()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let encrypted = [MAGIC, &record(&[("op", &[3]), ("encryptor", b"x/Aes")], b"")].concat();
    let error = read(&encrypted, &Default::default()).unwrap_err().to_string();
    assert!(error.contains("x/Aes"), "{error}");
    assert!(read(MAGIC, &Default::default()).unwrap().frames.is_empty());
}

#[test]
fn a_broken_message_is_counted() {
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    bag.chunk("none", &[(0, 1, image(1)), (0, 2, vec![0; 5]), (0, 3, image(3))]);
    let read = read(&bag.finish(), &Default::default()).unwrap();
    assert_eq!((read.numbers(), read.bad), (vec![1, 3], 1));
    assert_eq!(read.frames[1].1, 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn noise_does_not_panic(
        len in 0usize..6000,
        noise in prop::collection::vec((0usize..6000, any::<u8>()), 0..12),
    ) {
        let mut bytes = sample(["none", "bz2", "lz4"]).finish();
        for (at, value) in noise {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(len.max(MAGIC.len()));
        let limits = Limits { message_bytes: 1 << 20, ..Default::default() };
        let _ = read(&bytes, &SourceOptions { limits, ..Default::default() });
    }

    #[test]
    fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = read(&[MAGIC, &bytes].concat(), &Default::default());
    }
}

#[test]
fn no_flipped_byte_loses_silently() {
    let mut bag = sample(["none", "bz2", "lz4"]);
    let index = bag.out.len();
    let good = bag.finish();
    for at in MAGIC.len()..index {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        let read = read(&bytes, &Default::default()).unwrap();
        assert!(read.frames.len() + read.bad >= 30 || read.loss(), "{at}: {read:?}");
    }
}
