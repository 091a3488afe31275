//! Which files are one recording: the parts that a recorder splits it into, or recordings of their
//! own.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::signature;

/// How far two parts may be apart in time, or overlap: recorders close a part and open the next one
/// while messages arrive.
const SECOND: i64 = 1_000_000_000;
/// The longest interval between frames that makes a pause between two parts longer than a second.
const LONGEST_INTERVAL: i64 = 60 * SECOND;

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
    fn of(path: &Path) -> Self {
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
        let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
        let before = prefix.strip_suffix('_').filter(|before| !before.is_empty());
        let is_dated = series.ends_with("#-#-#-#-#-#_#");
        let is_of_split =
            number.is_some() && (is_dated || before.is_some_and(|before| *before == *directory));
        let prefix = prefix.to_owned();
        Self { series, ending, number, prefix, is_dated, is_of_split }
    }

    /// Whether the names differ in numbers only.
    fn is_like(&self, other: &Self) -> bool {
        (&self.series, self.ending) == (&other.series, other.ending)
    }

    /// How many parts of its recording are not among the `present` files of the directory: those
    /// before this part, or between `before` and this part. Files that are present but not read
    /// are reported on their own.
    fn missing_since(&self, before: Option<&Self>, present: &[Self]) -> u64 {
        let is_of_series = |name: &&Self| match self.is_dated {
            true => name.prefix <= self.prefix && before.is_none_or(|b| b.prefix <= name.prefix),
            false => name.prefix == self.prefix,
        };
        let first = match before {
            Some(name) if !is_of_series(&name) => return 0,
            Some(name) => name.number.map(|number| number.saturating_add(1)),
            // Recorders count from 0, other programs perhaps from 1.
            None => Some(u64::from(!self.is_of_split)),
        };
        let Some((first, end)) = first.zip(self.number) else { return 0 };
        let of_recording = present.iter().filter(|name| name.is_like(self)).filter(is_of_series);
        let numbers: BTreeSet<_> = of_recording.filter_map(|name| name.number).collect();
        let there = numbers.iter().filter(|number| (first..end).contains(number)).count();
        end.saturating_sub(first).saturating_sub(there as u64)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
    let present: Vec<_> = present.iter().map(|path| Name::of(path)).collect();
    let order: HashMap<_, _> = files.iter().map(|file| file.path.clone()).zip(0..).collect();
    files.sort_by_key(|file| file.span.map_or(i64::MAX, |(start, _)| start));
    let mut groups: Vec<Group> = Vec::new();
    // Of the last file of each group.
    let mut names: Vec<Name> = Vec::new();
    let mut reason = None;
    for file in files {
        // The least of: another name in front of the number, and skipped numbers.
        let mut best: Option<(usize, (bool, u64))> = None;
        let mut refused = None;
        let name = Name::of(&file.path);
        for (n, (group, last_name)) in groups.iter().zip(&names).enumerate() {
            let Some(last) = group.files.last() else { continue };
            match link_named((last, last_name), (&file, &name), &present, false) {
                Ok(skipped) => {
                    let key = (last_name.prefix != name.prefix, skipped);
                    if best.is_none_or(|(_, least)| key < least) {
                        best = Some((n, key));
                    }
                }
                Err(text) => refused = refused.or(Some(text)),
            }
        }
        let (n, skipped) = best.map_or((groups.len(), 0), |(n, (_, skipped))| (n, skipped));
        match groups.get_mut(n).zip(names.get_mut(n)) {
            Some((group, last_name)) => {
                let last = group.files.last();
                group.missing.extend(last.and_then(|last| missing_between(last, &file, skipped)));
                group.files.push(file);
                *last_name = name;
            }
            None => {
                reason = reason.or(refused);
                groups.push(Group { files: vec![file], missing: Vec::new() });
                names.push(name);
            }
        }
    }
    for group in &mut groups {
        if let Some(text) = missing_before(&group.files, &present) {
            group.missing.insert(0, text);
        }
    }
    let first = |group: &Group| group.files.first().and_then(|file| order.get(&file.path)).copied();
    groups.sort_by_key(|group| first(group).unwrap_or(0_usize));
    (groups, reason)
}

