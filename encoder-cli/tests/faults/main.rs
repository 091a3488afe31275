//! The encoder is lost in every way and at every moment, and no frame is lost.
//!
//! The fast part runs with the other tests. `cargo xtask faults` runs the whole campaign, with
//! `ENCODER_FAULTS=full` (or the name of one fault), also on the virtual NVENC device, and prints
//! its table.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod campaign;
mod frail;
mod kills;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use campaign::{COUNT, First, MOMENTS, NVENC, OPENH264, Outcome, X264, X264_NATIVE, run};
use encoder_core::EncoderType;
use encoder_testbed::{nvenc::VirtualNvenc, or_left_out};
use frail::Fault;

/// Whether the whole campaign is enabled.
fn is_full() -> bool {
    std::env::var_os("ENCODER_FAULTS").is_some()
}

/// Whether the campaign includes this fault.
fn is_wanted(fault: Fault) -> bool {
    std::env::var("ENCODER_FAULTS").is_ok_and(|name| name == "full" || Fault::of(&name) == fault)
}

/// Runs one test at a time: a fault searches for its child among all children of this process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line of the table.
#[derive(Default)]
struct Row {
    runs: usize,
    survived: usize,
    frames_in: usize,
    frames_out: usize,
    lost: usize,
    repeated: usize,
    longest: Duration,
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<(String, String), Row>,
    wrong: Vec<String>,
}

impl Table {
    fn add(&mut self, pair: &str, fault: &str, moment: &str, outcome: &Outcome) {
        let row = self.rows.entry((pair.into(), fault.into())).or_default();
        row.runs += 1;
        row.survived += usize::from(outcome.wrong.is_empty());
        row.frames_in += COUNT;
        row.frames_out += outcome.frames_out;
        row.lost += outcome.lost;
        row.repeated += outcome.repeated;
        row.longest = row.longest.max(outcome.longest_stall);
        if !outcome.wrong.is_empty() {
            self.wrong.push(format!("{pair}, {fault}, {moment}: {}", outcome.wrong));
        }
    }

    fn show(&self) {
        println!(
            "\n| encoders | fault | runs | survived | frames in | frames out | lost | repeated | \
             longest stall |\n|---|---|---|---|---|---|---|---|---|"
        );
        for ((pair, fault), row) in &self.rows {
            let Row { runs, survived, frames_in, frames_out, lost, repeated, longest } = row;
            println!(
                "| {pair} | {fault} | {runs} | {survived} | {frames_in} | {frames_out} | {lost} | \
                 {repeated} | {} ms |",
                longest.as_millis()
            );
        }
    }

