//! Channels of a recording in several files.

use std::collections::BTreeMap;

use crate::{ChannelId, ChannelInfo, Message};

/// The channels of a recording, joined from its files, each of which numbers its own channels.
#[derive(Default)]
pub(crate) struct JoinedChannels {
    channels: Vec<ChannelInfo>,
    by_topic: BTreeMap<String, Vec<ChannelId>>,
}

/// Maps the channels of a file to their numbers in the recording.
pub(crate) type FileChannels = Vec<ChannelId>;

impl JoinedChannels {
    /// Adds the next channel of a file; its stream already has the number in the recording. Returns
    /// the channel with its number in the recording if it is new: not a channel of another file
    /// with the same properties except the recorded numbers.
    pub(crate) fn join(
        &mut self,
        info: ChannelInfo,
        file: &mut FileChannels,
    ) -> Option<ChannelInfo> {
        let like = |known: &ChannelInfo| {
            let schema = |info: &ChannelInfo| {
                info.schema.as_ref().map(|s| (s.name.clone(), s.encoding.clone(), s.data.clone()))
            };
            (&known.encoding, &known.metadata, known.stream)
                == (&info.encoding, &info.metadata, info.stream)
                && schema(known) == schema(&info)
        };
        let of_topic = self.by_topic.entry(info.topic.clone()).or_default();
        let mut known = of_topic.iter().filter(|id| self.channels.get(**id).is_some_and(like));
        if let Some(id) = known.next() {
            file.push(*id);
            return None;
        }
        let id = self.channels.len();
        of_topic.push(id);
        file.push(id);
        let info = ChannelInfo { id, ..info };
        self.channels.push(info.clone());
        Some(info)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

/// Maps a message of a file to the recording; `None` if its channel is unknown.
pub(crate) fn of(file: &FileChannels, message: Message) -> Option<Message> {
    let channel = *file.get(message.channel)?;
    Some(Message { channel, ..message })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Schema;

    fn channel(id: ChannelId, topic: &str, data: &'static [u8]) -> ChannelInfo {
        ChannelInfo {
            id,
            recorded_id: Some(id as u32 + 5),
            topic: topic.into(),
            encoding: "cdr".into(),
            schema: Some(Schema { data: data.into(), name: "x/Y".into(), ..Default::default() }),
            metadata: BTreeMap::new(),
            stream: None,
        }
    }

    #[test]
    fn channels_of_files_are_joined_by_what_they_are() {
        let mut joined = JoinedChannels::default();
        assert!(joined.is_empty());
        let mut file = FileChannels::new();
        let first = joined.join(channel(0, "/a", b"1"), &mut file).unwrap();
        assert_eq!((first.id, first.recorded_id), (0, Some(5)));
        assert_eq!(joined.join(channel(1, "/b", b"1"), &mut file).unwrap().id, 1);
        let mut file = FileChannels::new();
        // The same channels in another order, and one whose definition has changed.
        assert_eq!(joined.join(channel(0, "/b", b"1"), &mut file), None);
        assert_eq!(joined.join(channel(1, "/a", b"2"), &mut file).unwrap().id, 2);
        assert_eq!(joined.join(channel(2, "/a", b"1"), &mut file), None);
        let message = |channel| {
            let (log_ns, publish_ns, data) = (1, 2, Default::default());
            Message { channel, sequence: 3, log_ns, publish_ns, data }
        };
        let ids: Vec<_> =
            (0..4).map(|local| of(&file, message(local)).map(|m| m.channel)).collect();
        assert_eq!(ids, [Some(1), Some(2), Some(0), None]);
    }

    /// Two files that number their channels differently, in a directory.
    #[cfg(all(feature = "mcap", feature = "rosbag1"))]
    #[test]
    fn all_messages_of_a_directory() {
        use encoder_testbed::fixtures::recording::{Recording, Serialization, small_jpeg};

        use crate::{Event, SourceOptions};

        let directory = tempfile::tempdir().unwrap();
        for (file, topics) in [("x_0.mcap", ["/tf", "/imu"]), ("x_1.mcap", ["/imu", "/gps"])] {
            let mut recording = Recording::create(directory.path().join(file));
            let start = if file == "x_0.mcap" { 0 } else { 100 };
            for (n, topic) in (0..).zip(topics) {
                let id = recording.other(topic, "x/msg/Y", "cdr", "ros2msg");
                recording.bytes(id, start + n, topic.as_bytes());
            }
            let frame = small_jpeg(1);
            recording.write("/cam", Serialization::CdrLittle, start + 5, start + 5, &frame);
            recording.finish();
        }
        let options = SourceOptions { all_messages: true, ..Default::default() };
        let mut source = crate::open(directory.path(), &options).unwrap();
        let (mut channels, mut seen) = (Vec::new(), Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            let message = match event {
                Event::Channel(info) => {
                    assert_eq!(info.id, channels.len());
                    channels.push(info);
                    continue;
                }
                Event::Packet(packet) => packet.message.unwrap(),
                Event::Message(message) => {
                    assert_eq!(channels[message.channel].topic.as_bytes(), &*message.data);
                    message
                }
                _ => continue,
            };
            seen.push((channels[message.channel].topic.clone(), message.log_ns));
        }
        let topics: Vec<_> = channels.iter().map(|c| (c.topic.as_str(), c.stream)).collect();
        assert_eq!(topics, [("/tf", None), ("/imu", None), ("/cam", Some(0)), ("/gps", None)]);
        let expected = [("/tf", 0), ("/imu", 1), ("/cam", 5), ("/imu", 100), ("/gps", 101)];
        let expected = expected.into_iter().chain([("/cam", 105)]);
        assert!(seen.iter().map(|(topic, time)| (topic.as_str(), *time)).eq(expected), "{seen:?}");
        // Without a camera as well.
        let options = SourceOptions { topics: vec!["/nope".into()], ..options };
        let mut source = crate::open(directory.path(), &options).unwrap();
        let mut messages = 0;
        while let Some(event) = source.next_event().unwrap() {
            messages += usize::from(matches!(event, Event::Message(_)));
        }
        assert_eq!(messages, 6);
    }
}
