//! Everything that is in a recording.

use ::mcap::records::{Metadata as MetadataRecord, Record as Parsed};
use ::mcap::{MessageStream, Writer};

use super::*;
use crate::{ChannelInfo, Message, Metadata};

/// A message with all that a recording has about it.
type Recorded = (MessageHeader, String, String, BTreeMap<String, String>, Option<Defined>, Vec<u8>);
/// A schema: number, name, encoding, definition.
type Defined = (u16, String, String, Vec<u8>);

fn all() -> SourceOptions {
    SourceOptions { all_messages: true, ..Default::default() }
}

/// Writes [`rows`] with everything else that a recording may have.
fn write_all(options: WriteOptions) -> Vec<u8> {
    let options = options.profile("ros2");
    let mut writer = options.create(std::io::Cursor::new(Vec::new())).unwrap();
    let schemas: Vec<_> = TOPICS
        .iter()
        .enumerate()
        .map(|(i, (_, name))| {
            let definition = format!("# {name}\nfloat64 x");
            let id = 40 + i as u16;
            writer.add_schema_with_id(id, name, "ros2msg", definition.as_bytes()).unwrap()
        })
        .collect();
    let qos = BTreeMap::from([("offered_qos_profiles".to_string(), "- depth: 3".to_string())]);
    let mut channels = Vec::new();
    for (i, ((topic, _), schema)) in TOPICS.iter().zip(schemas).enumerate() {
        let id = 7 * i as u16;
        channels.push(writer.add_channel_with_id(id, schema, topic, "cdr", &qos).unwrap());
    }
    // A channel without a schema.
    channels.push(writer.add_channel(0, "/raw", "bytes", &BTreeMap::new()).unwrap());
    let metadata = |name: &str| MetadataRecord {
        name: name.into(),
        metadata: BTreeMap::from([("robot".to_string(), name.to_uppercase())]),
    };
    writer.write_metadata(&metadata("first")).unwrap();
    for (i, (topic, time, picture)) in rows().iter().enumerate() {
        let topic = if i == 17 { 3 } else { *topic };
        let header = MessageHeader {
            channel_id: channels[topic],
            sequence: u32::MAX - i as u32,
            log_time: BASE + time,
            publish_time: if i == 5 { u64::MAX } else { BASE - i as u64 },
        };
        let data = match topic {
            3 => vec![1, 2, 3],
            _ => compressed_image(header.log_time, picture),
        };
        writer.write_to_known_channel(&header, &data).unwrap();
        if i % 10 == 4 {
            let attachment = ::mcap::Attachment {
                log_time: BASE + time,
                create_time: BASE / 2,
                name: format!("calibration {i}.yaml"),
                media_type: "text/yaml".into(),
                data: vec![i as u8; 100 * i].into(),
            };
            writer.attach(&attachment).unwrap();
        }
    }
    writer.write_metadata(&metadata("second")).unwrap();
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

/// The messages of a recording by the crate `mcap`, sorted by log time.
fn recorded(bytes: &[u8]) -> Vec<Recorded> {
    let row = |message: ::mcap::Message<'_>| {
        let header = MessageHeader {
            channel_id: message.channel.id,
            sequence: message.sequence,
            log_time: message.log_time,
            publish_time: message.publish_time,
        };
        let channel = &message.channel;
        let schema = channel.schema.as_ref().map(|schema| {
            (schema.id, schema.name.clone(), schema.encoding.clone(), schema.data.to_vec())
        });
        let (topic, encoding) = (channel.topic.clone(), channel.message_encoding.clone());
        (header, topic, encoding, channel.metadata.clone(), schema, message.data.to_vec())
    };
    let mut rows: Vec<_> =
        MessageStream::new(bytes).unwrap().map(|message| row(message.unwrap())).collect();
    rows.sort_by_key(|row| row.0.log_time);
    rows
}

/// Attachments and metadata of a recording by the crate `mcap`, in the order of the file.
fn enclosed(bytes: &[u8]) -> (Vec<Attachment>, Vec<Metadata>) {
    let (mut attachments, mut metadata) = (Vec::new(), Vec::new());
    for record in ::mcap::read::LinearReader::new(bytes).unwrap() {
        match record.unwrap() {
            Parsed::Attachment { header, data, .. } => attachments.push(Attachment {
                log_ns: header.log_time,
                create_ns: header.create_time,
                name: header.name,
                media_type: header.media_type,
                data: data.to_vec().into(),
            }),
            Parsed::Metadata(record) => {
                metadata.push(Metadata { name: record.name, values: record.metadata });
            }
            _ => {}
        }
    }
    (attachments, metadata)
}

/// All events of a recording, and its profile.
fn events(bytes: &[u8], options: &SourceOptions) -> (Vec<Event>, String) {
    let input = Box::new(Bytes::copy_from_slice(bytes));
    let mut source = McapSource::from_reader(input, Path::new("x"), options).unwrap();
    let mut events = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        events.push(event);
    }
    (events, source.profile().into())
}

