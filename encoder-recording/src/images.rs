//! A directory of pictures, one file per frame.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use encoder_core::FrameRate;

use super::filter::{TopicFilter, Window, check_topic, stream_name};
use super::names::{self, NamedTime, TimeForm, natural};
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
    /// `None` if the names state the times.
    rate: Option<FrameRate>,
    wanted: RangeInclusive<i64>,
    /// Streams that were already returned.
    announced: usize,
    warnings: VecDeque<Warning>,
}

/// The pictures of one directory, in order.
struct Camera {
    topic: String,
    pictures: Vec<Picture>,
    next: usize,
}

struct Picture {
    path: PathBuf,
    format: &'static str,
    /// The time that its name states.
    time: Option<NamedTime>,
}

/// The contents of a directory, in natural order and without names that start with a dot.
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
    /// The time of picture `number`.
    fn time(&self, number: usize, rate: Option<FrameRate>) -> Option<i64> {
        let picture = self.pictures.get(number)?;
        match rate {
            Some(rate) => i64::try_from(rate.nanoseconds(number as u64)).ok(),
            None => picture.time.map(|time| time.ns),
        }
    }
}

impl ImagesSource {
    /// Opens a directory. Pictures are returned in natural order (`img2` before `img10`), at 30 fps
    /// or `options.rate`. If the name of every picture states a time, they are in the order of these
    /// times, and without `options.rate` the times are used.
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
                    cameras.push(Camera { topic, pictures: listing.pictures, next: 0 });
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
            cameras.push(Camera { topic, pictures: top.pictures, next: 0 });
        }
        let mut is_timed = true;
        for camera in &mut cameras {
            let Err(reason) = sort_by_time(&mut camera.pictures) else { continue };
            is_timed = false;
            if let (Some(reason), None) = (reason, options.rate) {
                let (topic, rate) = (&camera.topic, FrameRate::default());
                let text = format!(
                    "{topic}: {reason}; the pictures are put at {rate} frames per second, in the \
                     order of their names, unless a rate is given"
                );
                warnings.push_back(Warning { text, loss: false });
            }
        }
        let rate = options.rate.or((!is_timed).then(FrameRate::default));
        let first = cameras.iter().filter_map(|c| c.time(0, rate)).min().unwrap_or(0);
        Ok(Box::new(Self {
            cameras,
            limits: options.limits,
            rate,
            wanted: Window::new(options).bounds(first),
            announced: 0,
            warnings,
        }))
    }
}

/// The error for a directory without pictures.
fn no_pictures(path: &Path, top: &Listing, warning: Option<&Warning>) -> SourceError {
    let mut reason = String::from(
        "no pictures in this directory (*.jpg, *.jpeg, *.png), nor in those directly below",
    );
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
                rate: self.rate,
            };
            self.announced += 1;
            return Ok(Some(Event::Stream(info)));
        }
        loop {
            let times = self.cameras.iter().enumerate();
            let next = times.filter_map(|(id, c)| Some((c.time(c.next, self.rate)?, id))).min();
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
                header_ns: self.rate.is_none().then_some(log_ns),
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
        let time = names::time(path.file_stem()?.to_str().unwrap_or_default());
        Some(Self { path, format, time })
    }

    fn name(&self) -> String {
        stream_name(&self.path)
    }

    /// What stands in its name before the first digit.
    fn prefix(&self) -> &str {
        names::prefix(self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default())
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
                "larger than the limit of {limit} bytes; raise --max-message-bytes"
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

/// Sorts pictures by the times in their names. `Ok` if the time of each picture is known; otherwise
/// the order is not changed, and `Err` describes why some of the times cannot be used, if some names
/// have one.
fn sort_by_time(pictures: &mut [Picture]) -> Result<(), Option<String>> {
    let timed = pictures.iter().filter(|picture| picture.time.is_some()).count();
    if timed == 0 {
        return Err(None);
    }
    let names = if timed == 1 { "name states a time" } else { "names state times" };
    let of = format!("{timed} of {} {names}", pictures.len());
    if let Some(other) = pictures.iter().find(|picture| picture.time.is_none()) {
        return Err(Some(format!("{of}, but not {}", other.name())));
    }
    // The fraction of whole seconds may be left out.
    let seconds = pictures.iter().any(|p| p.time.is_some_and(|t| t.form == TimeForm::Seconds));
    let form = |time: NamedTime| match time.form {
        TimeForm::Digits(10) if seconds => TimeForm::Seconds,
        form => form,
    };
    let is_like =
        |a: &Picture, b: &Picture| (a.time.map(form), a.prefix()) == (b.time.map(form), b.prefix());
    if let [first, rest @ ..] = &*pictures
        && let Some(other) = rest.iter().find(|picture| !is_like(picture, first))
    {
        let (first, other) = (first.name(), other.name());
        return Err(Some(format!("{of}, but in different forms: {first} and {other}")));
    }
    let mut times: Vec<_> = pictures.iter().filter_map(|picture| picture.time?.ns.into()).collect();
    times.sort_unstable();
    if times.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Some(format!("{of}, but some of them the same")));
    }
    pictures.sort_by_key(|picture| picture.time.map(|time| time.ns));
    Ok(())
}

