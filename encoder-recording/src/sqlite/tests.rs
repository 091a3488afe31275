#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::{Moment, Payload};

/// A `sensor_msgs/msg/CompressedImage` in CDR that carries its number.
fn image(number: u32) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0];
    out.extend(7u32.to_le_bytes());
    out.extend(number.to_le_bytes());
    for text in [&b"cam\0"[..], b"jpeg\0\0\0\0"] {
        out.extend((if text.len() == 8 { 5u32 } else { 4 }).to_le_bytes());
        out.extend(text);
    }
    out.extend(3000u32.to_le_bytes());
    out.extend([number as u8; 3000]);
    out
}

/// Writes a recording: frames with their numbers, one in a millisecond, the later row first.
pub(crate) fn write(path: &Path, frames: std::ops::Range<u32>, zip: bool) -> Connection {
    let database = Connection::open(path).unwrap();
    database
        .execute_batch(
            "PRAGMA synchronous=OFF; BEGIN;
             CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
                 serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);
             CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
                 timestamp INTEGER NOT NULL, data BLOB NOT NULL);
             CREATE INDEX timestamp_idx ON messages (timestamp ASC);
             INSERT INTO topics VALUES (1, '/imu', 'sensor_msgs/msg/Imu', 'cdr', ''),
                 (2, '/cam', 'sensor_msgs/msg/CompressedImage', 'cdr', '');",
        )
        .unwrap();
    for number in frames.rev() {
        let data = image(number);
        let data = if zip { zstd::encode_all(data.as_slice(), 1).unwrap() } else { data };
        for (topic, data) in [(2, data.as_slice()), (1, &[1, 2, 3])] {
            let row = rusqlite::params![topic, i64::from(number) * 1_000_000, data];
            let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)";
            database.execute(insert, row).unwrap();
        }
    }
    database.execute_batch("COMMIT").unwrap();
    database
}

/// Numbers of the frames, how many are bad, the warnings.
type Read = (Vec<u32>, usize, Vec<Warning>);

fn read(path: &Path, options: &SourceOptions) -> Result<Read, SourceError> {
    let mut source = SqliteSource::open(path, options)?;
    let (mut numbers, mut bad, mut warnings) = (Vec::new(), 0, Vec::new());
    while let Some(event) = source.next_event()? {
        match event {
            Event::Stream(info) => assert_eq!((info.id, info.topic.as_str()), (0, "/cam")),
            Event::Warning(warning) => warnings.push(warning),
            Event::Packet(packet) => match packet.payload {
                Ok(Payload::Compressed { data, .. }) => {
                    assert_eq!(packet.log_ns, i64::from(data[0]) * 1_000_000);
                    numbers.push(data[0].into());
                }
                _ => bad += 1,
            },
            other => panic!("{other:?}"),
        }
    }
    Ok((numbers, bad, warnings))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn messages_in_order() {
    let directory = tempfile::tempdir().unwrap();
    // A name that an address must escape.
    let path = directory.path().join("a b%20?é.db3");
    drop(write(&path, 0..20, false));
    let before = std::fs::read(&path).unwrap();
    let options = SourceOptions::default();
    assert_eq!(read(&path, &options).unwrap(), ((0..20).collect(), 0, vec![]));
    let window = SourceOptions {
        start: Some(Moment::FromStart(5_000_000)),
        end: Some(Moment::Absolute(7_000_000)),
        ..Default::default()
    };
    assert_eq!(read(&path, &window).unwrap().0, [5, 6, 7]);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(names(directory.path()).len(), 1);
    let source = SqliteSource::open(&path, &options).unwrap();
    assert_eq!(source.other_topics(), [("/imu".into(), "sensor_msgs/msg/Imu".into())]);
}

#[test]
fn compressed_messages_and_limits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    drop(write(&path, 0..5, true));
    let options = SourceOptions::default();
    assert_eq!(read(&path, &options).unwrap(), ((0..5).collect(), 0, vec![]));
    let limits = crate::Limits { message_bytes: 1000, ..Default::default() };
    let small = SourceOptions { limits, ..Default::default() };
    assert_eq!(read(&path, &small).unwrap(), (vec![], 5, vec![]));
}

#[test]
fn a_topic_that_is_listed_twice_is_one_stream() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..6, false);
    let kind = "sensor_msgs/msg/CompressedImage";
    database.execute("INSERT INTO topics VALUES (3, '/cam', ?, 'cdr', 'x')", [kind]).unwrap();
    let move_odd =
        "UPDATE messages SET topic_id = 3 WHERE topic_id = 2 AND timestamp % 2000000 > 0";
    assert_eq!(database.execute(move_odd, []).unwrap(), 3);
    drop(database);
    let all = read(&path, &SourceOptions::default()).unwrap();
    assert_eq!(all, ((0..6).collect(), 0, vec![]));
}