/// Writes a recording from all events.
fn rewrite((events, profile): (Vec<Event>, String)) -> Vec<u8> {
    let options = WriteOptions::new().profile(profile);
    let mut writer = options.create(std::io::Cursor::new(Vec::new())).unwrap();
    let mut channels: Vec<ChannelInfo> = Vec::new();
    let write = |writer: &mut Writer<_>, channels: &[ChannelInfo], message: Message| {
        let header = MessageHeader {
            channel_id: channels[message.channel].recorded_id.unwrap() as u16,
            sequence: message.sequence,
            log_time: message.log_ns,
            publish_time: message.publish_ns,
        };
        writer.write_to_known_channel(&header, &message.data).unwrap();
    };
    for event in events {
        match event {
            Event::Channel(info) => {
                assert_eq!(info.id, channels.len());
                let schema = info.schema.as_ref().map_or(0, |schema| {
                    let id = schema.recorded_id.unwrap() as u16;
                    writer
                        .add_schema_with_id(id, &schema.name, &schema.encoding, &schema.data)
                        .unwrap()
                });
                let id = info.recorded_id.unwrap() as u16;
                writer
                    .add_channel_with_id(id, schema, &info.topic, &info.encoding, &info.metadata)
                    .unwrap();
                channels.push(info);
            }
            Event::Packet(packet) => {
                let message = packet.message.unwrap();
                assert_eq!(channels[message.channel].stream, Some(packet.stream));
                assert_eq!(message.log_ns as i64, packet.log_ns);
                // The picture is a part of the message, in the same memory.
                let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
                assert!(message.data.as_ptr_range().contains(&data.as_ptr()));
                write(&mut writer, &channels, message);
            }
            Event::Message(message) => {
                assert_eq!(channels[message.channel].stream, None);
                write(&mut writer, &channels, message);
            }
            Event::Attachment(attachment) => {
                let attachment = ::mcap::Attachment {
                    log_time: attachment.log_ns,
                    create_time: attachment.create_ns,
                    name: attachment.name,
                    media_type: attachment.media_type,
                    data: attachment.data.to_vec().into(),
                };
                writer.attach(&attachment).unwrap();
            }
            Event::Metadata(Metadata { name, values }) => {
                writer.write_metadata(&MetadataRecord { name, metadata: values }).unwrap();
            }
            Event::Warning(warning) if !is_about_index(&warning) => panic!("{warning:?}"),
            _ => {}
        }
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

#[test]
fn a_recording_that_is_written_back_is_equal() {
    for (kind, options) in kinds() {
        let bytes = write_all(options);
        // With little memory as well.
        for held_bytes in [1 << 30, 2000] {
            let limits = Limits { held_bytes, ..Default::default() };
            let events = events(&bytes, &SourceOptions { limits, ..all() });
            assert_eq!(events.1, "ros2");
            let mut last = 0;
            for event in &events.0 {
                let log_ns = match event {
                    Event::Packet(packet) => packet.log_ns as u64,
                    Event::Message(message) => message.log_ns,
                    Event::Attachment(attachment) => attachment.log_ns,
                    Event::Metadata(_) if last > 0 => panic!("metadata comes first"),
                    _ => continue,
                };
                assert!(last <= log_ns, "{kind}: out of order");
                last = log_ns;
            }
            let written = rewrite(events);
            assert_eq!(recorded(&written), recorded(&bytes), "{kind}");
            let (mut attachments, metadata) = enclosed(&bytes);
            attachments.sort_by_key(|attachment| attachment.log_ns);
            assert_eq!((attachments.len(), metadata.len()), (3, 2));
            assert_eq!(enclosed(&written), (attachments, metadata), "{kind}");
        }
    }
}

#[test]
fn all_is_read_only_when_it_is_asked_for() {
    for (kind, options) in kinds() {
        let bytes = write_all(options);
        let cameras = Run::of_bytes(&bytes, &SourceOptions::default());
        assert!(cameras.others.is_empty() && cameras.warnings().is_empty(), "{kind}");
        assert!(cameras.packets.iter().all(|packet| packet.message.is_none()));
        let everything = Run::of_bytes(&bytes, &all());
        assert_eq!(cameras.seen(), everything.seen(), "{kind}");
        assert_eq!(cameras.streams, everything.streams, "{kind}");
        assert_eq!(cameras.other, everything.other, "{kind}");
    }
}

#[test]
fn indexes_of_attachments_and_metadata_are_checked() {
    let zstd = || WriteOptions::new().chunk_size(Some(600));
    for (options, missing) in [
        (zstd().emit_attachment_indexes(false), "0 of 3 attachments"),
        (zstd().emit_metadata_indexes(false), "0 of 2 metadata records"),
    ] {
        let bytes = write_all(options);
        let (mut events, profile) = events(&bytes, &all());
        let is_warning = |event: &mut Event| matches!(event, Event::Warning(_));
        let warnings: Vec<_> = events.extract_if(.., is_warning).collect();
        let [Event::Warning(warning)] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(!warning.loss && warning.text.contains(missing), "{warning:?}");
        let written = rewrite((events, profile));
        assert_eq!(recorded(&written), recorded(&bytes));
        assert_eq!(enclosed(&written).1, enclosed(&bytes).1);
        // Without the flag, they are not needed.
        assert_eq!(Run::of_bytes(&bytes, &SourceOptions::default()).warnings, []);
    }
}

#[test]
fn topics_and_times_of_all_messages() {
    let bytes = write_all(WriteOptions::new().chunk_size(Some(600)));
    let (start, end) = (BASE + 8, BASE + 15);
    let moment = |ns: u64| Some(Moment::Absolute(ns as i64));
    let options = SourceOptions {
        topics: vec!["/left".into()],
        start: moment(start),
        end: moment(end),
        ..all()
    };
    let (events, _) = events(&bytes, &options);
    let topics: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Channel(info) => Some((info.topic.as_str(), info.stream)),
            _ => None,
        })
        .collect();
    // A camera that is not asked for is passed on as messages.
    assert_eq!(topics, [("/left", Some(0)), ("/raw", None), ("/right", None), ("/joints", None)]);
    let mut seen: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            Event::Packet(packet) => packet.message,
            Event::Message(message) => Some(message),
            Event::Attachment(attachment) => {
                assert!((start..=end).contains(&attachment.log_ns));
                None
            }
            _ => None,
        })
        .map(|message| (message.log_ns, message.sequence))
        .collect();
    let mut expected: Vec<_> = recorded(&bytes)
        .iter()
        .map(|row| (row.0.log_time, row.0.sequence))
        .filter(|row| (start..=end).contains(&row.0))
        .collect();
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[test]
fn a_recording_without_cameras_is_of_use() {
    let tf = single("/tf", ("tf2_msgs/msg/TFMessage", "ros2msg"), "cdr", b"x");
    let (tf, profile) = events(&tf, &all());
    assert_eq!(profile, "");
    let [Event::Channel(channel), Event::Message(message)] = tf.as_slice() else {
        panic!("{tf:?}")
    };
    assert_eq!((channel.topic.as_str(), &*message.data), ("/tf", &b"x"[..]));
    // So is one whose cameras cannot be read, with a warning.
    let cbor = single("/cam", ("sensor_msgs/Image", "ros2msg"), "cbor", b"x");
    let (cbor, _) = events(&cbor, &all());
    let [Event::Warning(warning), Event::Channel(_), Event::Message(_)] = cbor.as_slice() else {
        panic!("{cbor:?}")
    };
    assert!(!warning.loss && warning.text.contains("passed on"), "{warning:?}");
}

