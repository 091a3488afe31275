//! Probe results on disk, so that a short run does not repeat the probes of an earlier one.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{Caps, EncoderType, ProbeResult, Refusal, RefusalKind};

/// How long a usable result is valid while its identity stays the same.
const USABLE: Duration = Duration::from_secs(24 * 3600);
/// How long a refusal is valid. Short, because a device may become usable and a wrong refusal must
/// not last.
const REFUSED: Duration = Duration::from_secs(5 * 60);
/// The most entries of the file: more than the encoders of a machine, with different options.
const MOST: usize = 64;

/// The environment variable with the folder of the cache; empty for no cache.
pub const CACHE_ENV: &str = "ENCODER_CACHE";

/// A file with probe results of earlier runs.
///
/// Each result is stored with everything that it depends on
/// ([`Device::identity`](crate::Device::identity), this program and the boot of the machine). A
/// transient refusal is not stored; other refusals are valid for five minutes, usable results for a
/// day. If the file cannot be read or written, the encoders are probed again.
#[derive(Clone, Debug)]
pub struct Cache {
    file: PathBuf,
}

/// A probe result from the cache.
pub(crate) struct CachedResult {
    pub(crate) result: ProbeResult,
    pub(crate) age: Duration,
}

impl Cache {
    /// The cache of this user: in the folder that [`CACHE_ENV`] names, else in the usual folder of
    /// the system. `None` if there is no such folder, or the variable is empty.
    pub fn of_user() -> Option<Self> {
        let folder = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let folder = match env::var_os(CACHE_ENV) {
            Some(value) if value.is_empty() => return None,
            Some(value) => PathBuf::from(value),
            None if cfg!(target_os = "macos") => folder("HOME")?.join("Library/Caches/encoder"),
            None if cfg!(windows) => folder("LOCALAPPDATA")?.join("encoder"),
            None => folder("XDG_CACHE_HOME")
                .or_else(|| Some(folder("HOME")?.join(".cache")))?
                .join("encoder"),
        };
        Some(Self::at(&folder))
    }

    /// The cache in `folder`, which is created when needed.
    pub fn at(folder: &Path) -> Self {
        Self { file: folder.join("detection.json") }
    }

    /// The probe results that are still valid at `now`.
    pub(crate) fn load(&self, now: SystemTime) -> ProbeResults {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let mut entries: Vec<Entry> = serde_json::from_str(&text).unwrap_or_default();
        let now = seconds(now);
        entries.retain(|entry| entry.is_valid(now));
        ProbeResults { entries, now, changed: false }
    }