/// Describes the parts that are missing between two files, if there are any.
pub(crate) fn missing_between(before: &Survey, after: &Survey, parts: u64) -> Option<String> {
    let (before, after) = (file_name(&before.path), file_name(&after.path));
    (parts > 0).then(|| format!("{} missing between {before} and {after}", parts_are(parts)))
}

/// Describes the parts that are missing before the first of these files.
fn missing_before(files: &[Survey], present: &[Name]) -> Option<String> {
    let first = files.first()?;
    let name = Name::of(&first.path);
    let number = name.number.filter(|number| *number > 0)?;
    let next = files.get(1).and_then(|file| Name::of(&file.path).number);
    let is_counted = number > 1 && next == number.checked_add(1);
    let is_split = (name.is_of_split || is_counted) && name.series.ends_with("_#");
    let parts = if is_split { name.missing_since(None, present) } else { 0 };
    let first = file_name(&first.path);
    (parts > 0).then(|| format!("{} missing before {first}", parts_are(parts)))
}

fn parts_are(count: u64) -> String {
    if count == 1 { "1 part is".into() } else { format!("{count} parts are") }
}

/// Returns how many parts are missing between two files of one recording, or why they are not one
/// recording. Their directory is a recording: if their numbers follow, they are parts of it, whatever
/// pause is between them. `present`: all files of the recording.
pub(crate) fn link(before: &Survey, after: &Survey, present: &[PathBuf]) -> Result<u64, String> {
    let present: Vec<_> = present.iter().map(|path| Name::of(path)).collect();
    let names = (Name::of(&before.path), Name::of(&after.path));
    link_named((before, &names.0), (after, &names.1), &present, true)
}

