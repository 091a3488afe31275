//! Which files are one recording: the parts that a recorder splits it into, or recordings of their
//! own.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::{images, signature};

/// How far two parts may be apart in time, or overlap: recorders close a part and open the next one
/// while messages arrive.
const SECOND: i64 = 1_000_000_000;
/// The longest interval between frames that makes a pause between two parts longer than a second.
const LONGEST_INTERVAL: i64 = 60 * SECOND;
/// The longest pause between two dated parts, in lengths of the longer part. The dates of a recording
/// begin again at number 0 for the next one, so the numbers alone do not tell them apart.
const LONGEST_PAUSE: u64 = 10;

/// What a file contains, as far as it shows which recording the file belongs to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    pub path: PathBuf,
    /// Log times of the first and the last message, if there are any.
    pub span: Option<(i64, i64)>,
    /// Camera topics, each with its type, whatever spelling the file has of it.
    pub cameras: BTreeSet<(String, String)>,
    /// What is wrong with a file in which no camera topic was found: it may have had one.
    pub damage: Option<String>,
    /// Nanoseconds from one frame to the next, of the slowest camera.
    pub interval: i64,
}

/// The files of one recording, in order.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub files: Vec<Survey>,
    /// Descriptions of parts that are missing.
    pub missing: Vec<String>,
}

/// The name of a file, as far as it shows which recording the file belongs to.
struct Name {
    /// Without its ending, with `#` for each run of digits: the same for all parts of a recording.
    series: String,
    ending: &'static str,
    /// The number in front of the ending, and the name in front of that.
    number: Option<u64>,
    prefix: String,
    /// The number stands behind a date, which is another for each part.
    is_dated: bool,
    /// Recorders give such names to the parts of a recording, and to nothing else: `NAME_0` in a
    /// directory `NAME` (rosbag2), or a number after a date (ROS 1).
    is_of_split: bool,
}

impl Name {
    /// `directory`: the name of the directory, as [`directory_name`] returns it.
    fn of(path: &Path, directory: &str) -> Self {
        let name = file_name(path);
        let (stem, ending) = signature::split_name(&name);
        let prefix = stem.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = stem.strip_prefix(prefix).and_then(|digits| digits.parse().ok());
        let mut series = String::new();
        for c in stem.chars() {
            match c {
                '0'..='9' if series.ends_with('#') => {}
                '0'..='9' => series.push('#'),
                c => series.push(c),
            }
        }
        let before = prefix.strip_suffix('_').filter(|before| !before.is_empty());
        let is_dated = series.ends_with("#-#-#-#-#-#_#");
        let is_of_split =
            number.is_some() && (is_dated || before.is_some_and(|before| before == directory));
        let prefix = prefix.to_owned();
        Self { series, ending, number, prefix, is_dated, is_of_split }
    }

    /// As in [`Numbered`]; `None` without a number.
    fn numbered(&self) -> Option<(&str, &'static str, u64)> {
        Some((&self.prefix, self.ending, self.number?))
    }

    /// Whether the names differ in numbers only.
    fn is_like(&self, other: &Self) -> bool {
        (&self.series, self.ending) == (&other.series, other.ending)
    }

    /// How many numbers are skipped between `before` and this part.
    fn skipped_since(&self, before: &Self) -> u64 {
        self.missing_since(Some(before), &Directory::default(), 0)
    }

    /// How many parts of its recording are not in the directory: those before this part, or between
    /// `before` and this part. `group`: the group of this part. Files that are there but not read
    /// are reported on their own.
    fn missing_since(&self, before: Option<&Self>, directory: &Directory<'_>, group: usize) -> u64 {
        let first = match before {
            Some(name) if !self.is_of_series(name) => return 0,
            Some(name) => name.number.map(|number| number.saturating_add(1)),
            // Recorders count from 0, other programs perhaps from 1.
            None => Some(u64::from(!self.is_of_split)),
        };
        let Some((first, end)) = first.zip(self.number) else { return 0 };
        let is_there = |name: &&Name| {
            let is_between = before.is_none_or(|before| before.prefix <= name.prefix);
            // A dated file that is not read belongs to this recording if no file of another group
            // lies between.
            let from = before.unwrap_or(name);
            name.is_like(self)
                && self.is_of_series(name)
                && (!self.is_dated || (is_between && !directory.has_other(group, from, self)))
        };
        let numbers: BTreeSet<_> =
            directory.present.iter().filter(is_there).filter_map(|name| name.number).collect();
        let there = numbers.iter().filter(|number| (first..end).contains(number)).count();
        end.saturating_sub(first).saturating_sub(there as u64)
    }