#[test]
fn databases_one_behind_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["a.db3", "b.db3"].map(|name| directory.path().join(name));
    drop(write(&one, 0..3, false));
    drop(write(&two, 3..6, false));
    let both = [std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap()].concat();
    std::fs::write(&one, both).unwrap();
    let (numbers, _, warnings) = read(&one, &SourceOptions::default()).unwrap();
    assert_eq!(numbers, [0, 1, 2]);
    let [Warning { text, loss: true }] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(text.contains("several databases, one behind the other"), "{text}");
}

#[test]
fn the_write_ahead_log_is_read_and_nothing_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..3, false);
    let mode: String = database.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (2, 3000000, ?)";
    database.execute(insert, [image(3)]).unwrap();
    // As a recorder leaves it that was killed.
    let dead = tempfile::tempdir().unwrap();
    let copy = dead.path().join("a.db3");
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(directory.path().join("a.db3-wal"), dead.path().join("a.db3-wal")).unwrap();
    drop(database);
    let options = SourceOptions::default();
    assert_eq!(read(&copy, &options).unwrap().0, [0, 1, 2, 3]);
    assert_eq!(names(dead.path()), ["a.db3", "a.db3-wal"]);
    // Nothing was written, in the log neither.
    let log = std::fs::read(dead.path().join("a.db3-wal")).unwrap();
    assert_eq!(read(&copy, &options).unwrap().0, [0, 1, 2, 3]);
    assert_eq!(std::fs::read(dead.path().join("a.db3-wal")).unwrap(), log);
    // Closed well, but still in that mode; the log is gone.
    assert_eq!(names(directory.path()), ["a.db3"]);
    assert_eq!(read(&path, &options).unwrap().0, [0, 1, 2, 3]);
    assert_eq!(names(directory.path()), ["a.db3"]);
}

#[test]
fn a_cut_database_gives_what_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    drop(write(&path, 0..100, false));
    let bytes = std::fs::read(&path).unwrap();
    for part in [9, 7, 5, 3] {
        std::fs::write(&path, &bytes[..bytes.len() * part / 10]).unwrap();
        let (numbers, bad, warnings) = read(&path, &SourceOptions::default()).unwrap();
        // Rows were written from the last frame to the first.
        assert!(numbers.len() > part * 10 - 20 && numbers.ends_with(&[99]), "{part} {numbers:?}");
        assert!(warnings.iter().any(|w| w.loss) || bad > 0, "{part} {bad} {warnings:?}");
    }
}

#[test]
fn what_is_no_recording() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let options = SourceOptions::default();
    let error = || SqliteSource::open(&path, &options).err().unwrap().to_string();
    std::fs::write(&path, "").unwrap();
    assert!(error().contains("empty"));
    std::fs::write(&path, "text").unwrap();
    assert!(error().contains("not an SQLite database"));
    std::fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE x(y)").unwrap();
    assert!(error().contains("not a rosbag2 database"), "{}", error());
}

#[test]
fn no_camera() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..3, false);
    let other = SourceOptions { topics: vec!["/x".into()], ..Default::default() };
    let error = read(&path, &other).unwrap_err().to_string();
    assert!(error.contains("its camera topics are: /cam"), "{error}");
    database.execute("DELETE FROM topics WHERE id = 2", []).unwrap();
    drop(database);
    let error = read(&path, &SourceOptions::default()).unwrap_err();
    let SourceError::NoCamera { topics, .. } = error else { panic!("{error}") };
    assert_eq!(topics, [("/imu".into(), "sensor_msgs/msg/Imu".into())]);
}

/// A database of a recorder that was killed, with ten frames in its log.
fn with_log(directory: &Path) -> PathBuf {
    let alive = tempfile::tempdir().unwrap();
    let path = alive.path().join("a.db3");
    let database = write(&path, 0..3, false);
    let mode: String = database.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    for n in 3..13 {
        let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (2, ?1 * 1000000, ?2)";
        database.execute(insert, rusqlite::params![n, image(n)]).unwrap();
    }
    for name in ["a.db3", "a.db3-wal"] {
        std::fs::copy(alive.path().join(name), directory.join(name)).unwrap();
    }
    directory.join("a.db3")
}