/// As [`link`]. `is_known`: the directory is a recording.
fn link_named(
    (before, name): (&Survey, &Name),
    (after, next): (&Survey, &Name),
    present: &[Name],
    is_known: bool,
) -> Result<u64, String> {
    let (a, b) = (file_name(&before.path), file_name(&after.path));
    if !name.is_like(next) {
        return Err(format!("{b} has another name than {a}"));
    }
    let follows = next.number > name.number && name.prefix == next.prefix;
    let is_split = (is_known && follows) || (name.is_of_split && next.is_of_split);
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
    let skipped = next.missing_since(Some(name), &[]);
    let interval = before.interval.max(after.interval).min(LONGEST_INTERVAL);
    let few = interval.saturating_mul(3);
    // Parts have about the same length: those that are missing or not read fill the pause.
    let length = |(first, last): (i64, i64)| last.saturating_sub(first);
    let missing = length(first).max(length(second)) as f64 * skipped as f64;
    let is_filled = (missing * 0.75..=missing * 1.25 + few as f64).contains(&(pause as f64));
    let is_counted = is_split || (is_filled && name.series.ends_with("_#"));
    if skipped > 0 && pause > few && is_counted {
        return Ok(next.missing_since(Some(name), present));
    }
    if pause <= SECOND.max(few) || is_split {
        return Ok(0);
    }
    Err(format!("{b} begins {} after the end of {a}", seconds(pause)))
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A file with the camera `topic` from `start` to `end`, in tenths of a second.
    fn file(name: &str, topic: &str, start: i64, end: i64) -> Survey {
        Survey {
            path: Path::new("rec").join(name),
            span: Some((start * SECOND / 10, end * SECOND / 10)),
            cameras: [(topic.to_owned(), "x".to_owned())].into(),
            interval: SECOND / 20,
            damage: None,
        }
    }

    /// The groups as text: numbers of the files, and of the missing parts.
    fn grouped(files: &[(&str, &str, i64, i64)]) -> String {
        let surveys = files.iter().map(|(name, topic, start, end)| file(name, topic, *start, *end));
        let surveys: Vec<_> = surveys.collect();
        let present: Vec<_> = surveys.iter().map(|file| file.path.clone()).collect();
        let (groups, reason) = group(surveys, &present);
        assert_eq!(groups.len() > 1, reason.is_some(), "{files:?}");
        let text = |group: &Group| {
            let names = group.files.iter().map(|f| stem(&f.path)).collect::<Vec<_>>().join("+");
            format!("{names}{}", "!".repeat(group.missing.len()))
        };
        groups.iter().map(text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn parts_of_a_recording_and_recordings() {
        let table: &[(&[(&str, &str, i64, i64)], &str)] = &[
            (&[("a.mcap", "/c", 0, 100)], "a"),
            // Parts: one after another, crossing a boundary, in another order.
            (&[("x_0.mcap", "/c", 0, 100), ("x_1.mcap", "/c", 101, 200)], "x_0+x_1"),
            (&[("x_0.mcap", "/c", 0, 100), ("x_1.mcap", "/c", 95, 200)], "x_0+x_1"),
            (&[("x_0.mcap", "/c", 101, 200), ("x_1.mcap", "/c", 0, 100)], "x_1+x_0"),
            (
                &[
                    ("b_2020-01-01-10-00-00_0.bag", "/c", 0, 600),
                    ("b_2020-01-01-10-01-00_1.bag", "/c", 605, 1200),
                ],
                "b_2020-01-01-10-00-00_0+b_2020-01-01-10-01-00_1",
            ),
            // Recordings: at the same time, again, with a pause, with other topics, with other names.
            (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 0, 110)], "e1 e2"),
            (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 50, 150)], "e1 e2"),
            (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 20, 80)], "e1 e2"),
            (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/c", 150, 250)], "e1 e2"),
            (&[("e1.mcap", "/c", 0, 100), ("e2.mcap", "/d", 101, 200)], "e1 e2"),
            (&[("left.bag", "/c", 0, 100), ("right.bag", "/c", 101, 200)], "left right"),
            (&[("e1.mcap", "/c", 0, 100), ("e2.bag", "/c", 101, 200)], "e1 e2"),
            // Two recorders at the same time.
            (
                &[
                    ("a_0.mcap", "/c", 0, 100),
                    ("b_0.mcap", "/c", 5, 105),
                    ("a_1.mcap", "/c", 101, 200),
                    ("b_1.mcap", "/c", 106, 205),
                ],
                "a_0+a_1 b_0+b_1",
            ),
            // Missing parts.
            (&[("x_0.mcap", "/c", 0, 100), ("x_2.mcap", "/c", 200, 300)], "x_0+x_2!"),
            (&[("x_2.mcap", "/c", 0, 100), ("x_3.mcap", "/c", 101, 200)], "x_2+x_3!"),
            (&[("e_0.mcap", "/c", 0, 100), ("e_2.mcap", "/c", 300, 400)], "e_0 e_2"),
            (&[("rec_0.mcap", "/c", 0, 100), ("rec_2.mcap", "/c", 300, 400)], "rec_0+rec_2!"),
            (&[("rec_1.mcap", "/c", 0, 100)], "rec_1!"),
            (&[("run_5.mcap", "/c", 0, 100)], "run_5"),
            // A part that is read as a recording of its own, and a recorder that was killed.
            (
                &[
                    ("rec_0.mcap", "/c", 0, 100),
                    ("rec_1.mcap", "/d", 100, 200),
                    ("rec_2.mcap", "/c", 200, 300),
                ],
                "rec_0+rec_2 rec_1",
            ),
            (
                &[
                    ("run_1.mcap", "/c", 0, 100),
                    ("run_2.mcap", "/c", 101, 200),
                    ("run_3.mcap", "/c", 500, 600),
                    ("run_4.mcap", "/c", 601, 700),
                ],
                "run_1+run_2 run_3+run_4",
            ),
            (&[("x_0.bag", "/c", 0, 100), ("x_1.bag.active", "/c", 101, 200)], "x_0+x_1"),
            // Numbers that are not those of parts.
            (&[("x_0.mcap", "/c", 0, 100), ("x_7.mcap", "/c", 101, 200)], "x_0+x_7"),
        ];
        for (files, expected) in table {
            assert_eq!(grouped(files), *expected, "{files:?}");
        }
    }

    /// Files that are there but not read, as they are damaged or have no camera, are not missing.
    #[test]
    fn files_that_are_not_read_are_not_missing() {
        let date = |n: u64| format!("b_2020-01-01-10-{n:02}-00_{n}.bag");
        let name = |pattern: &str, n: u64| match pattern {
            "dated" => date(n),
            _ => pattern.replace('#', &n.to_string()),
        };
        // The pattern of the names; the numbers that are read, and others that are there; what is
        // missing.
        let table: &[(&str, &[u64], &[u64], &[&str])] = &[
            ("rec_#.mcap", &[0, 2], &[1], &[]),
            ("rec_#.mcap", &[0, 4], &[1, 3], &["1 part is missing between"]),
            ("rec_#.mcap", &[2, 3], &[0, 1], &[]),
            ("rec_#.mcap", &[3], &[1], &["2 parts are missing before rec_3.mcap"]),
            ("x_#.mcap", &[0, 2], &[1], &[]),
            ("x_#.mcap", &[0, 2], &[], &["1 part is missing between"]),
            ("dated", &[0, 2], &[1], &[]),
            ("dated", &[1, 2], &[0], &[]),
            ("dated", &[1, 3], &[], &["1 part is missing before", "1 part is missing between"]),
        ];
        for (pattern, read, others, expected) in table {
            let at = |n: &u64| {
                let start = *n as i64 * 100;
                file(&name(pattern, *n), "/c", start, start + 95)
            };
            let present: Vec<_> = read.iter().chain(*others).map(|n| at(n).path).collect();
            let (groups, _) = group(read.iter().map(at).collect(), &present);
            let [Group { missing, .. }] = groups.as_slice() else { panic!("{groups:?}") };
            assert_eq!(missing.len(), expected.len(), "{missing:?}");
            for (text, part) in missing.iter().zip(*expected) {
                assert!(text.starts_with(part), "{text}");
            }
        }
    }

    #[test]
    fn a_slow_camera_pauses_between_parts() {
        let slow =
            |name, start, end| Survey { interval: 5 * SECOND, ..file(name, "/c", start, end) };
        let link = |before: &Survey, after: &Survey| {
            let names = (Name::of(&before.path), Name::of(&after.path));
            link_named((before, &names.0), (after, &names.1), &[], false)
        };
        assert_eq!(link(&slow("x_0.mcap", 0, 600), &slow("x_1.mcap", 650, 1200)), Ok(0));
        let fast = |name, start, end| file(name, "/c", start, end);
        assert!(link(&fast("x_0.mcap", 0, 600), &fast("x_1.mcap", 650, 1200)).is_err());
    }

    #[test]
    fn a_camera_may_be_silent_in_a_part() {
        let with = |name, start, end| {
            let mut file = file(name, "/c", start, end);
            file.cameras.insert(("/d".into(), "x".into()));
            file
        };
        let link = |before: &Survey, after: &Survey| link(before, after, &[]);
        assert_eq!(link(&with("rec_0.mcap", 0, 100), &file("rec_1.mcap", "/d", 101, 200)), Ok(0));
        // In a directory that is no recording.
        let (both, one) = (with("y_0.mcap", 0, 100), file("y_1.mcap", "/d", 101, 200));
        assert_eq!(group(vec![both, one], &[]).0.len(), 2);
        let empty = Survey { span: None, ..file("rec_1.mcap", "/c", 0, 0) };
        assert_eq!(link(&file("rec_0.mcap", "/c", 0, 100), &empty), Ok(0));
    }

    #[test]
    fn names_of_recordings() {
        for (files, expected) in [
            (&["x_0.mcap", "x_1.mcap"][..], "x"),
            (&["x_0.mcap"], "x_0"),
            (&["a.db3.zstd"], "a"),
            (&["0.bag", "1.bag"], "0"),
            (&["b.bag.active"], "b"),
        ] {
            let files: Vec<_> = files.iter().map(|name| file(name, "/c", 0, 1)).collect();
            assert_eq!(common_name(&files), expected);
        }
    }
}
