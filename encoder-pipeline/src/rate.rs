//! A constant rate from recorded times: which frames are repeated, and which are left out.

use std::collections::BTreeMap;

use encoder_core::FrameRate;
pub use encoder_media::GridEnds;
use encoder_media::{Fit, Grid, ResampleError, StreamId, check_distances, resample};
use serde::{Deserialize, Serialize};

use crate::{
    error::RunError,
    picture::{self, PictureError, PictureOptions},
    publishers::{Publishers, bytes},
    source::{Event, Payload, Source},
    timeline::{self, Clock, FrameTimes, Stamps},
};

/// Which cameras have their frames at the same moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GridScope {
    /// All cameras of the recording: frame N of each is the same moment.
    #[default]
    Recording,
    /// Each camera for itself, from its first frame on.
    Camera,
}

encoder_core::names! {
    GridScope, "grid scope":
    Recording = "recording",
    Camera = "camera",
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
    /// How the pictures of a topic are shown.
    pub picture: &'a dyn Fn(&str) -> PictureOptions,
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
    /// By stream and publisher: the plan of a camera, or why its times do not allow one.
    cameras: BTreeMap<(StreamId, usize), Result<CameraPlan, ResampleError>>,
    pub grid: Option<GridReport>,
}

/// A topic in the first pass.
struct Topic {
    name: String,
    picture: PictureOptions,
    clock: Clock,
    publishers: Publishers<Message>,
    /// By publisher.
    messages: Vec<Messages>,
}

/// A message in the first pass.
struct Message {
    times: FrameTimes,
    /// Whether its picture can be encoded; `None` if it has none.
    is_convertible: Option<bool>,
}

/// The messages of a camera in the first pass.
#[derive(Default)]
struct Messages {
    times: Vec<FrameTimes>,
    /// As that of the first message with a picture, which decides about the camera.
    is_convertible: Option<bool>,
}

impl Topic {
    /// Takes over the messages whose publisher is known.
    fn sort(&mut self) {
        while let Some((publisher, message)) = self.publishers.next() {
            if self.messages.len() <= publisher {
                self.messages.resize_with(publisher + 1, Messages::default);
            }
            let messages = &mut self.messages[publisher];
            messages.times.push(message.times);
            messages.is_convertible = messages.is_convertible.or(message.is_convertible);
        }
    }
}

/// A camera in the first pass whose pictures can be encoded. It has at least one message.
struct Camera {
    key: (StreamId, usize),
    topic: String,
    frame_id: Option<String>,
    stamps: Stamps,
    /// The median of the log times relative to the stamps, in nanoseconds.
    delay: i64,
    /// By how much most of these delays vary, in nanoseconds: from the tenth to the ninetieth
    /// percentile.
    delay_spread: u64,
}

impl Camera {
    fn new(key: (StreamId, usize), topic: &Topic, times: &[FrameTimes], rate: FrameRate) -> Self {
        let stamps = timeline::stamps(topic.clock, rate, times);
        let mut delays: Vec<_> = times
            .iter()
            .zip(&stamps.times)
            .map(|(times, stamp)| times.log_ns.saturating_sub(*stamp))
            .collect();
        delays.sort_unstable();
        let delay = |tenths| delays.get(delays.len() * tenths / 10).copied().unwrap_or_default();
        Self {
            key,
            topic: topic.name.clone(),
            frame_id: topic.publishers.frame_id(key.1).map(str::to_owned),
            stamps,
            delay: delay(5),
            delay_spread: delay(9).abs_diff(delay(1)),
        }
    }

    /// Whether it has one picture, which is shown on the whole common grid.
    fn is_single(&self) -> bool {
        self.stamps.times.len() == 1
    }

    /// Whether all frames lie before a grid, or after it.
    fn is_outside(&self, grid: &Grid) -> bool {
        let at = |time: Option<&i64>| time.copied().unwrap_or_default();
        let (first, last) = (at(self.stamps.times.first()), at(self.stamps.times.last()));
        let length = grid.rate.nanoseconds(grid.frames.saturating_sub(1));
        last < grid.origin_ns || first > grid.origin_ns.saturating_add_unsigned(length)
    }

    /// Checks that a constant rate can fill the gaps between its frames.
    fn check(&self, rate: FrameRate) -> Result<(), ResampleError> {
        let grid = Grid::of(&self.stamps.times, rate);
        grid.map_or(Ok(()), |grid| resample(&self.stamps.times, &grid).map(drop))
    }
}