#[test]
fn damage_is_reported() {
    let bytes = write_all(WriteOptions::new().compression(None).chunk_size(Some(600)));
    let at = bytes.windows(4).position(|window| window == [24; 4]).unwrap();
    let mut wrong_data = bytes.clone();
    wrong_data[at] ^= 1;
    let run = Run::of_bytes(&wrong_data, &all());
    let [loss] = run.losses()[..] else { panic!("{:?}", run.warnings) };
    assert!(loss.contains("attachment") && loss.contains("checksum"), "{loss}");
    // Messages of another topic that are missing count as well.
    let chunks: Vec<_> = record_ends(&bytes);
    let chunk = chunks.windows(2).filter(|pair| pair[1].0 == op::CHUNK).nth(1).unwrap();
    let mut damaged = bytes.clone();
    damaged[chunk[1].1 - 5] ^= 1;
    let losses = Run::of_bytes(&damaged, &all());
    let losses = losses.losses();
    assert!(losses.iter().any(|loss| loss.contains("/joints: the index promises")), "{losses:?}");
}

/// Compares with the crate `mcap`, where there is a folder of recordings.
#[test]
fn corpus() {
    let Some(folder) = std::env::var_os("ENCODER_CORPUS") else { return };
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "mcap") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        let Ok(mut stream) = MessageStream::new(&bytes) else { continue };
        if stream.any(|message| message.is_err()) {
            continue;
        }
        compared += 1;
        let mut source = McapSource::open(&path, &all()).unwrap();
        let (mut channels, mut seen) = (Vec::new(), Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Channel(info) => channels.push(info),
                Event::Packet(packet) => seen.extend(packet.message),
                Event::Message(message) => seen.push(message),
                Event::Warning(warning) => panic!("{}: {warning:?}", path.display()),
                _ => {}
            }
        }
        let seen = seen.into_iter().map(|message| {
            let info = &channels[message.channel];
            let header = MessageHeader {
                channel_id: info.recorded_id.unwrap() as u16,
                sequence: message.sequence,
                log_time: message.log_ns,
                publish_time: message.publish_ns,
            };
            let schema = info.schema.clone().map(|schema| {
                (
                    schema.recorded_id.unwrap() as u16,
                    schema.name,
                    schema.encoding,
                    schema.data.to_vec(),
                )
            });
            let (topic, encoding, metadata) =
                (info.topic.clone(), info.encoding.clone(), info.metadata.clone());
            (header, topic, encoding, metadata, schema, message.data.to_vec())
        });
        assert!(seen.eq(recorded(&bytes)), "{}", path.display());
    }
    println!("compared {compared} recordings");
}
