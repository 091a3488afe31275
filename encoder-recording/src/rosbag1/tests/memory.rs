//! How much is held and read, and everything that is in a bag.

use encoder_media::InputReader;

use super::*;
use crate::counted::Counted;
use crate::{ChannelInfo, Message};

/// Milliseconds of the frames of a bag in memory, in the order in which they came, with what it
/// took to read it.
struct Played {
    times: Vec<i64>,
    warnings: Vec<Warning>,
    most_held: u64,
    input: Counted,
}

fn play(bytes: &[u8], held_bytes: u64) -> Played {
    let input = Counted::new(bytes);
    let reader = InputReader::new(Box::new(input.clone()), Path::new("memory.bag"));
    let limits = Limits { held_bytes, ..Default::default() };
    let options = SourceOptions { limits, ..Default::default() };
    let mut source = RosbagSource::new(reader, &options).unwrap();
    let (mut times, mut warnings) = (Vec::new(), Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Packet(packet) => times.push((packet.log_ns - ns(0)) / 1_000_000),
            Event::Warning(warning) => warnings.push(warning),
            _ => {}
        }
    }
    Played { times, warnings, most_held: source.order.most_held(), input }
}

/// 60 chunks of eight frames one after another, each with an early message of `connection`.
fn with_late(connection: u32, compression: &str) -> (Vec<u8>, Vec<i64>) {
    let mut bag = Bag::new(&[(0, "/cam", CAMERA), (1, "/imu", "sensor_msgs/Imu")]);
    let mut times = Vec::new();
    for chunk in 0..60 {
        let frames = (0..8).map(|i| (0, 1000 + chunk * 10 + i, image(i)));
        let early = (connection, chunk, image(chunk));
        let messages: Vec<_> = frames.chain([early]).collect();
        times.extend(messages.iter().filter(|m| m.0 == 0).map(|m| i64::from(m.1)));
        bag.chunk(compression, &messages);
    }
    times.sort_unstable();
    (bag.finish(), times)
}

#[test]
fn late_messages_of_another_topic_do_not_make_chunks_wait() {
    for compression in ["none", "lz4"] {
        let (bytes, times) = with_late(1, compression);
        for bytes in [bytes.clone(), unindexed(&bytes)] {
            let played = play(&bytes, 1 << 20);
            assert_eq!(played.times, times);
            assert!(played.warnings.iter().all(|warning| !warning.loss), "{:?}", played.warnings);
            // 480 frames of 128 bytes and as many for their bookkeeping.
            assert!((2000..8000).contains(&played.most_held), "{}", played.most_held);
        }
    }
}

#[test]
fn late_camera_messages_cost_time_and_not_memory() {
    for compression in ["none", "bz2"] {
        let (bytes, times) = with_late(0, compression);
        let played = play(&bytes, 6000);
        assert_eq!(played.times, times);
        assert_eq!(played.warnings, []);
        assert!(played.most_held <= 6000 + 300, "{}", played.most_held);
    }
}

#[test]
fn a_shuffled_bag_loses_its_order_with_a_warning_and_nothing_else() {
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    for chunk in 0..60 {
        let frames = (0..20).map(|i| (0, (i * 7919 + chunk * 31) % 3000, image(i)));
        bag.chunk("none", &frames.collect::<Vec<_>>());
    }
    let played = play(&bag.finish(), 3000);
    let [warning] = played.warnings.as_slice() else { panic!("{:?}", played.warnings) };
    assert!(!warning.loss && warning.text.contains("may come out of order"), "{warning:?}");
    assert!(!played.times.is_sorted());
    assert_eq!(played.times.len(), 1200);
}

#[test]
fn a_message_that_is_earlier_than_its_chunk_claims_is_reported() {
    let mut bag = Bag::new(&[(0, "/cam", CAMERA)]);
    bag.chunk("none", &[(0, 10, image(1)), (0, 20, image(2))]);
    bag.chunk("none", &[(0, 5, image(3)), (0, 30, image(4))]);
    let mut bytes = bag.finish();
    // The second chunk's start in the index.
    let at = bytes.windows(11).rposition(|window| window == b"start_time=").unwrap() + 11;
    bytes[at..at + 8].copy_from_slice(&encoder_testbed::fixtures::bag::stamp(25));
    let played = play(&bytes, 1 << 20);
    assert_eq!(played.times, [10, 20, 5, 30]);
    let [warning] = played.warnings.as_slice() else { panic!("{:?}", played.warnings) };
    assert!(warning.text.contains("logged 15000000 ns before"), "{warning:?}");
}

#[test]
fn chunks_without_cameras_are_not_read() {
    let mut bag = Bag::new(&[(0, "/cam", CAMERA), (1, "/points", "sensor_msgs/PointCloud2")]);
    for chunk in 0..20 {
        bag.chunk("none", &[(0, chunk * 2, image(chunk))]);
        bag.chunk("none", &[(1, chunk * 2 + 1, vec![0; 200_000])]);
    }
    let bytes = bag.finish();
    let played = play(&bytes, 1 << 20);
    assert_eq!(played.times, (0..20).map(|chunk| chunk * 2).collect::<Vec<_>>());
    assert_eq!(played.warnings, []);
    assert!(played.input.bytes() < bytes.len() as u64 / 3, "{}", played.input.bytes());
}

