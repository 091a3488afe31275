//! How much is held and read.

use std::ops::Range;

use ::mcap::records::Record as Parsed;
use encoder_media::InputReader;

use super::*;
use crate::counted::Counted;

/// A recording in memory that was read.
struct Read {
    run: Run,
    most_held: u64,
    input: Counted,
}

fn read(bytes: &[u8], options: &SourceOptions) -> Read {
    let input = Counted::new(bytes);
    let reader = InputReader::new(Box::new(input.clone()), Path::new("memory.mcap"));
    let mut source = McapSource::new(reader, options).unwrap();
    let run = Run::of_source(&mut source);
    Read { run, most_held: source.order.most_held(), input }
}

fn holding(held_bytes: u64) -> SourceOptions {
    let limits = Limits { held_bytes, ..Default::default() };
    SourceOptions { limits, ..Default::default() }
}

/// 480 messages of a camera, one after another in 60 chunks, and as many messages of `topic` with
/// early times between them.
fn with_late(topic: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for chunk in 0..60 {
        rows.push((topic, chunk, vec![b'0'; 20]));
        for i in 0..8 {
            rows.push((0, 1000 + chunk * 10 + i, vec![i as u8; 1000]));
        }
    }
    rows
}

/// With an index and without, compressed and not; chunks hold about nine of the rows.
fn layouts() -> Vec<(&'static str, WriteOptions)> {
    let chunks = || WriteOptions::new().chunk_size(Some(8000));
    vec![
        ("plain", chunks().compression(None)),
        ("zstd", chunks().compression(Some(Compression::Zstd))),
        ("no summary", chunks().compression(None).emit_summary_records(false)),
    ]
}

#[test]
fn late_messages_of_another_topic_do_not_make_chunks_wait() {
    let rows = with_late(2);
    for (kind, options) in layouts() {
        let bytes = write(options, &rows);
        let read = read(&bytes, &SourceOptions::default());
        assert_eq!(read.run.seen(), expected(&rows), "{kind}");
        assert!(read.run.warnings().is_empty(), "{kind}: {:?}", read.run.warnings);
        // 480 kB of messages; two or three chunks at a time.
        assert!((8_000..30_000).contains(&read.most_held), "{kind}: {}", read.most_held);
        // Message indexes are asked for together.
        assert!(read.input.batches().contains(&BATCH.min(59)), "{kind}");
    }
}

#[test]
fn late_camera_messages_cost_time_and_not_memory() {
    let rows = with_late(0);
    for (kind, options) in layouts() {
        let bytes = write(options, &rows);
        let read = read(&bytes, &holding(20_000));
        assert_eq!(read.run.seen(), expected(&rows), "{kind}");
        assert!(read.run.warnings().is_empty(), "{kind}: {:?}", read.run.warnings);
        assert!(read.most_held <= 20_000 + 1200, "{kind}: {}", read.most_held);
        if kind != "zstd" {
            let times = read.input.bytes() as f64 / bytes.len() as f64;
            // The buffer reads ahead at each of the small chunks.
            assert!(times < 12.0, "{kind}: read {times} times");
        }
    }
}

#[test]
fn a_shuffled_recording_loses_its_order_with_a_warning_and_nothing_else() {
    let rows: Vec<Row> =
        (0..600).map(|i| ((i % 2) as usize, i * 7919 % 6000, vec![b'0'; 500])).collect();
    for (kind, options) in layouts() {
        let read = read(&write(options, &rows), &holding(9000));
        let warnings = read.run.warnings();
        let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(!warning.loss && warning.text.contains("may come out of order"), "{warning:?}");
        assert!(read.most_held < 9000 + 12_000, "{kind}: {}", read.most_held);
        let mut seen: Vec<_> = read.run.packets.iter().map(|p| p.log_ns).collect();
        assert!(!seen.is_sorted(), "{kind}");
        seen.sort_unstable();
        let all: Vec<_> = expected(&rows).iter().map(|row| (BASE + row.2) as i64).collect();
        assert_eq!(seen, all, "{kind}");
        for stream in 0..2 {
            let packets = read.run.packets.iter().filter(|p| p.stream == stream);
            assert!(packets.map(|p| p.number).eq(0..300), "{kind}");
        }
    }
}

#[test]
fn chunks_without_cameras_are_not_read() {
    // 40 chunks of 100 kB, every other one of another topic.
    let rows: Vec<Row> = (0..40)
        .flat_map(|chunk| {
            (0..2).map(move |i| (chunk % 2 * 2, chunk as u64 * 10 + i, vec![7; 60_000]))
        })
        .collect();
    let options = WriteOptions::new().compression(None).chunk_size(Some(100_000));
    let bytes = write(options, &rows);
    let read = read(&bytes, &SourceOptions::default());
    assert_eq!(read.run.seen(), expected(&rows));
    assert_eq!(read.run.warnings, []);
    // Half of the file, and what is read ahead.
    assert!(read.input.bytes() < bytes.len() as u64 * 7 / 10, "{}", read.input.bytes());
}

