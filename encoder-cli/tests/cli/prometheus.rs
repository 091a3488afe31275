//! Reads the program's metrics with a real Prometheus and from a file.
//!
//! `ENCODER_PROMETHEUS` is the path of Prometheus; `promtool` is beside it.
#![cfg(all(unix, feature = "prometheus"))]
#![allow(clippy::unwrap_used)]

use crate::common;

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    EPOCH, MS, entries,
    picture::Picture,
    program::{command, run, told},
    recording::{Recording, Serialization, camera, cut_jpeg, small_jpeg},
};
use encoder_pipeline::metrics::{ALL, LATENCY_BUCKETS};
use serde_json::Value;

/// Longer than any operation takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits until a value is available; `what` names it in the error.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The response of a server on this machine, if it is successful.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
}

/// A value in Prometheus' text format.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// A child process that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program with an open standard input: it lives until that is closed.
struct Encoding {
    child: Running,
    stdin: Option<ChildStdin>,
    port: u16,
    out: tempfile::TempDir,
}

impl Encoding {
    fn start(size: (usize, usize), args: &[&str], change: impl Fn(&mut Command)) -> Self {
        loop {
            let (port, out) = (free_port(), tempfile::tempdir().unwrap());
            let listen = port.to_string();
            let raw = format!("rgb24:{}x{}@30", size.0, size.1);
            let all =
                ["encode", "-", "--raw", &raw, "-o", text(out.path()), "--metrics-listen", &listen];
            let mut command = command([&all[..], args].concat());
            change(&mut command);
            let said = out.path().join("said");
            let file = fs::File::create(&said).unwrap();
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
            let mut child = Running(command.spawn().unwrap());
            let stdin = child.0.stdin.take();
            let serves = until("it serves metrics or ends", || match child.0.try_wait().unwrap() {
                Some(_) => Some(false),
                None => get(port, "/metrics").map(|_| true),
            });
            if serves {
                return Self { child, stdin, port, out };
            }
            // Another process may have bound the port in the meantime.
            let said = fs::read_to_string(said).unwrap();
            assert!(said.contains("in use"), "{said}");
        }
    }

    fn frames(&mut self, size: (usize, usize), count: usize) {
        for n in 0..count {
            let picture = Picture::stamped(size.0, size.1, n);
            self.stdin.as_mut().unwrap().write_all(&picture.rgb).unwrap();
        }
    }

    fn scrape(&self) -> Option<String> {
        get(self.port, "/metrics")
    }

    /// Closes the input: the program ends, even while metrics are requested.
    fn end(mut self) {
        let _open = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        drop(self.stdin.take());
        let said = self.out.path().join("said");
        let status = until("the program ends", || self.child.0.try_wait().unwrap());
        assert!(status.success(), "{}", fs::read_to_string(said).unwrap());
    }
}

/// A Prometheus server that scrapes the program several times a second.
struct Prometheus {
    port: u16,
    _child: Running,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(program: &Path, target: u16) -> Self {
        loop {
            let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
            let config = folder.path().join("prometheus.yml");
            let lines = format!(
                "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n\
                 scrape_configs: [{{job_name: encoder, static_configs: \
                 [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
            );
            fs::write(&config, lines).unwrap();
            let said = folder.path().join("said");
            let mut command = Command::new(program);
            command.arg(format!("--config.file={}", config.display()));
            command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
            command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
            command.arg("--log.level=warn").stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(fs::File::create(&said).unwrap());
            let mut child = Running(command.spawn().unwrap());
            let ready =
                until("Prometheus is ready or ends", || match child.0.try_wait().unwrap() {
                    Some(_) => Some(false),
                    None => get(port, "/-/ready").map(|_| true),
                });
            if ready {
                return Self { port, _child: child, _folder: folder };
            }
            let said = fs::read_to_string(said).unwrap();
            assert!(said.contains("in use"), "{said}");
        }
    }

    /// The value of a series, or of an expression that returns one series.
    fn query(&self, expression: &str) -> Option<f64> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(self.port, &format!("/api/v1/query?query={encoded}"))?;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        let result = answer["data"]["result"].as_array().unwrap();
        assert!(result.len() < 2, "{expression}: {answer}");
        Some(result.first()?["value"][1].as_str().unwrap().parse().unwrap())
    }
}

/// Prometheus, if the set-up has installed it.
fn prometheus() -> Option<PathBuf> {
    let found = env::var_os("ENCODER_PROMETHEUS").map(PathBuf::from);
    if found.is_none() {
        println!("left out: ENCODER_PROMETHEUS names no Prometheus (cargo xtask setup)");
    }
    found
}

/// Prometheus' check of a text.
fn promtool(prometheus: &Path, args: &[&str], input: &str) {
    let tool = prometheus.with_file_name("promtool");
    if !tool.is_file() {
        return println!("without promtool");
    }
    let mut command = Command::new(tool);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (code, said) = told(&output);
    assert_eq!(code, 0, "{said}\n{input}");
}

