//! A constant rate from recorded times: which frames are repeated, and which are left out.

use std::collections::BTreeMap;

use encoder_core::FrameRate;
pub use encoder_media::GridEnds;
use encoder_media::{Fit, Grid, ResampleError, StreamId, resample};
use serde::Serialize;

use crate::{
    error::RunError,
    picture::{self, PictureError, PictureOptions},
    publishers::{Publishers, bytes},
    source::{Event, Payload, Source},
    timeline::{self, Clock, FrameTimes, Stamps},
};

/// Which cameras have their frames at the same moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GridScope {
    /// All cameras of the recording: frame N of each is the same moment.
    #[default]
    Recording,
    /// Each camera for itself, from its first frame on.
    Camera,
}

impl GridScope {
    /// The name, as on the command line and in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recording => "recording",
            Self::Camera => "camera",
        }
    }
}

/// The grid of a constant rate, as `docs/report.md` describes it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GridReport {
    /// `recording` or `camera`.
    pub scope: &'static str,
    /// `pad` or `trim`; `None` if each camera has a grid of its own.
    pub ends: Option<&'static str>,
    /// Frames per second.
    pub rate: f64,
    /// The grids of the cameras.
    pub cameras: Vec<GridCamera>,
}

/// The grid of a camera.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct GridCamera {
    /// Its topic.
    pub topic: String,
    /// Its frame id, if the topic has several publishers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_id: Option<String>,
    /// The time of the first frame of the grid, in nanoseconds by the clock in use.
    pub first_ns: i64,
    /// Number of frames of the grid.
    pub frames: u64,
    /// Of these, frames that show the camera's first picture before its time.
    pub padded_before: u64,
    /// Of these, frames that show the camera's last picture after its time.
    pub padded_after: u64,
    /// Frames of the recording that were left out because they lie before or after the grid.
    pub trimmed: u64,
}

/// What a constant rate is made of.
pub(crate) struct RateOptions<'a> {
    pub rate: FrameRate,
    pub clock: Clock,
    pub scope: GridScope,
    pub ends: GridEnds,
    pub picture: &'a PictureOptions,
}

/// How the messages of a camera make a constant rate.
#[derive(Default)]
pub(crate) struct CameraPlan {
    /// How often each message is repeated.
    pub copies: Vec<u32>,
    /// Times that were estimated.
    pub guessed: u64,
    pub warnings: Vec<String>,
}

/// How a recording makes a constant rate.
#[derive(Default)]
pub(crate) struct Plan {
    /// By stream and publisher.
    cameras: BTreeMap<(StreamId, usize), CameraPlan>,
    pub grid: Option<GridReport>,
}

/// A topic in the first pass.
struct Topic {
    name: String,
    publishers: Publishers<FrameTimes>,
    /// By publisher.
    times: Vec<Vec<FrameTimes>>,
    /// Its pictures can be encoded, as far as its first message shows.
    is_convertible: Option<bool>,
}

impl Topic {
    /// Takes over the times of the frames whose publisher is known.
    fn sort(&mut self) {
        while let Some((publisher, times)) = self.publishers.next() {
            if self.times.len() <= publisher {
                self.times.resize_with(publisher + 1, Vec::new);
            }
            self.times[publisher].push(times);
        }
    }
}

/// The times of a camera in the first pass.
struct Camera {
    key: (StreamId, usize),
    topic: String,
    frame_id: Option<String>,
    times: Vec<FrameTimes>,
    is_convertible: bool,
}

impl Plan {
    /// Reads the times of a recording. An error of the source is not reported: the second pass
    /// encounters it again.
    pub fn read(
        mut source: Box<dyn Source>,
        options: &RateOptions<'_>,
        is_stopped: impl Fn() -> bool,
    ) -> Result<Self, RunError> {
        let mut topics: Vec<Topic> = Vec::new();
        while !is_stopped()
            && let Ok(Some(event)) = source.next_event()
        {
            match event {
                Event::Stream(info) => topics.push(Topic {
                    name: info.topic,
                    publishers: Publishers::default(),
                    times: Vec::new(),
                    is_convertible: None,
                }),
                Event::Packet(packet) => {
                    let Some(topic) = topics.get_mut(packet.stream) else { continue };
                    topic
                        .is_convertible
                        .get_or_insert_with(|| is_convertible(&packet.payload, options.picture));
                    let (header_ns, log_ns) = (packet.header_ns, packet.log_ns);
                    let bytes = bytes(&packet);
                    let times = FrameTimes { header_ns, log_ns };
                    topic.publishers.push(packet.frame_id, bytes, times);
                    topic.sort();
                }
                _ => {}
            }
        }
        let mut cameras = Vec::new();
        for (stream, mut topic) in topics.into_iter().enumerate() {
            topic.publishers.end();
            topic.sort();
            for (publisher, times) in topic.times.into_iter().enumerate() {
                cameras.push(Camera {
                    key: (stream, publisher),
                    topic: topic.name.clone(),
                    frame_id: topic.publishers.frame_id(publisher).map(str::to_owned),
                    times,
                    is_convertible: topic.is_convertible.unwrap_or(true),
                });
            }
        }
        Self::of(cameras, options)
    }

