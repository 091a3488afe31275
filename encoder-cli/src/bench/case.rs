//! One measurement, in a process of its own: the program calls itself with `--case`.

use std::{
    io::Write,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use encoder_core::{
    Chain, EncoderType, FrameBuffer, PixelFormat, Plan, RateControl, Settings, VideoEncoder,
};
use encoder_ffmpeg::process::{self, Input};
use encoder_pipeline::{
    destination::FileDestination,
    mux::{AccessUnit, CallbackSink},
    naming::Target,
    progress::Silent,
    run::Run,
    session::{OnBadFrame, Session, SessionConfig},
    source::Source,
    timeline::{FrameTimes, Timing},
};
use serde::{Deserialize, Serialize};

use super::{
    args::Bench,
    frames::{self, Frames, Memory},
    presets,
    spec::{Case, Mode},
    usage,
};
use crate::{output::Output, settings::Refused};

/// A measurement that has not ended after this long is stopped.
pub const LIMIT: Duration = Duration::from_secs(6 * 3600);

/// The result of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// From the first frame that is encoded to the last file that is complete.
    pub wall_s: f64,
    /// CPU time of the process and its children in that time.
    pub cpu_s: Option<f64>,
    /// Frames of all cameras.
    pub frames: u64,
    /// Bytes of access units (of `ffmpeg`: of the files).
    pub bytes: u64,
    /// Memory on top of the frames, children included, in KiB.
    pub memory_kib: Option<u64>,
    /// Milliseconds from submitting a frame to its access unit: the median and the 99th percentile.
    pub latency_ms: Option<[f64; 2]>,
    /// The library and version of the encoder.
    pub description: String,
}

/// Measures, and writes the result as JSON.
pub fn run(args: &Bench, case: &Case, out: &mut Output) -> Result<u8, Refused> {
    let frames = Arc::new(Frames::load(args)?);
    let settings = presets::settings(args, &case.preset, &case.encoder)?;
    let work = Work {
        frames,
        settings,
        cameras: args.cameras.into(),
        threads: args.video.threads(),
        case,
    };
    // In an encode, detection finds FFmpeg before the recording is opened, so this search is not
    // measured.
    let _known = encoder_ffmpeg::Ffmpeg::find(work.id().map_err(Refused::failed)?);
    let measured = match case.mode {
        Mode::Whole => work.whole(),
        Mode::Alone => work.alone(),
        Mode::Live => work.live(),
        Mode::Ffmpeg => work.ffmpeg(),
    };
    let measured = measured.map_err(Refused::failed)?;
    let text = serde_json::to_string(&measured).map_err(Refused::failed)?;
    out.print(&format!("{text}\n"));
    Ok(0)
}

struct Work<'a> {
    frames: Arc<Frames>,
    settings: Settings,
    cameras: usize,
    threads: usize,
    case: &'a Case,
}

/// The usage before the work began.
struct Before {
    begun: Instant,
    cpu: Option<Duration>,
    memory_kib: Option<u64>,
}

impl Before {
    fn now() -> Self {
        usage::forget();
        let memory_kib = usage::memory().map(|(_, now)| now);
        Self { cpu: usage::cpu(), memory_kib, begun: Instant::now() }
    }

    fn measured(&self, frames: u64, bytes: u64, description: String) -> Measured {
        let wall_s = self.begun.elapsed().as_secs_f64();
        let cpu_s = self.cpu.zip(usage::cpu()).map(|(before, now)| (now - before).as_secs_f64());
        let own = self.memory_kib.zip(usage::memory());
        let own = own.map(|(before, (most, _))| most.saturating_sub(before));
        Measured { wall_s, cpu_s, frames, bytes, memory_kib: own, latency_ms: None, description }
    }
}