    /// Whether `earlier` may be a name of the same recording by what is in front of its number.
    fn is_of_series(&self, earlier: &Self) -> bool {
        match self.is_dated {
            true => earlier.prefix <= self.prefix,
            false => earlier.prefix == self.prefix,
        }
    }
}

/// The names of the recordings in a directory.
#[derive(Default)]
struct Directory<'a> {
    /// All of them, also those that are not read.
    present: Vec<Name>,
    /// Those that are read, each with the number of its group.
    grouped: Vec<(usize, &'a Name)>,
}

impl Directory<'_> {
    /// Whether the date of a file of another group lies between these two, or is one of them.
    fn has_other(&self, group: usize, first: &Name, last: &Name) -> bool {
        self.grouped.iter().any(|(other, name)| {
            *other != group
                && name.is_like(last)
                && (&first.prefix..=&last.prefix).contains(&&name.prefix)
        })
    }
}

/// A file of a group.
struct Part<'a> {
    file: Survey,
    name: &'a Name,
    /// Numbers are skipped between the file before it and this one.
    skips: bool,
}

/// Names with a number that are read: what is in front of it, the ending, and the number.
type Numbered<'a> = BTreeSet<(&'a str, &'static str, u64)>;

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The name of the directory that a file is in, whatever path leads there.
fn directory_name(path: &Path) -> String {
    let directory = path.parent().filter(|directory| *directory != Path::new(""));
    images::name(directory.unwrap_or(Path::new(".")))
}

/// The name of a file without the endings of recordings.
pub(crate) fn stem(path: &Path) -> String {
    let name = file_name(path);
    signature::split_name(&name).0.to_owned()
}

/// The name of a recording in these files.
pub(crate) fn common_name(files: &[Survey]) -> String {
    let first = files.first().map(|file| stem(&file.path)).unwrap_or_default();
    if files.len() < 2 {
        return first;
    }
    let name = first.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['_', '-']);
    if name.is_empty() { first } else { name.to_owned() }
}