    #[track_caller]
    fn assert_right(&self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// The fallback of the encoder that is lost.
type Second = Option<(EncoderType, &'static str)>;

fn name(first: First, second: Second) -> String {
    match second {
        None => format!("{} → again", first.name),
        Some((id, options)) if options.contains("native") => {
            format!("{} → {id} in process", first.name)
        }
        Some((id, _)) => format!("{} → {id}", first.name),
    }
}

/// All faults at all moments in one pair of encoders.
fn play(table: &mut Table, first: First, second: Second, faults: &[Fault]) {
    for &fault in faults {
        for (moment, at) in MOMENTS {
            let is_impossible = fault.needs_child() && !first.has_child
                // With no fallback left, a busy encoder is no failover.
                || fault == Fault::Busy && (second.is_none() || at != 0);
            if is_impossible {
                continue;
            }
            // After one fault, the same encoder is opened again; after three, the other becomes
            // active.
            let times = if second.is_some() { 3 } else { 1 };
            let outcome = run(first, second, fault, at, times);
            table.add(&name(first, second), fault.name(), moment, &outcome);
        }
    }
}

const TO_OPENH264: Second = Some((EncoderType::OPENH264, ""));
const TO_X264: Second = Some((EncoderType::X264, "mode = \"ffmpeg\""));
const TO_NATIVE: Second = Some((EncoderType::X264, "mode = \"native\""));

#[test]
fn no_frame_is_lost_whatever_happens_to_the_encoder() {
    let _turn = turn();
    let mut table = Table::default();
    let mut pairs = vec![(X264, None), (X264, TO_OPENH264), (OPENH264, TO_X264)];
    if is_full() {
        pairs.push((OPENH264, None));
        pairs.push((X264, TO_X264));
        if cfg!(feature = "x264-native") {
            pairs.extend([(X264_NATIVE, None), (X264_NATIVE, TO_OPENH264), (OPENH264, TO_NATIVE)]);
            pairs.extend([(X264_NATIVE, TO_X264), (X264, TO_NATIVE)]);
        }
    }
    // In the fast part, each fault runs in one of the pairs; kills and errors run in all pairs.
    for (n, (first, second)) in pairs.into_iter().enumerate() {
        let faults = Fault::ALL.into_iter().enumerate();
        let faults: Vec<_> = faults
            .filter(|(k, fault)| {
                let is_usual = matches!(fault, Fault::Kill | Fault::Error);
                if is_full() { is_wanted(*fault) } else { is_usual || k % 3 == n % 3 }
            })
            .map(|(_, fault)| fault)
            .collect();
        play(&mut table, first, second, &faults);
    }
    table.show();
    table.assert_right();
    encoder_testbed::process::until("no child is left", || campaign::children() == 0);
}

#[test]
fn an_encoder_that_was_given_up_comes_back() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    let (report, count) = campaign::come_back(&path);
    let changes: Vec<_> = report
        .failovers
        .iter()
        .map(|f| (f.from.as_str(), f.to.as_str(), f.cause, f.count))
        .collect();
    let expected = [
        ("frail", "frail", "failed", 2),
        ("frail", "openh264", "failed", 1),
        ("openh264", "frail", "failback", 1),
    ];
    assert_eq!(changes, expected);
    let back = report.failovers[2].frame;
    assert!((back - report.failovers[1].frame).is_multiple_of(12), "at the end of a GOP: {back}");
    let used: Vec<_> = report.spans.iter().map(|s| s.encoder.as_str()).collect();
    // The frames that the first encoder held when it was lost were encoded by the second.
    assert_eq!(used, ["openh264", "frail"]);
    let numbers = common::decode::decode(&path).numbers();
    assert_eq!(numbers, (0..count).map(Some).collect::<Vec<_>>());
}

/// Runs this test again on the virtual device, which is set in the environment of a process.
const INSIDE: &str = "ENCODER_FAULTS_NVENC";

#[test]
fn nor_on_the_virtual_nvenc_device() {
    let _turn = turn();
    let Some(device) = or_left_out(VirtualNvenc::new()) else { return };
    let mut inside = Command::new(std::env::current_exe().unwrap());
    inside.args(["--exact", "on_a_device", "--nocapture", "--test-threads", "1"]);
    let output = device.apply(&mut inside).env(INSIDE, "yes").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{all}");
    assert!(said.contains("virtual NVENC"), "{all}");
    assert_eq!(device.open_sessions(), 0);
}

#[test]
fn on_a_device() {
    if std::env::var_os(INSIDE).is_none() {
        return;
    }
    let mut table = Table::default();
    let mut faults = vec![Fault::Kill, Fault::LateError, Fault::Busy];
    if is_full() {
        faults = Fault::ALL.into_iter().filter(|fault| is_wanted(*fault)).collect();
    }
    let faults = &faults;
    play(&mut table, NVENC, TO_OPENH264, faults);
    if is_full() {
        play(&mut table, NVENC, None, faults);
        play(&mut table, NVENC, TO_X264, faults);
        play(&mut table, X264, Some((EncoderType::NVENC, "")), faults);
        play(&mut table, OPENH264, Some((EncoderType::NVENC, "")), faults);
        if cfg!(feature = "x264-native") {
            play(&mut table, NVENC, TO_NATIVE, faults);
            play(&mut table, X264_NATIVE, Some((EncoderType::NVENC, "")), faults);
        }
    }
    table.show();
    table.assert_right();
}

#[test]
fn a_child_may_be_killed_at_any_moment() {
    let _turn = turn();
    let wanted = if is_wanted(Fault::Kill) { 200 } else { 8 };
    let seed = 0x5eed_0001;
    let mut range = kills::Range::new(seed);
    let (mut deaths, mut runs, mut out, mut lost, mut repeated, mut memory) = (0, 0, 0, 0, 0, 0);
    let mut wrong = Vec::new();
    while deaths < wanted && runs < wanted * 10 {
        runs += 1;
        let Some(death) = range.death() else { continue };
        deaths += 1;
        if deaths % 50 == 0 {
            println!("{deaths} deaths in {runs} runs");
        }
        out += death.frames_out;
        lost += death.lost;
        repeated += death.repeated;
        memory = memory.max(death.memory);
        if !death.wrong.is_empty() {
            wrong.push(format!("run {runs}: {}", death.wrong));
        }
    }
    println!(
        "\nrandom kill -9 of the child: {runs} runs, {deaths} deaths amid the encode, {out} frames \
         out, {lost} lost, {repeated} repeated; peak memory {memory} KiB, undisturbed {} KiB",
        range.usual_memory
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(deaths, wanted, "of {runs} runs too few were hit");
    // The frames that are kept for a replay are already in the ring.
    assert!(memory < range.usual_memory * 3 / 2, "{memory} KiB");
}
