//! Finds FFmpeg, its version and its encoders.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use encoder_core::{Caps, EncoderType, Refusal, RefusalKind};

use crate::{
    args::FfmpegSpec,
    process::{Exit, Input, run},
    sys::{self, Access},
    tail::summary,
    version::Version,
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
    ) -> Result<Arc<Self>, Refusal> {
        let begun = Instant::now();
        let (mut lacking, mut broken) = (Vec::new(), Vec::new());
        for path in files {
            let left = deadline.saturating_sub(begun.elapsed()).max(LEAST);
            match Self::known(&path, encoder, left) {
                Ok(ffmpeg) if name.is_none_or(|name| ffmpeg.lists(name)) => return Ok(ffmpeg),
                Ok(ffmpeg) => lacking.push(ffmpeg),
                Err(refusal) => broken.push(refusal),
            }
        }
        match (name, broken.into_iter().next()) {
            (Some(name), _) if !lacking.is_empty() => Err(not_listed(encoder, &lacking, name)),
            (_, Some(refusal)) => Err(refusal),
            _ => Err(Refusal::new(encoder, RefusalKind::Missing, NONE, HINT)),
        }
    }

    /// The FFmpeg at `path`, which is run once per process.
    fn known(path: &Path, encoder: EncoderType, deadline: Duration) -> Result<Arc<Self>, Refusal> {
        static KNOWN: OnceLock<Mutex<HashMap<PathBuf, Known>>> = OnceLock::new();
        // Locked while FFmpeg runs: backends that search side by side wait for one run.
        let mut known =
            KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(path) {
            Some(Known::Good(ffmpeg)) => return Ok(Arc::clone(ffmpeg)),
            Some(Known::Bad(refusal, since)) if since.elapsed() < FRESH => {
                return Err(refusal.clone().with_encoder(encoder));
            }
            _ => {}
        }
        let found = Self::at(path, encoder, deadline).map(Arc::new);
        let result = match &found {
            Ok(ffmpeg) => Known::Good(Arc::clone(ffmpeg)),
            Err(refusal) => Known::Bad(refusal.clone(), Instant::now()),
        };
        known.insert(path.to_owned(), result);
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
        let file = path.display();
        let refuse = |kind, reason: String| Refusal::new(encoder, kind, reason, HINT);
        // The encoders are on stdout; the version is in the banner on stderr.
        let list = || {
            let mut command = command(path);
            command.arg("-encoders");
            run(command, Input::Empty, deadline).map_err(|error| {
                refuse(RefusalKind::Missing, format!("{file} cannot be run: {error}"))
            })
        };
        let mut output = list()?;
        // A program that another process killed is not at fault.
        if output.exit == Exit::Signal(9) {
            output = list()?;
        }
        let exit = output.exit;
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
}

