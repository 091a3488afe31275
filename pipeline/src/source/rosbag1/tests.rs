#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;
use crate::source::{Moment, Payload};

/// A writer of bags, from the format's description.
#[derive(Default)]
struct Bag {
    out: Vec<u8>,
    infos: Vec<u8>,
    connections: Vec<(u32, &'static str, &'static str)>,
    chunks: u32,
}

fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = (name.len() as u32 + 1 + value.len() as u32).to_le_bytes().to_vec();
    out.extend([name.as_bytes(), b"=", value].concat());
    out
}

fn record(fields: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    let header: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let mut out = (header.len() as u32).to_le_bytes().to_vec();
    out.extend(header);
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

fn stamp(ms: u32) -> [u8; 8] {
    let (seconds, nanoseconds) = (1000 + ms / 1000, ms % 1000 * 1_000_000);
    [seconds.to_le_bytes(), nanoseconds.to_le_bytes()].concat().try_into().unwrap()
}

fn ns(ms: u32) -> i64 {
    1_000_000_000_000 + i64::from(ms) * 1_000_000
}

/// A `sensor_msgs/CompressedImage` that carries its number.
fn image(number: u32) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    out.extend(stamp(number));
    for text in [&b"cam"[..], b"jpeg", &[number as u8; 100]] {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text);
    }
    out
}

const CAMERA: &str = "sensor_msgs/CompressedImage";

fn connection(id: u32, topic: &str, schema: &str) -> Vec<u8> {
    let data = [
        field("topic", topic.as_bytes()),
        field("type", schema.as_bytes()),
        field("md5sum", b"*"),
        field("message_definition", b""),
    ];
    record(
        &[("op", &[7]), ("conn", &id.to_le_bytes()), ("topic", topic.as_bytes())],
        &data.concat(),
    )
}

impl Bag {
    fn new(connections: &[(u32, &'static str, &'static str)]) -> Self {
        let mut bag = Self { connections: connections.to_vec(), ..Default::default() };
        bag.out = MAGIC.to_vec();
        bag.header(0);
        bag
    }

    fn header(&mut self, index: u64) {
        let mut header = record(
            &[
                ("op", &[3]),
                ("index_pos", &index.to_le_bytes()),
                ("conn_count", &(self.connections.len() as u32).to_le_bytes()),
                ("chunk_count", &self.chunks.to_le_bytes()),
            ],
            &[b' '; 64],
        );
        let end = (MAGIC.len() + header.len()).min(self.out.len());
        self.out.splice(MAGIC.len()..end, header.drain(..));
    }

    /// Messages: connection, milliseconds, data.
    fn chunk(&mut self, compression: &str, messages: &[(u32, u32, Vec<u8>)]) -> &mut Self {
        let position = self.out.len() as u64;
        let mut data = Vec::new();
        let mut offsets = Vec::new();
        for (id, topic, schema) in &self.connections {
            data.extend(connection(*id, topic, schema));
        }
        for (id, ms, message) in messages {
            offsets.push(data.len() as u32);
            let fields = [("op", &[2][..]), ("conn", &id.to_le_bytes()), ("time", &stamp(*ms))];
            data.extend(record(&fields, message));
        }
        let size = data.len() as u32;
        let data = match compression {
            "bz2" => {
                let mut zip = bzip2::write::BzEncoder::new(Vec::new(), Default::default());
                zip.write_all(&data).unwrap();
                zip.finish().unwrap()
            }
            "lz4" => {
                let mut zip = lz4::EncoderBuilder::new()
                    .block_mode(lz4::BlockMode::Linked)
                    .content_size(data.len() as u64)
                    .build(Vec::new())
                    .unwrap();
                zip.write_all(&data).unwrap();
                let (out, result) = zip.finish();
                result.unwrap();
                out
            }
            _ => data,
        };
        self.out.extend(record(
            &[("op", &[5]), ("compression", compression.as_bytes()), ("size", &size.to_le_bytes())],
            &data,
        ));
        let mut counts = Vec::new();
        for (id, ..) in self.connections.clone() {
            let mine = messages.iter().zip(&offsets).filter(|((c, ..), _)| *c == id);
            let entries: Vec<_> = mine
                .map(|((_, ms, _), at)| [&stamp(*ms)[..], &at.to_le_bytes()].concat())
                .collect();
            let count = (entries.len() as u32).to_le_bytes();
            counts.extend([id.to_le_bytes(), count].concat());
            let fields = [
                ("op", &[4][..]),
                ("ver", &[1, 0, 0, 0]),
                ("conn", &id.to_le_bytes()),
                ("count", &count),
            ];
            self.out.extend(record(&fields, &entries.concat()));
        }
        let times = messages.iter().map(|m| m.1);
        let (start, end) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
        self.infos.extend(record(
            &[
                ("op", &[6]),
                ("ver", &[1, 0, 0, 0]),
                ("chunk_pos", &position.to_le_bytes()),
                ("start_time", &stamp(start)),
                ("end_time", &stamp(end)),
                ("count", &(counts.len() as u32 / 8).to_le_bytes()),
            ],
            &counts,
        ));
        self.chunks += 1;
        self
    }

    fn finish(&mut self) -> Vec<u8> {
        self.header(self.out.len() as u64);
        for (id, topic, schema) in &self.connections {
            self.out.extend(connection(*id, topic, schema));
        }
        self.out.extend(&self.infos);
        self.out.clone()
    }
}

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
        }
    }
    read.others = source.other_topics();
    Ok(read)
}

fn all(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
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