fn name(directory: &Path) -> String {
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

/// The paths in a directory, in natural order and without names that start with a dot.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let io = |error| SourceError::io(directory, error);
    let mut named = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            named.push((name, entry.path()));
        }
    }
    named.sort_by(|(a, _), (b, _)| natural(a, b));
    Ok(named.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Moment;

    fn directory(files: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        directory
    }

    /// Rates of the streams, and the packets: stream, number, time, stamp, name of the file.
    type Read = (Vec<(String, Option<FrameRate>)>, Vec<(usize, u64, i64, Option<i64>, String)>);

    fn read(path: &Path, options: &SourceOptions) -> Read {
        let mut source = ImagesSource::open(path, options).unwrap();
        let (mut streams, mut packets) = (Vec::new(), Vec::new());
        while let Some(event) = source.next_event().unwrap() {
            match event {
                Event::Stream(info) => streams.push((info.topic, info.rate)),
                Event::Packet(p) => {
                    let Ok(Payload::Compressed { data, format }) = p.payload else { panic!() };
                    let name = String::from_utf8(data.to_vec()).unwrap();
                    assert_eq!(format == "png", name.to_lowercase().ends_with("png"));
                    packets.push((p.stream, p.number, p.log_ns, p.header_ns, name));
                }
                other => panic!("{other:?}"),
            }
        }
        (streams, packets)
    }

    #[test]
    fn pictures_that_are_not_decoded_are_a_loss() {
        for (files, count) in [
            (&["1.jpg", "2.txt", "3.csv"][..], None),
            (&["1.jpg", "2.webp", "3.jfif"], Some("1 picture (2.webp)")),
            (&["1.JPG", "2.BMP", "3.tiff"], Some("2 pictures (2.BMP and others)")),
            (&["left/1.jpg", "left/2.webp"], Some("left: 1 picture (2.webp)")),
            (&["left/1.jpg", "right/1.gif"], Some("right: 1 picture (1.gif)")),
        ] {
            let directory = directory(files);
            let options = SourceOptions::default();
            let mut source = ImagesSource::open(directory.path(), &options).unwrap();
            let event = source.next_event().unwrap();
            match (count, event) {
                (None, Some(Event::Stream(_))) => {}
                (Some(count), Some(Event::Warning(Warning { text, loss: true }))) => {
                    assert!(text.contains(count), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
        for (files, hint) in [
            (&["1.bmp", "2.bmp"][..], "2 pictures (1.bmp and others)"),
            (&["a.txt"], "name the directory"),
        ] {
            let directory = directory(files);
            let error = ImagesSource::open(directory.path(), &SourceOptions::default());
            let error = error.err().unwrap().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn a_single_directory_is_a_topic_too() {
        let directory = directory(&["1.jpg"]);
        let name = name(directory.path());
        for (topic, opens) in [(name.as_str(), true), ("*", true), ("/cam", false)] {
            let options = SourceOptions { topics: vec![topic.into()], ..Default::default() };
            let source = ImagesSource::open(directory.path(), &options);
            assert_eq!(source.is_ok(), opens, "{topic}");
            if let Err(error) = source {
                assert!(error.to_string().contains(&name), "{error}");
            }
        }
    }

    #[test]
    fn files_in_order_at_a_rate() {
        let directory = directory(&[
            "img10.JPG",
            "img2.jpeg",
            "img1.jpg",
            ".img0.jpg",
            "notes.txt",
            "b.PNG",
            "x/y.png",
        ]);
        let rate: FrameRate = "10".parse().unwrap();
        let options = SourceOptions { rate: Some(rate), ..Default::default() };
        let (streams, packets) = read(directory.path(), &options);
        let name = directory.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(streams, [(name.to_owned(), Some(rate))]);
        let names: Vec<_> = packets.iter().map(|p| (p.2, p.4.as_str())).collect();
        let tenth = 100_000_000;
        let expected =
            [(0, "b.PNG"), (tenth, "img1.jpg"), (2 * tenth, "img2.jpeg"), (3 * tenth, "img10.JPG")];
        assert_eq!(names, expected);
        let window = SourceOptions { start: Some(Moment::FromStart(2 * tenth)), ..options };
        assert_eq!(read(directory.path(), &window).1, packets[2..]);
    }

    #[test]
    fn stamps_are_times_unless_a_rate_is_given() {
        let directory = directory(&["1600000000000000.png", "1600000000500000.jpg", "data.csv"]);
        let (streams, packets) = read(directory.path(), &SourceOptions::default());
        assert_eq!(streams[0].1, None);
        let times: Vec<_> = packets.iter().map(|p| (p.2, p.3)).collect();
        let (a, b) = (1_600_000_000_000_000_000, 1_600_000_000_500_000_000);
        assert_eq!(times, [(a, Some(a)), (b, Some(b))]);
        let rate = Some(FrameRate::default());
        let (streams, packets) =
            read(directory.path(), &SourceOptions { rate, ..Default::default() });
        assert_eq!((streams[0].1, packets[1].2, packets[1].3), (rate, 33_333_333, None));
    }

    #[test]
    fn times_in_names() {
        // The names in order; their times in milliseconds from the first, and a part of the warning
        // if these are not used.
        let table: &[(&[&str], Result<&[i64], &str>)] = &[
            (
                &["1700000000.5.jpg", "1700000000.55.jpg", "1700000000.6.jpg", "1700000001.0.jpg"],
                Ok(&[0, 50, 100, 500]),
            ),
            (&["f_1700000000.jpg", "f_1700000000.25.jpg", "f_1700000002.jpg"], Ok(&[0, 250, 2000])),
            (&["1700000000040.png", "1700000000080.png"], Ok(&[0, 40])),
            (&["2023-11-15T17-04-30.5Z.jpg", "2023-11-15T17-04-31Z.jpg"], Ok(&[0, 500])),
            (&["img1.jpg", "img2.jpg", "img10.jpg"], Err("")),
            (&["0000000001.png", "0000000002.png"], Err("")),
            (
                &["1700000000040.png", "1700000000080.png", "cover.png"],
                Err("2 of 3 names state times, but not cover.png; the pictures are put at 30"),
            ),
            (
                &[
                    "IMG_20231115_170430.jpg",
                    "IMG_20231115_170431.jpg",
                    "IMG_20231115_170431 (1).jpg",
                ],
                Err("but not IMG_20231115_170431 (1).jpg"),
            ),
            (&["1700000000.jpg", "1700000000.png"], Err("but some of them the same")),
            (&["1700000000.jpg", "1700000001000.jpg"], Err("1700000000.jpg and 1700000001000.jpg")),
            (&["a1700000000.jpg", "b1700000001.jpg"], Err("different forms")),
        ];
        for (files, expected) in table {
            let directory = directory(files);
            let mut options = SourceOptions::default();
            let mut source = ImagesSource::open(directory.path(), &options).unwrap();
            let (mut names, mut times, mut warnings) = (Vec::new(), Vec::new(), String::new());
            while let Some(event) = source.next_event().unwrap() {
                match event {
                    Event::Packet(packet) => {
                        let Ok(Payload::Compressed { data, .. }) = packet.payload else { panic!() };
                        names.push(String::from_utf8(data.to_vec()).unwrap());
                        times.push(packet.log_ns);
                    }
                    Event::Warning(warning) => warnings += &warning.text,
                    _ => {}
                }
            }
            assert_eq!(names, *files);
            match expected {
                Ok(expected) => {
                    let from_first = times.iter().map(|t| (t - times[0]) / 1_000_000);
                    assert_eq!(from_first.collect::<Vec<_>>(), *expected);
                    assert_eq!(warnings, "");
                }
                Err(part) => {
                    assert_eq!(times[1], 33_333_333, "{files:?}");
                    assert!(warnings.contains(part), "{warnings}");
                    assert_eq!(warnings.is_empty(), part.is_empty(), "{warnings}");
                }
            }
            // A rate that is given is no guess.
            options.rate = Some("10".parse().unwrap());
            let mut source = ImagesSource::open(directory.path(), &options).unwrap();
            assert!(matches!(source.next_event().unwrap(), Some(Event::Stream(_))));
        }
    }

    #[test]
    fn a_directory_per_camera() {
        let directory = directory(&["left/1.jpg", "left/2.jpg", "right/1.png", "other/x.txt"]);
        let (streams, packets) = read(directory.path(), &SourceOptions::default());
        assert_eq!(streams.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["left", "right"]);
        let order: Vec<_> = packets.iter().map(|p| (p.0, p.1)).collect();
        assert_eq!(order, [(0, 0), (1, 0), (0, 1)]);
        let right = SourceOptions { topics: vec!["r*".into()], ..Default::default() };
        assert_eq!(read(directory.path(), &right).1.len(), 1);
    }

    #[test]
    fn a_picture_that_cannot_be_read_is_counted() {
        let directory = directory(&["1.jpg", "2.jpg"]);
        let limits = Limits { message_bytes: 4, ..Default::default() };
        let options = SourceOptions { limits, ..Default::default() };
        let mut source = ImagesSource::open(directory.path(), &options).unwrap();
        source.next_event().unwrap();
        for name in ["1.jpg", "2.jpg"] {
            let Some(Event::Packet(packet)) = source.next_event().unwrap() else { panic!() };
            assert!(packet.payload.unwrap_err().reason.contains(name));
        }
    }

    #[test]
    fn no_pictures() {
        let directory = directory(&["readme.txt", "x/y.txt"]);
        let error = ImagesSource::open(directory.path(), &SourceOptions::default()).err().unwrap();
        assert!(error.to_string().contains("*.jpg"), "{error}");
    }
}
