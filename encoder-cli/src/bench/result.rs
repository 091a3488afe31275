//! Evaluates the measurements: medians, ratios, the Pareto front, and a summary.

use encoder_core::{Detected, EncoderType, ProbeResult};
use serde::Serialize;

use super::{case::Measured, quality::Quality};

/// Everything about one run of `encoder bench`.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// Version of the program.
    pub version: &'static str,
    /// Processor and cores.
    pub machine: String,
    /// Description of the frames.
    pub clip: String,
    /// Width and height in pixels.
    pub size: [u32; 2],
    /// Frames of each camera.
    pub frames: usize,
    /// Cameras at once.
    pub cameras: usize,
    /// Threads for decoding and encoding, all cameras together.
    pub threads: usize,
    /// Number of rounds; results are their medians.
    pub rounds: usize,
    /// One row for each encoder and preset.
    pub rows: Vec<Row>,
    /// Encoders that do not work here.
    pub refused: Vec<Absent>,
    /// How much faster the GPU is than software on this machine.
    pub answer: String,
    /// Notes about the figures.
    pub notes: Vec<String>,
}

/// An encoder that does not work here.
#[derive(Clone, Debug, Serialize)]
pub struct Absent {
    pub encoder: String,
    pub hardware: bool,
    pub reason: String,
    pub hint: String,
}

/// One encoder with one preset.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub encoder: String,
    pub preset: String,
    pub hardware: bool,
    /// Library and version.
    pub description: String,
    /// Frames per second of the whole pipeline, all cameras together.
    pub fps: f64,
    /// CPU time of the whole pipeline per frame, all processes.
    pub cpu_ms: Option<f64>,
    /// Raw RGB input, in 10^6 bytes per second.
    pub input_mb_s: f64,
    /// Frames per second of the encoder alone.
    pub alone_fps: f64,
    pub alone_cpu_ms: Option<f64>,
    /// CPU time of the whole pipeline relative to that of the encoder alone.
    pub cpu_against_alone: Option<f64>,
    /// Kilobits per second of video, one camera.
    pub kbit_s: f64,
    pub bytes: u64,
    pub quality: Option<Quality>,
    /// Latency at the rate of the camera: the median and the 99th percentile.
    pub latency_ms: Option<[f64; 2]>,
    pub memory_mib: Option<f64>,
    /// The same frames through the plain `ffmpeg` program.
    pub ffmpeg: Option<Baseline>,
    /// No other row is faster, smaller and better at once.
    pub front: bool,
    /// The error, if there was one; the figures are then invalid.
    pub error: Option<String>,
}

/// The same frames through the plain `ffmpeg` program.
#[derive(Clone, Debug, Serialize)]
pub struct Baseline {
    /// Its version, and the options.
    pub description: String,
    pub fps: f64,
    pub cpu_ms: Option<f64>,
    pub bytes: u64,
    pub quality: Option<Quality>,
    /// How many times faster this program was: the median of the rounds.
    pub speed: f64,
    /// CPU time of this program against that of `ffmpeg`: the median of the rounds.
    pub cpu: Option<f64>,
}

/// The measurements of one row: one of each kind per round.
#[derive(Default)]
pub struct Rounds {
    pub whole: Vec<Measured>,
    pub alone: Vec<Measured>,
    pub ffmpeg: Vec<Measured>,
}

impl Rounds {
    /// Fills in the figures.
    pub fn judge(&self, row: &mut Row, raw_bytes: u64, seconds: f64, cameras: usize) {
        let Some(first) = self.whole.first() else { return };
        row.description = first.description.clone();
        row.fps = median_of(&self.whole, fps).unwrap_or(0.0);
        row.cpu_ms = median_of(&self.whole, cpu_ms);
        row.input_mb_s = row.fps * raw_bytes as f64 / 1e6;
        row.alone_fps = median_of(&self.alone, fps).unwrap_or(0.0);
        row.alone_cpu_ms = median_of(&self.alone, cpu_ms);
        row.cpu_against_alone = ratio(&self.whole, &self.alone, cpu_ms);
        row.bytes = first.bytes;
        row.kbit_s = first.bytes as f64 * 8.0 / 1000.0 / seconds / cameras as f64;
        row.memory_mib = median_of(&self.whole, |m| Some(m.memory_kib? as f64 / 1024.0));
        if let Some(first) = self.ffmpeg.first() {
            row.ffmpeg = Some(Baseline {
                description: first.description.clone(),
                fps: median_of(&self.ffmpeg, fps).unwrap_or(0.0),
                cpu_ms: median_of(&self.ffmpeg, cpu_ms),
                bytes: first.bytes,
                quality: None,
                speed: ratio(&self.whole, &self.ffmpeg, fps).unwrap_or(0.0),
                cpu: ratio(&self.whole, &self.ffmpeg, cpu_ms),
            });
        }
    }
}

