//! Finds FFmpeg, its version and its encoders.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use encoder_core::{Caps, EncoderType, Refusal, RefusalKind, Waited, Waiter};

use crate::{
    args::FfmpegSpec,
    process::{Exit, Input, run_until_stop},
    sys::{self, Access},
    tail::summary,
    version::Version,
    wait::CHECK,
};

/// The environment variable with the path of the FFmpeg program to use.
pub const ENV: &str = "ENCODER_FFMPEG";

/// The oldest version that is accepted: the first with every option that the backends use.
pub const OLDEST: Version = Version::new(4, 4);

/// The part of a hint that names the two ways to choose an FFmpeg, the stronger first:
/// `set_ffmpeg!("an FFmpeg that has it")` is the text "set `ffmpeg.path` or ENCODER_FFMPEG to an
/// FFmpeg that has it". For the crates of this workspace.
#[doc(hidden)]
#[macro_export]
macro_rules! set_ffmpeg {
    ($to:literal) => {
        concat!("set `ffmpeg.path` or ENCODER_FFMPEG to ", $to)
    };
}

const HINT: &str = concat!(
    "install FFmpeg 4.4 or later, or ",
    set_ffmpeg!("its path; or use an encoder that needs no FFmpeg")
);

const NONE: &str = "there is no ffmpeg on the PATH";

/// How long the search may take: to list its encoders takes FFmpeg 0.1 s on an idle machine.
const DEADLINE: Duration = Duration::from_secs(10);

/// Each FFmpeg may take at least this long, even if those before it have used up the deadline.
const LEAST: Duration = Duration::from_secs(1);

/// The most programs of the `PATH` that are tried.
const MOST: usize = 8;

/// An FFmpeg program that can be used.
#[derive(Clone, Debug)]
pub struct Ffmpeg {
    /// The file.
    pub path: PathBuf,
    /// Its version; `None` for development builds.
    pub version: Option<Version>,
    /// Its version as it prints it: `5.1.9-0+deb12u1`.
    pub version_text: String,
    encoders: BTreeSet<String>,
}