impl<'a> Search<'a> {
    /// A search for the backend `user`, which is named in refusals.
    pub const fn new(user: EncoderType) -> Self {
        Self { user, named: None, encoder: None, deadline: DEADLINE }
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

    /// Finds the FFmpeg. Blocks while FFmpeg lists its encoders.
    ///
    /// # Errors
    /// A [`Refusal`] when there is none, when it cannot be run, when it is older than [`OLDEST`], or
    /// when each was built without the encoder.
    pub fn run(self) -> Result<Arc<Ffmpeg>, Refusal> {
        Ffmpeg::choose(self.user, self.encoder, self.files()?, self.deadline)
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

/// The result of an earlier search.
enum Known {
    Good(Arc<Ffmpeg>),
    Bad(Refusal, Instant),
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_vendors() {
        let table = [
            ("ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026", Some((5, 1)), "5.1.9"),
            ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", Some((4, 4)), "4.4.2"),
            ("ffmpeg version n6.0-11-g9a2ab9bd96 Copyright", Some((6, 0)), "6.0"),
            ("ffmpeg version n9.0.2-17-g2a571b6068-20260930 C", Some((9, 0)), "9.0.2"),
            ("ffmpeg version 7.0.2-static https://x", Some((7, 0)), "7.0.2"),
            ("ffmpeg version 6.1.1-tessus", Some((6, 1)), "6.1.1"),
            ("ffmpeg version 8.0", Some((8, 0)), "8.0"),
            ("ffmpeg version 10.2~rc1", Some((10, 2)), "10.2"),
            ("ffmpeg version 3.4.11-0ubuntu0.1", Some((3, 4)), "3.4.11"),
            ("ffmpeg version N-12345-g1234567 Copyright", None, "N-12345-g1234567"),
            ("ffmpeg version N-109000-g1.2.3", None, "N-109000-g1.2.3"),
            ("ffmpeg version git-2020-03-15-c467328", None, "git-2020-03-15-c467328"),
            (
                "ffmpeg version 2024-05-13-git-37db-full_build-www.x.dev",
                None,
                "2024-05-13-git-37db-full_build-www.x.dev",
            ),
            ("ffmpeg version 2024.05.13", None, "2024.05.13"),
            ("ffmpeg version UNKNOWN", None, "UNKNOWN"),
        ];
        for (line, expected, label) in table {
            let text = version_text(line).unwrap();
            let version = Version::parse(text);
            assert_eq!(version, expected.map(|(a, b)| Version::new(a, b)), "{line}");
            let ffmpeg = Ffmpeg {
                path: PathBuf::new(),
                version,
                version_text: text.into(),
                encoders: BTreeSet::new(),
            };
            assert_eq!(ffmpeg.label(), format!("ffmpeg {label}"));
        }
        for line in ["", "ffprobe version 5.1", "ffmpeg version ", "ffmpeg versions 5.1"] {
            assert_eq!(version_text(line), None, "{line:?}");
        }
    }

    #[test]
    fn encoders_are_read_from_the_list() {
        let text = "Encoders:\n V..... = Video\n ------\n V....D libx264   libx264 H.264\n\n \
                    V....D h264_nvenc  NVIDIA\n A....D aac  AAC";
        let names = listed(text);
        assert_eq!(
            names.iter().map(String::as_str).collect::<Vec<_>>(),
            ["aac", "h264_nvenc", "libx264"]
        );
        assert!(listed("V....D libx264").is_empty());
    }

    /// A program `ffmpeg` in a folder of its own.
    fn program(root: &Path, folder: &str, text: &str) -> PathBuf {
        let folder = root.join(folder);
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join(format!("ffmpeg{}", env::consts::EXE_SUFFIX));
        std::fs::write(&program, text).unwrap();
        set_mode(&program, 0o755);
        program
    }

    fn set_mode(file: &Path, mode: u32) {
        let _ = (file, mode);
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(file, mode).unwrap();
        }
    }

    #[test]
    fn the_variable_comes_before_the_path() {
        let root = tempfile::tempdir().unwrap();
        let first = program(root.path(), "a", "");
        let second = program(root.path(), "b", "");
        let folders = |names: &[&str]| env::join_paths(names.iter().map(|n| root.path().join(n)));
        let path = folders(&["none", "a", "b", "a"]).unwrap();
        let both = Ok(vec![first.clone(), second.clone()]);
        assert_eq!(locate(None, Some(&path)), both);
        assert_eq!(locate(Some((ENV, second.as_os_str())), Some(&path)), Ok(vec![second.clone()]));
        let other = root.path().join("mine");
        assert!(
            locate(Some((ENV, other.as_os_str())), Some(&path)).unwrap_err().contains("no file")
        );
        // The settings come before both, whatever the environment of this test has.
        let search = Search::new(EncoderType::X264);
        assert_eq!(search.named(Some(&second)).files(), Ok(vec![second]));
        let refusal = search.named(Some(&other)).files().unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Missing);
        assert!(refusal.reason.starts_with("ffmpeg.path = "), "{refusal}");
        assert!(locate(None, Some(OsStr::new("/nowhere"))).unwrap_err().contains("no ffmpeg"));
        assert!(locate(None, None).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_cannot_be_run_hides_no_other() {
        let root = tempfile::tempdir().unwrap();
        let closed = program(root.path(), "a", "");
        set_mode(&closed, 0o644);
        let folders = |names: &[&str]| env::join_paths(names.iter().map(|n| root.path().join(n)));
        let only = folders(&["a"]).unwrap();
        let reason = locate(None, Some(&only)).unwrap_err();
        assert!(reason.contains("a/ffmpeg cannot be run: Permission denied"), "{reason}");
        let open = program(root.path(), "b", "");
        // Two folders lead to one file.
        std::os::unix::fs::symlink(root.path().join("b"), root.path().join("c")).unwrap();
        let all = folders(&["a", "b", "c"]).unwrap();
        assert_eq!(locate(None, Some(&all)), Ok(vec![open]));
    }

    #[cfg(unix)]
    #[test]
    fn an_ffmpeg_without_the_encoder_hides_no_other() {
        let script = |version: &str, encoders: &str| {
            format!(
                "#!/bin/sh\necho 'ffmpeg version {version} Copyright' >&2\necho ' ------'\n\
                 for name in {encoders}; do echo \" V..... $name x\"; done\n"
            )
        };
        let root = tempfile::tempdir().unwrap();
        let files = [
            program(root.path(), "broken", "#!/bin/sh\nexit 3\n"),
            program(root.path(), "old", &script("3.4", "libx264 h264_nvenc")),
            program(root.path(), "small", &script("9.0", "libx264")),
            program(root.path(), "large", &script("8.1", "libx264 h264_nvenc")),
        ];
        let choose = |name, files: &[PathBuf]| {
            let minute = Duration::from_secs(60);
            let found = Ffmpeg::choose(EncoderType::NVENC, name, files.to_vec(), minute);
            found.map(|ffmpeg| ffmpeg.path.clone())
        };
        assert_eq!(choose(None, &files), Ok(files[2].clone()));
        assert_eq!(choose(Some("libx264"), &files), Ok(files[2].clone()));
        assert_eq!(choose(Some("h264_nvenc"), &files), Ok(files[3].clone()));
        let refusal = choose(Some("h264_qsv"), &files).unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::NotBuilt);
        let reason = refusal.reason.as_str();
        assert!(reason.contains("small/ffmpeg") && reason.contains("large/ffmpeg"), "{reason}");
        let refusal = choose(Some("h264_qsv"), &files[..2]).unwrap_err();
        assert!(refusal.reason.contains("broken/ffmpeg is no FFmpeg that works"), "{refusal}");
    }
}
