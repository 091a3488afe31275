//! Reads a corpus of recordings, if available: the environment variable `ENCODER_CORPUS` names a
//! directory with an `expected.json`, which lists the contents of each recording.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::images::ImagesSource;
use super::rosbag1::RosbagSource;
use super::y4m::Y4mSource;
use super::{Event, Source, SourceError, SourceOptions, open_raw};

#[derive(Deserialize)]
struct Corpus {
    files: Vec<Recording>,
}

#[derive(Deserialize)]
struct Recording {
    file: String,
    outcome: String,
    streams: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    topic: String,
    messages: u64,
    first_log: Option<i64>,
    last_log: Option<i64>,
    first_stamp: Option<i64>,
    last_stamp: Option<i64>,
}

/// The result of reading a stream.
#[derive(Default)]
struct Found {
    messages: u64,
    /// Log time and stamp of the first and the last message.
    times: Option<[(i64, Option<i64>); 2]>,
}

fn read(source: &mut dyn Source) -> (BTreeMap<String, Found>, bool) {
    let (mut topics, mut found, mut loss) = (Vec::new(), BTreeMap::new(), false);
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Stream(info) => {
                found.insert(info.topic.clone(), Found::default());
                topics.push(info.topic);
            }
            Event::Packet(packet) => {
                let stream = found.get_mut(&topics[packet.stream]).unwrap();
                assert_eq!(packet.number, stream.messages);
                stream.messages += 1;
                let time = (packet.log_ns, packet.header_ns);
                let first = stream.times.map_or(time, |times| times[0]);
                assert!(stream.times.is_none_or(|times| times[1].0 <= time.0), "out of order");
                stream.times = Some([first, time]);
                packet.payload.unwrap();
            }
            Event::Warning(warning) => loss |= warning.loss,
            other => panic!("{other:?}"),
        }
    }
    (found, loss)
}

fn open(path: &Path, name: &str) -> Option<Result<Box<dyn Source>, SourceError>> {
    let options = SourceOptions::default();
    let raw = |spec: &str| -> Option<Result<Box<dyn Source>, SourceError>> {
        Some(open_raw(path, &spec.parse().unwrap(), &options))
    };
    match name.rsplit_once(['/', '.'])? {
        (_, "bag") => Some(RosbagSource::open(path, &options)),
        (_, "y4m") => Some(Y4mSource::open(path, &options)),
        (_, "rosbag2_dir") => Some(crate::open(path, &options)),
        ("dirs", _) => Some(ImagesSource::open(path, &options)),
        (_, "rgb24") => raw("rgb24:320x240@15"),
        (_, "nv12") => raw("nv12:320x240@15"),
        ("raw/CiscoVT2people_320x192_12fps", _) => raw("yuv420p:320x192@12"),
        _ => None,
    }
}

#[test]
fn the_corpus_reads_as_expected() {
    let Some(corpus) = std::env::var_os("ENCODER_CORPUS") else { return };
    let corpus = Path::new(&corpus);
    let list = std::fs::read_to_string(corpus.join("expected.json")).unwrap();
    let list: Corpus = serde_json::from_str(&list).unwrap();
    let mut recordings = 0;
    for recording in list.files {
        let name = &recording.file;
        let Some(source) = open(&corpus.join(name), name) else { continue };
        recordings += 1;
        let (found, loss) = match (source, recording.outcome.as_str()) {
            (Err(_), "error") => continue,
            (Err(error), _) => panic!("{error}"),
            (Ok(_), "error") => panic!("{name} was opened"),
            (Ok(mut source), _) => read(&mut *source),
        };
        assert_eq!(loss, recording.outcome == "ok-with-warnings", "{name}");
        assert_eq!(found.len(), recording.streams.len(), "{name}");
        for expected in recording.streams {
            let stream = match expected.topic.as_str() {
                "-" => found.values().next(),
                topic => found.get(topic),
            };
            let stream = stream.unwrap();
            let place = format!("{name} {}", expected.topic);
            assert_eq!(stream.messages, expected.messages, "{place}");
            let [first, last] = stream.times.unwrap();
            for (wanted, got) in [
                (expected.first_log, Some(first.0)),
                (expected.last_log, Some(last.0)),
                (expected.first_stamp, first.1),
                (expected.last_stamp, last.1),
            ] {
                assert!(wanted.is_none() || wanted == got, "{place}: {wanted:?} {got:?}");
            }
        }
    }
    assert!(recordings > 0, "no recording of these kinds in {}", corpus.display());
}