/// All that a bag has, by its events.
fn all(bytes: &[u8], options: &SourceOptions) -> (Vec<ChannelInfo>, Vec<Message>, Vec<Warning>) {
    let options = SourceOptions { all_messages: true, ..options.clone() };
    let input = Box::new(Bytes::copy_from_slice(bytes));
    let mut source = RosbagSource::from_reader(input, Path::new("x"), &options).unwrap();
    assert_eq!(source.profile(), "ros1");
    let (mut channels, mut messages, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Channel(info) => {
                assert_eq!(info.id, channels.len());
                channels.push(info);
            }
            Event::Packet(packet) => {
                let message = packet.message.unwrap();
                assert_eq!(channels[message.channel].stream, Some(packet.stream));
                assert_eq!(packet.log_ns as u64, message.log_ns);
                messages.push(message);
            }
            Event::Message(message) => {
                assert_eq!(channels[message.channel].stream, None);
                messages.push(message);
            }
            Event::Warning(warning) => warnings.push(warning),
            _ => {}
        }
    }
    (channels, messages, warnings)
}

#[test]
fn all_messages() {
    let rows: Vec<(u32, u32, Vec<u8>)> = (0..60)
        .map(|i| {
            let connection = [0, 7, 9, 3][i as usize % 4];
            (connection, i * 7 % 60, if connection == 3 { vec![i as u8; 5] } else { image(i) })
        })
        .collect();
    let mut bag = Bag::new(&[
        (0, "/a", CAMERA),
        (7, "/a", CAMERA),
        (9, "/b", CAMERA),
        (3, "/tf", "tf/tfMessage"),
    ]);
    for (chunk, compression) in rows.chunks(10).zip(["none", "lz4", "bz2"].into_iter().cycle()) {
        bag.chunk(compression, chunk);
    }
    let bytes = bag.finish();
    let mut expected = rows;
    expected.sort_by_key(|row| row.1);
    for bytes in [bytes.clone(), unindexed(&bytes)] {
        for topics in [vec![], vec!["/b".to_string()]] {
            let options = SourceOptions { topics: topics.clone(), ..Default::default() };
            let (channels, messages, warnings) = all(&bytes, &options);
            assert!(warnings.iter().all(|warning| !warning.loss), "{warnings:?}");
            let channel = |id: u32| channels.iter().find(|c| c.recorded_id == Some(id)).unwrap();
            let streams = [0, 7, 9, 3].map(|id| channel(id).stream);
            match topics.is_empty() {
                true => assert_eq!(streams, [Some(0), Some(0), Some(1), None]),
                false => assert_eq!(streams, [None, None, Some(0), None]),
            }
            let tf = channel(3);
            assert_eq!((tf.topic.as_str(), tf.encoding.as_str()), ("/tf", "ros1"));
            let schema = tf.schema.as_ref().unwrap();
            assert_eq!(
                (schema.name.as_str(), schema.encoding.as_str()),
                ("tf/tfMessage", "ros1msg")
            );
            assert_eq!(tf.metadata["md5sum"], "*");
            let seen: Vec<_> = messages
                .into_iter()
                .map(|message| {
                    assert_eq!((message.sequence, message.publish_ns), (0, message.log_ns));
                    let ms = (message.log_ns as i64 - ns(0)) / 1_000_000;
                    let id = channels[message.channel].recorded_id.unwrap();
                    (id, ms as u32, message.data.to_vec())
                })
                .collect();
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn a_bag_without_cameras_is_of_use_and_what_it_lacks_is_reported() {
    let mut bag = Bag::new(&[(1, "/imu", "sensor_msgs/Imu")]);
    bag.chunk("none", &[(1, 1, vec![1]), (1, 2, vec![2])]);
    let bytes = bag.finish();
    let (channels, messages, warnings) = all(&bytes, &Default::default());
    assert_eq!((channels.len(), messages.len(), warnings), (1, 2, vec![]));
    // More messages in the index than there are.
    let mut promised = bytes.clone();
    let at = promised.len() - 4;
    promised[at] = 5;
    let (_, messages, warnings) = all(&promised, &Default::default());
    assert_eq!(messages.len(), 2);
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.loss && warning.text.contains("/imu: the index promises 5"), "{warning:?}");
}

#[test]
fn connections_without_end_are_refused() {
    let mut bytes = Bag::new(&[]).finish();
    for id in 0..70_000 {
        bytes.extend(encoder_testbed::fixtures::bag::connection(id, "/x", "x/Y"));
    }
    let (channels, _, warnings) = all(&bytes, &Default::default());
    assert_eq!(channels.len(), 1 << 16);
    let many = warnings.iter().filter(|w| w.loss && w.text.contains("connections")).count();
    assert_eq!(many, 1, "{warnings:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_bound_changes_nothing_but_the_time(
        chunks in prop::collection::vec(prop::collection::vec((0..2u32, 0..50u32), 1..8), 1..12),
        held_bytes in 1..4000u64,
        indexed in any::<bool>(),
    ) {
        let mut bag = Bag::new(&[(0, "/cam", CAMERA), (1, "/imu", "sensor_msgs/Imu")]);
        let mut times = Vec::new();
        for chunk in chunks {
            let rows: Vec<_> = chunk.into_iter().map(|(id, ms)| (id, ms, image(ms))).collect();
            times.extend(rows.iter().filter(|row| row.0 == 0).map(|row| i64::from(row.1)));
            bag.chunk("none", &rows);
        }
        times.sort_unstable();
        let bytes = bag.finish();
        let mut played = play(&if indexed { bytes } else { unindexed(&bytes) }, held_bytes);
        prop_assert!(played.warnings.iter().all(|warning| !warning.loss));
        if played.warnings.iter().any(|warning| warning.text.contains("order")) {
            played.times.sort_unstable();
        }
        prop_assert_eq!(played.times, times);
    }
}
