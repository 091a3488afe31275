#![allow(clippy::unwrap_used)]

mod all;
mod memory;
mod steps;
mod unindexed;

use std::collections::BTreeMap;
use std::io::Write;

use ::mcap::records::MessageHeader;
use ::mcap::{Compression, WriteOptions};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Attachment, Moment, Packet, Payload, StreamInfo, Warning};

const BASE: u64 = 1_700_000_000_000_000_000;

/// The rows of a test recording: topic (by channel), log time after [`BASE`], picture.
type Row = (usize, u64, Vec<u8>);

/// Topics of the recordings: two cameras and something else.
const TOPICS: [(&str, &str); 3] = [
    ("/left", "sensor_msgs/msg/CompressedImage"),
    ("/right", "sensor_msgs/CompressedImage"),
    ("/joints", "sensor_msgs/msg/JointState"),
];

/// 30 messages, out of order within and across chunks; each picture is unique.
fn rows() -> Vec<Row> {
    let row = |i: u64| {
        let time = [3, 0, 7, 1, 9, 4][i as usize % 6] + 5 * (i / 6);
        let picture = format!("<picture {i:02} {}>", "x".repeat(40 + i as usize));
        ((i % 3) as usize, time, picture.into_bytes())
    };
    (0..30).map(row).collect()
}