impl Ffmpeg {
    /// The FFmpeg of a [`Search`] without conditions: the file that [`ENV`] names, else the first
    /// `ffmpeg` on the `PATH` that works.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn find(encoder: EncoderType) -> Result<Arc<Self>, Refusal> {
        Search::new(encoder).run()
    }

    /// The first of `files` that works and has the encoder `name`.
    fn choose(
        encoder: EncoderType,
        name: Option<&str>,
        files: Vec<PathBuf>,
        deadline: Duration,
        waiter: &Waiter,
    ) -> Result<Arc<Self>, Refusal> {
        let begun = Instant::now();
        let (mut lacking, mut broken) = (Vec::new(), Vec::new());
        for path in files {
            let left = deadline.saturating_sub(begun.elapsed()).max(LEAST);
            match Self::known(&path, encoder, left, waiter) {
                Ok(ffmpeg) if name.is_none_or(|name| ffmpeg.lists(name)) => return Ok(ffmpeg),
                Ok(ffmpeg) => lacking.push(ffmpeg),
                Err(refusal) if waiter.state() == Waited::Stopped => return Err(refusal),
                Err(refusal) => broken.push(refusal),
            }
        }
        match (name, broken.into_iter().next()) {
            (Some(name), _) if !lacking.is_empty() => Err(not_listed(encoder, &lacking, name)),
            (_, Some(refusal)) => Err(refusal),
            _ => Err(Refusal::new(encoder, RefusalKind::Missing, NONE, HINT)),
        }
    }

    /// The FFmpeg at `path`, which is run once per process. Searches for the same file that run side
    /// by side wait for one run; a stop ends the wait.
    fn known(
        path: &Path,
        encoder: EncoderType,
        deadline: Duration,
        waiter: &Waiter,
    ) -> Result<Arc<Self>, Refusal> {
        let mut known = lock();
        loop {
            match known.get(path) {
                Some(Known::Good(ffmpeg)) => return Ok(Arc::clone(ffmpeg)),
                Some(Known::Bad(refusal, since)) if since.elapsed() < FRESH => {
                    return Err(refusal.clone().with_encoder(encoder));
                }
                Some(Known::Running) if waiter.state() == Waited::Stopped => {
                    return Err(stopped(path, encoder));
                }
                Some(Known::Running) => {
                    let woken = CHANGED.wait_timeout(known, CHECK);
                    known = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
                _ => break,
            }
        }
        known.insert(path.to_owned(), Known::Running);
        drop(known);
        let mut run = Run { path, result: None };
        let found = Self::read(path, encoder, deadline, waiter).map(Arc::new);
        run.result = match &found {
            Ok(ffmpeg) => Some(Known::Good(Arc::clone(ffmpeg))),
            // A run that a stop has cut short says nothing about the FFmpeg.
            Err(_) if waiter.state() != Waited::Elapsed => None,
            Err(refusal) => Some(Known::Bad(refusal.clone(), Instant::now())),
        };
        drop(run);
        found
    }

    /// The FFmpeg in which `spec` was probed with the result `probe`; `None` if that did not name
    /// it, if it has disappeared, or if the settings name another one. Starts no process.
    pub(crate) fn probed(spec: &FfmpegSpec, probe: &Caps, named: Option<&Path>) -> Option<Self> {
        let (version_text, path) = (probe.host.as_deref()?, probe.host_file.as_deref()?);
        let is_named = named.is_none_or(|named| absolute(named) == path);
        (is_named && path.is_file()).then(|| Self {
            path: path.into(),
            version: Version::parse(version_text),
            version_text: version_text.into(),
            encoders: BTreeSet::from([spec.encoder.to_owned()]),
        })
    }

    /// A command that runs it, without arguments. Its log is not coloured, whatever the environment
    /// of this process sets: colour codes would hide the level marks.
    pub fn command(&self) -> Command {
        command(&self.path)
    }

    /// Runs the program at `path` to read its version and its encoders.
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn at(path: &Path, encoder: EncoderType, deadline: Duration) -> Result<Self, Refusal> {
        Self::read(path, encoder, deadline, &Waiter::new())
    }

    /// As [`at`](Self::at); a stop of `waiter` ends the program early.
    fn read(
        path: &Path,
        encoder: EncoderType,
        deadline: Duration,
        waiter: &Waiter,
    ) -> Result<Self, Refusal> {
        let file = path.display();
        let refuse = |kind, reason: String| Refusal::new(encoder, kind, reason, HINT);
        // The encoders are on stdout; the version is in the banner on stderr.
        let list = || {
            let mut command = command(path);
            command.arg("-encoders");
            run_until_stop(command, Input::Empty, deadline, waiter).map_err(|error| {
                refuse(RefusalKind::Missing, format!("{file} cannot be run: {error}"))
            })
        };
        let mut output = list()?;
        // A program that another process killed is not at fault.
        if output.exit == Exit::Signal(9) {
            output = list()?;
        }
        let exit = output.exit;
        if waiter.state() == Waited::Stopped && exit != Exit::Code(0) {
            return Err(stopped(path, encoder));
        }
        if let Exit::TimedOut(_) = exit {
            let reason = format!("{file} does not list its encoders: {exit}");
            return Err(refuse(RefusalKind::Timeout, reason).transient());
        }
        let version_text = output.stderr.lines().find_map(version_text);
        let (Exit::Code(0), Some(version_text)) = (exit, version_text) else {
            let log = summary(&output.stderr);
            let reason = format!("{file} is no FFmpeg that works: {exit}, {log}");
            return Err(refuse(RefusalKind::Failed, reason));
        };
        let version = Version::parse(version_text);
        if version.is_some_and(|version| version < OLDEST) {
            let reason = format!(
                "{file} is FFmpeg {version_text}, and {OLDEST} is the oldest that has the options \
                 needed"
            );
            return Err(refuse(RefusalKind::Unsupported, reason));
        }
        Ok(Self {
            path: path.into(),
            version,
            version_text: version_text.into(),
            encoders: listed(&String::from_utf8_lossy(&output.stdout)),
        })
    }

    /// Whether it was built with this encoder. Only a probe shows whether the encoder works.
    pub fn lists(&self, encoder: &str) -> bool {
        self.encoders.contains(encoder)
    }

    /// Its name in reports: `ffmpeg 5.1.9`.
    pub fn label(&self) -> String {
        let text = self.version_text.as_str();
        let number = match self.version {
            Some(_) => text.split(['-', '+', '~']).next().unwrap_or(text).trim_start_matches('n'),
            None => text,
        };
        format!("ffmpeg {number}")
    }
}

/// A search for the FFmpeg to use.
///
/// The file that the settings name, else the file that [`ENV`] names, else the first `ffmpeg` on the
/// `PATH` that works. Each is run once per process and path, and nothing else is shared: searches
/// with different settings do not influence each other.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Search<'a> {
    user: EncoderType,
    named: Option<&'a Path>,
    encoder: Option<&'a str>,
    deadline: Duration,
    waiter: Option<&'a Waiter>,
}

impl<'a> Search<'a> {
    /// A search for the backend `user`, which is named in refusals.
    pub const fn new(user: EncoderType) -> Self {
        Self { user, named: None, encoder: None, deadline: DEADLINE, waiter: None }
    }

    /// Sets the file that the settings name
    /// ([`FfmpegConfig::path`](encoder_core::FfmpegConfig::path)).
    pub const fn named(mut self, path: Option<&'a Path>) -> Self {
        self.named = path;
        self
    }

    /// Sets the encoder that the FFmpeg must have been built with: `libx264`.
    pub const fn with_encoder(mut self, name: &'a str) -> Self {
        self.encoder = Some(name);
        self
    }

    /// Sets how long the search may take, for the most part. Default 10 s.
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets what ends the search early: of an [`OpenRequest`](encoder_core::OpenRequest).
    pub const fn with_waiter(mut self, waiter: Option<&'a Waiter>) -> Self {
        self.waiter = waiter;
        self
    }