fn fps(measured: &Measured) -> Option<f64> {
    (measured.wall_s > 0.0).then(|| measured.frames as f64 / measured.wall_s)
}

fn cpu_ms(measured: &Measured) -> Option<f64> {
    Some(measured.cpu_s? * 1e3 / measured.frames.max(1) as f64)
}

/// The middle value, or the mean of the two middle values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

fn median_of(all: &[Measured], of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
    median(all.iter().filter_map(of).collect())
}

/// The median of the ratios of each round: a disturbance in a round affects both measurements.
fn ratio(a: &[Measured], b: &[Measured], of: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
    median(a.iter().zip(b).filter_map(|(a, b)| Some(of(a)? / of(b)?)).collect())
}

/// Marks the rows of the Pareto front: no other row is better in speed, size and quality at once.
pub fn mark_front(rows: &mut [Row]) {
    let points: Vec<Option<(f64, u64, f64)>> = rows
        .iter()
        .map(|row| {
            let quality = row.quality.as_ref().filter(|_| row.error.is_none())?;
            Some((row.fps, row.bytes, quality.ssim))
        })
        .collect();
    for (row, point) in rows.iter_mut().zip(&points) {
        let Some(mine) = point else { continue };
        let beats = |other: &(f64, u64, f64)| {
            other.0 >= mine.0 && other.1 <= mine.1 && other.2 >= mine.2 && other != mine
        };
        row.front = !points.iter().flatten().any(beats);
    }
}

/// The targets for a GPU: times faster than software, and 10^6 bytes of raw input per second.
const ASKED: (f64, f64, f64) = (5.0, 10.0, 400.0);

/// States how much faster the GPU is than software here. `refused` are all encoders that do not
/// work here; `has_other` is whether a hardware encoder works that was not measured.
pub fn answer(rows: &[Row], refused: &[Absent], has_other: bool) -> String {
    let (low, high, rate) = ASKED;
    let good = || rows.iter().filter(|row| row.error.is_none());
    let best = |hardware| {
        good().filter(|row| row.hardware == hardware).max_by(|a, b| a.fps.total_cmp(&b.fps))
    };
    let usual =
        good().find(|row| row.encoder == EncoderType::X264.as_str() && row.preset == "veryfast");
    let software = usual.or_else(|| best(false));
    let of_rate = |row: &Row| {
        format!("{:.0} MB/s, {:.1}× the {rate} MB/s", row.input_mb_s, row.input_mb_s / rate)
    };
    match (best(true), software) {
        (Some(gpu), Some(cpu)) => {
            let times = gpu.fps / cpu.fps;
            let word = match times {
                t if t >= high => "more than was",
                t if t >= low => "what was",
                _ => "less than was",
            };
            format!(
                "The GPU ({} {}) is {times:.1} times as fast as software ({} {}) on this machine: \
                 {word} asked for ({low}–{high} times). It takes in {} that were asked for.",
                gpu.encoder,
                gpu.preset,
                cpu.encoder,
                cpu.preset,
                of_rate(gpu)
            )
        }
        (Some(gpu), None) => format!(
            "No software encoder was measured. The GPU ({} {}) takes in {} that were asked for.",
            gpu.encoder,
            gpu.preset,
            of_rate(gpu)
        ),
        (None, _) => {
            let why: Vec<_> = refused
                .iter()
                .filter(|one| one.hardware)
                .map(|one| format!("{}: {}", one.encoder, one.reason))
                .collect();
            let none = match why.is_empty() || has_other {
                true => "No hardware encoder was measured.".into(),
                false => format!("No hardware encoder works on this machine ({}).", why.join("; ")),
            };
            let fastest = best(false).map_or_else(String::new, |row| {
                format!(
                    " The fastest software ({} {}) takes in {} that were asked of a GPU.",
                    row.encoder,
                    row.preset,
                    of_rate(row)
                )
            });
            format!("{none}{fastest}")
        }
    }
}

