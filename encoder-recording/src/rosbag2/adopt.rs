//! Files that `metadata.yaml` does not list: a recorder that was killed did not add them, or they
//! were renamed. They are read if they fit the recording.

use std::path::{Path, PathBuf};

use super::files::Files;
use super::metadata::Metadata;
use super::opener::Opener;
use super::parts::Planned;
use crate::signature::{ROSBAG2_METADATA, has_packed_name};
use crate::survey::{Survey, link, missing_between};
use crate::{SourceOptions, Warning};

/// How far a file that replaces a missing one may be outside of the times in `metadata.yaml`.
const SECOND: i64 = 1_000_000_000;

/// The files of a recording.
pub(super) struct Adopted {
    /// In the order of the list; adopted files are last.
    pub(super) files: Vec<Planned>,
    pub(super) warnings: Vec<Warning>,
    /// There are more messages than `metadata.yaml` counts.
    pub(super) is_larger: bool,
}

/// Determines the times of the listed files, and adopts files that are not listed and fit.
pub(super) fn adopt(
    listed: Files,
    metadata: &Metadata,
    options: &SourceOptions,
    opener: &Opener,
) -> Adopted {
    let Files { paths, unlisted, mut missing, mut lost, mut notes } = listed;
    let listed = metadata.relative_file_paths.iter().map(PathBuf::from);
    let present: Vec<_> = listed.chain(unlisted.iter().cloned()).collect();
    let mut files: Vec<Planned> = Vec::new();
    // A single file needs no order.
    let is_alone = paths.len() == 1 && unlisted.is_empty();
    let mut known: Vec<Survey> = Vec::new();
    for path in paths {
        let survey = match metadata.span_of(&path) {
            _ if is_alone => None,
            // Files that are compressed would have to be decompressed once more.
            Some(span) if unlisted.is_empty() && has_packed_name(&path) => {
                Some(Survey { path: path.clone(), span: Some(span), ..Survey::default() })
            }
            _ => opener.survey(&path, options).ok(),
        };
        files.push(Planned { path, span: survey.as_ref().and_then(|survey| survey.span) });
        known.extend(survey);
    }
    let mut is_larger = false;
    let mut new = Vec::new();
    for path in unlisted {
        match opener.survey(&path, options) {
            Ok(survey) => new.push(survey),
            Err(error) => notes.push(format!(
                "{} is not listed in {ROSBAG2_METADATA} and is not read ({error})",
                name(&path)
            )),
        }
    }
    new.sort_by_key(|survey| survey.span.map_or(i64::MAX, |(start, _)| start));
    for survey in new {
        let path = survey.path.clone();
        let fits = match missing.is_empty() {
            true => continues(&survey, &known, &present, metadata),
            false => replaces(&survey, &known, metadata).map(|()| None),
        };
        let name = name(&path);
        match fits {
            Ok(gap) => gap.into_iter().for_each(|text| lost.push(text)),
            Err(reason) => {
                notes.push(format!(
                    "{name} is not listed in {ROSBAG2_METADATA} and is not read: {reason}"
                ));
                continue;
            }
        }
        notes.push(match missing.is_empty() {
            true => {
                is_larger = true;
                format!(
                    "{name} is not listed in {ROSBAG2_METADATA}; it is read, because it continues \
                     the recording"
                )
            }
            false => format!(
                "{name} is not listed in {ROSBAG2_METADATA}; it is read in place of {}, which is \
                 not there: its topics and times fit",
                missing.remove(0).0
            ),
        });
        files.push(Planned { path, span: survey.span });
        known.push(survey);
    }
    missing.into_iter().for_each(|(_, text)| lost.push(text));
    let mut warnings = lost.into_warnings(true);
    warnings.extend(notes.into_warnings(false));
    Adopted { files, warnings, is_larger }
}

/// Describes the parts that are missing before a file that continues the recording, if there are
/// any. `present`: all files of the recording. The error is why the file does not continue it.
fn continues(
    file: &Survey,
    known: &[Survey],
    present: &[PathBuf],
    metadata: &Metadata,
) -> Result<Option<String>, String> {
    check_cameras(file, metadata)?;
    let Some((start, _)) = file.span else { return Err("it has no messages".into()) };
    let timed = || known.iter().filter(|other| other.span.is_some());
    let earlier = timed().filter(|other| other.span.is_some_and(|(first, _)| first < start));
    match earlier.max_by_key(|other| other.span.map(|(_, last)| last)) {
        Some(before) => {
            let parts = link(before, file, present)?;
            Ok(missing_between(before, file, parts))
        }
        // In front of all files.
        None => match timed().min_by_key(|other| other.span) {
            Some(after) => {
                let parts = link(file, after, present)?;
                Ok(missing_between(file, after, parts))
            }
            None => Err("no listed file can be read".into()),
        },
    }
}

/// Checks whether a file is a listed file under another name. The error is the reason why not.
fn replaces(file: &Survey, known: &[Survey], metadata: &Metadata) -> Result<(), String> {
    check_cameras(file, metadata)?;
    let Some((start, end)) = file.span else { return Err("it has no messages".into()) };
    if let Some((first, last)) = metadata.span()
        && (start < first.saturating_sub(SECOND) || end > last.saturating_add(SECOND))
    {
        return Err("its messages are not of the time of the recording".into());
    }
    for other in known {
        let Some((first, last)) = other.span else { continue };
        let shorter = end.saturating_sub(start).min(last.saturating_sub(first));
        let overlap = end.min(last).saturating_sub(start.max(first));
        if overlap > SECOND.min(shorter / 2) || start == first {
            return Err(format!("its messages are of the time of {}", name(&other.path)));
        }
    }
    Ok(())
}

/// Why the camera topics of a file are not those of the recording, if they are not.
fn check_cameras(file: &Survey, metadata: &Metadata) -> Result<(), String> {
    if file.cameras.is_empty() {
        return Err(match &file.damage {
            Some(damage) => format!("no camera topic was found in it, and {damage}"),
            None => "it has no camera topic".into(),
        });
    }
    let other = file.cameras.iter().find(|(topic, _)| !metadata.has_topic(topic));
    other.map_or(Ok(()), |(topic, _)| Err(format!("its topic {topic} is not of the recording")))
}

fn name(path: &Path) -> String {
    PathBuf::from(path.file_name().unwrap_or_default()).display().to_string()
}
