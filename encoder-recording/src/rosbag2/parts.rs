//! A recording in several files, whose messages are merged by log time.
//!
//! A file is opened when its first message is due, so that files which do not overlap in time are
//! read one after another.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;

use super::opener::{OpenFile, Opener, is_without_cameras};
use super::sequence::{InSequence, Overlap, first_message, is_set, most_at_once, sequence};
use crate::joined::{self, FileChannels, JoinedChannels};
use crate::temporary::{Opened, renamed};
use crate::{
    Event, Moment, Source, SourceError, SourceOptions, StreamId, StreamInfo, Warning, message,
};

/// The most files that are open at once.
const MOST_OPEN: usize = 8;

/// A file to read.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) path: PathBuf,
    /// Log times of its first and last message, if they are known.
    pub(crate) span: Option<(i64, i64)>,
}

/// What describes a recording besides its files.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// The directory or the file.
    pub(crate) path: PathBuf,
    /// Start of the recording, in nanoseconds since the epoch.
    pub(crate) start: Option<i64>,
    /// Number of messages of each topic.
    pub(crate) messages: HashMap<String, u64>,
    pub(crate) warnings: Vec<Warning>,
}

/// A recording in several files.
pub(crate) struct PartsSource {
    description: Description,
    options: SourceOptions,
    opener: Opener,
    /// The files that have not been opened yet.
    files: VecDeque<InSequence>,
    /// Number of all files.
    count: usize,
    /// The open files, in order.
    parts: Vec<Part>,
    /// Whether any file could be opened.
    opened: bool,
    /// The error of the first file that could not be read, or of the first file without cameras.
    first_error: Option<SourceError>,
    /// Number of messages of each stream so far.
    streams: Vec<u64>,
    /// Numbers of the streams by topic and type.
    ids: HashMap<(String, String), StreamId>,
    channels: JoinedChannels,
    profile: String,
    others: BTreeSet<(String, String)>,
    /// Log time of the last message that was returned, and the file that it was in.
    last: Option<(i64, PathBuf)>,
    warned_of_order: bool,
    events: VecDeque<Event>,
}

/// A file that is being read.
struct Part {
    path: PathBuf,
    /// Its name, for messages.
    name: String,
    source: Box<dyn Source>,
    streams: HashMap<StreamId, PartStream>,
    channels: FileChannels,
    /// Its next message, and the log time.
    next: Option<(i64, Event)>,
    /// The file that it was decompressed to. Dropped after the source.
    temporary: Option<Opened>,
}

/// A stream of a file.
struct PartStream {
    /// Its number in the recording.
    id: StreamId,
    /// Number of messages so far.
    messages: u64,
    promised: u64,
}

impl PartsSource {
    /// Opens the files. The window of `options` counts from the recording's start, not from that of
    /// each file.
    ///
    /// # Errors
    /// [`SourceError`] when none of the files can be read.
    pub(crate) fn open(
        mut description: Description,
        files: Vec<Planned>,
        options: &SourceOptions,
        opener: Opener,
    ) -> Result<Box<dyn Source>, SourceError> {
        let mut options = options.clone();
        options.limits.held_bytes /= most_at_once(&files, MOST_OPEN) as u64;
        let is_set = |overlap: &Overlap<'_>| is_set(&opener, &options, overlap);
        let files = sequence(files, is_set);
        let warnings = std::mem::take(&mut description.warnings);
        let mut source = Self {
            description,
            options,
            opener,
            count: files.len(),
            files: files.into(),
            parts: Vec::new(),
            opened: false,
            first_error: None,
            streams: Vec::new(),
            ids: HashMap::new(),
            channels: JoinedChannels::default(),
            profile: String::new(),
            others: BTreeSet::new(),
            last: None,
            warned_of_order: false,
            events: warnings.into_iter().map(Event::Warning).collect(),
        };
        source.fix_window();
        source.open_next();
        match source.first_error.take() {
            Some(error) if !source.opened && source.files.is_empty() => return Err(error),
            error => source.first_error = error,
        }
        Ok(Box::new(source))
    }