#[test]
fn definitions_that_stand_in_a_later_moment_are_found() {
    // The first chunk of the file defines the channels and is the last in time.
    let rows: Vec<Row> =
        (0..60).map(|i| ((i % 3) as usize, (60 - i) / 10 * 100 + i, vec![b'0'; 100])).collect();
    for (kind, options) in [
        ("no summary", WriteOptions::new().emit_summary_records(false)),
        ("no channels", WriteOptions::new().repeat_channels(false).repeat_schemas(false)),
    ] {
        let bytes = write(options.chunk_size(Some(600)), &rows);
        let run = Run::of_bytes(&bytes, &SourceOptions::default());
        assert_eq!(run.seen(), expected(&rows), "{kind}");
        assert!(run.warnings().is_empty(), "{kind}: {:?}", run.warnings);
    }
}

#[test]
fn messages_outside_chunks_are_not_listed_one_by_one() {
    let rows: Vec<Row> =
        (0..20_000).map(|i| ((i % 3) as usize, i * 7919 % 20_000, vec![b'0'; 10])).collect();
    let bytes = write(WriteOptions::new().use_chunks(false), &rows);
    let mut input = InputReader::new(Box::new(Bytes::from(bytes.clone())), Path::new("x"));
    let walk = walk::walk(&mut input, &Limits::default(), false, |_, _| true).unwrap();
    assert!(walk.blocks.len() < 12, "{}", walk.blocks.len());
    let read = read(&bytes, &holding(100_000));
    let mut seen: Vec<_> = read.run.seen();
    seen.sort_by_key(|row| row.2);
    let order = |row: &(String, u64, u64, Vec<u8>)| (row.2, row.0.clone());
    let seen: Vec<_> = seen.iter().map(order).collect();
    assert_eq!(seen, expected(&rows).iter().map(order).collect::<Vec<_>>());
}

/// A record by hand.
fn record(opcode: u8, body: &[u8]) -> Vec<u8> {
    [&[opcode][..], &(body.len() as u64).to_le_bytes(), body].concat()
}

/// A chunk without compression and checksum.
fn chunk(records: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((BASE + 1).to_le_bytes());
    body.extend((BASE + 1).to_le_bytes());
    body.extend((records.len() as u64).to_le_bytes());
    body.extend([0; 4 + 4]);
    body.extend((records.len() as u64).to_le_bytes());
    body.extend(records);
    record(op::CHUNK, &body)
}

/// A recording with `records` in front of its own.
fn prefixed(records: &[u8]) -> Vec<u8> {
    let bytes = write(WriteOptions::new().emit_summary_records(false), &rows());
    [MAGIC, records, &bytes[MAGIC.len()..]].concat()
}

#[test]
fn defects_are_summed_up() {
    // Records that are too short for what they are; each costs nine bytes.
    let headless = record(op::CHUNK, b"").repeat(20_000);
    let short = chunk(&record(op::MESSAGE, b"").repeat(20_000));
    for (what, defects) in [("20000 messages", short), ("19900 more records", headless)] {
        let run = Run::of_bytes(&prefixed(&defects), &SourceOptions::default());
        assert_eq!(run.seen(), expected(&rows()), "{what}");
        let losses = run.losses();
        assert!(losses.len() <= 102, "{what}: {}", losses.len());
        assert!(losses.iter().any(|loss| loss.contains(what)), "{what}: {:?}", losses.last());
    }
}

#[test]
fn large_records_that_are_not_needed_are_not_read() {
    let names = b"\x09\0\x03\0\0\0x/Y\x07\0\0\0ros2msg";
    let schema = [&names[..], &(4u32 << 20).to_le_bytes(), &vec![b'#'; 4 << 20]].concat();
    let mut attachment = vec![0; 16];
    attachment.extend([0; 4 + 4]);
    attachment.extend((4u64 << 20).to_le_bytes());
    attachment.extend(vec![1; 4 << 20]);
    attachment.extend([0; 4]);
    let metadata = [&b"\x01\0\0\0m"[..], &[0; 4], &vec![0; 4 << 20]].concat();
    let large = [
        record(op::SCHEMA, &schema),
        record(op::ATTACHMENT, &attachment),
        record(op::METADATA, &metadata),
    ];
    let bytes = prefixed(&large.concat());
    let limits = Limits { message_bytes: 1 << 20, ..Default::default() };
    let mut options = SourceOptions { limits, ..Default::default() };
    let read = read(&bytes, &options);
    assert_eq!(read.run.seen(), expected(&rows()));
    assert!(read.input.bytes() < 400_000, "{}", read.input.bytes());
    assert!(read.run.warnings().is_empty(), "{:?}", read.run.losses());
    // Where they are wanted, the limit applies to them.
    options.all_messages = true;
    let run = Run::of_bytes(&bytes, &options);
    let losses = run.losses();
    for what in ["record", "attachment", "metadata"] {
        let at = format!("the {what} at byte");
        let is_about = |loss: &&str| loss.contains(&at) && loss.contains("`Limits::message_bytes`");
        assert!(losses.iter().any(is_about), "{what}: {losses:?}");
    }
}

