//! ROS 1 bags.
#![allow(unreachable_pub, clippy::unwrap_used)]

use std::io::Write;

const MAGIC: &[u8] = b"#ROSBAG V2.0\n";

/// A writer of bags, from the format's description.
#[derive(Default)]
pub struct Bag {
    pub out: Vec<u8>,
    infos: Vec<u8>,
    connections: Vec<(u32, &'static str, &'static str)>,
    chunks: u32,
}

pub fn field(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = (name.len() as u32 + 1 + value.len() as u32).to_le_bytes().to_vec();
    out.extend([name.as_bytes(), b"=", value].concat());
    out
}

pub fn record(fields: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    let header: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let mut out = (header.len() as u32).to_le_bytes().to_vec();
    out.extend(header);
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}

pub fn stamp(ms: u32) -> [u8; 8] {
    let (seconds, nanoseconds) = (1000 + ms / 1000, ms % 1000 * 1_000_000);
    [seconds.to_le_bytes(), nanoseconds.to_le_bytes()].concat().try_into().unwrap()
}

pub fn ns(ms: u32) -> i64 {
    1_000_000_000_000 + i64::from(ms) * 1_000_000
}

/// A `sensor_msgs/CompressedImage` that carries its number.
pub fn image(number: u32) -> Vec<u8> {
    let mut out = number.to_le_bytes().to_vec();
    out.extend(stamp(number));
    for text in [&b"cam"[..], b"jpeg", &[number as u8; 100]] {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text);
    }
    out
}

pub const CAMERA: &str = "sensor_msgs/CompressedImage";

pub fn connection(id: u32, topic: &str, schema: &str) -> Vec<u8> {
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
    pub fn new(connections: &[(u32, &'static str, &'static str)]) -> Self {
        let mut bag = Self { connections: connections.to_vec(), ..Default::default() };
        bag.out = MAGIC.to_vec();
        bag.header(0);
        bag
    }

    pub fn header(&mut self, index: u64) {
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
    pub fn chunk(&mut self, compression: &str, messages: &[(u32, u32, Vec<u8>)]) -> &mut Self {
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

    pub fn finish(&mut self) -> Vec<u8> {
        self.header(self.out.len() as u64);
        for (id, topic, schema) in &self.connections {
            self.out.extend(connection(*id, topic, schema));
        }
        self.out.extend(&self.infos);
        self.out.clone()
    }
}