    /// Makes the bounds of the window absolute, so that they are the same for every file.
    fn fix_window(&mut self) {
        let relative = |moment| matches!(moment, Some(Moment::FromStart(_)));
        if !relative(self.options.start) && !relative(self.options.end) {
            return;
        }
        let known = self.files.iter().filter_map(|next| Some(next.file.span?.0)).min();
        let start = match self.description.start.or(known) {
            Some(start) => Some(start),
            // The window of a single file counts from its own start anyway.
            None if self.files.len() == 1 => None,
            // A file that cannot be read is reported when it is opened.
            None => self
                .files
                .iter()
                .find_map(|next| first_message(&self.opener, &self.options, &next.file.path)),
        };
        let Some(start) = start else { return };
        for moment in [&mut self.options.start, &mut self.options.end] {
            if let Some(Moment::FromStart(ns)) = *moment {
                *moment = Some(Moment::Absolute(start.saturating_add(ns)));
            }
        }
    }

    /// Opens the next file that can be opened.
    fn open_next(&mut self) {
        while let Some(InSequence { file: Planned { path, .. }, back }) = self.files.pop_front() {
            match self.opener.open(&path, &self.options) {
                Ok(OpenFile { source, temporary, warning }) => {
                    self.opened = true;
                    self.profile = source.profile().into();
                    let root = &self.description.path;
                    let name = match path == *root {
                        true => path.file_name().unwrap_or_default().display().to_string(),
                        false => path.strip_prefix(root).unwrap_or(&path).display().to_string(),
                    };
                    let named = |Warning { text, loss }| {
                        Event::Warning(Warning { text: format!("{name}: {text}"), loss })
                    };
                    self.events.extend(warning.map(named));
                    let back = back.map(|back| self.step_back(back)).map(named);
                    self.events.extend(back);
                    self.parts.push(Part {
                        path,
                        name,
                        source,
                        streams: HashMap::new(),
                        channels: FileChannels::new(),
                        next: None,
                        temporary,
                    });
                    return;
                }
                Err(error) => {
                    let text = format!("{error}; the file is left out");
                    self.events.push_back(Event::Warning(Warning { text, loss: true }));
                    self.remember(error);
                }
            }
        }
    }

    /// The warning about a file before which the clock was set back by `ns`.
    fn step_back(&mut self, ns: i64) -> Warning {
        self.last = None;
        let text = format!(
            "it begins {:.3} s before the end of the files before it, because the clock was set; \
             the files are read in the order of the recording",
            ns as f64 / 1e9
        );
        Warning { text, loss: false }
    }

    /// Ends an open file because of an error.
    fn fail(&mut self, n: usize, error: SourceError) {
        let Some(part) = self.parts.get(n) else { return };
        let error = match part.temporary {
            Some(_) => renamed(error, &part.path),
            None => error,
        };
        // A part of a recording may have no pictures, or none of the selected topics.
        if !(part.streams.is_empty() && is_without_cameras(&error)) {
            let text = match self.files.is_empty() && self.parts.len() == 1 {
                true => format!("{error}; the rest of this file is missing"),
                false => {
                    format!("{error}; the rest of this file is missing, the next ones are read")
                }
            };
            self.events.push_back(Event::Warning(Warning { text, loss: true }));
        }
        self.remember(error);
    }

    /// Keeps an error, for a recording that turns out to have nothing to read.
    fn remember(&mut self, error: SourceError) {
        if self.first_error.as_ref().is_none_or(is_without_cameras) {
            self.first_error = Some(error);
        }
    }

    /// The error for a recording that has nothing to read.
    fn nothing(&mut self) -> SourceError {
        match self.first_error.take() {
            Some(error @ (SourceError::Io { .. } | SourceError::Invalid { .. })) => error,
            _ => SourceError::no_camera(&self.description.path, self.other_topics()),
        }
    }

    /// Joins a stream of an open file with the recording's.
    fn join(&mut self, n: usize, info: StreamInfo) {
        let new = self.streams.len();
        let key = (info.topic.clone(), message::plain_type(&info.schema));
        let id = *self.ids.entry(key).or_insert(new);
        if let Some(part) = self.parts.get_mut(n) {
            let promised = info.messages.unwrap_or(0);
            part.streams.insert(info.id, PartStream { id, messages: 0, promised });
        }
        if id < new {
            return;
        }
        let messages = match self.description.messages.get(&info.topic) {
            Some(messages) => Some(*messages),
            None if self.count == 1 => info.messages,
            None => None,
        };
        self.streams.push(0);
        self.events.push_back(Event::Stream(StreamInfo { id, messages, ..info }));
    }

