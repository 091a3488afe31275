//! Files that are read without an index: late definitions, several recordings in a file, bytes
//! behind the end.

use super::*;

fn record(opcode: u8, body: &[u8]) -> Vec<u8> {
    [&[opcode][..], &(body.len() as u64).to_le_bytes(), body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn schema(id: u16) -> Vec<u8> {
    let body = [&id.to_le_bytes()[..], &text(TOPICS[0].1), &text("ros2msg"), &text("x")].concat();
    record(op::SCHEMA, &body)
}

fn channel(id: u16, schema: u16, topic: &str) -> Vec<u8> {
    let ids = [id.to_le_bytes(), schema.to_le_bytes()].concat();
    record(op::CHANNEL, &[&ids[..], &text(topic), &text("cdr"), &text("")].concat())
}

fn message(channel: u16, time: u64) -> Vec<u8> {
    let mut body = channel.to_le_bytes().to_vec();
    body.extend([0; 4]);
    body.extend((BASE + time).to_le_bytes());
    body.extend((BASE + time).to_le_bytes());
    body.extend(compressed_image(BASE + time, &[time as u8]));
    record(op::MESSAGE, &body)
}

/// A chunk of records, whose messages have times from `start` to `end`.
fn chunk(start: u64, end: u64, records: &[Vec<u8>]) -> Vec<u8> {
    let records = records.concat();
    let len = records.len() as u64;
    let mut body = [BASE + start, BASE + end, len].map(u64::to_le_bytes).concat();
    // No checksum, and no compression.
    body.extend([0; 8]);
    body.extend(len.to_le_bytes());
    body.extend(records);
    record(op::CHUNK, &body)
}

/// A file without a summary.
fn file(records: &[Vec<u8>]) -> Vec<u8> {
    let header = record(op::HEADER, &[text("ros2"), text("x")].concat());
    let closing = [record(op::DATA_END, &[0; 4]), record(op::FOOTER, &[0; 20])].concat();
    [MAGIC, &header, &records.concat(), &closing, MAGIC].concat()
}

/// Topics and times of all messages.
fn times(run: &Run) -> Vec<(String, u64)> {
    run.seen().into_iter().map(|row| (row.0, row.2)).collect()
}

#[test]
fn messages_find_definitions_that_stand_before_them_in_the_file() {
    let (one, two) = (schema(1), channel(1, 1, "/cam"));
    let late = [message(1, 5), message(1, 6)];
    let early = chunk(1, 2, &[message(1, 1), message(1, 2)]);
    let all = |first: &[&Vec<u8>]| first.iter().map(|r| r.to_vec()).collect::<Vec<_>>();
    for (name, records) in [
        (
            "both in a later chunk by time",
            vec![chunk(5, 6, &[all(&[&one, &two]), late.to_vec()].concat()), early.clone()],
        ),
        (
            "the schema in a later chunk, the channel repeated",
            vec![
                chunk(5, 6, &[all(&[&one, &two]), late.to_vec()].concat()),
                chunk(1, 2, &[two.clone(), message(1, 1), message(1, 2)]),
            ],
        ),
        (
            "in two chunks",
            vec![
                chunk(8, 8, &all(&[&one])),
                chunk(5, 6, &[all(&[&two]), late.to_vec()].concat()),
                early.clone(),
            ],
        ),
        (
            "in front of the chunks",
            vec![one.clone(), two.clone(), chunk(5, 6, &late), early.clone()],
        ),
        (
            "in a chunk, the messages outside",
            [
                vec![chunk(5, 6, &[all(&[&one, &two]), late.to_vec()].concat())],
                vec![message(1, 1), message(1, 2)],
            ]
            .concat(),
        ),
        (
            "all outside",
            [all(&[&one, &two]), late.to_vec(), vec![message(1, 1), message(1, 2)]].concat(),
        ),
    ] {
        let run = Run::of_bytes(&file(&records), &SourceOptions::default());
        let expected = [1, 2, 5, 6].map(|time| ("/cam".to_string(), time));
        assert_eq!(times(&run), expected, "{name}");
        let [loss] = run.losses()[..] else { panic!("{name}: {:?}", run.warnings) };
        assert!(loss.starts_with("the recording has no index"), "{name}: {loss}");
    }
}

#[test]
fn a_channel_without_its_schema_is_named() {
    let good = [schema(1), channel(1, 1, "/cam"), message(1, 1)];
    let lost = [channel(2, 9, "/other"), message(2, 2)];
    for records in [
        vec![chunk(1, 2, &[&good[..], &lost].concat())],
        [&good[..], &lost].concat(),
        vec![chunk(1, 1, &good), chunk(2, 2, &lost)],
    ] {
        let run = Run::of_bytes(&file(&records), &SourceOptions::default());
        assert_eq!(times(&run), [("/cam".to_string(), 1)]);
        let is_named = |loss: &&str| loss.contains("/other: the file does not describe schema 9");
        assert!(run.losses().iter().any(is_named), "{:?}", run.warnings);
        // Other programs may know what it is.
        let options = SourceOptions { all_messages: true, ..Default::default() };
        let run = Run::of_bytes(&file(&records), &options);
        let is_message = |event: &&Event| matches!(event, Event::Message(_));
        assert_eq!(run.others.iter().filter(is_message).count(), 1, "{:?}", run.others);
    }
}

/// Recordings with the same numbers of channels for other topics: at the times 1 to 4 and 5 to 8.
fn halves(kind: &WriteOptions) -> [Vec<u8>; 2] {
    [("/a", 1..5), ("/b", 5..9)].map(|(topic, times)| {
        let mut writer = kind.clone().create(std::io::Cursor::new(Vec::new())).unwrap();
        let schema = writer.add_schema(TOPICS[0].1, "ros2msg", b"x").unwrap();
        let channel_id = writer.add_channel(schema, topic, "cdr", &BTreeMap::new()).unwrap();
        for log_time in times.map(|time| BASE + time) {
            let header = MessageHeader { channel_id, sequence: 0, log_time, publish_time: 0 };
            writer.write_to_known_channel(&header, &compressed_image(log_time, b"x")).unwrap();
        }
        writer.finish().unwrap();
        writer.into_inner().into_inner()
    })
}

#[test]
fn recordings_one_behind_the_other() {
    for (kind, options) in kinds() {
        let [a, b] = halves(&options);
        let expected: Vec<_> =
            (1..9).map(|n| (if n < 5 { "/a" } else { "/b" }.to_string(), n)).collect();
        for file in [[&a[..], &b].concat(), [&b[..], &a].concat()] {
            let run = Run::of_bytes(&file, &SourceOptions::default());
            assert_eq!(times(&run), expected, "{kind}");
            let texts: Vec<_> = run.warnings.iter().map(|warning| &warning.text).collect();
            let is_named = texts[0].contains("2 recordings, one behind the other");
            assert!(is_named, "{kind}: {texts:?}");
            // Their statistics show that all is there.
            let is_uncounted = kind.contains("no summary") || kind.contains("no statistics");
            assert_eq!(run.losses().len(), usize::from(is_uncounted), "{kind}: {texts:?}");
            if !is_uncounted {
                assert_eq!(
                    run.streams.iter().map(|s| s.messages).collect::<Vec<_>>(),
                    [Some(4); 2]
                );
            }
        }
    }
}

#[test]
fn a_recording_behind_one_that_is_cut() {
    let (_, options) = kinds().swap_remove(2);
    let [a, b] = halves(&options);
    let ends = record_ends(&a);
    let mut mixed_up = 0;
    for cut in MAGIC.len()..a.len() {
        let run = Run::of_bytes(&[&a[..cut], &b].concat(), &SourceOptions::default());
        let seen = times(&run);
        // The last record that was cut may end exactly where a record of the second begins.
        let texts = ["/b: the index promises 4 messages", "channel 1 is first"];
        if run.losses().iter().any(|loss| texts.iter().any(|text| loss.contains(text))) {
            mixed_up += 1;
            continue;
        }
        let is_whole = seen.ends_with(&[5, 6, 7, 8].map(|n| ("/b".to_string(), n)));
        assert!(is_whole, "{cut}: {seen:?} {:?} {:?}", run.warnings, run.error);
        // No picture is that of another topic.
        assert!(seen.iter().all(|(topic, time)| (topic == "/a") == (*time < 5)), "{cut}: {seen:?}");
        let is_closed = ends.iter().any(|(opcode, end)| *opcode == op::DATA_END && *end <= cut);
        let context = || format!("{cut} of {} {ends:?} {seen:?}: {:?}", a.len(), run.warnings);
        assert!(is_closed || !run.losses().is_empty(), "{}", context());
    }
    assert!(mixed_up < 10, "{mixed_up}");
}

#[test]
fn bytes_behind_the_end() {
    let rows = rows();
    for (kind, options) in kinds() {
        let bytes = write(options, &rows);
        let uncounted = kind.contains("no summary") || kind.contains("no statistics");
        for (rest, loss) in [
            (vec![0; 100_000], 0),
            (b"something else".to_vec(), 1),
            // The magic alone is no recording.
            (MAGIC.to_vec(), 1),
        ] {
            let run = Run::of_bytes(&[&bytes[..], &rest].concat(), &SourceOptions::default());
            assert_eq!(run.seen(), expected(&rows), "{kind}");
            let losses = run.losses();
            assert_eq!(losses.len(), loss + usize::from(uncounted), "{kind}: {losses:?}");
            let is_named = |text: &&&str| text.contains(&format!("from byte {} on", bytes.len()));
            assert_eq!(losses.iter().filter(is_named).count(), loss, "{kind}: {losses:?}");
        }
    }
}

#[test]
fn many_parts_cost_no_more_than_they_have() {
    let header = record(op::HEADER, &[text("x"), text("y")].concat());
    let part = [MAGIC, &header].concat();
    let run = Run::of_bytes(
        &part.repeat(3000),
        &SourceOptions { all_messages: true, ..Default::default() },
    );
    assert!(run.losses().iter().any(|loss| loss.contains("stops at byte")), "{:?}", run.warnings);
}

#[test]
fn messages_that_are_compressed_individually() {
    let zip = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
    let image = compressed_image(BASE, b"abc");
    let mut cut = zip(&image);
    cut.pop();
    for (data, picture) in [(image.clone(), true), (zip(&image), true), (cut, false)] {
        let file = single("/cam", (TOPICS[0].1, "ros2msg"), "cdr", &data);
        let run = Run::of_bytes(&file, &SourceOptions::default());
        match picture {
            true => assert_eq!(run.seen(), [("/cam".into(), 0, 0, b"abc".to_vec())]),
            false => {
                let reason = run.packets[0].payload.as_ref().unwrap_err().to_string();
                assert!(reason.contains("zstd"), "{reason}");
            }
        }
    }
    // Other topics as well, where all messages are requested.
    let options = SourceOptions { all_messages: true, ..Default::default() };
    let file = single("/tf", ("tf2_msgs/msg/TFMessage", "ros2msg"), "cdr", &zip(b"\0\x01\0\0tf"));
    let run = Run::of_bytes(&file, &options);
    let data = run.others.iter().filter_map(|event| match event {
        Event::Message(message) => Some(&message.data[..]),
        _ => None,
    });
    assert_eq!(data.collect::<Vec<_>>(), [b"\0\x01\0\0tf"]);
}

#[test]
fn one_topic_under_two_channels() {
    // Two spellings of a type are one camera; two types are two.
    for (names, streams) in [
        (["sensor_msgs/msg/CompressedImage", "sensor_msgs/CompressedImage"], 1),
        (["sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"], 2),
    ] {
        let mut writer = WriteOptions::new().create(std::io::Cursor::new(Vec::new())).unwrap();
        for (n, name) in (0..).zip(names) {
            let schema = writer.add_schema(name, "ros2msg", b"x").unwrap();
            let channel_id = writer.add_channel(schema, "/cam", "cdr", &BTreeMap::new()).unwrap();
            for log_time in [BASE + n, BASE + n + 2] {
                let header = MessageHeader { channel_id, sequence: 0, log_time, publish_time: 0 };
                writer.write_to_known_channel(&header, &compressed_image(log_time, b"x")).unwrap();
            }
        }
        writer.finish().unwrap();
        let run = Run::of_bytes(&writer.into_inner().into_inner(), &Default::default());
        assert_eq!(run.streams.len(), streams, "{names:?}");
        let times: Vec<_> = run.packets.iter().map(|packet| packet.log_ns as u64 - BASE).collect();
        assert_eq!(times, [0, 1, 2, 3], "{names:?}");
        let numbers = run.packets.iter().filter(|packet| packet.stream == 0);
        let numbers: Vec<_> = numbers.map(|packet| packet.number).collect();
        assert_eq!(numbers, (0..4 / streams as u64).collect::<Vec<_>>(), "{names:?}");
    }
}

/// A file with a summary that lists the first `listed` of its chunks.
fn partly_listed(rows: &[Row], options: WriteOptions, listed: usize) -> Vec<u8> {
    let bytes = write(options, rows);
    let footer = bytes.len() - MAGIC.len() - 20;
    let start = u64::from_le_bytes(bytes[footer..footer + 8].try_into().unwrap()) as usize;
    let (mut out, mut at, mut chunks) = (bytes[..start].to_vec(), start, 0);
    while at < bytes.len() - MAGIC.len() {
        let end = at + 9 + u64::from_le_bytes(bytes[at + 1..at + 9].try_into().unwrap()) as usize;
        chunks += usize::from(bytes[at] == op::CHUNK_INDEX);
        if bytes[at] != op::CHUNK_INDEX || chunks <= listed {
            out.extend(&bytes[at..end]);
        }
        at = end;
    }
    assert!(chunks > listed);
    out.extend(MAGIC);
    out
}

#[test]
fn chunks_that_the_index_does_not_list_are_read() {
    let options = || {
        WriteOptions::new()
            .compression(None)
            .chunk_size(Some(600))
            .emit_statistics(false)
            .emit_summary_offsets(false)
    };
    for listed in 1..3 {
        let bytes = partly_listed(&rows(), options(), listed);
        let run = Run::of_bytes(&bytes, &SourceOptions::default());
        assert_eq!(run.seen(), expected(&rows()), "{listed}");
        let losses = run.losses();
        assert!(losses[0].contains("it does not list the messages at byte"), "{losses:?}");
    }
}
