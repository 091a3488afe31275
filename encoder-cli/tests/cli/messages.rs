//! Messages as JSON: one object per line, inside the spans of camera and session.
#![allow(clippy::unwrap_used)]

use crate::common;

use common::{
    EPOCH, MS,
    picture::Picture,
    program::{command, told},
    recording::{Content, Recording, Serialization, cut_jpeg, small_jpeg},
};
use serde_json::Value;

/// The lines of standard error.
fn messages(args: &[&str], code: i32) -> Vec<Value> {
    let output = command(args.iter().copied()).output().unwrap();
    assert_eq!(told(&output).0, code, "{}", told(&output).1);
    let text = String::from_utf8(output.stderr).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn text(message: &Value) -> &str {
    message["fields"]["message"].as_str().unwrap()
}

/// The span of that name, which must be the only one.
fn span<'a>(message: &'a Value, name: &str) -> &'a Value {
    let spans = message["spans"].as_array().unwrap_or_else(|| panic!("no spans: {message}"));
    let all: Vec<_> = spans.iter().filter(|span| span["name"] == name).collect();
    assert_eq!(all.len(), 1, "{message}");
    all[0]
}

/// The libraries name fields of their API; what this program writes has its options.
#[test]
fn everything_that_is_written_names_options() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.mcap");
    let mut recording = Recording::create(&path);
    for n in 0..2 {
        let time = EPOCH + n as i64 * 40 * MS;
        recording.write("/cam", Serialization::CdrLittle, time, time, &small_jpeg(n));
    }
    recording.finish();
    let path = path.to_str().unwrap();
    let limit = ["--max-message-bytes", "2000"];
    let check = |what: &str, text: &str| {
        assert!(text.contains("raise --max-message-bytes"), "{what}: {text}");
        assert!(!text.contains("Limits::"), "{what}: {text}");
    };
    for form in ["plain", "text", "json"] {
        let out = tempfile::tempdir().unwrap();
        let directory = out.path().to_str().unwrap();
        let args = ["encode", path, "-o", directory, "--encoder", "openh264", "--log", form];
        let output = command(args.into_iter().chain(limit)).output().unwrap();
        check(form, &told(&output).1);
        let report = std::fs::read_to_string(out.path().join("report.json")).unwrap();
        check("report.json", &report);
        let _: Value = serde_json::from_str(&report).unwrap();
    }
    for form in [&["info", path][..], &["info", path, "--json"]] {
        let output = command(form.iter().copied().chain(limit)).output().unwrap();
        check("info", &String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn each_message_of_a_camera_says_whose_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.mcap");
    let mut recording = Recording::create(&path);
    for n in 0..8 {
        let time = EPOCH + n as i64 * 40 * MS;
        // A broken frame in each file of the first camera, whose pictures change size.
        let content = match n {
            2 => cut_jpeg(n),
            0..4 => small_jpeg(n),
            _ => {
                let mut data = Picture::stamped(320, 240, n).jpeg420();
                data.truncate(if n == 6 { data.len() / 2 } else { data.len() });
                Content::compressed("jpeg", data)
            }
        };
        recording.write("/left", Serialization::CdrLittle, time, time, &content);
        let content = if n == 3 { cut_jpeg(n) } else { small_jpeg(n) };
        recording.write("/right", Serialization::CdrLittle, time + MS, time + MS, &content);
    }
    recording.finish();
    let out = tempfile::tempdir().unwrap();
    let (path, out) = (path.to_str().unwrap(), out.path().to_str().unwrap());
    let args = ["encode", path, "-o", out, "--encoder", "openh264", "--log", "json", "-v"];
    let all = messages(&args, 3);
    for message in &all {
        assert!(message["timestamp"].is_string() && message["level"].is_string(), "{message}");
        assert!(!text(message).is_empty());
    }
    let broken: Vec<_> =
        all.iter().filter(|message| text(message).contains("cannot be decoded")).collect();
    let mut of: Vec<_> = broken
        .iter()
        .map(|message| {
            assert_eq!(message["level"], "WARN");
            let session = span(message, "session");
            assert_eq!(session["encoder"], "openh264");
            let topic = span(message, "camera")["topic"].as_str().unwrap();
            let part = session["part"].as_u64().unwrap();
            (topic, part, session["size"].as_str().unwrap(), message["fields"]["frame"].as_u64())
        })
        .collect();
    of.sort_unstable();
    let expected = [
        ("/left", 1, "160x120", Some(2)),
        ("/left", 2, "320x240", Some(6)),
        ("/right", 1, "160x120", Some(3)),
    ];
    assert_eq!(of, expected);
    let chosen: Vec<_> = all.iter().filter(|message| text(message) == "encoder chosen").collect();
    assert_eq!(chosen.len(), 3);
    for message in chosen {
        assert_eq!(span(message, "session")["name"], "session");
        assert!(span(message, "camera")["topic"].is_string());
    }
    let changed = all.iter().find(|message| text(message).contains("change from")).unwrap();
    assert_eq!(span(changed, "camera")["topic"], "/left");
}

#[test]
fn errors_are_json_too() {
    let all = messages(&["info", "/nowhere.mcap", "--log", "json"], 1);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["level"], "ERROR");
    assert!(text(&all[0]).contains("/nowhere.mcap"));
}