#[test]
fn a_real_prometheus_gets_the_numbers() {
    const SIZE: (usize, usize) = (160, 120);
    let Some(program) = prometheus() else { return };
    let mut encoding = Encoding::start(SIZE, &["--encoder", "openh264"], |_| {});
    let prometheus = Prometheus::start(&program, encoding.port);
    encoding.frames(SIZE, 25);
    let of = r#"{encoder_type="openh264"}"#;
    let bytes = 25.0 * (160 * 120 * 3 / 2) as f64;
    for (name, expected) in [
        ("encoder_frames_total", 25.0),
        ("encoder_bytes_in_total", bytes),
        ("encoder_encode_latency_seconds_count", 25.0),
        ("encoder_sessions_open", 1.0),
        ("encoder_queue_depth", 0.0),
        ("encoder_frames_failed_total", 0.0),
        ("encoder_frames_dropped_total", 0.0),
        ("encoder_frames_repeated_total", 0.0),
    ] {
        let series = format!("{name}{of}");
        until(&format!("{series} is {expected}"), || {
            prometheus.query(&series).filter(|value| *value == expected)
        });
    }
    assert!(prometheus.query(&format!("encoder_bytes_out_total{of}")).unwrap() > 0.0);
    // No frames arrive: the encoder waits, and the rate falls to 0.
    let waited = format!("encoder_consumer_wait_seconds{of} > 1.5");
    until("the encoder has waited for 1.5 s", || prometheus.query(&waited));
    until("the rate is 0", || {
        prometheus.query(&format!("encoder_fps{of}")).filter(|rate| *rate == 0.0)
    });
    until("the target is up", || prometheus.query("up").filter(|up| *up == 1.0));

    let scraped = encoding.scrape().unwrap();
    promtool(&program, &["check", "metrics"], &scraped);
    for metric in ALL {
        // Without a GPU and without errors.
        if metric.labels.is_empty() {
            let help = format!("# HELP {} {}\n", metric.name, metric.help);
            assert!(scraped.contains(&help), "{help} {scraped}");
        }
    }
    let buckets =
        scraped.lines().filter(|line| line.starts_with("encoder_encode_latency_seconds_bucket"));
    assert_eq!(buckets.count(), LATENCY_BUCKETS.len() + 1);
    assert!(!scraped.contains("camera="), "{scraped}");
    encoding.end();
    drop(prometheus);
}

#[test]
fn the_alerts_of_the_page_are_rules() {
    let Some(program) = prometheus() else { return };
    let page = include_str!("../../../docs/metrics.md");
    let rules = page.split("```yaml\n").find(|part| part.starts_with("groups:")).unwrap();
    let rules = rules.split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yml");
    fs::write(&path, rules).unwrap();
    promtool(&program, &["check", "rules", text(&path)], "");
}