    fn of(cameras: Vec<Camera>, options: &RateOptions<'_>) -> Result<Self, RunError> {
        let rate = options.rate;
        let judged = |camera: &Camera| timeline::stamps(options.clock, rate, &camera.times);
        let mut stamps: Vec<Stamps> = cameras.iter().map(judged).collect();
        let is_shared = options.scope == GridScope::Recording;
        let mut shared = None;
        if is_shared {
            align(&cameras, &mut stamps);
            let all = cameras.iter().zip(&stamps).filter(|(camera, _)| camera.is_convertible);
            let all: Vec<_> = all.map(|(_, stamps)| stamps.times.as_slice()).collect();
            shared = Grid::common(&all, rate, options.ends);
        }
        let mut plan = Self::default();
        let mut report = Vec::new();
        for (camera, Stamps { times, mut warnings, guessed }) in cameras.into_iter().zip(stamps) {
            let Camera { key, topic, frame_id, is_convertible, .. } = camera;
            let grid = if is_shared { shared } else { Grid::of(&times, rate) };
            let error = |error| RunError::Resample { topic: topic.clone(), error };
            if times.is_empty() || !is_convertible {
                continue;
            }
            let grid = grid.ok_or_else(|| error(ResampleError::Apart))?;
            let copies = resample(&times, &grid).map_err(error)?;
            let fit = Fit::of(&times, &copies, &grid);
            warnings.extend(describe(&fit, rate));
            report.push(GridCamera {
                topic,
                frame_id,
                first_ns: grid.origin_ns,
                frames: grid.frames,
                padded_before: fit.padded_before,
                padded_after: fit.padded_after,
                trimmed: fit.trimmed,
            });
            plan.cameras.insert(key, CameraPlan { copies, guessed, warnings });
        }
        plan.grid = Some(GridReport {
            scope: options.scope.as_str(),
            ends: is_shared.then_some(options.ends.as_str()),
            rate: rate.as_f64(),
            cameras: report,
        });
        Ok(plan)
    }

    /// Removes the plan of a camera.
    pub fn take(&mut self, stream: StreamId, publisher: usize) -> Option<CameraPlan> {
        self.cameras.remove(&(stream, publisher))
    }
}

/// Whether a topic becomes a video with a constant rate.
fn is_convertible<E>(payload: &Result<Payload, E>, options: &PictureOptions) -> bool {
    match payload {
        Err(_) => true,
        Ok(Payload::Video { .. }) => false,
        Ok(payload) => {
            !matches!(picture::size(payload, options), Err(PictureError::Unsupported { .. }))
        }
    }
}

/// Cameras whose stamps count from different moments have a common grid by their log times: if the
/// stamps of two cameras have no time in common, and their log times have.
fn align(cameras: &[Camera], stamps: &mut [Stamps]) {
    let ends = |times: &[i64]| Some((*times.first()?, *times.last()?));
    let has_common = |ranges: &[(i64, i64)]| {
        let begin = ranges.iter().map(|range| range.0).max();
        begin <= ranges.iter().map(|range| range.1).min()
    };
    let own: Vec<_> = stamps.iter().filter_map(|s| ends(&s.times)).collect();
    let logs: Vec<Vec<i64>> =
        cameras.iter().map(|camera| camera.times.iter().map(|t| t.log_ns).collect()).collect();
    let by_log: Vec<_> = logs.iter().filter_map(|times| ends(times)).collect();
    if has_common(&own) || !has_common(&by_log) {
        return;
    }
    for (stamps, logs) in stamps.iter_mut().zip(&logs) {
        let mut offsets: Vec<_> =
            logs.iter().zip(&stamps.times).map(|(log, stamp)| log.saturating_sub(*stamp)).collect();
        offsets.sort_unstable();
        let Some(&offset) = offsets.get(offsets.len() / 2) else { continue };
        stamps.times.iter_mut().for_each(|time| *time = time.saturating_add(offset));
        stamps.warnings.push(format!(
            "the stamps of the cameras have no time in common: for the common grid they were moved \
             to the log times, here by {:.3} s",
            offset as f64 / 1e9
        ));
    }
}

/// Warns if much of a shared grid lies outside of a camera.
fn describe(fit: &Fit, rate: FrameRate) -> Vec<String> {
    let seconds = |frames: u64| rate.nanoseconds(frames) as f64 / 1e9;
    let mut warnings = Vec::new();
    for (frames, which, when) in
        [(fit.padded_before, "first", "begins"), (fit.padded_after, "last", "ends")]
    {
        if frames > FEW {
            warnings.push(format!(
                "the common grid {when} {:.3} s {} this camera: its {which} picture is repeated \
                 for {frames} frames",
                seconds(frames),
                if which == "first" { "before" } else { "after" },
            ));
        }
    }
    if fit.trimmed > FEW {
        warnings.push(format!(
            "{} frames are left out because another camera has none at their time",
            fit.trimmed
        ));
    }
    warnings
}

/// So many frames at the ends of a shared grid are usual, since cameras do not start at once.
const FEW: u64 = 2;
