//! The frames to encode: from a recording, or of a generated clip.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use encoder_core::{FrameBuffer, FrameLayout, FrameRate, PixelFormat, Resolution};
use encoder_pipeline::{
    picture::{self, PictureOptions},
    source::{
        self, Event, Packet, Payload, RawImage, Source, SourceError, SourceOptions, StreamInfo,
    },
};

use super::args::Bench;
use crate::settings::Refused;

/// The memory for frames if no count is given.
const BUDGET: usize = 512 << 20;
/// The number of frames if no count is given and they fit.
const USUAL: usize = 300;

/// Frames of one camera, all of one size.
pub struct Frames {
    /// A description for the report.
    pub name: String,
    /// The frames as recorded.
    pub payloads: Vec<Payload>,
    /// Size of the pictures in pixels.
    pub size: Resolution,
    /// Frames per second.
    pub rate: FrameRate,
    options: PictureOptions,
}

impl Frames {
    /// Loads the frames that the command line names.
    pub fn load(args: &Bench) -> Result<Self, Refused> {
        match &args.recording {
            Some(path) => Self::recorded(args, path),
            None => Ok(Self::made(args.size, args.frames.map(|n| n as usize))),
        }
    }

    fn recorded(args: &Bench, path: &Path) -> Result<Self, Refused> {
        let failed = |error: SourceError| Refused::failed(error);
        if source::is_pipe(path) {
            return Err(Refused::usage(format!(
                "{} is a pipe, which can be read once only, and each measurement reads it",
                path.display()
            ))
            .hint("write it to a file first"));
        }
        let ffmpeg = args.video.settings()?.ffmpeg.path;
        let options = SourceOptions { ffmpeg, ..args.source.options() };
        let mut source = match &args.raw {
            Some(spec) => source::open_raw(path, spec, &options).map_err(failed)?,
            None => source::open(path, &options).map_err(failed)?,
        };
        let mut options = args.source.picture();
        let mut found: Option<(StreamInfo, Resolution, usize)> = None;
        let (mut streams, mut payloads, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut stamps = Vec::new();
        let mut why = String::from("there is no camera topic in it");
        while let Some(event) = source.next_event().map_err(failed)? {
            let packet = match event {
                Event::Stream(info) => {
                    streams.push(info);
                    continue;
                }
                Event::Packet(packet) => packet,
                _ => continue,
            };
            let Ok(payload) = packet.payload else { continue };
            let info = streams.iter().find(|info| info.id == packet.stream);
            let info = info.ok_or_else(|| Refused::failed("a packet of no stream"))?;
            if found.is_none() {
                options = args.source.picture_of(&info.topic);
            }
            let size = match picture::size(&payload, &options) {
                Ok(size) => size,
                Err(error) => {
                    why = error.to_string();
                    continue;
                }
            };
            let layout = FrameLayout::new(PixelFormat::Yuv420p, size);
            let (first, wanted, limit) =
                found.get_or_insert_with(|| (info.clone(), size, limit(args, &layout, &payload)));
            if (first.id, *wanted) != (packet.stream, size) {
                continue;
            }
            // A broken frame would be repeated, which takes less time.
            if picture::decode(&payload, &options, &layout, &mut vec![0; layout.bytes()]).is_err() {
                continue;
            }
            bytes += weight(&payload);
            stamps.push(packet.log_ns);
            payloads.push(payload);
            if payloads.len() >= *limit || bytes > 4 * BUDGET {
                break;
            }
        }
        let Some((info, size, _)) = found.filter(|_| payloads.len() > 1) else {
            return Err(Refused::failed(format!(
                "{}: nothing to measure with: {why}; name another recording or --topic",
                path.display()
            )));
        };
        let rate = info.rate.or_else(|| rate_of(&stamps)).unwrap_or_default();
        let path = path.display().to_string();
        let name = if info.topic == path { path } else { format!("{path}, {}", info.topic) };
        Ok(Self { name, payloads, size, rate, options })
    }

    /// A camera that moves over a scene with fine and coarse structure, something that moves
    /// through it, and the noise of a sensor.
    fn made(size: Resolution, frames: Option<usize>) -> Self {
        let count = frames.unwrap_or_else(|| {
            USUAL.min(BUDGET / (size.width as usize * size.height as usize * 3)).max(30)
        });
        let scene = Scene::new(size);
        let payloads = (0..count).map(|n| scene.frame(n)).collect();
        let options = PictureOptions::default();
        let name = format!("a made clip of {size}");
        Self { name, payloads, size, rate: FrameRate::default(), options }
    }

    /// The layout of the frames for an encoder.
    pub fn layout(&self, format: PixelFormat) -> FrameLayout {
        FrameLayout::new(format, self.size)
    }

    /// All frames as an encoder takes them.
    pub fn converted(&self, format: PixelFormat) -> Result<Vec<FrameBuffer>, String> {
        let layout = self.layout(format);
        let convert = |payload: &Payload| {
            let mut frame = FrameBuffer::new(layout);
            picture::decode(payload, &self.options, &layout, frame.memory_mut())
                .map_err(|error| error.to_string())?;
            Ok(frame)
        };
        self.payloads.iter().map(convert).collect()
    }

    /// Bytes of one frame in RGB, the unit of raw input.
    pub fn raw_bytes(&self) -> u64 {
        u64::from(self.size.width) * u64::from(self.size.height) * 3
    }

    /// FFmpeg's arguments in front of `-i` for these frames.
    pub fn for_ffmpeg(&self) -> Option<Vec<String>> {
        let rate = self.rate.to_string();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match self.payloads.first()? {
            Payload::Compressed { data, .. } if data.starts_with(&[0xff, 0xd8]) => {
                Some(words(&format!("-f mjpeg -framerate {rate}")))
            }
            Payload::Raw(image) => {
                let bytes = image.data.len() as u64;
                // The ROS encoding, FFmpeg's name, and the bytes of two pixels.
                let spec = [
                    ("rgb8", "rgb24", 6),
                    ("bgr8", "bgr24", 6),
                    ("mono8", "gray", 2),
                    ("i420", "yuv420p", 3),
                ];
                let (_, format, _) = spec.into_iter().find(|(name, _, samples)| {
                    *name == image.encoding
                        && bytes == u64::from(image.width) * u64::from(image.height) * samples / 2
                })?;
                let size = self.size;
                Some(words(&format!("-f rawvideo -pix_fmt {format} -s {size} -framerate {rate}")))
            }
            _ => None,
        }
    }
}

/// The bytes of a payload, for another program.
pub fn bytes(payload: &Payload) -> &[u8] {
    match payload {
        Payload::Raw(image) => &image.data,
        Payload::Compressed { data, .. } | Payload::Video { data, .. } => data,
        // `picture::size` refuses payloads of other kinds before.
        _ => &[],
    }
}

/// The number of frames to load.
fn limit(args: &Bench, layout: &FrameLayout, payload: &Payload) -> usize {
    let most = weight(payload).max(layout.bytes());
    args.frames.map_or_else(|| USUAL.min(BUDGET / most).max(30), |n| n as usize)
}

fn weight(payload: &Payload) -> usize {
    bytes(payload).len()
}

fn rate_of(stamps: &[i64]) -> Option<FrameRate> {
    let (first, last) = (stamps.first()?, stamps.last()?);
    let seconds = (last - first) as f64 / 1e9;
    let rate = (stamps.len() - 1) as f64 / seconds;
    (seconds > 0.0).then(|| format!("{:.2}", rate).parse().ok())?
}

/// A scene larger than the picture.
struct Scene {
    size: Resolution,
    width: usize,
    height: usize,
    /// Brightness and two colours of each place.
    places: Vec<[u8; 3]>,
    noise: Vec<i8>,
}

impl Scene {
    /// How far the camera moves in each direction.
    const MARGIN: usize = 160;