    /// Reads an open file up to its next message. Other events are queued. Returns `false` at its
    /// end.
    fn read(&mut self, n: usize) -> bool {
        loop {
            let Some(part) = self.parts.get_mut(n) else { return false };
            let event = match part.source.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => return false,
                Err(error) => {
                    self.fail(n, error);
                    return false;
                }
            };
            let (time, event) = match event {
                Event::Stream(info) => {
                    self.join(n, info);
                    continue;
                }
                Event::Channel(mut info) => {
                    let of = |stream| part.streams.get(&stream).map(|stream| stream.id);
                    info.stream = info.stream.and_then(of);
                    let new = self.channels.join(info, &mut part.channels);
                    self.events.extend(new.map(Event::Channel));
                    continue;
                }
                Event::Warning(Warning { text, loss }) => {
                    let text = format!("{}: {text}", part.name);
                    self.events.push_back(Event::Warning(Warning { text, loss }));
                    continue;
                }
                Event::Packet(mut packet) => {
                    let of = |message| joined::of(&part.channels, message);
                    packet.message = packet.message.and_then(of);
                    (packet.log_ns, Event::Packet(packet))
                }
                Event::Message(message) => {
                    let time = i64::try_from(message.log_ns).unwrap_or(i64::MAX);
                    let Some(message) = joined::of(&part.channels, message) else { continue };
                    (time, Event::Message(message))
                }
                Event::Attachment(attachment) => {
                    let time = i64::try_from(attachment.log_ns).unwrap_or(i64::MAX);
                    (time, Event::Attachment(attachment))
                }
                other => {
                    self.events.push_back(other);
                    continue;
                }
            };
            part.next = Some((time, event));
            return true;
        }
    }

    /// Ends an open file. Messages that it does not return are counted.
    fn close(&mut self, n: usize) {
        let part = self.parts.remove(n);
        self.others.extend(part.source.other_topics());
        for stream in part.streams.values() {
            if let Some(messages) = self.streams.get_mut(stream.id) {
                let rest = stream.promised.saturating_sub(stream.messages);
                *messages = messages.saturating_add(rest);
            }
        }
    }

    /// The next message of an open file, with its number in the recording.
    fn take(&mut self, n: usize) -> Option<Event> {
        let part = self.parts.get_mut(n)?;
        let (time, mut event) = part.next.take()?;
        if let Event::Packet(packet) = &mut event {
            let stream = part.streams.get_mut(&packet.stream)?;
            let messages = self.streams.get_mut(stream.id)?;
            let count = packet.number.saturating_add(1);
            *messages = messages.saturating_add(count.saturating_sub(stream.messages));
            stream.messages = stream.messages.max(count);
            packet.stream = stream.id;
            packet.number = messages.saturating_sub(1);
        }
        let late =
            self.last.as_ref().is_some_and(|(last, path)| time < *last && *path != part.path);
        if late && !std::mem::replace(&mut self.warned_of_order, true) {
            let text = format!(
                "{} has messages that are earlier than those of the files before it: messages may \
                 come out of order",
                part.name
            );
            // The warning comes before the message.
            self.events.push_back(Event::Warning(Warning { text, loss: false }));
        }
        match &mut self.last {
            Some((last, path)) if *path == part.path => *last = time,
            last => *last = Some((time, part.path.clone())),
        }
        self.events.push_back(event);
        self.events.pop_front()
    }

    /// Whether the next file may have messages before `time`.
    fn is_due(&self, time: i64) -> bool {
        let next = self.files.front().filter(|next| next.back.is_none());
        let start = next.and_then(|next| next.file.span).map(|(start, _)| start);
        start.is_some_and(|start| start <= time) && self.parts.len() < MOST_OPEN
    }
}

impl Source for PartsSource {
    fn next_event(&mut self) -> Result<Option<Event>, SourceError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(n) = self.parts.iter().position(|part| part.next.is_none()) {
                if !self.read(n) {
                    self.close(n);
                }
                continue;
            }
            let times = self.parts.iter().enumerate();
            let times = times.filter_map(|(n, part)| Some((part.next.as_ref()?.0, n)));
            match times.min() {
                Some((time, _)) if self.is_due(time) => self.open_next(),
                Some((_, n)) => {
                    if let Some(event) = self.take(n) {
                        return Ok(Some(event));
                    }
                }
                None if !self.files.is_empty() => self.open_next(),
                None => {
                    // Without a camera, the other messages are returned.
                    let is_useful = self.options.all_messages && !self.channels.is_empty();
                    return match self.streams.as_slice() {
                        [] if !is_useful => Err(self.nothing()),
                        _ => Ok(None),
                    };
                }
            }
        }
    }

    fn other_topics(&self) -> Vec<(String, String)> {
        self.others.iter().cloned().collect()
    }

    fn profile(&self) -> &str {
        &self.profile
    }
}