#[cfg(target_os = "linux")]
#[test]
fn a_virtual_gpu_is_seen_at_work() {
    use encoder_testbed::{nvenc::VirtualNvenc, or_left_out};
    const SIZE: (usize, usize) = (322, 178);
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let args = ["--encoder", "nvenc", "--metrics-camera"];
    let mut encoding = Encoding::start(SIZE, &args, |command| {
        device.apply(command);
    });
    encoding.frames(SIZE, 10);
    let series = |engine| {
        format!(r#"encoder_gpu_utilization{{encoder_type="nvenc",gpu="0",engine="{engine}"}}"#)
    };
    // Each session loads the device by a tenth.
    let busy = series("encoder");
    until("the GPU is at work", || value(&encoding.scrape()?, &busy).filter(|ratio| *ratio == 0.1));
    let scraped = encoding.scrape().unwrap();
    assert_eq!(value(&scraped, &series("compute")), Some(0.0), "{scraped}");
    // A frame may still be in the encoder.
    let frames = r#"encoder_frames_total{encoder_type="nvenc",camera="stdin"}"#;
    assert!(value(&scraped, frames).is_some(), "{scraped}");
    encoding.end();
    assert_eq!(device.violations(), Vec::<String>::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_fallback_is_counted() {
    use common::device::{Bench, COUNT};
    use encoder_testbed::{
        nvenc::{Capability, VirtualNvenc},
        or_left_out,
    };
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    // The pictures of the probe are wide enough for the device, those of the recording are not.
    let bench = Bench::new(device.capability(Capability::WidthMin, 400));
    let file = bench.folder.path().join("encoder.prom");
    let done = bench.convert(&["--metrics-file", text(&file)], "").expect(0);
    let to = done.output()["encoder"].as_str().unwrap();
    assert_ne!(to, "nvenc");
    let refusals = done.output()["refusals"].as_array().unwrap();
    let refusal = refusals.iter().find(|refusal| refusal["encoder"] == "nvenc").unwrap();
    let kind = refusal["kind"].as_str().unwrap();
    let numbers = fs::read_to_string(file).unwrap();
    for (series, expected) in [
        (
            format!(
                r#"encoder_failovers_total{{encoder_type="nvenc",from="nvenc",to="{to}",reason="refused"}}"#
            ),
            1,
        ),
        (format!(r#"encoder_refusals_total{{encoder_type="nvenc",reason="{kind}"}}"#), 1),
        (r#"encoder_frames_total{encoder_type="nvenc"}"#.into(), 0),
        (r#"encoder_sessions_open{encoder_type="nvenc"}"#.into(), 0),
        (format!(r#"encoder_frames_total{{encoder_type="{to}"}}"#), COUNT),
    ] {
        assert_eq!(value(&numbers, &series), Some(expected as f64), "{series}: {numbers}");
    }
}

#[test]
fn a_file_tells_of_a_run_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.mcap");
    let mut recording = Recording::create(&path);
    for n in 0..6 {
        let time = EPOCH + n as i64 * 40 * MS;
        let broken = |is| if is { cut_jpeg(n) } else { small_jpeg(n) };
        recording.write("/left", Serialization::CdrLittle, time, time, &broken(n == 3));
        recording.write("/right", Serialization::CdrLittle, time, time, &broken(n == 0 || n == 1));
    }
    recording.finish();
    let numbers = |args: &[&str], expected| {
        let (out, file) = (tempfile::tempdir().unwrap(), folder.path().join("encoder.prom"));
        let all = ["encode", text(&path), "-o", text(out.path()), "--metrics-file", text(&file)];
        let (code, said) = run([&all[..], args].concat());
        assert_eq!(code, expected, "{said}");
        let numbers = fs::read_to_string(&file).unwrap();
        fs::remove_file(file).unwrap();
        assert_eq!(entries(folder.path()), ["two.mcap"]);
        numbers
    };
    let openh264 = ["--encoder", "openh264"];
    let all = numbers(&openh264, 3);
    let sum = r#"{encoder_type="openh264"}"#;
    for (name, expected) in [
        ("encoder_frames_total", 12.0),
        ("encoder_frames_failed_total", 3.0),
        ("encoder_frames_repeated_total", 3.0),
        ("encoder_encode_latency_seconds_count", 12.0),
        ("encoder_sessions_open", 0.0),
        ("encoder_fps", 0.0),
        ("encoder_queue_depth", 0.0),
    ] {
        assert_eq!(value(&all, &format!("{name}{sum}")), Some(expected), "{name}: {all}");
    }
    if let Some(prometheus) = prometheus() {
        promtool(&prometheus, &["check", "metrics"], &all);
    }
    let each = numbers(&[&openh264[..], &["--metrics-camera"]].concat(), 3);
    for (camera, failed) in [("/left", 1.0), ("/right", 2.0)] {
        let of = format!(r#"{{encoder_type="openh264",camera="{camera}"}}"#);
        assert_eq!(value(&each, &format!("encoder_frames_total{of}")), Some(6.0), "{each}");
        assert_eq!(value(&each, &format!("encoder_frames_failed_total{of}")), Some(failed));
    }
    assert_eq!(value(&each, &format!("encoder_frames_total{sum}")), None);
    // A run that fails, and a run that cannot begin.
    let failed = numbers(&[&openh264[..], &["--on-bad-frame", "fail"]].concat(), 1);
    assert_eq!(value(&failed, &format!("encoder_frames_failed_total{sum}")), Some(2.0), "{failed}");
    if cfg!(target_os = "linux") {
        let refused = numbers(&["--encoder", "videotoolbox"], 1);
        let series = r#"encoder_refusals_total{encoder_type="videotoolbox",reason="#;
        let line = refused.lines().find(|line| line.starts_with(series));
        assert!(line.is_some_and(|line| line.ends_with(" 1")), "{refused}");
    }
}

#[test]
fn what_cannot_be_had_is_told_before_anything_is_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let frames: Vec<_> = (0..3).map(|n| (EPOCH + n, EPOCH + n, small_jpeg(n as usize))).collect();
    let recording = camera(folder.path(), &frames);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let below_a_file = recording.join("encoder.prom");
    // Arguments | exit code | words
    let table: &[(&[&str], i32, &[&str])] = &[
        (&["--metrics-listen", &address], 1, &[&address, "in use", "another port"]),
        (&["--metrics-file", text(&below_a_file)], 1, &["encoder.prom", "another file"]),
        (&["--metrics-listen", "nowhere"], 2, &["`nowhere`", "9464"]),
        (&["--metrics-listen", "0"], 2, &["`0`"]),
        (&["--metrics-camera"], 2, &["--metrics-file"]),
        (&["--log", "xml"], 2, &["json"]),
    ];
    for (args, expected, words) in table {
        let out = tempfile::tempdir().unwrap();
        let all = ["encode", text(&recording), "-o", text(out.path()), "--encoder", "openh264"];
        let (code, said) = run([&all[..], args].concat());
        assert_eq!(code, *expected, "{args:?}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{args:?}: {said}"));
        let left: &[&str] = if code == 1 { &["report.json"] } else { &[] };
        assert_eq!(entries(out.path()), left, "{args:?}");
    }
}