impl Plan {
    /// Reads the times of a recording. An error of the source is not reported: the second pass
    /// encounters it again.
    ///
    /// # Errors
    /// [`RunError::Resample`] if the times of no camera allow a constant rate.
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
                    picture: (options.picture)(&info.topic),
                    name: info.topic,
                    // A source with a rate of its own has no stamps.
                    clock: if info.rate.is_some() { Clock::Log } else { options.clock },
                    publishers: Publishers::default(),
                    messages: Vec::new(),
                }),
                Event::Packet(packet) => {
                    let Some(topic) = topics.get_mut(packet.stream) else { continue };
                    let (header_ns, log_ns) = (packet.header_ns, packet.log_ns);
                    let bytes = bytes(&packet);
                    let message = Message {
                        times: FrameTimes { header_ns, log_ns },
                        is_convertible: is_convertible(&packet.payload, &topic.picture),
                    };
                    topic.publishers.push(packet.number, packet.frame_id, bytes, message);
                    topic.sort();
                }
                _ => {}
            }
        }
        let mut cameras = Vec::new();
        for (stream, topic) in topics.iter_mut().enumerate() {
            topic.publishers.end();
            topic.sort();
            for (publisher, Messages { times, is_convertible }) in topic.messages.iter().enumerate()
            {
                if *is_convertible == Some(true) {
                    cameras.push(Camera::new((stream, publisher), topic, times, options.rate));
                }
            }
        }
        Self::of(cameras, options)
    }

    /// A camera that cannot have the constant rate does not stop the others.
    fn of(mut cameras: Vec<Camera>, options: &RateOptions<'_>) -> Result<Self, RunError> {
        let rate = options.rate;
        let mut refused = Vec::new();
        let mut keep = |camera: &Camera, checked: Result<(), ResampleError>| {
            let error = checked.err();
            refused.extend(error.clone().map(|error| (camera.key, camera.topic.clone(), error)));
            error.is_none()
        };
        cameras.retain(|camera| keep(camera, camera.check(rate)));
        let is_shared = options.scope == GridScope::Recording;
        let mut shared = None;
        if is_shared {
            align(&mut cameras);
            let mut checked = check_distances(&times(&cameras)).into_iter();
            cameras.retain(|camera| keep(camera, checked.next().unwrap_or(Ok(()))));
            shared = Grid::common(&times(&cameras), rate, options.ends);
        }
        let mut plan = Self::default();
        let mut report = Vec::new();
        for camera in cameras {
            let grid = if is_shared { shared } else { Grid::of(&camera.stamps.times, rate) };
            let copies = |grid| Ok((grid, resample(&camera.stamps.times, &grid)?));
            let (grid, copies) = match grid.ok_or(ResampleError::Apart).and_then(copies) {
                Ok(planned) => planned,
                Err(error) => {
                    keep(&camera, Err(error));
                    continue;
                }
            };
            let (is_single, is_outside) = (camera.is_single(), camera.is_outside(&grid));
            let Camera { key, topic, frame_id, stamps, .. } = camera;
            let Stamps { times, mut warnings, guessed } = stamps;
            let fit = Fit::of(&times, &copies, &grid);
            let frames = grid.frames;
            match (is_single, is_outside) {
                (true, _) if frames <= FEW => {}
                (true, _) => warnings.push(format!(
                    "this camera has a single picture: it is shown on the whole common grid, for \
                     {frames} frames"
                )),
                (false, true) => warnings.push(format!(
                    "no frame of this camera lies within the common grid: its nearest picture is \
                     repeated for {frames} frames"
                )),
                (false, false) => warnings.extend(describe(&fit, rate)),
            }
            report.push(GridCamera {
                topic,
                frame_id,
                first_ns: grid.origin_ns,
                frames: grid.frames,
                padded_before: fit.padded_before,
                padded_after: fit.padded_after,
                trimmed: fit.trimmed,
            });
            plan.cameras.insert(key, Ok(CameraPlan { copies, guessed, warnings }));
        }
        if report.is_empty() && !refused.is_empty() {
            let (_, topic, error) = refused.swap_remove(0);
            return Err(RunError::Resample { topic, error });
        }
        plan.cameras.extend(refused.into_iter().map(|(key, _, error)| (key, Err(error))));
        plan.grid = Some(GridReport {
            scope: options.scope.as_str(),
            ends: is_shared.then_some(options.ends.as_str()),
            rate: rate.as_f64(),
            cameras: report,
        });
        Ok(plan)
    }

    /// Removes the plan of a camera, or why it has none. `None` if the first pass did not encounter
    /// a picture of it that can be encoded.
    pub fn take(
        &mut self,
        stream: StreamId,
        publisher: usize,
    ) -> Option<Result<CameraPlan, ResampleError>> {
        self.cameras.remove(&(stream, publisher))
    }
}

fn times(cameras: &[Camera]) -> Vec<&[i64]> {
    cameras.iter().map(|camera| camera.stamps.times.as_slice()).collect()
}

/// Whether a camera becomes a video with a constant rate, if this is its first picture. `None` if
/// the message has no picture.
fn is_convertible<E>(payload: &Result<Payload, E>, options: &PictureOptions) -> Option<bool> {
    match payload {
        Err(_) => None,
        Ok(Payload::Video { .. }) => Some(false),
        Ok(payload) => match picture::size(payload, options) {
            Ok(_) => Some(true),
            Err(PictureError::Unsupported { .. }) => Some(false),
            Err(_) => None,
        },
    }
}

/// The latencies of the cameras of one recording differ by less, in nanoseconds.
const LATENCY_NS: u64 = 1_000_000_000;

/// Puts all cameras on one clock. The clock of a camera is another one if the delay of its log times
/// differs from that of the camera with the most frames by more than a latency, and by more than the
/// delays vary. Its stamps are moved by the difference. A camera with a single picture is moved
/// without a warning, since the picture is shown at all times.
fn align(cameras: &mut [Camera]) {
    let most = cameras.iter().map(|camera| camera.stamps.times.len()).max();
    let has_most = |camera: &&Camera| Some(camera.stamps.times.len()) == most;
    let Some(main) = cameras.iter().find(has_most).filter(|main| !main.is_single()) else {
        return;
    };
    let (topic, delay, spread) = (main.topic.clone(), main.delay, main.delay_spread);
    for camera in cameras {
        let offset = camera.delay.saturating_sub(delay);
        let usual = LATENCY_NS.saturating_add(spread).saturating_add(camera.delay_spread);
        if offset.unsigned_abs() <= usual {
            continue;
        }
        let is_single = camera.is_single();
        let times = &mut camera.stamps.times;
        times.iter_mut().for_each(|time| *time = time.saturating_add(offset));
        if !is_single {
            camera.stamps.warnings.push(format!(
                "the log times show that the clock of this camera differs from that of {topic}: \
                 for the common grid its stamps were moved by {:.3} s",
                offset as f64 / 1e9
            ));
        }
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
