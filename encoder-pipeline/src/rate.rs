//! A constant rate from recorded times: which frames are repeated, and which are left out.

use encoder_core::FrameRate;
pub use encoder_media::GridEnds;
use encoder_media::{Fit, Grid, ResampleError, StreamId, resample};
use serde::Serialize;

use crate::{
    error::RunError,
    picture::{self, PictureError, PictureOptions},
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
    /// By stream.
    cameras: Vec<Option<CameraPlan>>,
    pub grid: Option<GridReport>,
}

/// The times of a camera in the first pass.
struct Camera {
    topic: String,
    times: Vec<FrameTimes>,
    /// Its pictures can be encoded, as far as its first messages show.
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
        let mut cameras: Vec<Camera> = Vec::new();
        while !is_stopped()
            && let Ok(Some(event)) = source.next_event()
        {
            match event {
                Event::Stream(info) => {
                    let (topic, times) = (info.topic, Vec::new());
                    cameras.push(Camera { topic, times, is_convertible: true });
                }
                Event::Packet(packet) => {
                    let Some(camera) = cameras.get_mut(packet.stream) else { continue };
                    if camera.times.is_empty() {
                        camera.is_convertible = is_convertible(&packet.payload, options.picture);
                    }
                    let header_ns = packet.header_ns;
                    camera.times.push(FrameTimes { header_ns, log_ns: packet.log_ns });
                }
                _ => {}
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
            let topic = camera.topic;
            let grid = if is_shared { shared } else { Grid::of(&times, rate) };
            let error = |error| RunError::Resample { topic: topic.clone(), error };
            if times.is_empty() || !camera.is_convertible {
                plan.cameras.push(None);
                continue;
            }
            let grid = grid.ok_or_else(|| error(ResampleError::Apart))?;
            let copies = resample(&times, &grid).map_err(error)?;
            let fit = Fit::of(&times, &copies, &grid);
            warnings.extend(describe(&fit, rate));
            report.push(GridCamera {
                topic,
                first_ns: grid.origin_ns,
                frames: grid.frames,
                padded_before: fit.padded_before,
                padded_after: fit.padded_after,
                trimmed: fit.trimmed,
            });
            plan.cameras.push(Some(CameraPlan { copies, guessed, warnings }));
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
    pub fn take(&mut self, stream: StreamId) -> Option<CameraPlan> {
        self.cameras.get_mut(stream).and_then(Option::take)
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
