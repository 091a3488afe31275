//! Pushes frames at full speed for minutes and watches the memory of this process:
//! `cargo run --release --example soak -- MINUTES ENCODER`. Linux only.
//!
//! It fails when the memory moves by more than 5 % after the first ten seconds.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use bytes::Bytes;
use encoder_core::{EncoderType, Plan, Resolution, Settings};
use encoder_pipeline::{
    mux::{Mp4Options, Mp4Sink},
    session::{Session, SessionConfig},
    source::{Payload, RawImage},
    timeline::FrameTimes,
};

const SIZE: Resolution = Resolution::new(320, 240);
/// Frames in the ring.
const RING: usize = 64;
/// What may still grow: buffers that find their size.
const WARM: Duration = Duration::from_secs(10);

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let minutes: f64 = words.next().as_deref().unwrap_or("30").parse()?;
    let encoder = words.next().unwrap_or_else(|| "openh264".into());
    let mut settings = Settings::default();
    settings.gpu.ring_buffer_size = RING;
    settings.gpu.enable_ring_buffer = true;
    let known = encoder_core::backends().iter().find(|b| b.id.as_str() == encoder).map(|b| b.id);
    let id: EncoderType = known.ok_or_else(|| format!("no encoder {encoder} in this build"))?;
    let config = SessionConfig::new(settings, Plan::new(vec![id], vec![]));
    let folder = tempfile::tempdir()?;
    let options = Mp4Options::new(config.timing, &config.settings.encoder);
    let sink = Mp4Sink::create(&folder.path().join("soak.mp4"), &options)?;
    let mut session = Session::open(SIZE, &config, Box::new(sink))?;

    let pictures: Vec<Payload> = (0..60).map(picture).collect();
    let begun = Instant::now();
    let length = Duration::from_secs_f64(minutes * 60.0);
    let mut next = Duration::from_secs(1);
    let (mut frames, mut least, mut most) = (0i64, u64::MAX, 0);
    println!("| seconds | frames | fps | memory, KiB |\n|---|---|---|---|");
    let mut shown = Duration::ZERO;
    while begun.elapsed() < length {
        let picture = &pictures[frames as usize % pictures.len()];
        // Not quite regular, as recorded times are.
        session.push(picture, FrameTimes::at(frames * 33_333_333 + frames % 7 * 1000))?;
        frames += 1;
        if begun.elapsed() >= next {
            let memory = resident()?;
            if begun.elapsed() > WARM {
                (least, most) = (least.min(memory), most.max(memory));
            }
            if begun.elapsed() >= shown {
                let seconds = begun.elapsed().as_secs_f64();
                println!("| {seconds:.0} | {frames} | {:.0} | {memory} |", frames as f64 / seconds);
                shown = begun.elapsed() + length / 20;
            }
            next = begun.elapsed() + Duration::from_secs(1);
        }
    }
    let report = session.finish()?;
    let growth = most as f64 / least as f64 - 1.0;
    println!(
        "\n{} frames in, {} in the video, {:.0} s of it; memory {least} to {most} KiB after the \
         first {} s: {:.1} %; {} KiB at the most while the file was ended",
        report.frames_in,
        report.frames_encoded,
        report.duration_s,
        WARM.as_secs(),
        growth * 100.0,
        peak()?
    );
    let is_right = growth <= 0.05 && report.frames_encoded == report.frames_in;
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A gradient with a block that moves.
fn picture(n: usize) -> Payload {
    let (width, height) = (SIZE.width as usize, SIZE.height as usize);
    let rgb: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).map(move |x| (x, y)))
        .flat_map(|(x, y)| match (x / 32 + n) % 10 == y / 32 {
            true => [250, 40, 40],
            false => [(x + n) as u8, y as u8, (x ^ y) as u8],
        })
        .collect();
    Payload::Raw(RawImage {
        encoding: "rgb8".into(),
        width: SIZE.width,
        height: SIZE.height,
        step: SIZE.width * 3,
        is_bigendian: false,
        data: Bytes::from(rgb),
    })
}

fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    of_status("VmRSS:")
}

fn peak() -> Result<u64, Box<dyn std::error::Error>> {
    of_status("VmHWM:")
}

/// A number of `/proc/self/status` in KiB.
fn of_status(key: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).ok_or("no /proc")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