    fn new(size: Resolution) -> Self {
        let (width, height) =
            (size.width as usize + Self::MARGIN, size.height as usize + Self::MARGIN);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        // Random values at the corners of grids of several widths, and mixtures in between.
        let grids: Vec<Grid> = [97, 41, 17, 7, 3]
            .into_iter()
            .map(|step| Grid::new(width, step, height, &mut random))
            .collect();
        let places = (0..width * height)
            .map(|at| {
                let (x, y) = (at % width, at / width);
                let mut value = [0.0; 3];
                for (grid, weight) in grids.iter().zip([0.38, 0.26, 0.18, 0.11, 0.07]) {
                    let sample = grid.at(x, y);
                    (0..3).for_each(|c| value[c] += weight * sample[c]);
                }
                // Less contrast in colour than in brightness, as in natural scenes.
                let grey = (value[0] + value[1] + value[2]) / 3.0;
                value
                    .map(|v| ((grey + (v - grey) * 0.45 - 0.5) * 2.1 + 0.5).clamp(0.02, 0.98))
                    .map(|v| (v * 255.0) as u8)
            })
            .collect();
        // The sum of four is nearly a normal distribution, here of a deviation of about 1.5.
        let noise = (0..1 << 16)
            .map(|_| ((0..4).map(|_| random.next() % 5).sum::<u64>() as i8 - 8) / 2)
            .collect();
        Self { size, width, height, places, noise }
    }