impl Work<'_> {
    fn id(&self) -> Result<EncoderType, String> {
        let found = presets::backend(&self.case.encoder);
        found.map(|backend| backend.id).ok_or_else(|| format!("no encoder {}", self.case.encoder))
    }

    fn session(&self) -> Result<SessionConfig, String> {
        let plan = Plan::new(vec![self.id()?], vec![]);
        let mut settings = self.settings.clone();
        settings.encoder.frame_rate = self.frames.rate;
        Ok(SessionConfig::new(settings, plan)
            .with_threads(self.threads())
            .with_timing(Timing::Rate(self.frames.rate))
            .with_on_bad_frame(OnBadFrame::Fail))
    }

    /// Threads of each camera's encoder, distributed as by `encode`.
    fn threads(&self) -> usize {
        (self.threads / self.cameras).max(1)
    }

    fn all_frames(&self) -> u64 {
        (self.frames.payloads.len() * self.cameras) as u64
    }

    fn whole(&self) -> Result<Measured, String> {
        let files = FileDestination::new(Target::Directory(self.case.folder.clone()));
        let run = Run::new(files.overwrite(true), self.session()?)
            .recording(self.frames.name.clone())
            .threads(self.threads);
        let open = || -> Result<Box<dyn Source>, _> {
            Ok(Box::new(Memory::new(Arc::clone(&self.frames), self.cameras)))
        };
        let watch = usage::Watch::children();
        let before = Before::now();
        let report = run.convert(&open, &Silent);
        let bytes = report.outputs.iter().map(|output| output.video.bytes_out).sum();
        let description = report.outputs.first().map(|o| o.video.description.clone());
        let mut measured =
            before.measured(self.all_frames(), bytes, description.unwrap_or_default());
        let children = watch.end();
        measured.memory_kib = measured.memory_kib.map(|own| own + children);
        if let Some(error) = report.errors().next() {
            return Err(error.to_string());
        }
        let encoded: u64 = report.outputs.iter().map(|output| output.video.frames_encoded).sum();
        let is_lost = report.outputs.iter().any(|o| !o.video.failovers.is_empty());
        if encoded != measured.frames || is_lost {
            let frames = measured.frames;
            return Err(format!("{encoded} of {frames} frames, or the encoder was begun again"));
        }
        Ok(measured)
    }

    fn open(&self) -> Result<Box<dyn VideoEncoder>, String> {
        let config = self.session()?;
        let mut settings = config.settings;
        settings.encoder.resolution = Some(self.frames.size);
        let mut chain =
            Chain::new(&config.plan, settings, config.threads).map_err(|e| e.to_string())?;
        chain.open().map_err(|error| error.to_string())
    }

    fn alone(&self) -> Result<Measured, String> {
        let (format, description) = {
            let encoder = self.open()?;
            (encoder.pixel_format(), encoder.description())
        };
        let ready = self.frames.converted(format)?;
        let before = Before::now();
        let bytes = self.at_once(|_| {
            let mut encoder = self.open()?;
            let mut bytes = 0;
            for (n, frame) in (0..).zip(&ready) {
                let unit = encoder.encode_frame(&frame.frame(n)).map_err(|e| e.to_string())?;
                bytes += unit.map_or(0, |unit| unit.data.len());
            }
            let rest = encoder.flush().map_err(|error| error.to_string())?;
            drop(encoder);
            Ok(bytes as u64 + rest.iter().map(|unit| unit.data.len() as u64).sum::<u64>())
        })?;
        Ok(before.measured(self.all_frames(), bytes, description))
    }

    /// Runs `work` for each camera in parallel; returns the sum of the results.
    fn at_once(&self, work: impl Fn(usize) -> Result<u64, String> + Sync) -> Result<u64, String> {
        thread::scope(|scope| {
            let all: Vec<_> = (0..self.cameras)
                .map(|n| {
                    scope.spawn({
                        let work = &work;
                        move || work(n)
                    })
                })
                .collect();
            let ended = |_| Err("a thread panicked".to_string());
            all.into_iter().map(|one| one.join().unwrap_or_else(ended)).sum()
        })
    }

    fn live(&self) -> Result<Measured, String> {
        // One to three seconds at 30 frames per second.
        let count = self.frames.payloads.len().clamp(30, 90);
        let arrivals = Arc::new(Mutex::new(Vec::<(u64, Instant)>::new()));
        let noted = Arc::clone(&arrivals);
        let note = move |AccessUnit { chunk: unit, .. }: AccessUnit| {
            if let Ok(mut all) = noted.lock() {
                all.push((unit.pts, Instant::now()));
            }
        };
        let sink = Box::new(CallbackSink(note));
        let before = Before::now();
        let mut session = Session::open(self.frames.size, &self.session()?, sink)
            .map_err(|error| error.to_string())?;
        let rate = self.frames.rate;
        let mut given = Vec::new();
        let begun = Instant::now();
        for (n, payload) in (0..).zip(self.frames.payloads.iter().cycle().take(count)) {
            let at = Duration::from_nanos(rate.nanoseconds(n));
            thread::sleep(at.saturating_sub(begun.elapsed()));
            given.push(Instant::now());
            let times = FrameTimes::at(rate.nanoseconds(n) as i64);
            session.push(payload, times).map_err(|error| error.to_string())?;
        }
        // Access units that the end of the stream flushes would have been returned later, so they
        // do not count.
        let arrived = arrivals.lock().map(|all| all.clone()).unwrap_or_default();
        session.finish().map_err(|error| error.to_string())?;
        let mut waits: Vec<f64> = arrived
            .iter()
            .filter_map(|(pts, at)| Some((*at - *given.get(*pts as usize)?).as_secs_f64() * 1e3))
            .collect();
        waits.sort_by(f64::total_cmp);
        let part =
            |of_hundred: usize| waits.get((waits.len() * of_hundred).div_ceil(100).max(1) - 1);
        let latency_ms = part(50).zip(part(99)).map(|(half, most)| [*half, *most]);
        Ok(Measured { latency_ms, ..before.measured(given.len() as u64, 0, String::new()) })
    }

    fn ffmpeg(&self) -> Result<Measured, String> {
        let input = self.frames.for_ffmpeg();
        let input = input.ok_or("ffmpeg cannot be given these frames by a pipe")?;
        let ffmpeg = encoder_ffmpeg::Ffmpeg::find_with(EncoderType::X264, FFMPEG_DEFAULT)
            .map_err(|e| e.to_string())?;
        let words = plain_options(&self.settings, self.threads())?;
        let path = |n: usize| self.case.folder.join(format!("ffmpeg{n}.mp4"));
        std::fs::create_dir_all(&self.case.folder).map_err(|error| error.to_string())?;
        let before = Before::now();
        let bytes = self.at_once(|n| {
            let mut command = ffmpeg.command();
            command.args(["-hide_banner", "-loglevel", "error", "-y"]).args(&input);
            command.args(["-i", "pipe:0"]).args(&words).arg(path(n));
            feed(command, &self.frames)?;
            std::fs::metadata(path(n)).map(|file| file.len()).map_err(|error| error.to_string())
        })?;
        Ok(before.measured(
            self.all_frames(),
            bytes,
            format!("{} {}", ffmpeg.label(), words.join(" ")),
        ))
    }
}

