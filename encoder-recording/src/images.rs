//! A directory of pictures, one file per frame.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use encoder_core::FrameRate;

use super::filter::{TopicFilter, Window, check_topic, stream_name};
use super::named_times::{self, Unsure};
use super::names::natural;
use super::{
    BadMessage, Event, Limits, Packet, Payload, Source, SourceError, SourceOptions, StreamInfo,
    Warning, signature,
};

/// Extensions of pictures that are not decoded.
const NOT_DECODED: [&str; 16] = [
    "avif", "bmp", "dng", "exr", "gif", "heic", "heif", "jp2", "jxl", "pgm", "pnm", "ppm", "qoi",
    "tif", "tiff", "webp",
];

/// A directory of JPEG and PNG files. If it contains none itself, each directory below it that
/// contains some is a stream.
pub(crate) struct ImagesSource {
    cameras: Vec<Camera>,
    limits: Limits,
    wanted: RangeInclusive<i64>,
    /// Streams that were already returned.
    announced: usize,
    warnings: VecDeque<Warning>,
}

/// The pictures of one directory, in order.
struct Camera {
    topic: String,
    pictures: Vec<Picture>,
    /// `None` if the names state the times.
    rate: Option<FrameRate>,
    /// The time of the first picture, with a rate.
    origin_ns: i64,
    next: usize,
}

struct Picture {
    path: PathBuf,
    format: &'static str,
    /// The time that its name states, in nanoseconds since the epoch.
    time: Option<i64>,
}

/// Reason of the error for a directory without pictures.
pub(super) const NO_PICTURES: &str =
    "no pictures in this directory (*.jpg, *.jpeg, *.png), nor in those directly below";
/// Directories of file systems, which contain no recordings and perhaps cannot be read.
const SYSTEM_NAMES: [&str; 3] = ["lost+found", "System Volume Information", "$RECYCLE.BIN"];

/// The contents of a directory, as [`entries`] lists it.
#[derive(Default)]
struct Listing {
    pictures: Vec<Picture>,
    directories: Vec<PathBuf>,
    /// Number of pictures in a format that is not decoded, and the name of the first of them.
    not_decoded: u64,
    example: String,
}

impl Listing {
    /// The warning about pictures that are left out.
    fn warning(&self, topic: &str) -> Option<Warning> {
        let others = self.others()?;
        let text = format!("{topic}: {others} left out: only JPEG and PNG are decoded");
        Some(Warning { text, loss: true })
    }

    /// Describes the pictures that are not decoded.
    fn others(&self) -> Option<String> {
        let example = &self.example;
        match self.not_decoded {
            0 => None,
            1 => Some(format!("1 picture ({example})")),
            count => Some(format!("{count} pictures ({example} and others)")),
        }
    }
}

impl Camera {
    fn new(topic: String, pictures: Vec<Picture>) -> Self {
        Self { topic, pictures, rate: None, origin_ns: 0, next: 0 }
    }

    /// Puts the pictures in the order of the times in their names. Without such times, or if `rate`
    /// is given, they have a constant rate; returns the warning about what is a guess.
    fn lay_out(&mut self, rate: Option<FrameRate>) -> Option<String> {
        let names: Vec<_> = self.pictures.iter().map(Picture::name).collect();
        let found = named_times::times(&names);
        if let Ok(Some(times)) = &found {
            for (picture, time) in self.pictures.iter_mut().zip(times) {
                picture.time = Some(*time);
            }
            self.pictures.sort_by_key(|picture| picture.time);
            self.rate = rate;
            return None;
        }
        let assumed = FrameRate::default();
        self.rate = Some(rate.unwrap_or(assumed));
        let topic = &self.topic;
        match (found.err(), rate) {
            (Some(Unsure { reason, is_order_unsure: true }), Some(_)) => {
                Some(format!("{topic}: {reason}; the pictures are in the order of their names"))
            }
            (_, Some(_)) => None,
            (unsure, None) => {
                let reason = unsure.map_or("no name states a time".into(), |unsure| unsure.reason);
                Some(format!(
                    "{topic}: {reason}; the pictures are put at {assumed} frames per second, in \
                     the order of their names, unless a rate is given"
                ))
            }
        }
    }

    /// The time of picture `number`.
    fn time(&self, number: usize) -> Option<i64> {
        let picture = self.pictures.get(number)?;
        match self.rate {
            Some(rate) => {
                Some(self.origin_ns.saturating_add_unsigned(rate.nanoseconds(number as u64)))
            }
            None => picture.time,
        }
    }
}