    fn frame(&self, n: usize) -> Payload {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let swing = |period: usize| {
            let phase = n % (2 * period);
            let along = if phase < period { phase } else { 2 * period - phase };
            along * Self::MARGIN / period
        };
        let (dx, dy) = (swing(80), swing(190));
        debug_assert!(dx + width <= self.width && dy + height <= self.height);
        let (cx, cy) = (n * 5 % width, height / 3 + n * 2 % (height / 3).max(1));
        let radius = height / 9;
        let mut rgb = Vec::with_capacity(width * height * 3);
        let mut at = n * 7919;
        for y in 0..height {
            let row = &self.places[(y + dy) * self.width + dx..][..width];
            for (x, place) in row.iter().enumerate() {
                let is_ball = x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < radius * radius;
                let colour = if is_ball { [200, 70, 40] } else { *place };
                at = at.wrapping_add(1);
                let noise = self.noise[at & 0xffff];
                rgb.extend(colour.map(|c| c.saturating_add_signed(noise)));
            }
            at = at.wrapping_add(y * 31);
        }
        Payload::Raw(RawImage {
            encoding: "rgb8".into(),
            width: self.size.width,
            height: self.size.height,
            step: self.size.width * 3,
            is_bigendian: false,
            data: Bytes::from(rgb),
        })
    }
}

/// Random values at the corners of squares.
struct Grid {
    step: usize,
    columns: usize,
    corners: Vec<[f32; 3]>,
}

impl Grid {
    fn new(width: usize, step: usize, height: usize, random: &mut Random) -> Self {
        let (columns, rows) = (width / step + 2, height / step + 2);
        let mut value = || (random.next() >> 40) as f32 / (1u64 << 24) as f32;
        let corners = (0..columns * rows).map(|_| [value(), value(), value()]).collect();
        Self { step, columns, corners }
    }

    fn at(&self, x: usize, y: usize) -> [f32; 3] {
        let (column, row) = (x / self.step, y / self.step);
        let part = |n: usize| (n % self.step) as f32 / self.step as f32;
        let (fx, fy) = (part(x), part(y));
        let corner = |c: usize, r: usize| self.corners[(row + r) * self.columns + column + c];
        let (a, b, c, d) = (corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1));
        std::array::from_fn(|n| {
            let (upper, lower) = (a[n] + (b[n] - a[n]) * fx, c[n] + (d[n] - c[n]) * fx);
            upper + (lower - upper) * fy
        })
    }
}

/// A random generator with the same values on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// The frames in memory as a recording with several cameras.
pub struct Memory {
    frames: Arc<Frames>,
    cameras: usize,
    at: usize,
}

impl Memory {
    pub fn new(frames: Arc<Frames>, cameras: usize) -> Self {
        Self { frames, cameras, at: 0 }
    }
}

impl Source for Memory {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        let (at, cameras) = (self.at, self.cameras);
        self.at += 1;
        if at < cameras {
            return Ok(Some(Event::Stream(StreamInfo {
                id: at,
                topic: format!("/camera{at}"),
                schema: String::new(),
                messages: Some(self.frames.payloads.len() as u64),
                rate: Some(self.frames.rate),
            })));
        }
        let (number, stream) = ((at - cameras) / cameras, (at - cameras) % cameras);
        let Some(payload) = self.frames.payloads.get(number) else { return Ok(None) };
        let log_ns = self.frames.rate.nanoseconds(number as u64) as i64;
        Ok(Some(Event::Packet(Packet {
            message: None,
            stream,
            number: number as u64,
            log_ns,
            header_ns: Some(log_ns),
            frame_id: None,
            payload: Ok(payload.clone()),
        })))
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_clip_is_the_same_everywhere_and_moves() {
        let size = Resolution::new(64, 48);
        let (a, b) = (Frames::made(size, Some(3)), Frames::made(size, Some(3)));
        assert_eq!(a.payloads, b.payloads);
        assert_ne!(a.payloads[0], a.payloads[1]);
        assert_eq!((a.raw_bytes(), bytes(&a.payloads[2]).len()), (64 * 48 * 3, 64 * 48 * 3));
        let planes = a.converted(PixelFormat::Yuv420p).unwrap();
        assert_eq!(planes.len(), 3);
        // Neither black nor white, nor all the same.
        let luma: Vec<u8> = planes[0].frame(0).planes()[0].rows().flatten().copied().collect();
        let mean = luma.iter().map(|v| u32::from(*v)).sum::<u32>() / luma.len() as u32;
        assert!((80..180).contains(&mean), "{mean}");
        assert!(luma.iter().max().unwrap() - luma.iter().min().unwrap() > 40);
    }

    #[test]
    fn a_recording_in_memory_has_every_frame_of_every_camera() {
        let frames = Arc::new(Frames::made(Resolution::new(32, 32), Some(4)));
        let mut source = Memory::new(frames, 3);
        let (mut streams, mut packets) = (0, Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Stream(info) => {
                    assert_eq!((info.id, info.messages), (streams, Some(4)));
                    streams += 1;
                }
                Event::Packet(packet) => packets.push((packet.number, packet.stream)),
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<_> = (0..4).flat_map(|n| (0..3).map(move |s| (n, s))).collect();
        assert_eq!(packets, expected);
    }

    #[test]
    fn the_rate_comes_from_the_stamps() {
        let stamps: Vec<i64> = (0..31).map(|n| n * 33_333_333).collect();
        assert_eq!(rate_of(&stamps).unwrap().as_f64(), 30.0);
        assert_eq!(rate_of(&[5, 5]), None);
        assert_eq!(rate_of(&[]), None);
    }
}