#[test]
fn a_log_is_read_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = with_log(directory.path());
    for name in ["a.db3", "a.db3-wal"] {
        let file = directory.path().join(name);
        let mut permissions = std::fs::metadata(&file).unwrap().permissions();
        permissions.set_readonly(true);
        std::fs::set_permissions(&file, permissions).unwrap();
    }
    let before = ["a.db3", "a.db3-wal"].map(|n| std::fs::read(directory.path().join(n)).unwrap());
    let mut source = SqliteSource::open(&path, &SourceOptions::default()).unwrap();
    #[cfg(target_os = "linux")]
    {
        let log = directory.path().join("a.db3-wal").canonicalize().unwrap();
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut open = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        assert!(open.any(|path| path == log), "the log itself is open, not a copy");
    }
    let mut numbers = Vec::new();
    while let Some(event) = source.next_event().unwrap() {
        // No copy, no index of the log, neither here nor elsewhere.
        assert_eq!(names(directory.path()), ["a.db3", "a.db3-wal"]);
        if let Event::Packet(packet) = event {
            numbers.push(packet.number);
        }
    }
    drop(source);
    assert_eq!(numbers, (0..13).collect::<Vec<_>>());
    let after = ["a.db3", "a.db3-wal"].map(|n| std::fs::read(directory.path().join(n)).unwrap());
    assert!(before == after);
    // The log of a link's target.
    #[cfg(unix)]
    {
        let elsewhere = tempfile::tempdir().unwrap();
        let link = elsewhere.path().join("link.db3");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, &SourceOptions::default()).unwrap().0.len(), 13);
    }
}

#[cfg(unix)]
#[test]
fn a_log_that_is_a_link_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = with_log(directory.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let (log, target) = (directory.path().join("a.db3-wal"), elsewhere.path().join("log"));
    std::fs::copy(&log, &target).unwrap();
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink(target, log).unwrap();
    let (numbers, _, warnings) = read(&path, &SourceOptions::default()).unwrap();
    assert_eq!(numbers, [0, 1, 2]);
    let [Warning { text, loss: true }] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(text.contains("a.db3-wal"), "{text}");
}

#[test]
fn a_transaction_that_was_not_completed_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    drop(write(&path, 0..3, false));
    let journal = directory.path().join("a.db3-journal");
    let magic = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";
    for (content, warns) in [(&magic[..], true), (&[0; 512], false), (b"", false)] {
        std::fs::write(&journal, content).unwrap();
        let (numbers, _, warnings) = read(&path, &SourceOptions::default()).unwrap();
        assert_eq!(numbers, [0, 1, 2]);
        assert_eq!(warnings.iter().any(|w| w.loss && w.text.contains("-journal")), warns);
    }
}

#[test]
fn a_database_that_is_written_while_it_is_read_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..3, false);
    for (write, warns) in [(false, false), (true, true)] {
        let mut source = SqliteSource::open(&path, &SourceOptions::default()).unwrap();
        if write {
            let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (2, 9, ?1)";
            database.execute(insert, [vec![0; 100_000]]).unwrap();
        }
        let mut losses = 0;
        while let Some(event) = source.next_event().unwrap() {
            losses += usize::from(matches!(event, Event::Warning(Warning { loss: true, .. })));
        }
        assert!(source.next_event().unwrap().is_none());
        assert_eq!(losses > 0, warns);
    }
}

#[test]
fn only_plain_tables_are_read() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let view = format!(
        "ALTER TABLE messages RENAME TO real;
         CREATE VIEW messages AS {endless} SELECT i AS id, 2 AS topic_id, i AS timestamp, x'' AS data
         FROM n;"
    );
    for (change, part) in [
        (view.as_str(), "`messages` is not a plain table"),
        (
            "DROP TABLE messages;
             CREATE VIRTUAL TABLE messages USING fts5(id, topic_id, timestamp, data);",
            "`messages` is not a plain table",
        ),
        (
            "DROP TABLE messages;
             CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp,
                 data AS (zeroblob(1000000000)));
             INSERT INTO messages VALUES (1, 2, 3);",
            "column `data` of table `messages`",
        ),
        (
            "DROP TABLE messages;
             CREATE TABLE messages(id PRIMARY KEY, topic_id, timestamp, data) WITHOUT ROWID;",
            "`messages` is not a plain table",
        ),
        (
            "DROP TABLE messages; CREATE TABLE messages(rowid, id, topic_id, timestamp, data);",
            "column `rowid` of table `messages`",
        ),
        (
            "ALTER TABLE topics RENAME TO real; CREATE VIEW topics AS SELECT * FROM real;",
            "`topics` is not a plain table",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        let database = write(&path, 0..3, false);
        database.execute_batch(change).unwrap();
        drop(database);
        let error = SqliteSource::open(&path, &SourceOptions::default()).err().unwrap();
        let error = error.to_string();
        assert!(error.contains("not a rosbag2 database") && error.contains(part), "{error}");
    }
}