/// Runs FFmpeg on the frames, by plain writes to its standard input.
fn feed(command: Command, frames: &Arc<Frames>) -> Result<(), String> {
    let frames = Arc::clone(frames);
    let input = Input::Writer(Box::new(move |mut stdin| {
        frames.payloads.iter().try_for_each(|payload| stdin.write_all(frames::bytes(payload)))
    }));
    let output = process::run(command, input, LIMIT).map_err(|error| format!("ffmpeg: {error}"))?;
    if !output.exit.is_success() || !output.took_input {
        return Err(format!("ffmpeg: {}: {}", output.exit, output.stderr.trim()));
    }
    Ok(())
}

/// The encoder that FFmpeg itself chooses for MP4, by its name in FFmpeg.
const FFMPEG_DEFAULT: &str = "libx264";

/// The usual options of `ffmpeg`: speed and quality, and no encoder.
fn plain_options(settings: &Settings, threads: usize) -> Result<Vec<String>, String> {
    let config = &settings.encoder;
    let (preset, gop, b_frames) = (config.preset, config.gop_size, config.b_frames);
    let rate = match config.rate_control {
        RateControl::Crf(crf) => format!("-crf {crf}"),
        RateControl::ConstantQp(qp) => format!("-qp {qp} {}", encoder_ffmpeg::EQUAL_QUANTISERS),
        RateControl::Bitrate { kbps, max_kbps, .. } => encoder_ffmpeg::bit_rate(kbps, max_kbps),
        other => return Err(format!("ffmpeg has no option for {other}")),
    };
    let text = format!(
        "-preset {preset} {rate} -threads {threads} -g {gop} -bf {b_frames} -pix_fmt yuv420p"
    );
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// Writes the frames that videos are compared with: 4:2:0, one after the other.
pub fn reference(frames: &Frames, path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
    let ready: Vec<FrameBuffer> = frames.converted(PixelFormat::Yuv420p)?;
    let mut packed = Vec::new();
    for frame in &ready {
        packed.clear();
        frame.frame(0).append_packed(&mut packed);
        file.write_all(&packed).map_err(failed)?;
    }
    file.flush().map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn plain_ffmpeg_gets_the_same_settings() {
        assert_eq!(
            plain_options(&Settings::default(), 2).unwrap().join(" "),
            "-preset veryfast -crf 23 -threads 2 -g 30 -bf 0 -pix_fmt yuv420p"
        );
        let rate = |text: &str| {
            let settings = Settings::from_toml(&format!("[encoder]\n{text}")).unwrap();
            plain_options(&settings, 2).unwrap().join(" ")
        };
        assert!(rate("qp = 20").contains("-qp 20 -i_qfactor 1"));
        assert!(rate("bitrate_kbps = 900").contains("-preset veryfast -b:v 900k -threads"));
    }
}