/// `sensor_msgs/CompressedImage`, stamped 5 ns before it was logged.
fn compressed_image(log_time: u64, data: &[u8]) -> Vec<u8> {
    let stamp = log_time - 5;
    let mut out = vec![0, 1, 0, 0];
    out.extend(((stamp / 1_000_000_000) as u32).to_le_bytes());
    out.extend(((stamp % 1_000_000_000) as u32).to_le_bytes());
    out.extend(*b"\x04\0\0\0cam\0");
    out.extend(*b"\x05\0\0\0jpeg\0\xEE\xEE\xEE");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

fn write(options: WriteOptions, rows: &[Row]) -> Vec<u8> {
    let mut writer = options.create(std::io::Cursor::new(Vec::new())).unwrap();
    let mut channels = Vec::new();
    for (topic, schema) in TOPICS {
        let schema = writer.add_schema(schema, "ros2msg", b"x").unwrap();
        channels.push(writer.add_channel(schema, topic, "cdr", &BTreeMap::new()).unwrap());
    }
    for (i, (topic, time, picture)) in rows.iter().enumerate() {
        let header = MessageHeader {
            channel_id: channels[*topic],
            sequence: i as u32,
            log_time: BASE + time,
            publish_time: 0,
        };
        writer
            .write_to_known_channel(&header, &compressed_image(header.log_time, picture))
            .unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

/// Variants of a recording: name, options.
fn kinds() -> Vec<(&'static str, WriteOptions)> {
    let chunks = |compression| WriteOptions::new().compression(compression).chunk_size(Some(600));
    let zstd = || chunks(Some(Compression::Zstd));
    vec![
        ("zstd", zstd()),
        ("lz4", chunks(Some(Compression::Lz4))),
        ("none", chunks(None)),
        ("unchunked", WriteOptions::new().use_chunks(false)),
        (
            "unchunked, no summary",
            WriteOptions::new().use_chunks(false).emit_summary_records(false),
        ),
        ("no summary", zstd().emit_summary_records(false)),
        ("no chunk indexes", zstd().emit_chunk_indexes(false)),
        ("no message indexes", zstd().emit_message_indexes(false)),
        ("no statistics", zstd().emit_statistics(false)),
        ("no channels in the summary", zstd().repeat_channels(false).repeat_schemas(false)),
        ("no checksums", zstd().calculate_chunk_crcs(false)),
    ]
}

#[derive(Default)]
struct Run {
    streams: Vec<StreamInfo>,
    packets: Vec<Packet>,
    warnings: Vec<Warning>,
    /// Events that are returned only on request.
    others: Vec<Event>,
    error: Option<SourceError>,
    other: Vec<(String, String)>,
}

impl Run {
    fn of(path: &Path, options: &SourceOptions) -> Self {
        match McapSource::open(path, options) {
            Ok(mut source) => Self::of_source(&mut *source),
            Err(error) => Self { error: Some(error), ..Self::default() },
        }
    }

    fn of_source(source: &mut dyn Source) -> Self {
        let mut run = Self::default();
        loop {
            match source.next_event() {
                Ok(Some(Event::Stream(info))) => {
                    assert_eq!(info.id, run.streams.len());
                    run.streams.push(info);
                }
                Ok(Some(Event::Packet(packet))) => {
                    assert!(packet.stream < run.streams.len());
                    run.packets.push(packet);
                }
                Ok(Some(Event::Warning(warning))) => run.warnings.push(warning),
                Ok(Some(other)) => run.others.push(other),
                Ok(None) => break,
                Err(error) => {
                    run.error = Some(error);
                    break;
                }
            }
        }
        run.other = source.other_topics();
        run
    }

    fn of_bytes(bytes: &[u8], options: &SourceOptions) -> Self {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Self::of(file.path(), options)
    }

    /// Topic, number, log time after [`BASE`] and picture of each packet.
    fn seen(&self) -> Vec<(String, u64, u64, Vec<u8>)> {
        let one = |packet: &Packet| {
            let topic = self.streams[packet.stream].topic.clone();
            let Ok(Payload::Compressed { data, .. }) = &packet.payload else {
                panic!("{packet:?}")
            };
            assert_eq!(packet.header_ns, Some(packet.log_ns - 5));
            (topic, packet.number, packet.log_ns as u64 - BASE, data.to_vec())
        };
        self.packets.iter().map(one).collect()
    }

    /// The warnings, but for the one about a missing index.
    fn warnings(&self) -> Vec<&Warning> {
        self.warnings.iter().filter(|warning| !is_about_index(warning)).collect()
    }

    /// Checks that the only warning is that there is no index, if so.
    fn check_index(&self, kind: &str) {
        assert!(self.warnings().is_empty(), "{kind}: {:?}", self.warnings);
        let expected = usize::from(kind.contains("no summary"));
        assert_eq!(self.warnings.len(), expected, "{kind}: {:?}", self.warnings);
    }

    fn losses(&self) -> Vec<&str> {
        self.warnings.iter().filter(|w| w.loss).map(|w| w.text.as_str()).collect()
    }
}

fn is_about_index(warning: &Warning) -> bool {
    warning.loss && warning.text.starts_with("the recording has no index")
}

/// The camera messages of `rows` as [`Run::seen`] must show them.
fn expected(rows: &[Row]) -> Vec<(String, u64, u64, Vec<u8>)> {
    let mut rows: Vec<_> = rows.iter().filter(|row| row.0 < 2).collect();
    rows.sort_by_key(|row| row.1);
    let mut numbers = [0; 2];
    let one = |(topic, time, picture): &Row| {
        let number = numbers[*topic];
        numbers[*topic] += 1;
        (TOPICS[*topic].0.to_string(), number, *time, picture.clone())
    };
    rows.into_iter().map(one).collect()
}

#[test]
fn every_kind_in_log_time_order() {
    let expected = expected(&rows());
    for (kind, options) in kinds() {
        let run = Run::of_bytes(&write(options, &rows()), &SourceOptions::default());
        assert_eq!(run.seen(), expected, "{kind}");
        assert!(run.error.is_none(), "{kind}: {:?}", run.error);
        run.check_index(kind);
        assert_eq!(run.streams.len(), 2, "{kind}");
        assert_eq!(run.other, [("/joints".into(), "sensor_msgs/msg/JointState".into())], "{kind}");
        for info in &run.streams {
            let knows = !kind.contains("no summary") && !kind.contains("no statistics");
            assert_eq!(info.messages, knows.then_some(10), "{kind}");
        }
    }
}

#[test]
fn topics_and_times() {
    use Moment::*;
    let absolute = |ns| Some(Absolute((BASE + ns) as i64));
    for (kind, options) in kinds() {
        let bytes = write(options, &rows());
        for (start, end, range) in [
            (Some(FromStart(8)), None, 8..u64::MAX),
            (Some(FromStart(20)), Some(FromStart(22)), 20..23),
            (absolute(12), absolute(19), 12..20),
            (None, Some(FromStart(3)), 0..4),
            (Some(FromStart(1000)), None, 1000..u64::MAX),
            (Some(FromStart(9)), Some(FromStart(3)), 0..0),
        ] {
            let topics = vec!["/l*".to_string()];
            let options = SourceOptions { topics, start, end, ..Default::default() };
            let run = Run::of_bytes(&bytes, &options);
            let mut expected = expected(&rows());
            expected.retain(|row| row.0 == "/left" && range.contains(&row.2));
            assert_eq!(run.seen(), expected, "{kind}: {range:?}");
            assert_eq!(run.streams.len(), 1, "{kind}: {range:?}");
            run.check_index(kind);
        }
    }
}

/// Where each record ends, from the format's description alone: opcode and offset.
fn record_ends(bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut ends = Vec::new();
    let mut at = MAGIC.len();
    while at + 9 <= bytes.len() - MAGIC.len() {
        let len = u64::from_le_bytes(bytes[at + 1..at + 9].try_into().unwrap());
        let opcode = bytes[at];
        at += 9 + len as usize;
        ends.push((opcode, at));
    }
    ends
}

#[test]
fn cut_at_every_byte() {
    let rows = rows();
    for (kind, options) in kinds() {
        let bytes = write(options, &rows);
        // From here on it is known how many messages there are.
        let counted = record_ends(&bytes).iter().find(|r| r.0 == op::STATISTICS).map(|r| r.1);
        let chunk_ends: Vec<_> =
            record_ends(&bytes).iter().filter(|r| r.0 == op::CHUNK).map(|r| r.1).collect();
        let all = expected(&rows);
        // Where in the file the last byte of each picture is, if it is not compressed.
        let find = |picture: &[u8]| {
            let at = bytes.windows(picture.len()).position(|window| window == picture)?;
            Some(at + picture.len())
        };
        let ends: Vec<_> = all.iter().map(|row| find(&row.3)).collect();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let mut whole_before = usize::MAX;
        for cut in (0..bytes.len()).rev() {
            file.as_file().set_len(cut as u64).unwrap();
            let run = Run::of(file.path(), &SourceOptions::default());
            if cut < MAGIC.len() {
                assert!(matches!(run.error, Some(SourceError::Invalid { .. })), "{kind} {cut}");
                continue;
            }
            let context = || format!("{kind} {cut} of {}: {:?}", bytes.len(), run.warnings);
            let is_counted = counted.is_some_and(|counted| cut >= counted);
            assert_eq!(run.losses().is_empty(), is_counted, "{}", context());
            assert_eq!(run.streams.is_empty(), run.error.is_some(), "{}", context());
            let seen: Vec<_> = run.seen().into_iter().map(|row| (row.2, row.3)).collect();
            assert!(seen.is_sorted_by_key(|row| row.0), "{}", context());
            if ends.iter().all(Option::is_some) {
                // Exactly those that are whole in the file.
                let whole = all.iter().zip(&ends).filter(|(_, end)| end.unwrap() <= cut);
                let whole: Vec<_> = whole.map(|(row, _)| (row.2, row.3.clone())).collect();
                assert_eq!(seen, whole, "{}", context());
            } else {
                // At least those in whole chunks, and never less in a longer file.
                assert!(seen.iter().all(|row| all.iter().any(|r| (r.2, &r.3) == (row.0, &row.1))));
                assert!(seen.len() <= whole_before, "{}", context());
                assert!(seen.len() == all.len() || !chunk_ends.iter().all(|end| *end <= cut));
                if chunk_ends.contains(&cut) {
                    assert!(!seen.is_empty(), "{}", context());
                }
                whole_before = seen.len();
            }
        }
    }
}

#[test]
fn a_recorder_that_died() {
    // A writer that was never finished has a last chunk without sizes.
    let file = tempfile::NamedTempFile::new().unwrap();
    let options = WriteOptions::new().compression(None).chunk_size(Some(1 << 20));
    let mut writer = options.create(file.reopen().unwrap()).unwrap();
    let schema = writer.add_schema(TOPICS[0].1, "ros2msg", b"").unwrap();
    let channel_id = writer.add_channel(schema, "/left", "cdr", &BTreeMap::new()).unwrap();
    for i in 0..5 {
        let header = MessageHeader {
            channel_id,
            sequence: i,
            log_time: BASE + 5 - u64::from(i),
            publish_time: 0,
        };
        writer.write_to_known_channel(&header, &compressed_image(header.log_time, b"x")).unwrap();
    }
    let left = std::fs::read(file.path()).unwrap();
    std::mem::forget(writer);
    let options = SourceOptions { start: Some(Moment::Absolute(0)), ..Default::default() };
    let run = Run::of_bytes(&left, &options);
    assert_eq!(run.packets.len(), 5, "{:?} {:?}", run.warnings, run.error);
    assert!(run.packets.is_sorted_by_key(|packet| packet.log_ns));
    assert!(run.losses()[0].contains("in the middle of a chunk at byte"), "{:?}", run.losses());
}

#[test]
fn a_damaged_chunk_is_left_out() {
    for (kind, options) in kinds().into_iter().filter(|kind| !kind.0.contains("unchunked")) {
        let clean = write(options, &rows());
        let ends = record_ends(&clean);
        let chunks: Vec<_> = ends
            .iter()
            .zip(ends.iter().skip(1))
            .filter(|(_, record)| record.0 == op::CHUNK)
            .map(|(before, record)| before.1..record.1)
            .collect();
        // The first chunk describes the channels, so damage is done to the second.
        let chunk = chunks[1].clone();
        let mut damaged = clean.clone();
        for byte in &mut damaged[chunk.start + 100..chunk.start + 140] {
            *byte ^= 0x55;
        }
        let run = Run::of_bytes(&damaged, &SourceOptions::default());
        assert!(run.error.is_none(), "{kind}");
        if kind == "no checksums" {
            continue;
        }
        let where_ = format!("the chunk at byte {}", chunk.start);
        assert!(run.losses().iter().any(|l| l.contains(&where_)), "{kind}: {:?}", run.warnings);
        assert!(!run.packets.is_empty() && run.packets.len() < 20, "{kind}");
        let all = expected(&rows());
        for seen in run.seen() {
            assert!(all.iter().any(|row| (&row.0, &row.2, &row.3) == (&seen.0, &seen.2, &seen.3)));
        }
    }
}

#[test]
fn limits() {
    let mut rows = rows();
    rows[9].2 = vec![1; 50_000];
    let limits = Limits { message_bytes: 10_000, ..Default::default() };
    let options = SourceOptions { limits, ..Default::default() };
    for (kind, write_options) in kinds() {
        let run = Run::of_bytes(&write(write_options, &rows), &options);
        assert!(run.error.is_none(), "{kind}");
        let losses = run.losses();
        let is_named = losses.iter().any(|loss| loss.contains("raise `Limits::message_bytes`"));
        assert!(is_named, "{kind}: {losses:?}");
        assert!((10..20).contains(&run.packets.len()), "{kind}: {}", run.packets.len());
        if kind.starts_with("unchunked") {
            assert_eq!(run.packets.len(), 19, "{kind}");
        }
    }
}

/// One message in one channel.
fn single(topic: &str, schema: (&str, &str), encoding: &str, data: &[u8]) -> Vec<u8> {
    let mut writer = WriteOptions::new().create(std::io::Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema(schema.0, schema.1, b"x").unwrap();
    let channel_id = writer.add_channel(schema, topic, encoding, &BTreeMap::new()).unwrap();
    let header = MessageHeader { channel_id, sequence: 0, log_time: BASE, publish_time: 0 };
    writer.write_to_known_channel(&header, data).unwrap();
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn recordings_that_give_nothing() {
    let filter = SourceOptions { topics: vec!["/nope".into()], ..Default::default() };
    let all = SourceOptions::default();
    let camera = write(WriteOptions::new(), &rows());
    let cbor = single("/cam", ("sensor_msgs/Image", "ros2msg"), "cbor", b"x");
    let ros_json = single("/cam", ("sensor_msgs/Image", "ros2msg"), "json", b"{}");
    let other = single("/tf", ("tf2_msgs/msg/TFMessage", "ros2msg"), "cdr", b"x");
    let table: &[(&[u8], &SourceOptions, &str)] = &[
        (b"", &all, "empty"),
        (b"\x89MCA", &all, "ends inside"),
        (b"#ROSBAG V2.0\n", &all, "begins with \"#ROSBAG"),
        (MAGIC, &all, "no topics at all"),
        (&camera, &filter, "/left, /right"),
        (&cbor, &all, "/cam [sensor_msgs/Image] as \"cbor\""),
        (&ros_json, &all, "as \"json\""),
        (&other, &all, "/tf [tf2_msgs/msg/TFMessage]"),
    ];
    for (bytes, options, part) in table {
        let run = Run::of_bytes(bytes, options);
        let error = run.error.map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn the_schema_encoding_outweighs_the_message_encoding() {
    let ros1 = |seq: u32| {
        let mut data = seq.to_le_bytes().to_vec();
        data.extend(compressed_image(BASE, b"")[4..12].iter());
        data.extend(*b"\x03\0\0\0cam\x04\0\0\0jpeg\x03\0\0\0abc");
        data
    };
    let cdr = compressed_image(BASE, b"abc");
    for (schema, encoding, data) in [
        ("ros1msg", "cdr", ros1(1)),
        ("ros1msg", "cdr", ros1(256)),
        ("ros1msg", "cdr", cdr.clone()),
        ("ros1msg", "ros1", ros1(0)),
        ("ros2msg", "ros1", cdr.clone()),
        ("ros2idl", "cdr", cdr.clone()),
        ("", "cdr", cdr),
    ] {
        let name = "sensor_msgs/CompressedImage";
        let run =
            Run::of_bytes(&single("/cam", (name, schema), encoding, &data), &Default::default());
        assert_eq!(run.seen(), [("/cam".into(), 0, 0, b"abc".to_vec())], "{schema} {encoding}");
    }
}

#[test]
fn channels_of_one_topic_are_one_stream() {
    let mut writer = WriteOptions::new().create(std::io::Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema(TOPICS[0].1, "ros2msg", b"x").unwrap();
    for node in ["a", "b"] {
        let metadata = BTreeMap::from([("node".to_string(), node.to_string())]);
        let channel_id = writer.add_channel(schema, "/cam", "cdr", &metadata).unwrap();
        let header = MessageHeader { channel_id, sequence: 0, log_time: BASE, publish_time: 0 };
        let data = compressed_image(BASE, node.as_bytes());
        writer.write_to_known_channel(&header, &data).unwrap();
    }
    writer.finish().unwrap();
    let run = Run::of_bytes(&writer.into_inner().into_inner(), &Default::default());
    assert_eq!(run.streams.len(), 1);
    assert_eq!(run.streams[0].messages, Some(2));
    let seen: Vec<_> = run.seen().into_iter().map(|row| (row.1, row.3)).collect();
    assert_eq!(seen, [(0, b"a".to_vec()), (1, b"b".to_vec())]);
}

#[test]
fn an_index_of_something_else() {
    // Bytes in front of the data that the index knows nothing of: a private record.
    let clean = write(WriteOptions::new().chunk_size(Some(600)), &rows());
    let mut shifted = MAGIC.to_vec();
    shifted.extend([0x80, 3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
    shifted.extend(&clean[MAGIC.len()..]);
    let run = Run::of_bytes(&shifted, &SourceOptions::default());
    assert_eq!(run.seen(), expected(&rows()));
    assert!(run.losses().is_empty() && run.warnings.len() == 1, "{:?}", run.warnings);
}

#[test]
fn an_index_that_points_to_a_message_longer_than_the_file() {
    let mut bytes = write(WriteOptions::new().chunk_size(Some(600)), &rows());
    let mut chunks = Vec::new();
    let mut at = MAGIC.len();
    while bytes[at] != op::DATA_END {
        if bytes[at] == op::CHUNK {
            chunks.push(at);
        }
        at += 9 + u64::from_le_bytes(bytes[at + 1..at + 9].try_into().unwrap()) as usize;
    }
    bytes[chunks[1]] = op::MESSAGE;
    bytes[chunks[1] + 1..chunks[1] + 9].copy_from_slice(&(1u64 << 20).to_le_bytes());
    let run = Run::of_bytes(&bytes, &SourceOptions::default());
    assert!(run.error.is_none(), "{:?}", run.error);
    assert!(!run.packets.is_empty());
    let losses = run.losses();
    assert!(losses[0].contains("where no chunk is"), "{losses:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_never_panics(
        kind in 0..11usize,
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, options) = kinds().swap_remove(kind);
        let mut bytes = write(options, &rows());
        for (at, value) in spots {
            let at = at.index(bytes.len() - 8) + 8;
            bytes[at] = value;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let limits = Limits { message_bytes: 1 << 20, ..Default::default() };
        let run = Run::of_bytes(&bytes, &SourceOptions { limits, ..Default::default() });
        prop_assert!(run.packets.len() <= 30);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [MAGIC, &noise, MAGIC].concat();
        let limits = Limits { message_bytes: 1 << 20, ..Default::default() };
        Run::of_bytes(&bytes, &SourceOptions { limits, ..Default::default() });
    }
}

/// Compares with the facts that come with a folder of recordings, where there is one.
#[test]
fn corpus() {
    let Some(folder) = std::env::var_os("ENCODER_CORPUS") else {
        println!("ENCODER_CORPUS does not name a folder of recordings: nothing to compare");
        return;
    };
    let folder = Path::new(&folder);
    let facts = std::fs::read(folder.join("expected.json")).unwrap();
    let facts: serde_json::Value = serde_json::from_slice(&facts).unwrap();
    let mut compared = 0;
    for file in facts["files"].as_array().unwrap() {
        let name = file["file"].as_str().unwrap();
        if !name.ends_with(".mcap") {
            continue;
        }
        compared += 1;
        let run = Run::of(&folder.join(name), &SourceOptions::default());
        let is_cut = name.contains("truncated");
        assert_eq!(!run.losses().is_empty(), is_cut, "{name}: {:?}", run.warnings);
        assert!(run.packets.is_sorted_by_key(|packet| packet.log_ns), "{name}");
        let streams = file["streams"].as_array().unwrap();
        if streams.is_empty() && !name.contains("all_topics_empty") {
            assert!(run.error.is_some(), "{name}");
            continue;
        }
        assert!(run.error.is_none(), "{name}: {:?}", run.error);
        for facts in streams {
            let topic = facts["topic"].as_str().unwrap();
            let info = run.streams.iter().find(|info| info.topic == topic).unwrap();
            let packets: Vec<_> = run.packets.iter().filter(|p| p.stream == info.id).collect();
            let number = |key: &str| facts[key].as_i64();
            let context = format!("{name} {topic}");
            if is_cut {
                println!("{context}: {} messages; {:?}", packets.len(), run.losses());
                assert!(packets.len() as i64 >= number("usable_frames").unwrap(), "{context}");
            } else {
                assert_eq!(Some(packets.len() as i64), number("messages"), "{context}");
                assert_eq!(packets.last().map(|p| p.log_ns), number("last_log"), "{context}");
            }
            assert_eq!(info.schema, facts["schema"].as_str().unwrap(), "{context}");
            assert_eq!(packets.first().map(|p| p.log_ns), number("first_log"), "{context}");
            if let (Some(first), Some(last)) = (number("first_stamp"), number("last_stamp")) {
                assert_eq!(packets.first().and_then(|p| p.header_ns), Some(first), "{context}");
                let seen = packets.last().and_then(|p| p.header_ns);
                assert!(is_cut || seen == Some(last), "{context}");
            }
            for (number, packet) in packets.iter().enumerate() {
                assert_eq!(packet.number, number as u64, "{context}");
                let payload = packet.payload.as_ref().unwrap_or_else(|e| panic!("{context}: {e}"));
                let encoding = match payload {
                    Payload::Raw(image) => &image.encoding,
                    Payload::Compressed { format, .. } | Payload::Video { format, .. } => format,
                    other => panic!("{context}: {other:?}"),
                };
                let encodings = facts["encodings"].as_array().unwrap();
                let fits = |e: &serde_json::Value| e.as_str().unwrap().starts_with(encoding);
                assert!(encodings.iter().any(fits), "{context}: {encoding}");
            }
        }
    }
    println!("compared {compared} recordings");
}