#[test]
fn a_huge_message_costs_itself_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..3, false);
    let insert = "INSERT INTO messages(topic_id, timestamp, data) VALUES (2, 3, zeroblob(5000000))";
    database.execute(insert, []).unwrap();
    database.execute("INSERT INTO messages VALUES (99, 2, 4, 'text')", []).unwrap();
    drop(database);
    let limits = crate::Limits { message_bytes: 4000, ..Default::default() };
    let options = SourceOptions { limits, ..Default::default() };
    let mut source = SqliteSource::open(&path, &options).unwrap();
    let (mut whole, mut bad) = (0, Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Packet(Packet { payload: Ok(_), .. }) => whole += 1,
            Event::Packet(Packet { payload: Err(error), .. }) => bad.push(error.reason),
            Event::Warning(warning) => panic!("{warning:?}"),
            _ => {}
        }
    }
    assert_eq!((whole, bad.len()), (3, 2), "{bad:?}");
    assert!(
        bad[0].contains("5000000 bytes") && bad[0].contains("`Limits::message_bytes`"),
        "{bad:?}"
    );
}

#[test]
fn topics_are_limited() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..1, false);
    database
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 10 UNION ALL SELECT i + 1 FROM n WHERE i < 70000)
             INSERT INTO topics SELECT i, '/t' || i, 'x', 'cdr', '' FROM n;",
        )
        .unwrap();
    drop(database);
    let error = SqliteSource::open(&path, &SourceOptions::default()).err().unwrap().to_string();
    assert!(error.contains("more than 65536 topics"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn noise_does_not_panic(
        len in 1usize..60_000,
        noise in prop::collection::vec((0usize..60_000, any::<u8>()), 0..30),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.db3");
        drop(write(&path, 0..10, false));
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in noise {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(len);
        std::fs::write(&path, bytes).unwrap();
        if let Ok(mut source) = SqliteSource::open(&path, &SourceOptions::default()) {
            while let Ok(Some(_)) = source.next_event() {}
        }
    }
}

#[test]
fn all_messages() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db3");
    let database = write(&path, 0..20, false);
    database
        .execute_batch(
            "UPDATE topics SET offered_qos_profiles = '- depth: 3' WHERE id = 1;
             CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
                 encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
                 type_description_hash TEXT NOT NULL);
             INSERT INTO message_definitions VALUES
                 (1, 'sensor_msgs/msg/Imu', 'ros2msg', 'float64 x', 'RIHS');
             UPDATE messages SET data = 'text' WHERE topic_id = 1 AND timestamp = 3000000;",
        )
        .unwrap();
    drop(database);
    let options = SourceOptions {
        all_messages: true,
        end: Some(Moment::Absolute(10_000_000)),
        ..Default::default()
    };
    let mut source = SqliteSource::open(&path, &options).unwrap();
    assert_eq!(source.profile(), "ros2");
    let (mut channels, mut seen, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(event) = source.next_event().unwrap() {
        match event {
            Event::Stream(info) => assert_eq!((info.id, info.topic.as_str()), (0, "/cam")),
            Event::Channel(info) => {
                assert_eq!(info.id, channels.len());
                channels.push(info);
            }
            Event::Packet(packet) => {
                let message = packet.message.unwrap();
                assert_eq!((packet.stream, packet.log_ns as u64), (0, message.log_ns));
                assert_eq!(message.data, image(packet.number as u32));
                seen.push(message);
            }
            Event::Message(message) => {
                assert_eq!(&*message.data, [1, 2, 3]);
                seen.push(message);
            }
            Event::Warning(warning) => warnings.push(warning),
            other => panic!("{other:?}"),
        }
    }
    let [imu, cam] = channels.as_slice() else { panic!("{channels:?}") };
    assert_eq!((imu.topic.as_str(), imu.recorded_id, imu.stream), ("/imu", Some(1), None));
    assert_eq!((cam.topic.as_str(), cam.recorded_id, cam.stream), ("/cam", Some(2), Some(0)));
    let schema = imu.schema.as_ref().unwrap();
    assert_eq!((schema.encoding.as_str(), &*schema.data), ("ros2msg", &b"float64 x"[..]));
    assert_eq!(imu.metadata["offered_qos_profiles"], "- depth: 3");
    // The camera's row is the earlier one of each pair.
    let times: Vec<_> = seen.iter().map(|m| (m.log_ns / 1_000_000, m.channel)).collect();
    let expected = (0..11).flat_map(|ms| [(ms, 1), (ms, 0)]).filter(|row| *row != (3, 0));
    assert_eq!(times, expected.collect::<Vec<_>>());
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.loss && warning.text.starts_with("1 messages cannot be read"), "{warning:?}");
}
