//! The scripted FFmpeg follows its script. Needs a real FFmpeg with libx264: set ENCODER_FFMPEG or
//! put it on the PATH.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashSet,
    env,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use encoder_testbed::{
    process::{assert_gone, assert_group_gone, group, is_gone, until},
    scripted::{Kind, Real, Script, Scripted, Step, VENDORS},
};

/// Bytes of one frame of 64×64 samples.
const FRAME: usize = 64 * 64 * 3 / 2;
const LIST: &str = "-encoders";
const ENCODE: &str = "-loglevel error -f rawvideo -pix_fmt yuv420p -s 64x64 -i pipe:0 -c:v libx264 \
                      -preset ultrafast -tune zerolatency -threads 1 -g 10 -f h264 pipe:1";
const DECODE: &str = "-loglevel error -f h264 -i pipe:0 -f rawvideo -pix_fmt yuv420p pipe:1";

fn real() -> PathBuf {
    env::var_os("ENCODER_FFMPEG").filter(|path| !path.is_empty()).unwrap_or("ffmpeg".into()).into()
}

fn start(scripted: &Scripted, arguments: &str) -> Child {
    Command::new(scripted.path())
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// Runs it to its end with `input`, which it may read in part.
fn run(scripted: &Scripted, arguments: &str, input: &[u8]) -> Output {
    let mut child = start(scripted, arguments);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn run_real(arguments: &str, input: &[u8]) -> Vec<u8> {
    let output = run(&Script::over(real()).lay_down().unwrap(), arguments, input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The output of a script that encodes without input.
fn encode(steps: impl Into<Vec<Step>>) -> Output {
    run(&Script::new().encoding(steps).lay_down().unwrap(), ENCODE, &[])
}

fn frames(count: usize) -> Vec<u8> {
    (0..count * FRAME).map(|n| (n * 7 % 199) as u8).collect()
}

#[test]
fn it_lists_the_encoders_of_the_script() {
    let scripted = Script::new()
        .version("4.4.2-0ubuntu0.22.04.1")
        .encoders(&["h264_qsv", "libx264"])
        .lay_down()
        .unwrap();
    let output = run(&scripted, LIST, &[]);
    assert!(output.status.success());
    assert!(text(&output.stderr).starts_with("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright"));
    let list = text(&output.stdout);
    let (_, names) = list.split_once(" ------\n").unwrap();
    let names: Vec<_> = names.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(names, ["h264_qsv", "libx264"]);
    assert_eq!(scripted.environment(), [("ENCODER_FFMPEG", scripted.path().into())]);
    let own = Script::new().banner("it's \"$HOME\" `own` \\n\nwords").lay_down().unwrap();
    assert_eq!(text(&run(&own, LIST, &[]).stderr), "it's \"$HOME\" `own` \\n\nwords\n");
}

#[test]
fn calls_are_recorded() {
    let scripted = Script::new().lay_down().unwrap();
    for arguments in [LIST, ENCODE, DECODE] {
        assert!(run(&scripted, arguments, b"input").status.success());
    }
    let mut odd = Command::new(scripted.path());
    assert!(odd.args(["", "two words", "a\nb", "'\"$0"]).stdin(Stdio::null()).status().is_ok());
    let calls = scripted.calls();
    let kinds: Vec<_> = calls.iter().map(|call| (call.kind, call.number)).collect();
    assert_eq!(
        kinds,
        [(Kind::Listing, 1), (Kind::Encoding, 1), (Kind::Decoding, 1), (Kind::Encoding, 2)]
    );
    assert!(calls[1].arguments.iter().eq(&ENCODE.split_whitespace().collect::<Vec<_>>()));
    assert_eq!(calls[1].option("-c:v"), Some("libx264"));
    assert_eq!(calls[1].option("-c:a"), None);
    assert_eq!(calls[3].arguments, ["", "two words", "a\nb", "'\"$0"]);
    assert_eq!(scripted.calls_for(Kind::Encoding).len(), 2);
    assert!(calls.iter().all(|call| is_gone(call.process)));
}

#[test]
fn steps_follow_each_other() {
    let output = encode([]);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
    let output = encode([
        Step::Write(b"\0\xff%d\n".to_vec()),
        Step::say("it's 100 %s\\n"),
        Step::Write(b"more".to_vec()),
        Step::Exit(187),
        Step::say("never"),
    ]);
    assert_eq!(output.status.code(), Some(187));
    assert_eq!(output.stdout, b"\0\xff%d\nmore");
    assert_eq!(text(&output.stderr), "it's 100 %s\\n\n");
    for (name, number) in [("KILL", 9), ("SEGV", 11), ("TERM", 15)] {
        let output = encode([Step::say("last words"), Step::Die(name), Step::say("never")]);
        assert_eq!(output.status.signal(), Some(number));
        assert_eq!(text(&output.stderr), "last words\n");
    }
    let begun = Instant::now();
    encode([Step::Wait(Duration::from_millis(200))]);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn floods_have_their_length() {
    let output = encode([Step::FloodStderr(Some(3 << 20)), Step::FloodStdout(Some(2 << 20))]);
    assert!(output.status.success());
    assert_eq!((output.stderr.len(), output.stdout.len()), (3 << 20, 2 << 20));
    // Without an end: it continues after a hundred times the size of a pipe.
    let scripted = Script::new().encoding([Step::FloodStderr(None)]).lay_down().unwrap();
    let mut child = start(&scripted, ENCODE);
    let mut some = vec![0; 100 << 16];
    child.stderr.as_mut().unwrap().read_exact(&mut some).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn input_is_taken_in_part() {
    let scripted = Script::new()
        .encoding([Step::Take(100_000), Step::say("taken"), Step::Hang])
        .lay_down()
        .unwrap();
    let mut child = start(&scripted, ENCODE);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&vec![0; 99_999]).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    stdin.write_all(&[0]).unwrap();
    let mut said = [0; 6];
    child.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"taken\n");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_group_gone(child.id());
}

#[test]
fn signals_are_ignored_and_hanging_ends_only_by_force() {
    let scripted = Script::new()
        .encoding([Step::IgnoreSignals, Step::say("ready"), Step::Hang])
        .lay_down()
        .unwrap();
    let mut child = start(&scripted, ENCODE);
    child.stderr.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    for signal in ["-TERM", "-INT", "-HUP"] {
        let id = child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
    // The program is replaced by the sleeper, which would otherwise have ended.
    until("it sleeps", || group(child.id()).iter().any(|p| p.name == "sleep"));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    assert_gone(child.id());
}

#[test]
fn pipes_stay_open_after_its_end() {
    for (step, stderr_too) in [(Step::HoldPipes, true), (Step::HoldStdout, false)] {
        let scripted = Script::new().encoding([step, Step::say("bye")]).lay_down().unwrap();
        let mut child = start(&scripted, ENCODE);
        let id = child.id();
        let mut stdin = child.stdin.take().unwrap();
        assert!(child.wait().unwrap().success());
        until("one is left", || group(id).iter().any(|p| p.name == "sleep"));
        let mut stderr = child.stderr.take().unwrap();
        let mut said = [0; 4];
        stderr.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"bye\n");
        let (sender, ends) = std::sync::mpsc::channel();
        let mut stdout = child.stdout.take().unwrap();
        let also = sender.clone();
        let readers = [
            std::thread::spawn(move || sender.send(("stderr", stderr.read(&mut [0]).unwrap()))),
            std::thread::spawn(move || also.send(("stdout", stdout.read(&mut [0]).unwrap()))),
        ];
        if !stderr_too {
            assert_eq!(ends.recv().unwrap(), ("stderr", 0));
        }
        assert!(ends.try_recv().is_err());
        assert_eq!(stdin.write_all(b"x").is_ok(), stderr_too);
        let kill = Command::new("kill").args(["-KILL", "--", &format!("-{id}")]).status();
        assert!(kill.unwrap().success());
        for reader in readers {
            let _ = reader.join().unwrap();
        }
        assert_group_gone(id);
    }
}

#[test]
fn the_first_encodes_have_their_own_steps() {
    let scripted = Script::new()
        .first(1, [Step::Exit(1)])
        .first(2, [Step::Exit(2)])
        .encoding([Step::Exit(3)])
        .lay_down()
        .unwrap();
    let mut codes = Vec::new();
    for _ in 0..5 {
        // Listing and decoding are not counted.
        assert!(run(&scripted, LIST, &[]).status.success());
        assert!(run(&scripted, DECODE, &[]).status.success());
        codes.push(run(&scripted, ENCODE, &[]).status.code().unwrap());
    }
    assert_eq!(codes, [1, 2, 2, 3, 3]);
}

#[test]
fn concurrent_calls_have_different_numbers() {
    let scripted = Script::new().first(5, [Step::Exit(1)]).lay_down().unwrap();
    let children: Vec<_> = (0..20).map(|_| start(&scripted, ENCODE)).collect();
    let ends = children.into_iter().map(|child| child.wait_with_output().unwrap());
    assert_eq!(ends.filter(|end| !end.status.success()).count(), 5);
    let calls = scripted.calls();
    assert_eq!(calls.len(), 20);
    assert_eq!(calls.iter().map(|call| call.number).collect::<HashSet<_>>().len(), 20);
    assert_eq!(calls.iter().map(|call| call.process).collect::<HashSet<_>>().len(), 20);
}

#[test]
fn a_real_ffmpeg_runs_in_its_place() {
    let scripted = Script::over(real()).lay_down().unwrap();
    assert!(text(&run(&scripted, LIST, &[]).stdout).contains("libx264"));
    let encoded = run(&scripted, ENCODE, &frames(4)).stdout;
    assert_eq!(run(&scripted, DECODE, &encoded).stdout.len(), 4 * FRAME);
    // Its exit is the program's exit.
    assert!(!run(&scripted, DECODE, b"no video at all").status.success());
    let then = Script::over(real())
        .encoding([Step::real(real()), Step::say("and then"), Step::Exit(5)])
        .lay_down()
        .unwrap();
    let output = run(&then, ENCODE, &frames(4));
    assert_eq!((output.status.code(), output.stdout), (Some(5), encoded));
    assert_eq!(text(&output.stderr), "and then\n");
}

#[test]
fn it_can_end_after_some_encoded_frames() {
    let first = Real::new(real()).taking(3, FRAME as u64);
    let scripted = Script::over(real())
        .encoding([Step::Real(first), Step::say("the GPU is gone"), Step::Die("KILL")])
        .lay_down()
        .unwrap();
    let output = run(&scripted, ENCODE, &frames(50));
    assert_eq!(output.status.signal(), Some(9));
    assert_eq!(text(&output.stderr), "the GPU is gone\n");
    assert_eq!(output.stdout, run_real(ENCODE, &frames(3)));
    assert_eq!(run_real(DECODE, &output.stdout).len(), 3 * FRAME);
}

#[test]
fn real_output_is_cut_and_slowed() {
    let whole = run_real(ENCODE, &frames(6));
    let script = |real: Real| Script::new().encoding([Step::Real(real)]).lay_down().unwrap();
    let cut = script(Real::new(real()).cut(1000));
    assert_eq!(run(&cut, ENCODE, &frames(6)).stdout, whole[..1000]);
    let pause = Duration::from_millis(50);
    let slow = script(Real::new(real()).slowly(FRAME as u64, pause));
    let begun = Instant::now();
    assert_eq!(run(&slow, ENCODE, &frames(6)).stdout, whole);
    assert!(begun.elapsed() >= 6 * pause);
}

#[test]
fn vendors_differ() {
    let versions: HashSet<_> = VENDORS.iter().map(|vendor| vendor.version).collect();
    assert_eq!(versions.len(), VENDORS.len());
    for vendor in VENDORS {
        // The number is in the text, at most after an `n`.
        if let Some((major, minor)) = vendor.release {
            let number = format!("{major}.{minor}");
            let text = vendor.version.trim_start_matches('n');
            let rest = text.strip_prefix(&number).unwrap_or_else(|| panic!("{vendor:?}"));
            assert!(!rest.starts_with(|c: char| c.is_ascii_digit()), "{vendor:?}");
        }
    }
}