/// Groups the files of a directory, which are in natural order, into recordings, in the order of
/// their first files. Also returns why the first file that begins a further recording does so.
/// `present`: all recordings in the directory, also those that cannot be read or have no camera.
pub(crate) fn group(mut files: Vec<Survey>, present: &[PathBuf]) -> (Vec<Group>, Option<String>) {
    let directory = files.first().map(|file| directory_name(&file.path)).unwrap_or_default();
    let names = |paths: &mut dyn Iterator<Item = &PathBuf>| -> Vec<_> {
        paths.map(|path| Name::of(path, &directory)).collect()
    };
    let order: HashMap<_, _> = files.iter().map(|file| file.path.clone()).zip(0..).collect();
    files.sort_by_key(|file| file.span.map_or(i64::MAX, |(start, _)| start));
    let read = names(&mut files.iter().map(|file| &file.path));
    let numbers: Numbered<'_> = read.iter().filter_map(Name::numbered).collect();
    let mut groups: Vec<Vec<Part<'_>>> = Vec::new();
    let mut reason = None;
    for (file, name) in files.into_iter().zip(&read) {
        // The least of: another name in front of the number, skipped numbers unless a date is
        // another one for each part, and the distance in time.
        let mut best: Option<(usize, (bool, u64, u64), u64)> = None;
        let mut refused = None;
        for (n, group) in groups.iter().enumerate() {
            let Some(Part { file: last, name: last_name, .. }) = group.last() else { continue };
            match link_named((last, last_name), (&file, name), Some(&numbers)) {
                Ok(skipped) => {
                    let spans = last.span.zip(file.span);
                    let apart = spans.map_or(u64::MAX, |(first, next)| first.1.abs_diff(next.0));
                    let skips = if name.is_dated { 0 } else { skipped };
                    let key = (last_name.prefix != name.prefix, skips, apart);
                    if best.is_none_or(|(_, least, _)| key < least) {
                        best = Some((n, key, skipped));
                    }
                }
                Err(text) => refused = refused.or(Some(text)),
            }
        }
        let (n, skips) = best.map_or((groups.len(), false), |(n, _, skipped)| (n, skipped > 0));
        let part = Part { file, name, skips };
        match groups.get_mut(n) {
            Some(group) => group.push(part),
            None => {
                reason = reason.or(refused);
                groups.push(vec![part]);
            }
        }
    }
    let grouped = groups.iter().enumerate();
    let grouped = grouped.flat_map(|(n, group)| group.iter().map(move |part| (n, part.name)));
    let directory = Directory { grouped: grouped.collect(), present: names(&mut present.iter()) };
    let missing = |(n, group): (usize, &Vec<Part<'_>>)| -> Vec<String> {
        let before = missing_before(group, &directory, n);
        before.into_iter().chain(missing_within(group, &directory, n)).collect()
    };
    let missing: Vec<_> = groups.iter().enumerate().map(missing).collect();
    let files = |group: Vec<Part<'_>>| group.into_iter().map(|part| part.file).collect();
    let groups = groups.into_iter().zip(missing);
    let mut groups: Vec<_> =
        groups.map(|(group, missing)| Group { files: files(group), missing }).collect();
    let first = |group: &Group| group.files.first().and_then(|file| order.get(&file.path)).copied();
    groups.sort_by_key(|group| first(group).unwrap_or(0_usize));
    (groups, reason)
}