    /// Finds the FFmpeg. Blocks while FFmpeg lists its encoders, or until the waiter is stopped.
    ///
    /// # Errors
    /// A [`Refusal`] when there is none, when it cannot be run, when it is older than [`OLDEST`], when
    /// each was built without the encoder, or when the waiter was stopped.
    pub fn run(self) -> Result<Arc<Ffmpeg>, Refusal> {
        let waiter = self.waiter.cloned().unwrap_or_default();
        Ffmpeg::choose(self.user, self.encoder, self.files()?, self.deadline, &waiter)
    }

    /// The files among which it searches, in this order. Starts no process.
    ///
    /// # Errors
    /// A [`Refusal`] when there is none.
    pub fn files(self) -> Result<Vec<PathBuf>, Refusal> {
        let (variable, path) = (env::var_os(ENV), env::var_os("PATH"));
        let named = [
            ("ffmpeg.path", self.named.map(Path::as_os_str)),
            (ENV, variable.as_deref().filter(|value| !value.is_empty())),
        ];
        let named = named.into_iter().find_map(|(by, path)| Some((by, path?)));
        locate(named, path.as_deref())
            .map_err(|reason| Refusal::new(self.user, RefusalKind::Missing, reason, HINT))
    }
}

/// A path from the folder in which this process runs: a name without a folder would be searched for
/// on the `PATH`.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The refusal of an encoder that each FFmpeg of `all` was built without.
pub fn not_listed(id: EncoderType, all: &[impl Borrow<Ffmpeg>], encoder: &str) -> Refusal {
    let name = |ffmpeg: &Ffmpeg| format!("{} at {}", ffmpeg.label(), ffmpeg.path.display());
    let names: Vec<_> = all.iter().map(|ffmpeg| name(ffmpeg.borrow())).collect();
    let were = if names.len() == 1 { "was" } else { "were" };
    Refusal::new(
        id,
        RefusalKind::NotBuilt,
        format!("{} {were} built without {encoder}", names.join(", ")),
        concat!("install an FFmpeg that has it, or ", set_ffmpeg!("one")),
    )
}

/// What is known of a file.
enum Known {
    /// A search is running it.
    Running,
    Good(Arc<Ffmpeg>),
    Bad(Refusal, Instant),
}

/// What is known of each file that was run by this process.
static KNOWN: Mutex<BTreeMap<PathBuf, Known>> = Mutex::new(BTreeMap::new());
/// Notified at the end of each run.
static CHANGED: Condvar = Condvar::new();

/// Nothing panics under the lock.
fn lock() -> MutexGuard<'static, BTreeMap<PathBuf, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run of a file, which ends when the value is dropped. Without a result the file is run again by
/// the next search.
struct Run<'a> {
    path: &'a Path,
    result: Option<Known>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut known = lock();
        match self.result.take() {
            Some(result) => known.insert(self.path.to_owned(), result),
            None => known.remove(self.path),
        };
        drop(known);
        CHANGED.notify_all();
    }
}

/// The refusal of a search that was stopped.
fn stopped(path: &Path, encoder: EncoderType) -> Refusal {
    let reason = format!("the run was stopped while {} listed its encoders", path.display());
    Refusal::new(encoder, RefusalKind::Timeout, reason, HINT).transient()
}

/// How long a refusal is returned again without a new run. Callers that search at the same time
/// must not each wait for the deadline; a later attempt gets a new result.
const FRESH: Duration = Duration::from_secs(2);

/// A command for the program at `path`.
fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env("AV_LOG_FORCE_NOCOLOR", "1");
    command
}

fn version_text(line: &str) -> Option<&str> {
    line.strip_prefix("ffmpeg version ")?.split_whitespace().next()
}

/// The names in the output of `ffmpeg -encoders`.
fn listed(text: &str) -> BTreeSet<String> {
    text.lines()
        .skip_while(|line| line.trim() != "------")
        .filter_map(|line| line.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect()
}

/// The files of FFmpeg: the named file, with what names it, else those on the `PATH`.
fn locate(named: Option<(&str, &OsStr)>, path: Option<&OsStr>) -> Result<Vec<PathBuf>, String> {
    if let Some((by, named)) = named {
        let file = absolute(Path::new(named));
        return match file.is_file() {
            true => Ok(vec![file]),
            false => Err(format!("{by} = {}: this is no file", named.display())),
        };
    }
    let program = format!("ffmpeg{}", env::consts::EXE_SUFFIX);
    let files = env::split_paths(path.unwrap_or_default()).map(|folder| folder.join(&program));
    let (mut found, mut real, mut closed) = (Vec::new(), BTreeSet::new(), None);
    for file in files.filter(|file| file.is_file()) {
        match sys::check_access(&file, Access::Run) {
            // Several folders may lead to one file: /bin and /usr/bin.
            Ok(()) if real.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) => {
                found.push(file);
            }
            Ok(()) => {}
            Err(error) => {
                closed.get_or_insert_with(|| format!("{} cannot be run: {error}", file.display()));
            }
        }
    }
    found.truncate(MOST);
    match closed {
        Some(reason) if found.is_empty() => Err(reason),
        None if found.is_empty() => Err(NONE.into()),
        _ => Ok(found),
    }
}

#[cfg(test)]
#[path = "find_tests.rs"]
mod tests;
