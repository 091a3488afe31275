//! The rate at which frames reach an FFmpeg with a null encoder: by plain writes to a pipe of the
//! default size, by plain writes to a large pipe, and by this crate, which puts their pages into
//! the pipe of an FFmpeg that keeps the memory of its frames.
//!
//! `cargo bench -p encoder-ffmpeg --bench pipe`, with `ENCODER_FFMPEG` for another FFmpeg. The
//! variants run in turn; results are medians of seven rounds.

#[cfg(unix)]
#[allow(dead_code, unreachable_pub)]
#[path = "../src/sys.rs"]
mod sys;
#[cfg(unix)]
#[allow(dead_code, unused_imports)]
#[path = "../src/wait.rs"]
mod wait;

#[cfg(unix)]
mod bench {
    use std::{
        io::{IoSlice, Write},
        process::{Command, Stdio},
        time::{Duration, Instant},
    };

    use encoder_core::Waiter;

    use super::{sys, wait::Wait};

    const SIZES: [(usize, usize, usize); 2] = [(1920, 1080, 300), (640, 480, 1500)];
    const ROUNDS: usize = 7;
    /// Frames in the ring.
    const SLOTS: usize = 16;

    #[derive(Clone, Copy)]
    enum Mode {
        Plain,
        Large,
        Spliced,
    }

    pub fn run() -> Result<(), Box<dyn std::error::Error>> {
        let ffmpeg = std::env::var_os("ENCODER_FFMPEG").unwrap_or_else(|| "ffmpeg".into());
        println!(
            "| frames | default pipe | large pipe | without a copy | ratio |\n|---|---|---|---|---|"
        );
        for (width, height, count) in SIZES {
            let frames: Vec<Vec<u8>> =
                (0..SLOTS).map(|n| vec![n as u8; width * height * 3 / 2]).collect();
            let mut rates = [vec![], vec![], vec![]];
            for _ in 0..ROUNDS {
                for (mode, rates) in
                    [Mode::Plain, Mode::Large, Mode::Spliced].into_iter().zip(&mut rates)
                {
                    let size = format!("{width}x{height}");
                    let mut command = Command::new(&ffmpeg);
                    command.args([
                        "-v", "error", "-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", &size,
                    ]);
                    command.args(["-i", "pipe:0", "-f", "null", "-"]).stdin(Stdio::piped());
                    rates.push(feed(command, &frames, count, mode)?);
                }
            }
            let [plain, large, spliced] = rates.map(median);
            println!(
                "| {width}×{height} | {plain:.0} fps | {large:.0} fps | {spliced:.0} fps | {:.2} |",
                spliced / plain
            );
        }
        Ok(())
    }

    fn feed(
        mut command: Command,
        frames: &[Vec<u8>],
        count: usize,
        mode: Mode,
    ) -> Result<f64, Box<dyn std::error::Error>> {
        if matches!(mode, Mode::Spliced) {
            sys::keep_memory(&mut command);
        }
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().ok_or("no stdin")?;
        if !matches!(mode, Mode::Plain) {
            sys::prepare_pipe(&stdin)?;
        }
        let mut begun = Instant::now();
        for (n, frame) in frames.iter().cycle().take(count).enumerate() {
            // Without the start of the process.
            if n == SLOTS {
                begun = Instant::now();
            }
            match mode {
                Mode::Plain => stdin.write_all(frame)?,
                Mode::Large | Mode::Spliced => {
                    let is_stable = matches!(mode, Mode::Spliced);
                    let mut wait = Wait::new(&Waiter::new(), Duration::from_secs(60));
                    let frame = &mut [IoSlice::new(frame)];
                    sys::write_all(&mut stdin, frame, &mut wait, is_stable)?;
                }
            }
        }
        drop(stdin);
        let seconds = begun.elapsed();
        if !child.wait()?.success() {
            return Err("FFmpeg failed".into());
        }
        Ok((count - SLOTS) as f64 / seconds.as_secs_f64())
    }

    fn median(mut rates: Vec<f64>) -> f64 {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }
}

#[cfg(unix)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    bench::run()
}

#[cfg(not(unix))]
fn main() {
    println!("on Unix only");
}