/// Describes the parts that are missing between the files of a group.
fn missing_within(group: &[Part<'_>], directory: &Directory<'_>, number: usize) -> Vec<String> {
    let pairs = group.iter().zip(group.iter().skip(1)).filter(|(_, after)| after.skips);
    let missing = |(before, after): (&Part<'_>, &Part<'_>)| {
        let parts = after.name.missing_since(Some(before.name), directory, number);
        missing_between(&before.file, &after.file, parts)
    };
    pairs.filter_map(missing).collect()
}

/// Describes the parts that are missing between two files, if there are any.
pub(crate) fn missing_between(before: &Survey, after: &Survey, parts: u64) -> Option<String> {
    let (before, after) = (file_name(&before.path), file_name(&after.path));
    (parts > 0).then(|| format!("{} missing between {before} and {after}", parts_are(parts)))
}

/// Describes the parts that are missing before the first file of a group.
fn missing_before(group: &[Part<'_>], directory: &Directory<'_>, number: usize) -> Option<String> {
    let Part { file, name, .. } = group.first()?;
    let first = name.number.filter(|number| *number > 0)?;
    let next = group.get(1).and_then(|part| part.name.number);
    let is_counted = first > 1 && next == first.checked_add(1);
    let is_split = (name.is_of_split || is_counted) && name.series.ends_with("_#");
    let parts = if is_split { name.missing_since(None, directory, number) } else { 0 };
    (parts > 0).then(|| format!("{} missing before {}", parts_are(parts), file_name(&file.path)))
}

fn parts_are(count: u64) -> String {
    if count == 1 { "1 part is".into() } else { format!("{count} parts are") }
}

/// Returns how many parts are missing between two files of one recording, or why they are not one
/// recording. Their directory is a recording: if their numbers follow, they are parts of it, whatever
/// pause is between them. `present`: all files of the recording.
pub(crate) fn link(before: &Survey, after: &Survey, present: &[PathBuf]) -> Result<u64, String> {
    let name_of = |path: &Path| Name::of(path, &directory_name(path));
    let names = (name_of(&before.path), name_of(&after.path));
    if link_named((before, &names.0), (after, &names.1), None)? == 0 {
        return Ok(0);
    }
    let present = present.iter().map(|path| Name::of(path, "")).collect();
    let directory = Directory { present, ..Directory::default() };
    Ok(names.1.missing_since(Some(&names.0), &directory, 0))
}

/// Returns how many numbers are skipped between two files of one recording, or why they are not one
/// recording. `read`: the files of the directory that are read; `None` if the directory is a
/// recording.
fn link_named(
    (before, name): (&Survey, &Name),
    (after, next): (&Survey, &Name),
    read: Option<&Numbered<'_>>,
) -> Result<u64, String> {
    let (a, b) = (file_name(&before.path), file_name(&after.path));
    if !name.is_like(next) {
        return Err(format!("{b} has another name than {a}"));
    }
    let follows = next.number > name.number && name.prefix == next.prefix;
    let is_split = (read.is_none() && follows) || (name.is_of_split && next.is_of_split);
    let has_common =
        before.cameras.is_subset(&after.cameras) || after.cameras.is_subset(&before.cameras);
    if before.cameras != after.cameras && !(is_split && has_common) {
        return Err(format!("{b} has other camera topics than {a}"));
    }
    if is_split && next.number <= name.number {
        return Err(format!("{b} has a number that does not follow that of {a}"));
    }
    let (Some(first), Some(second)) = (before.span, after.span) else {
        return match is_split {
            true => Ok(0),
            false => Err(format!("{a} or {b} has no messages")),
        };
    };
    let pause = distance(first, second).map_err(|overlap| match overlap {
        None => format!("{b} starts again before the end of {a}"),
        Some(overlap) => format!("{b} overlaps {a} by {}", seconds(overlap)),
    })?;
    let refused = || Err(format!("{b} begins {} after the end of {a}", seconds(pause)));
    let skipped = next.skipped_since(name);
    let interval = before.interval.max(after.interval).min(LONGEST_INTERVAL);
    let few = interval.saturating_mul(3);
    // Parts have about the same length: those that are missing or not read fill the pause.
    let length = |(first, last): (i64, i64)| last.saturating_sub(first);
    let longer = length(first).max(length(second));
    let most = longer.max(few).max(SECOND).unsigned_abs().saturating_mul(LONGEST_PAUSE);
    let is_far = pause.unsigned_abs() > most.saturating_mul(skipped.saturating_add(1));
    if is_far && next.is_dated && read.is_some() {
        return refused();
    }
    let missing = longer as f64 * skipped as f64;
    let is_filled = (missing * 0.75..=missing * 1.25 + few as f64).contains(&(pause as f64));
    // A file that is read has its own time, so it does not fill the pause.
    let is_read = || {
        let (Some((_, _, from)), Some(to)) = (name.numbered(), next.numbered()) else {
            return false;
        };
        let between = (to.0, to.1, from)..to;
        read.is_some_and(|read| from < to.2 && read.range(between).any(|(_, _, n)| *n != from))
    };
    let is_counted = is_split || (is_filled && name.series.ends_with("_#") && !is_read());
    if skipped > 0 && pause > few && is_counted {
        return Ok(skipped);
    }
    if pause <= SECOND.max(few) || is_split {
        return Ok(0);
    }
    refused()
}

/// Nanoseconds from the end of a part to the beginning of the next, 0 if they overlap as parts do.
/// The error is how far they overlap; `None` if the second does not continue the first at all.
fn distance(first: (i64, i64), second: (i64, i64)) -> Result<i64, Option<i64>> {
    if second.0 <= first.0 || second.1 < first.1 {
        return Err(None);
    }
    let overlap = first.1.saturating_sub(second.0);
    let shorter = first.1.saturating_sub(first.0).min(second.1.saturating_sub(second.0));
    match overlap > SECOND.max(shorter / 10).min(shorter / 2) {
        true => Err(Some(overlap)),
        false => Ok(overlap.saturating_neg().max(0)),
    }
}

fn seconds(ns: i64) -> String {
    format!("{:.1} s", ns as f64 / SECOND as f64)
}

#[cfg(test)]
mod tests;
