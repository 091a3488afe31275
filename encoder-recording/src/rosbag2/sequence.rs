//! The order in which the files of a recording are read.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::opener::Opener;
use super::parts::Planned;
use crate::names::natural;
use crate::steps::{LogTimes, Origin};
use crate::{Event, Moment, SourceOptions};

/// How far files may overlap in time: recorders close a file and open the next one while messages
/// arrive.
const SECOND: i64 = 1_000_000_000;
/// How much of an overlap is read, to determine whether the clock was set.
const EXAMINED: i64 = 120 * SECOND;

/// A file in its place.
#[derive(Clone, Debug)]
pub(super) struct InSequence {
    pub(super) file: Planned,
    /// By how much the recorder's clock was set back before the file, in nanoseconds. It is read
    /// behind all files before it.
    pub(super) back: Option<i64>,
}

/// Two files that overlap in time.
pub(super) struct Overlap<'a> {
    first: &'a Path,
    /// Listed behind the first.
    second: &'a Path,
    time: (i64, i64),
    /// The log times of the second file begin behind those of the first.
    is_later: bool,
}

/// Puts files in order: by their log times, whatever their order is. If the recorder's clock was
/// set back, their order is right. `is_set` returns whether the clock was set back in the first of
/// two files, or between them.
pub(super) fn sequence(
    files: Vec<Planned>,
    is_set: impl Fn(&Overlap<'_>) -> bool,
) -> Vec<InSequence> {
    let mut sorted = files.clone();
    sort(&mut sorted);
    let set = overlaps(&sorted, &files, is_set);
    if set.is_empty() && !steps_back(&files) {
        return sorted.into_iter().map(|file| InSequence { file, back: None }).collect();
    }
    let mut end = None;
    let place = |file: Planned| {
        let Some((first, last)) = file.span else { return InSequence { file, back: None } };
        let back = end.map(|end: i64| end.saturating_sub(first));
        let back = back.filter(|back| *back > SECOND || set.contains(&file.path));
        end = end.filter(|_| back.is_none()).max(Some(last));
        InSequence { file, back }
    };
    files.into_iter().map(place).collect()
}

/// The files that overlap one before them in time because the clock was set.
fn overlaps(
    sorted: &[Planned],
    listed: &[Planned],
    is_set: impl Fn(&Overlap<'_>) -> bool,
) -> HashSet<PathBuf> {
    let mut set = HashSet::new();
    let number = |path: &Path| listed.iter().position(|file| file.path == path);
    let mut latest: Option<(&Path, i64)> = None;
    for (path, (first, last)) in timed(sorted) {
        if let Some((before, end)) = latest {
            let time = (first, last.min(end));
            let is_later = number(before) < number(path);
            let (first, second) = if is_later { (before, path) } else { (path, before) };
            if time.0 < time.1 && is_set(&Overlap { first, second, time, is_later }) {
                set.insert(second.to_owned());
            }
        }
        if latest.is_none_or(|(_, end)| end <= last) {
            latest = Some((path, last));
        }
    }
    set
}

/// The log time of the first message of a file, in the order of the recording.
pub(super) fn first_message(opener: &Opener, options: &SourceOptions, path: &Path) -> Option<i64> {
    let whole = SourceOptions { start: None, end: None, ..options.clone() };
    let mut file = opener.open(path, &whole).ok()?;
    while let Ok(Some(event)) = file.source.next_event() {
        match event {
            Event::Packet(packet) => return Some(packet.log_ns),
            Event::Message(message) => return i64::try_from(message.log_ns).ok(),
            _ => {}
        }
    }
    None
}

/// Whether the clock was set back in the first of two files, or between them: their messages mix,
/// or the cameras of the first file begin later than those of the second.
pub(super) fn is_set(opener: &Opener, options: &SourceOptions, overlap: &Overlap<'_>) -> bool {
    let Overlap { first, second, time, is_later } = *overlap;
    let cameras = |path| opener.survey(path, options).map(|survey| survey.cameras);
    match (cameras(first), cameras(second)) {
        (Ok(a), Ok(b)) if !a.is_disjoint(&b) => {}
        _ => return false,
    }
    let of_cameras = SourceOptions { all_messages: false, ..options.clone() };
    let begin = |path| first_message(opener, &of_cameras, path);
    if is_later && begin(first).zip(begin(second)).is_some_and(|(first, second)| first > second) {
        return true;
    }
    let mut times = LogTimes::default();
    let end = time.1.min(time.0.saturating_add(EXAMINED));
    let (start, end) = (Some(Moment::Absolute(time.0)), Some(Moment::Absolute(end)));
    let options = SourceOptions { start, end, all_messages: false, ..options.clone() };
    for (file, path) in (0..).zip([first, second]) {
        // A file that cannot be read is reported when it is opened.
        let Ok(mut opened) = opener.open(path, &options) else { return false };
        let (mut topics, mut number) = (HashMap::new(), 0);
        while let Ok(Some(event)) = opened.source.next_event() {
            match event {
                Event::Stream(info) => {
                    topics.insert(info.id, info.topic);
                }
                Event::Packet(packet) => {
                    if let Some(topic) = topics.get(&packet.stream) {
                        let origin = Origin { topic, is_camera: true, part: 0, channel: 0 };
                        times.push(origin, (file, number), packet.log_ns);
                        number += 1;
                    }
                }
                _ => {}
            }
        }
    }
    !times.steps().is_empty()
}

/// Whether the names of the files rise as they are listed, and their times do not, and no file
/// fits before one of those in the order of the times.
fn steps_back(files: &[Planned]) -> bool {
    let names: Vec<_> = files.iter().map(|file| file.path.to_string_lossy()).collect();
    let rises = names.windows(2).all(|pair| match pair {
        [a, b] => natural(a, b).is_lt(),
        _ => true,
    });
    let all: Vec<_> = timed(files).collect();
    rises
        && all.iter().zip(all.iter().skip(1)).any(|((_, before), (_, after))| {
            let continues = |a: &(i64, i64), b: &(i64, i64)| a.1.abs_diff(b.0) <= SECOND as u64;
            let is_continued = |(_, other): &(&Path, (i64, i64))| {
                continues(other, before) || continues(other, after)
            };
            after.0.saturating_add(SECOND) < before.0 && !all.iter().any(is_continued)
        })
}

fn timed(files: &[Planned]) -> impl Iterator<Item = (&Path, (i64, i64))> {
    files.iter().filter_map(|file| Some((file.path.as_path(), file.span?)))
}

/// Sorts files by their first messages. A file whose times are not known stays behind the file that
/// it was behind.
fn sort(files: &mut Vec<Planned>) {
    let mut before = i64::MIN;
    let key = |file: &Planned| {
        before = file.span.map_or(before, |(start, _)| start);
        before
    };
    let keys: Vec<_> = files.iter().map(key).collect();
    let mut keyed: Vec<_> = keys.into_iter().zip(std::mem::take(files)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    files.extend(keyed.into_iter().map(|(_, file)| file));
}

/// How many files overlap in time at most, up to `most`.
pub(super) fn most_at_once(files: &[Planned], most: usize) -> usize {
    let spans = || files.iter().filter_map(|file| file.span);
    let at = |time| spans().filter(|(start, end)| (*start..=*end).contains(&time)).count();
    // The number grows only where a file begins.
    spans().map(|(start, _)| at(start)).max().unwrap_or(1).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(spans: &[Option<(i64, i64)>]) -> Vec<Planned> {
        let paths = (0..).map(|n: usize| PathBuf::from(n.to_string()));
        paths.zip(spans).map(|(path, span)| Planned { path, span: *span }).collect()
    }

    #[test]
    fn files_by_their_first_messages() {
        for (spans, order, most) in [
            (&[Some((0, 9)), Some((10, 19)), Some((20, 29))][..], "012", 1),
            (&[Some((10, 19)), Some((0, 9)), None, Some((20, 29))], "1203", 1),
            (&[None, Some((0, 12)), Some((10, 22)), Some((20, 29))], "0123", 2),
            (&[Some((0, 9)); 20], "012345678910111213141516171819", 8),
            (&[None, None], "01", 1),
            (&[], "", 1),
        ] {
            let mut files = planned(spans);
            assert_eq!(most_at_once(&files, 8), most);
            sort(&mut files);
            let paths: Vec<_> = files.iter().map(|file| file.path.to_string_lossy()).collect();
            assert_eq!(paths.concat(), order);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_between_files() {
        let seconds = |(first, last): (i64, i64)| Some((first * SECOND, last * SECOND));
        for (spans, expected) in [
            // By less and by more than a file is long, and again later.
            (&[(1000, 1100), (1050, 1150)][..], "01<50"),
            (&[(1000, 1100), (1050, 1150), (1150, 1250)], "01<502"),
            (&[(1000, 1100), (900, 990)], "01<200"),
            (&[(1000, 1100), (500, 600), (600, 700)], "01<6002"),
            // Within the first file.
            (&[(900, 1100), (1000, 1100)], "01<100"),
            // Listed in another order.
            (&[(1000, 1100), (900, 1000)], "10"),
            (&[(1000, 1100), (1200, 1300), (1100, 1200)], "021"),
            // Files that cross a boundary.
            (&[(1000, 1100), (1100, 1200)], "01"),
        ] {
            let spans: Vec<_> = spans.iter().map(|span| seconds(*span)).collect();
            let text = |found: Vec<InSequence>| {
                let one = |InSequence { file, back }: &InSequence| {
                    let back = back.map(|back| format!("<{}", back / SECOND));
                    format!("{}{}", file.path.display(), back.unwrap_or_default())
                };
                found.iter().map(one).collect::<String>()
            };
            assert_eq!(text(sequence(planned(&spans), |_| true)), expected);
        }
        // At the same time, for another reason.
        let spans = [(0, 100), (0, 100)].map(seconds);
        let found = sequence(planned(&spans), |_| false);
        assert!(found.iter().all(|found| found.back.is_none()));
    }
}
