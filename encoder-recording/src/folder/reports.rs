//! The reports that earlier runs left beside their videos.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::filter::stream_name;
use crate::signature;

/// How the names of reports end.
const ENDING: &str = "report.json";
/// How many reports of a directory are read.
const REPORTS: usize = 64;
/// The largest report that is read, in bytes.
const BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
struct Report {
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    file: Option<PathBuf>,
}

/// Names of the videos that the reports among the `entries` of a directory list. Further and larger
/// reports are ignored.
pub(super) fn videos(entries: &[PathBuf]) -> HashSet<String> {
    let is_report = |path: &&PathBuf| stream_name(path).ends_with(ENDING) && path.is_file();
    let reports = entries.iter().filter(is_report).take(REPORTS).filter_map(|path| read(path));
    let outputs = reports.flat_map(|report| report.outputs);
    outputs.filter_map(|output| output.file.as_deref().map(stream_name)).collect()
}

fn read(path: &Path) -> Option<Report> {
    serde_json::from_slice(&signature::head(path, BYTES).ok()?).ok()
}
