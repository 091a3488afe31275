//! Conversion of a whole folder of recordings whose contents are known: every picture of every video
//! must be the right one, at its recorded time.

mod expected;
mod judge;
mod recorded;
mod video;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use expected::{Outcome, Recording, Topic};
use judge::Made;
use recorded::Reader;
use serde::Deserialize;

use crate::{
    process::{Result, output_within, target},
    program::encoder,
    setup::{self, Tools},
};

/// A conversion that takes longer counts as hanging.
const DEADLINE: Duration = Duration::from_secs(120);

/// Converts every recording of `dir` (those whose name contains `only`), checks the videos, and
/// writes a table to `out`. Returns whether all are correct.
///
/// # Errors
/// When the folder's `expected.json` cannot be read or the program cannot be built.
pub fn corpus(dir: &Path, out: &Path, only: Option<&str>) -> Result<bool> {
    let recordings = expected::read(dir)?;
    let (tools, encoder) = (setup::setup()?, encoder()?);
    let bench = Bench { tools, encoder, dir: dir.to_path_buf(), reader: Reader::new()? };
    let mut text = String::from(HEAD);
    let (mut right, mut all) = (0, 0);
    for recording in &recordings {
        if only.is_some_and(|part| !recording.file.contains(part)) {
            continue;
        }
        let row = bench.judge(recording);
        println!("{row}");
        text += &format!("{row}\n");
        all += 1;
        right += usize::from(row.faults.is_empty());
    }
    let closing = format!("{right} of {all} recordings as expected.");
    println!("{closing}");
    fs::write(out, format!("{text}\n{closing}\n"))
        .map_err(|e| format!("{}: {e}", out.display()))?;
    Ok(right == all)
}

const HEAD: &str = "\
| recording | expected | exit | videos: topic, encoder, frames (failed, repeated) | verdict |
|---|---|---|---|---|
";

/// One line of the table.
struct Row {
    file: String,
    expected: String,
    exit: String,
    videos: String,
    faults: Vec<String>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, expected, exit, videos, faults } = self;
        let verdict = if faults.is_empty() { "right".into() } else { faults.join("; ") };
        let cells = [file, expected, exit, videos, &verdict];
        let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
        write!(f, "| {} |", cells.join(" | "))
    }
}

/// The fields of the program's report that are checked.
#[derive(Default, Deserialize)]
struct Report {
    outputs: Vec<Output>,
    warnings: Vec<String>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    topic: String,
    file: Option<PathBuf>,
    encoder: Option<String>,
    frames_encoded: usize,
    frames_failed: usize,
    frames_repeated: usize,
    first_stamp_ns: Option<i64>,
    warnings: Vec<String>,
    error: Option<String>,
}

/// One run of the program.
struct Run {
    out: PathBuf,
    code: i32,
    report: Report,
    /// Files in the directory besides the report.
    files: usize,
}

struct Bench {
    tools: Tools,
    encoder: PathBuf,
    dir: PathBuf,
    reader: Reader,
}

impl Bench {
    fn judge(&self, recording: &Recording) -> Row {
        let frames: Vec<_> =
            recording.streams.iter().map(|topic| topic.usable_frames.to_string()).collect();
        let mut row = Row {
            file: recording.file.clone(),
            expected: format!("{} {}", recording.outcome.as_str(), frames.join("+")),
            exit: String::new(),
            videos: String::new(),
            faults: Vec::new(),
        };
        // A repetition in place of a broken frame hides whether the broken frame was counted
        // correctly, so a second run leaves broken frames out.
        let passes: &[bool] = match recording.outcome {
            Outcome::Error => &[false],
            _ if recording.streams.iter().any(Topic::has_bad_frames) => &[false, true],
            _ => &[false],
        };
        for &skip in passes {
            let run = match self.run(recording, skip) {
                Ok(run) => run,
                Err(error) => {
                    row.faults.push(error.to_string());
                    continue;
                }
            };
            if !skip {
                row.exit = run.code.to_string();
                row.videos = run.summary();
            }
            let faults = self.faults(recording, &run, skip);
            let of = if skip { "with broken frames left out: " } else { "" };
            row.faults.extend(faults.into_iter().map(|fault| format!("{of}{fault}")));
        }
        row
    }

    fn run(&self, recording: &Recording, skip: bool) -> Result<Run> {
        let out = target().join("corpus").join(recording.file.replace(['/', '\\', '.'], "_"));
        if out.exists() {
            fs::remove_dir_all(&out)?;
        }
        let input = self.dir.join(&recording.file);
        let mut command = Command::new(&self.encoder);
        command.args(["--quiet", "encode", "--output"]).arg(&out);
        if skip {
            command.args(["--on-bad-frame", "skip"]);
        }
        match raw_spec(recording) {
            Some(spec) => command.args(["--raw", &spec, "-"]).stdin(File::open(&input)?),
            None => command.arg(&input).stdin(Stdio::null()),
        };
        let run = output_within(DEADLINE, self.tools.announce(&mut command))?;
        let report = match fs::read(out.join("report.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => Report {
                error: Some(String::from_utf8_lossy(&run.stderr).trim().into()),
                ..Report::default()
            },
        };
        let names = fs::read_dir(&out).into_iter().flatten().flatten();
        let files = names.filter(|entry| entry.file_name() != "report.json").count();
        Ok(Run { out, code: run.status.code().unwrap_or(-1), report, files })
    }

