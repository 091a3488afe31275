//! The recorder's clock is set back.

use super::*;

/// The log time of a moment: the clock is set back by `by` at the moment `at`.
fn clock(moment: u64, at: u64, by: u64) -> u64 {
    100_000 + moment - if moment < at { 0 } else { by }
}

fn picture(number: usize) -> Vec<u8> {
    format!("<{number:05} {}>", "x".repeat(40)).into_bytes()
}

/// A camera, a slow camera, and a topic without pictures.
fn rows(at: u64, by: u64) -> Vec<Row> {
    let topic = |n: u64| if n % 20 == 7 { 1 } else { n as usize % 2 * 2 };
    let row = |n: u64| (topic(n), clock(n * 50, at, by), picture(n as usize));
    (0..300).map(row).collect()
}

/// The pictures of each stream are in the order of the rows.
fn check_order(run: &Run, count: usize, kind: &str) {
    assert!(run.error.is_none(), "{kind}: {:?}", run.error);
    assert_eq!(run.packets.len(), count, "{kind}: {:?}", run.warnings);
    for stream in 0..run.streams.len() {
        let topic = &run.streams[stream].topic;
        let pictures: Vec<_> =
            run.seen().into_iter().filter(|row| row.0 == *topic).map(|row| row.3).collect();
        assert!(pictures.is_sorted(), "{kind}: {topic}: {:?}", run.warnings);
    }
}

#[test]
fn the_messages_are_in_the_order_of_the_recording() {
    for (at, by) in [(9000, 4975), (9000, 90_000), (9010, 5000)] {
        let rows = rows(at, by);
        for (kind, options) in kinds() {
            let bytes = write(options, &rows);
            let run = Run::of_bytes(&bytes, &SourceOptions::default());
            check_order(&run, 165, kind);
            let said = run.warnings().iter().filter(|w| w.text.contains("step back by")).count();
            assert_eq!((said, run.warnings().len()), (1, 1), "{kind}: {:?}", run.warnings);
            assert!(run.warnings()[0].text.starts_with('/'), "{kind}: {:?}", run.warnings);
            // Cut in the middle of the second period.
            let cut = bytes.len() * 7 / 10;
            let run = Run::of_bytes(&bytes[..cut], &SourceOptions::default());
            check_order(&run, run.packets.len(), kind);
            let mut said = run.warnings.iter().filter(|w| w.text.contains("step back by"));
            let is_named = said.next().is_some_and(|w| w.text.starts_with('/'));
            assert!(is_named, "{kind}: {:?}", run.warnings);
        }
    }
}

/// Messages in turn in two channels of one topic: log time and picture.
fn two_channels(messages: &[(u64, usize)]) -> Vec<u8> {
    let options = WriteOptions::new().compression(None).chunk_size(Some(600));
    let mut writer = options.create(std::io::Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema(TOPICS[0].1, "ros2msg", b"x").unwrap();
    let channel = |writer: &mut ::mcap::Writer<_>, node: &str| {
        let metadata = BTreeMap::from([("node".to_string(), node.to_string())]);
        writer.add_channel(schema, "/left", "cdr", &metadata).unwrap()
    };
    let channels = [channel(&mut writer, "a"), channel(&mut writer, "b")];
    for (n, (time, number)) in messages.iter().enumerate() {
        let log_time = BASE + time;
        let header =
            MessageHeader { channel_id: channels[n % 2], sequence: 0, log_time, publish_time: 0 };
        let data = compressed_image(log_time, &picture(*number));
        writer.write_to_known_channel(&header, &data).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn two_channels_of_a_topic_have_one_clock() {
    let messages: Vec<_> = (0..20).map(|n| (clock(n * 50, 500, 170), n as usize)).collect();
    let run = Run::of_bytes(&two_channels(&messages), &SourceOptions::default());
    check_order(&run, 20, "two channels");
}

#[test]
fn recordings_one_behind_the_other_keep_their_order() {
    let part = |range: std::ops::Range<u64>| {
        let messages: Vec<_> = range.map(|n| (clock(n * 50, 1000, 375), n as usize)).collect();
        two_channels(&messages)
    };
    let run = Run::of_bytes(&[part(0..20), part(20..40)].concat(), &SourceOptions::default());
    check_order(&run, 40, "parts");
    assert!(run.warnings.iter().any(|w| w.text.contains("step back by")), "{:?}", run.warnings);
    // With a pause between them, in any order.
    let part = |range: std::ops::Range<u64>, start: u64| {
        let messages: Vec<_> = range.map(|n| (start + n * 50, n as usize)).collect();
        two_channels(&messages)
    };
    let bytes = [part(20..40, 60_000), part(0..20, 0)].concat();
    let run = Run::of_bytes(&bytes, &SourceOptions::default());
    check_order(&run, 40, "parts in another order");
    assert!(run.warnings.iter().all(|w| !w.text.contains("step back")), "{:?}", run.warnings);
}

#[test]
fn a_step_within_a_chunk_of_a_long_recording_is_reported() {
    let options = || WriteOptions::new().compression(None).chunk_size(Some(6000));
    let mut reported = 0;
    // One of these is not at the border of two chunks.
    for at in [6030, 6045, 6060] {
        let rows: Vec<Row> =
            (0..18_000).map(|n| (0, clock(n * 50, at * 50, 400), picture(n as usize))).collect();
        let bytes = write(options(), &rows);
        assert!(record_ends(&bytes).iter().filter(|record| record.0 == op::CHUNK).count() > 256);
        let run = Run::of_bytes(&bytes, &SourceOptions::default());
        let [warning] = &run.warnings[..] else { panic!("{:?}", run.warnings) };
        match warning.text.contains("within the chunk at byte") {
            true => reported += usize::from(warning.loss),
            false => check_order(&run, rows.len(), "overlap"),
        }
    }
    assert!(reported > 0);
}