/// The detected encoders that do not work here.
pub fn absent(found: &[Detected]) -> Vec<Absent> {
    let of = |detected: &Detected| match &detected.result {
        ProbeResult::Usable(_) => None,
        ProbeResult::Refused(refusal) => Some(Absent {
            encoder: detected.encoder.to_string(),
            hardware: detected.hardware,
            reason: refusal.reason.clone(),
            hint: refusal.hint.clone(),
        }),
    };
    found.iter().filter_map(of).collect()
}

impl Results {
    /// The table for a terminal.
    pub fn table(&self) -> String {
        let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
        lines.extend(self.rows.iter().map(Row::cells));
        let is_used = |column: &usize| {
            lines.iter().skip(1).any(|line| line.get(*column).is_some_and(|cell| cell != NONE))
        };
        let columns: Vec<usize> = (0..HEAD.len()).filter(is_used).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
        };
        let mut text = String::new();
        for line in &lines {
            let cells: Vec<String> = columns
                .iter()
                .filter_map(|&column| Some((line.get(column)?, width(column)?, column)))
                .map(|(cell, width, column)| match column {
                    0 | 1 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        for row in self.rows.iter() {
            if let Some(error) = &row.error {
                text.push_str(&format!("{} {}: {error}\n", row.encoder, row.preset));
            }
        }
        text
    }
}

/// The text of a missing figure.
pub const NONE: &str = "–";

/// The columns of the table.
pub const HEAD: [&str; 15] = [
    "encoder",
    "preset",
    "fps",
    "CPU ms",
    "× alone",
    "MB/s in",
    "kbit/s",
    "SSIM",
    "PSNR",
    "VMAF",
    "p50 ms",
    "p99 ms",
    "MiB",
    "× ffmpeg",
    "CPU/ffmpeg",
];

impl Row {
    /// The cells of the table, as [`HEAD`] names them.
    pub fn cells(&self) -> Vec<String> {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or(NONE.to_owned(), |value| format!("{value:.digits$}"))
        };
        let measured = |value: f64, digits| figure(self.error.is_none().then_some(value), digits);
        let quality = self.quality.as_ref();
        let mark = if self.front { "*" } else { "" };
        vec![
            format!("{}{mark}", self.encoder),
            self.preset.clone(),
            measured(self.fps, 0),
            figure(self.cpu_ms, 2),
            figure(self.cpu_against_alone, 2),
            measured(self.input_mb_s, 0),
            measured(self.kbit_s, 0),
            figure(quality.map(|q| q.ssim), 4),
            figure(quality.map(|q| q.psnr), 2),
            figure(quality.and_then(|q| q.vmaf), 1),
            figure(self.latency_ms.map(|l| l[0]), 0),
            figure(self.latency_ms.map(|l| l[1]), 0),
            figure(self.memory_mib, 0),
            figure(self.ffmpeg.as_ref().map(|f| f.speed), 2),
            figure(self.ffmpeg.as_ref().and_then(|f| f.cpu), 2),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn measured(wall_s: f64, cpu_s: f64) -> Measured {
        Measured { wall_s, cpu_s: Some(cpu_s), frames: 100, bytes: 1000, ..Measured::default() }
    }

    fn row(
        encoder: &str,
        preset: &str,
        hardware: bool,
        (fps, bytes, ssim): (f64, u64, f64),
    ) -> Row {
        let quality = Some(Quality { ssim, psnr: 40.0, vmaf: None });
        let (encoder, preset) = (encoder.into(), preset.into());
        let input_mb_s = fps * 0.9216;
        Row { encoder, preset, hardware, fps, bytes, quality, input_mb_s, ..Row::default() }
    }

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
        // A round in which all measurements were slow counts like any other.
        let rounds = Rounds {
            whole: vec![measured(1.0, 1.0), measured(4.0, 4.0), measured(1.0, 1.2)],
            alone: vec![measured(1.0, 0.8), measured(4.0, 3.2), measured(1.0, 0.8)],
            ffmpeg: vec![measured(2.0, 2.0), measured(8.0, 8.0), measured(2.0, 2.0)],
        };
        let mut row = Row::default();
        rounds.judge(&mut row, 1_000_000, 10.0, 1);
        assert_eq!((row.fps, row.cpu_ms, row.input_mb_s), (100.0, Some(12.0), 100.0));
        assert_eq!((row.cpu_against_alone, row.kbit_s), (Some(1.25), 0.8));
        let ffmpeg = row.ffmpeg.unwrap();
        assert_eq!((ffmpeg.speed, ffmpeg.cpu), (2.0, Some(0.5)));
    }

    #[test]
    fn the_front_has_the_rows_that_no_row_beats() {
        let mut rows = vec![
            row("a", "fast", false, (100.0, 50, 0.9)),
            row("a", "slow", false, (50.0, 40, 0.9)),
            // Slower, larger and worse than the first.
            row("b", "fast", false, (90.0, 60, 0.8)),
            row("b", "best", false, (10.0, 60, 0.99)),
            Row { quality: None, ..row("c", "", false, (1000.0, 1, 1.0)) },
        ];
        mark_front(&mut rows);
        let marks: Vec<_> = rows.iter().map(|row| row.front).collect();
        assert_eq!(marks, [true, true, false, true, false]);
    }

    #[test]
    fn the_answer_lists_measured_and_unmeasured_encoders() {
        let refused = vec![Absent {
            encoder: "nvenc".into(),
            hardware: true,
            reason: "no driver".into(),
            hint: "install it".into(),
        }];
        let software = row("x264", "veryfast", false, (100.0, 1, 0.9));
        let fast = row("openh264", "ultrafast", false, (434.0, 1, 0.9));
        let text = answer(&[software.clone(), fast.clone()], &refused, false);
        assert!(text.contains("No hardware encoder works on this machine (nvenc: no driver)"));
        assert!(
            text.contains("openh264 ultrafast) takes in 400 MB/s, 1.0× the 400 MB/s"),
            "{text}"
        );
        let gpu = row("nvenc", "p1", true, (700.0, 1, 0.9));
        let text = answer(&[software.clone(), fast, gpu.clone()], &[], false);
        assert!(text.contains("nvenc p1) is 7.0 times as fast as software (x264 veryfast)"));
        assert!(text.contains("what was asked for (5–10 times)"), "{text}");
        let text = answer(&[gpu], &[], false);
        assert!(text.starts_with("No software encoder was measured"), "{text}");
        let failed = Row { error: Some("broken".into()), ..software };
        assert_eq!(answer(&[failed], &[], false), "No hardware encoder was measured.");
        let text = answer(&[], &refused, true);
        assert_eq!(text, "No hardware encoder was measured.");
    }

    #[test]
    fn the_table_leaves_out_what_was_not_measured() {
        let results = Results {
            version: "1",
            machine: "a machine".into(),
            clip: "a clip".into(),
            size: [640, 480],
            frames: 10,
            cameras: 1,
            threads: 2,
            rounds: 1,
            rows: vec![
                Row { front: true, ..row("x264", "fast", false, (100.0, 50, 0.9)) },
                Row { encoder: "qsv".into(), error: Some("broken".into()), ..Row::default() },
            ],
            refused: vec![],
            answer: String::new(),
            notes: vec![],
        };
        let table = results.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "encoder  preset  fps  MB/s in  kbit/s    SSIM   PSNR");
        assert_eq!(lines[1], "x264*    fast    100       92       0  0.9000  40.00");
        assert!(lines[2].starts_with("qsv"), "{table}");
        assert_eq!(lines[3], "qsv : broken");
    }
}