    fn faults(&self, recording: &Recording, run: &Run, skip: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let outputs = &run.report.outputs;
        let warned = !run.report.warnings.is_empty()
            || outputs.iter().any(|output| !output.warnings.is_empty());
        faults.extend(judge::exit(recording.outcome, run.code, warned, run.files).err());
        if run.code != 0 && run.code != 3 && run.report.error.as_deref() == Some("") {
            faults.push("it failed without a word".into());
        }
        let belongs =
            |output: &Output, topic: &Topic| topic.topic == "-" || topic.topic == output.topic;
        for output in outputs {
            if !recording.streams.iter().any(|topic| belongs(output, topic)) {
                faults.push(format!("{}: no such topic was expected", output.topic));
            }
        }
        let recorded = match self.reader.times(&self.dir.join(&recording.file)) {
            Ok(recorded) => recorded,
            Err(error) => {
                faults.push(format!("its times cannot be read: {error}"));
                Default::default()
            }
        };
        for topic in &recording.streams {
            let made: Vec<_> =
                outputs.iter().filter(|o| belongs(o, topic) && o.file.is_some()).collect();
            let may_be_missing = topic.usable_frames == 0 || recording.outcome == Outcome::Policy;
            if made.is_empty() {
                if !may_be_missing {
                    faults.push(format!("{}: no video", topic.topic));
                }
                continue;
            }
            match self.decode(run, &made) {
                Ok(made) => {
                    let mut found = judge::topic(topic, &made, skip);
                    if let Some(recorded) = recorded.get(&topic.topic) {
                        let is_silent = run.code == 0 && !warned;
                        found.extend(judge::times(recorded, &made, is_silent).err());
                    }
                    let of_topic = |fault| format!("{}: {fault}", topic.topic);
                    faults.extend(found.into_iter().map(of_topic));
                }
                Err(error) => faults.push(format!("{}: {error}", topic.topic)),
            }
        }
        faults
    }

    fn decode(&self, run: &Run, outputs: &[&Output]) -> Result<Made> {
        let files = outputs.iter().filter_map(|output| output.file.as_ref());
        let videos = files
            .map(|file| video::decode(&self.tools.ffmpeg, &run.out.join(file)))
            .collect::<Result<_>>()?;
        Ok(Made {
            videos,
            starts_ns: outputs.iter().filter_map(|output| output.first_stamp_ns).collect(),
            frames_encoded: outputs.iter().map(|o| o.frames_encoded).sum(),
            frames_repeated: outputs.iter().map(|o| o.frames_repeated).sum(),
        })
    }
}

impl Run {
    /// The videos, or the reason why there are none.
    fn summary(&self) -> String {
        let mut parts: Vec<String> = self
            .report
            .outputs
            .iter()
            .map(|o| {
                let encoder = o.encoder.as_deref().unwrap_or("no encoder");
                let error = o.error.as_deref().map_or(String::new(), |e| format!(": {e}"));
                format!(
                    "{} {encoder} {} ({}, {}){error}",
                    o.topic, o.frames_encoded, o.frames_failed, o.frames_repeated
                )
            })
            .collect();
        // The last line is the clearest.
        let error = self.report.error.as_deref().and_then(|text| text.lines().last());
        parts.extend(error.map(|line| line.chars().take(200).collect()));
        parts.join("; ")
    }
}

/// The format of header-less files, in the folder `raw`, is set from their expected contents. Their
/// rate is in the name (`…_15fps.rgb24`), otherwise it is 30.
fn raw_spec(recording: &Recording) -> Option<String> {
    let name = recording.file.strip_prefix("raw/")?;
    let topic = recording.streams.first()?;
    let (format, size) = (topic.encodings.first()?, topic.sizes.first()?);
    let rate = name
        .split(['_', '.'])
        .find_map(|word| word.strip_suffix("fps")?.parse::<u32>().ok())
        .unwrap_or(30);
    Some(format!("{format}:{size}@{rate}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_files_are_described() {
        let recording = |file: &str| Recording {
            file: file.into(),
            outcome: Outcome::Ok,
            streams: vec![Topic {
                sizes: vec!["320x240".into()],
                encodings: vec!["rgb24".into()],
                ..Topic::default()
            }],
        };
        for (file, spec) in [
            ("raw/road_320x240_15fps.rgb24", Some("rgb24:320x240@15")),
            ("raw/road.rgb24", Some("rgb24:320x240@30")),
            ("ros2/road_15fps.mcap", None),
        ] {
            assert_eq!(raw_spec(&recording(file)).as_deref(), spec);
        }
    }
}