#[test]
fn an_index_that_lists_a_chunk_twice_is_not_followed() {
    let bytes = write(WriteOptions::new().chunk_size(Some(600)), &rows());
    let summary = ::mcap::Summary::read(&bytes).unwrap().unwrap();
    let chunks: Vec<u64> = summary.chunk_indexes.iter().map(|c| c.chunk_start_offset).collect();
    let (first, second) = (chunks[0].to_le_bytes(), chunks[1].to_le_bytes());
    let at = bytes.windows(8).rposition(|window| window == second).unwrap();
    let mut doubled = bytes.clone();
    doubled[at..at + 8].copy_from_slice(&first);
    let run = Run::of_bytes(&doubled, &SourceOptions::default());
    assert_eq!(run.seen(), expected(&rows()));
    assert!(run.warnings[0].text.contains("overlap"), "{:?}", run.warnings);
}

#[test]
fn an_input_that_fails_is_an_error() {
    /// Fails behind an offset.
    struct Broken(Bytes, u64);

    impl ReadAt for Broken {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            match offset + buffer.len() as u64 > self.1 && offset + 2000 < ReadAt::len(self) {
                true => Err(std::io::Error::other("the store is away")),
                false => self.0.read_at(offset, buffer),
            }
        }
    }

    let rows = with_late(0);
    let bytes = Bytes::from(write(WriteOptions::new().chunk_size(Some(8000)), &rows));
    let len = bytes.len() as u64;
    let name = Location::Name("s3://bucket/drive.mcap".into());
    let input = Box::new(Broken(bytes, len / 2));
    let mut source = McapSource::from_reader(input, name, &Default::default());
    let error = loop {
        match source.as_mut().map(|source| source.next_event()) {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => panic!("it ends"),
            Ok(Err(error)) => break error.to_string(),
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(error, "s3://bucket/drive.mcap: the store is away");
}

#[test]
fn the_file_may_become_shorter_between_two_reads() {
    let rows = with_late(0);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let bytes = write(WriteOptions::new().compression(None).chunk_size(Some(8000)), &rows);
    file.write_all(&bytes).unwrap();
    let mut source = McapSource::open(file.path(), &SourceOptions::default()).unwrap();
    while !matches!(source.next_event().unwrap(), Some(Event::Packet(_))) {}
    file.as_file().set_len(bytes.len() as u64 / 2).unwrap();
    let error = loop {
        match source.next_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends"),
            Err(error) => break error,
        }
    };
    let SourceError::Io { error, .. } = error else { panic!("{error}") };
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

/// Compares with the crate `mcap`.
#[test]
fn every_chunk_is_planned_for_once() {
    for (kind, options) in kinds() {
        let bytes = write(options, &rows());
        let chunks = ::mcap::read::LinearReader::new(&bytes).unwrap();
        let chunks = chunks.filter(|r| matches!(r, Ok(Parsed::Chunk { .. }))).count();
        let reader = InputReader::new(Box::new(Bytes::from(bytes)), Path::new("x"));
        let source = McapSource::new(reader, &SourceOptions::default()).unwrap();
        assert_eq!(source.unread.len(), chunks, "{kind}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn a_bound_changes_nothing_but_the_time(
        kind in 0..11usize,
        times in prop::collection::vec((0..3usize, 0..40u64, 0..200usize), 1..60),
        held_bytes in 1..4000u64,
        window in prop::option::of((0..40i64, 0..40i64)),
    ) {
        let rows: Vec<Row> =
            times.into_iter().map(|(topic, time, len)| (topic, time, vec![b'x'; len])).collect();
        let (_, options) = kinds().swap_remove(kind);
        let bytes = write(options, &rows);
        let range: Option<Range<u64>> = window.map(|(start, len)| start as u64..(start + len) as u64);
        let moment = |ns: u64| Some(Moment::Absolute((BASE + ns) as i64));
        let mut options = holding(held_bytes);
        if let Some(range) = &range {
            (options.start, options.end) = (moment(range.start), moment(range.end));
        }
        let read = read(&bytes, &options);
        let mut expected = expected(&rows);
        if let Some(range) = range {
            expected.retain(|row| (range.start..=range.end).contains(&row.2));
        }
        let warnings = read.run.warnings();
        if warnings.is_empty() {
            prop_assert_eq!(read.run.seen(), expected);
            // When the budget is used up, a block is held as a whole.
            let block = if (3..5).contains(&kind) { 60 * 500 } else { 3 * 500 };
            prop_assert!(read.most_held <= held_bytes.max(500) + block);
        } else {
            prop_assert!(warnings.iter().all(|warning| !warning.loss), "{warnings:?}");
            prop_assert_eq!(read.run.packets.len(), expected.len());
        }
    }
}