    /// Writes the results to a new file and renames it, so that another process never reads a
    /// partial file.
    pub(crate) fn save(&self, mut results: ProbeResults) -> io::Result<()> {
        if !results.changed {
            return Ok(());
        }
        results.entries.sort_by_key(|entry| std::cmp::Reverse(entry.at));
        results.entries.truncate(MOST);
        let folder = self.file.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let temporary = folder.join(format!("detection.{}.tmp", std::process::id()));
        fs::write(&temporary, serde_json::to_vec_pretty(&results.entries)?)?;
        fs::rename(&temporary, &self.file).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

/// The contents of the cache.
pub(crate) struct ProbeResults {
    entries: Vec<Entry>,
    now: u64,
    changed: bool,
}

impl ProbeResults {
    pub(crate) fn find(&self, encoder: EncoderType, identity: &[String]) -> Option<CachedResult> {
        let entry = self.entries.iter().find(|entry| entry.has_key(encoder, identity))?;
        let age = Duration::from_secs(self.now.saturating_sub(entry.at));
        Some(CachedResult { result: entry.outcome.result(encoder), age })
    }

    pub(crate) fn keep(&mut self, encoder: EncoderType, identity: &[String], result: &ProbeResult) {
        self.replace(encoder, identity, Outcome::of(result));
    }

    /// Removes what [`keep_hang`](Self::keep_hang) has stored: the driver has answered.
    pub(crate) fn forget_hang(&mut self, encoder: EncoderType, driver: &[String]) {
        if self.find(encoder, driver).is_some() {
            self.replace(encoder, driver, None);
        }
    }

    /// Stores that a driver did not answer the device check in time, although that is transient:
    /// each further check would wait for the whole deadline.
    pub(crate) fn keep_hang(&mut self, encoder: EncoderType, driver: &[String], refusal: &Refusal) {
        self.replace(encoder, driver, Some(Outcome::refused(refusal)));
    }

    fn replace(&mut self, encoder: EncoderType, identity: &[String], outcome: Option<Outcome>) {
        self.entries.retain(|entry| !entry.has_key(encoder, identity));
        self.changed = true;
        if let Some(outcome) = outcome {
            self.entries.push(Entry {
                encoder: encoder.as_str().into(),
                identity: identity.to_vec(),
                at: self.now,
                outcome,
            });
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    encoder: String,
    identity: Vec<String>,
    /// Seconds since 1970.
    at: u64,
    outcome: Outcome,
}

impl Entry {
    fn has_key(&self, encoder: EncoderType, identity: &[String]) -> bool {
        self.encoder == encoder.as_str() && self.identity == identity
    }

    /// An entry from the future (the clock was set back) is not valid.
    fn is_valid(&self, now: u64) -> bool {
        let limit = match self.outcome {
            Outcome::Usable(_) => USABLE,
            Outcome::Refused { .. } => REFUSED,
        };
        now.checked_sub(self.at).is_some_and(|age| age < limit.as_secs())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Usable(Caps),
    Refused { kind: RefusalKind, reason: String, hint: String },
}

impl Outcome {
    fn of(result: &ProbeResult) -> Option<Self> {
        match result {
            ProbeResult::Usable(caps) => Some(Self::Usable(caps.clone())),
            ProbeResult::Refused(refusal) if refusal.transient => None,
            ProbeResult::Refused(refusal) => Some(Self::refused(refusal)),
        }
    }

    fn refused(Refusal { kind, reason, hint, .. }: &Refusal) -> Self {
        Self::Refused { kind: *kind, reason: reason.clone(), hint: hint.clone() }
    }

    fn result(&self, encoder: EncoderType) -> ProbeResult {
        match self {
            Self::Usable(caps) => ProbeResult::Usable(caps.clone()),
            Self::Refused { kind, reason, hint } => {
                let refusal = Refusal::new(encoder, *kind, reason, hint);
                // Of the transient refusals, only that of a driver that hangs is stored.
                let is_hang = *kind == RefusalKind::Timeout;
                ProbeResult::Refused(if is_hang { refusal.transient() } else { refusal })
            }
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NVENC: EncoderType = EncoderType::NVENC;

    fn usable() -> ProbeResult {
        ProbeResult::Usable(Caps { library: "ffmpeg 9.0 h264_nvenc".into(), ..Caps::default() })
    }

    fn refused() -> ProbeResult {
        ProbeResult::Refused(Refusal::new(NVENC, RefusalKind::NoDevice, "no device", "buy one"))
    }

    fn id(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// Stores `result` and looks it up `later` seconds afterwards.
    fn after(result: &ProbeResult, asked: &str, later: i64) -> Option<(ProbeResult, u64)> {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(&folder.path().join("made/when/needed"));
        let start = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let mut all = cache.load(start);
        all.keep(NVENC, &id("ffmpeg driver"), result);
        cache.save(all).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000u64.strict_add_signed(later));
        let kept = cache.load(now).find(NVENC, &id(asked))?;
        Some((kept.result, kept.age.as_secs()))
    }

    #[test]
    fn results_are_valid_for_their_time_and_their_identity() {
        let passing = match refused() {
            ProbeResult::Refused(refusal) => ProbeResult::Refused(refusal.transient()),
            usable => usable,
        };
        // result | identity | seconds later | still valid
        let table = [
            (usable(), "ffmpeg driver", 0i64, true),
            (usable(), "ffmpeg driver", 86_399, true),
            (usable(), "ffmpeg driver", 86_400, false),
            (usable(), "ffmpeg driver", -1, false),
            (usable(), "ffmpeg newer-driver", 0, false),
            (usable(), "ffmpeg", 0, false),
            (refused(), "ffmpeg driver", 299, true),
            (refused(), "ffmpeg driver", 300, false),
            (passing, "ffmpeg driver", 0, false),
        ];
        for (result, asked, later, there) in table {
            let expected = there.then(|| (result.clone(), later.unsigned_abs()));
            assert_eq!(after(&result, asked, later), expected, "{asked} {later} {result:?}");
        }
    }

    #[test]
    fn a_new_result_replaces_the_old_and_a_transient_refusal_removes_it() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let now = SystemTime::now();
        let mut all = cache.load(now);
        all.keep(NVENC, &id("a"), &usable());
        all.keep(NVENC, &id("a"), &refused());
        all.keep(EncoderType::QSV, &id("a"), &usable());
        cache.save(all).unwrap();
        let mut all = cache.load(now);
        assert_eq!(all.find(NVENC, &id("a")).unwrap().result, refused());
        let ProbeResult::Refused(refusal) = refused() else { unreachable!() };
        all.keep(NVENC, &id("a"), &ProbeResult::Refused(refusal.transient()));
        assert!(all.find(NVENC, &id("a")).is_none());
        assert!(all.find(EncoderType::QSV, &id("a")).is_some());
        for n in 0..1000 {
            all.keep(NVENC, &id(&n.to_string()), &usable());
        }
        cache.save(all).unwrap();
        assert_eq!(cache.load(now).entries.len(), MOST);
    }

    #[test]
    fn a_broken_file_is_an_empty_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        for text in ["", "{", "[{}]", "[{\"encoder\":3}]", "\u{0}"] {
            fs::write(folder.path().join("detection.json"), text).unwrap();
            assert!(cache.load(SystemTime::now()).entries.is_empty(), "{text}");
        }
        // A folder that cannot be written is an error, not a panic; without changes nothing is
        // written.
        let nowhere = Cache::at(&folder.path().join("detection.json/below"));
        let mut all = nowhere.load(SystemTime::now());
        all.keep(NVENC, &id("a"), &usable());
        assert!(nowhere.save(all).is_err());
        assert!(nowhere.save(nowhere.load(SystemTime::now())).is_ok());
    }
}
