//! The order in which the files of a recording are read.

use std::path::Path;

use super::parts::Planned;
use crate::names::natural;

/// How far files may overlap in time: recorders close a file and open the next one while messages
/// arrive.
const SECOND: i64 = 1_000_000_000;

/// A file in its place.
#[derive(Clone, Debug)]
pub(super) struct InSequence {
    pub(super) file: Planned,
    /// By how much the recorder's clock was set back before the file, in nanoseconds. It is read
    /// behind all files before it.
    pub(super) back: Option<i64>,
}

/// Puts files in order: by their log times, whatever their order is. If the recorder's clock was
/// set back, their order is right. `is_like`: whether two files have a camera topic in common.
pub(super) fn sequence(
    files: Vec<Planned>,
    is_like: impl Fn(&Path, &Path) -> bool,
) -> Vec<InSequence> {
    let mut sorted = files.clone();
    sort(&mut sorted);
    if !overlap(&sorted, is_like) && !steps_back(&files) {
        return sorted.into_iter().map(|file| InSequence { file, back: None }).collect();
    }
    let mut end = None;
    let place = |file: Planned| {
        let Some((first, last)) = file.span else { return InSequence { file, back: None } };
        let back = end.map(|end: i64| end.saturating_sub(first)).filter(|back| *back > SECOND);
        end = end.filter(|_| back.is_none()).max(Some(last));
        InSequence { file, back }
    };
    files.into_iter().map(place).collect()
}

/// Whether files with the same cameras overlap in time by more than those of a recorder do.
fn overlap(sorted: &[Planned], is_like: impl Fn(&Path, &Path) -> bool) -> bool {
    let mut latest: Option<(&Path, (i64, i64))> = None;
    for (path, span) in timed(sorted) {
        if let Some((before, (first, last))) = latest {
            let overlap = last.min(span.1).saturating_sub(span.0);
            let shorter = last.saturating_sub(first).min(span.1.saturating_sub(span.0));
            if overlap > SECOND.max(shorter / 10) && is_like(before, path) {
                return true;
            }
        }
        if latest.is_none_or(|(_, (_, last))| last <= span.1) {
            latest = Some((path, span));
        }
    }
    false
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
            after.1 < before.0 && !all.iter().any(is_continued)
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
    use std::path::PathBuf;

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
            (&[(1000, 1100), (1099, 1200)], "01"),
        ] {
            let spans: Vec<_> = spans.iter().map(|span| seconds(*span)).collect();
            let text = |found: Vec<InSequence>| {
                let one = |InSequence { file, back }: &InSequence| {
                    let back = back.map(|back| format!("<{}", back / SECOND));
                    format!("{}{}", file.path.display(), back.unwrap_or_default())
                };
                found.iter().map(one).collect::<String>()
            };
            assert_eq!(text(sequence(planned(&spans), |_, _| true)), expected);
        }
        // Other cameras at the same time.
        let spans = [(0, 100), (0, 100)].map(seconds);
        let found = sequence(planned(&spans), |_, _| false);
        assert!(found.iter().all(|found| found.back.is_none()));
    }
}