impl ImagesSource {
    /// Opens a directory. Pictures are returned in natural order (`img2` before `img10`), at 30 fps
    /// or `options.rate`. If the name of every picture of a camera states a time, they are in the
    /// order of these times, and without `options.rate` the times are used. A camera without times
    /// begins with the first time of the others.
    ///
    /// # Errors
    /// [`SourceError`] when the directory cannot be read or has no pictures.
    pub(crate) fn open(
        path: &Path,
        options: &SourceOptions,
    ) -> Result<Box<dyn Source>, SourceError> {
        let top = list(path)?;
        let (mut cameras, mut warnings) = (Vec::new(), VecDeque::new());
        if top.pictures.is_empty() {
            let filter = TopicFilter::new(path, options)?;
            let mut unwanted = Vec::new();
            for directory in &top.directories {
                let topic = name(directory);
                let listing = match list(directory) {
                    Ok(listing) => listing,
                    Err(error) if filter.matches(&topic) => {
                        let text = format!("{error}; this directory is left out");
                        warnings.push_back(Warning { text, loss: true });
                        continue;
                    }
                    Err(_) => continue,
                };
                let is_wanted = filter.matches(&topic);
                warnings.extend(listing.warning(&topic).filter(|_| is_wanted));
                if listing.pictures.is_empty() {
                    continue;
                } else if is_wanted {
                    cameras.push(Camera::new(topic, listing.pictures));
                } else {
                    unwanted.push(topic);
                }
            }
            if cameras.is_empty() && !unwanted.is_empty() {
                return Err(SourceError::invalid(
                    path,
                    "no directory with pictures matches the topics that were asked for",
                    format!("those directly below are: {}", unwanted.join(", ")),
                ));
            }
            if cameras.is_empty() {
                return Err(no_pictures(path, &top, warnings.front()));
            }
        } else {
            let topic = name(path);
            check_topic(path, &topic, options)?;
            warnings.extend(top.warning(&topic));
            cameras.push(Camera::new(topic, top.pictures));
        }
        for camera in &mut cameras {
            let guess = camera.lay_out(options.rate);
            warnings.extend(guess.map(|text| Warning { text, loss: false }));
        }
        let timed = cameras.iter().filter(|camera| camera.rate.is_none());
        let first = timed.filter_map(|camera| camera.time(0)).min().unwrap_or(0);
        for camera in &mut cameras {
            camera.origin_ns = first;
        }
        Ok(Box::new(Self {
            cameras,
            limits: options.limits,
            wanted: Window::new(options).bounds(first),
            announced: 0,
            warnings,
        }))
    }
}

/// The error for a directory without pictures.
fn no_pictures(path: &Path, top: &Listing, warning: Option<&Warning>) -> SourceError {
    let mut reason = String::from(NO_PICTURES);
    if let Some(Warning { text, .. }) = warning {
        reason.push_str(&format!("; {text}"));
    }
    let hint = match top.others() {
        Some(others) => format!("it has {others}: convert them to PNG"),
        None => "name the directory that has them".into(),
    };
    SourceError::invalid(path, reason, hint)
}

impl Source for ImagesSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        if let Some(warning) = self.warnings.pop_front() {
            return Ok(Some(Event::Warning(warning)));
        }
        if let Some(camera) = self.cameras.get(self.announced) {
            let info = StreamInfo {
                id: self.announced,
                topic: camera.topic.clone(),
                schema: String::new(),
                messages: Some(camera.pictures.len() as u64),
                rate: camera.rate,
            };
            self.announced += 1;
            return Ok(Some(Event::Stream(info)));
        }
        loop {
            let times = self.cameras.iter().enumerate();
            let next = times.filter_map(|(id, c)| Some((c.time(c.next)?, id))).min();
            let Some((log_ns, stream)) = next else { return Ok(None) };
            let Some(camera) = self.cameras.get_mut(stream) else { return Ok(None) };
            let number = camera.next;
            camera.next += 1;
            let (true, Some(picture)) =
                (self.wanted.contains(&log_ns), camera.pictures.get(number))
            else {
                continue;
            };
            return Ok(Some(Event::Packet(Packet {
                message: None,
                stream,
                number: number as u64,
                log_ns,
                header_ns: camera.rate.is_none().then_some(log_ns),
                frame_id: None,
                payload: picture.read(&self.limits),
            })));
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// The format of a picture by the ending of its name.
pub(super) fn format(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" => Some("jpeg"),
        "png" => Some("png"),
        _ => None,
    }
}

impl Picture {
    fn new(path: PathBuf) -> Option<Self> {
        let format = format(&path)?;
        Some(Self { path, format, time: None })
    }

    fn name(&self) -> String {
        stream_name(&self.path)
    }

    fn read(&self, limits: &Limits) -> Result<Payload, BadMessage> {
        let bad = |what: String| BadMessage { reason: format!("{}: {what}", self.path.display()) };
        if let Some(text) = signature::dangling(&self.path) {
            return Err(bad(text));
        }
        let mut data = Vec::new();
        let limit = limits.message_bytes;
        File::open(&self.path)
            .and_then(|file| file.take(limit.saturating_add(1)).read_to_end(&mut data))
            .map_err(|error| bad(error.to_string()))?;
        if data.len() as u64 > limit {
            return Err(bad(format!(
                "larger than the limit of {limit} bytes; raise `Limits::message_bytes`"
            )));
        }
        if let Some(SourceError::Invalid { reason, hint, .. }) =
            signature::pointer(&self.path, &data)
        {
            return Err(bad(format!("{reason}; {hint}")));
        }
        Ok(Payload::Compressed { format: self.format.into(), data: data.into() })
    }
}

/// The name of a directory, without links.
pub(super) fn name(directory: &Path) -> String {
    // The path `.` has no file name; its full path has one.
    let full = directory.canonicalize().unwrap_or_else(|_| directory.into());
    full.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned()
}

/// Lists a directory.
fn list(directory: &Path) -> Result<Listing, SourceError> {
    let mut listing = Listing::default();
    for path in entries(directory)? {
        if path.is_dir() {
            listing.directories.push(path);
            continue;
        }
        // A link to nothing is a picture that is missing.
        if !path.is_file() && signature::dangling(&path).is_none() {
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if NOT_DECODED.contains(&extension.as_str()) {
            listing.not_decoded += 1;
            if listing.example.is_empty() {
                listing.example = stream_name(&path);
            }
        }
        listing.pictures.extend(Picture::new(path));
    }
    Ok(listing)
}

/// The paths in a directory, in natural order, without names that start with a dot and without
/// [`SYSTEM_NAMES`].
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let io = |error| SourceError::io(directory, error);
    let mut named = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !SYSTEM_NAMES.contains(&name.as_str()) {
            named.push((name, entry.path()));
        }
    }
    named.sort_by(|(a, _), (b, _)| natural(a, b));
    Ok(named.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests;
