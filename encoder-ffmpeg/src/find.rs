//! Finds FFmpeg, its version and its encoders.

use std::{
    collections::{BTreeSet, HashMap},
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use encoder_core::{EncoderType, Refusal, RefusalKind};

use crate::{
    args::FfmpegSpec,
    process::{Exit, Input, run},
    tail::summary,
    version::Version,
};

/// The environment variable with the path of the FFmpeg program to use.
pub const ENV: &str = "ENCODER_FFMPEG";

/// The oldest version that is accepted: the first with every option that the backends use.
pub const OLDEST: Version = Version::new(4, 4);

const HINT: &str =
    "install FFmpeg 4.4 or later, or set ENCODER_FFMPEG; or use the embedded encoder openh264";

/// How long FFmpeg may take to list its encoders; it takes 0.1 s on an idle machine.
const DEADLINE: Duration = Duration::from_secs(10);

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
    /// The FFmpeg to use: the file that [`ENV`] names, else the first `ffmpeg` on the `PATH`. It is
    /// run once per process and path.
    ///
    /// # Errors
    /// A [`Refusal`] of `encoder` when there is none, when it cannot be run, or when it is older
    /// than [`OLDEST`].
    pub fn find(encoder: EncoderType) -> Result<Arc<Self>, Refusal> {
        Self::find_within(encoder, DEADLINE)
    }

    /// As [`find`](Self::find), with the caller's deadline.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn find_within(encoder: EncoderType, deadline: Duration) -> Result<Arc<Self>, Refusal> {
        static KNOWN: OnceLock<Mutex<HashMap<PathBuf, Known>>> = OnceLock::new();
        let path = Self::locate(encoder)?;
        // Locked while FFmpeg runs: backends that search side by side wait for one run.
        let mut known =
            KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&path) {
            Some(Known::Good(ffmpeg)) => return Ok(Arc::clone(ffmpeg)),
            Some(Known::Bad(refusal, since)) if since.elapsed() < FRESH => {
                return Err(refusal.clone().with_encoder(encoder));
            }
            _ => {}
        }
        let found = Self::at(&path, encoder, deadline).map(Arc::new);
        let result = match &found {
            Ok(ffmpeg) => Known::Good(Arc::clone(ffmpeg)),
            Err(refusal) => Known::Bad(refusal.clone(), Instant::now()),
        };
        known.insert(path, result);
        found
    }

    /// The FFmpeg in which `spec` was probed: `version_text` is [`Caps::host`] of the probe. Starts
    /// no process.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no FFmpeg any more.
    ///
    /// [`Caps::host`]: encoder_core::Caps::host
    pub(crate) fn probed(spec: &FfmpegSpec, version_text: &str) -> Result<Self, Refusal> {
        Ok(Self {
            path: Self::locate(spec.id)?,
            version: Version::parse(version_text),
            version_text: version_text.into(),
            encoders: BTreeSet::from([spec.encoder.to_owned()]),
        })
    }

    /// The file of the FFmpeg to use. Starts no process.
    ///
    /// # Errors
    /// A [`Refusal`] of `encoder` when there is none.
    pub fn locate(encoder: EncoderType) -> Result<PathBuf, Refusal> {
        locate(env::var_os(ENV).as_deref(), env::var_os("PATH").as_deref())
            .map_err(|reason| Refusal::new(encoder, RefusalKind::Missing, reason, HINT))
    }

    /// A command that runs it, without arguments. Its log is not coloured, whatever the environment
    /// of this process sets: colour codes would hide the level marks.
    pub fn command(&self) -> Command {
        command(&self.path)
    }

    /// Runs the program at `path` to read its version and its encoders.
    ///
    /// # Errors
    /// As [`find`](Self::find).
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

fn locate(named: Option<&OsStr>, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if let Some(named) = named.filter(|named| !named.is_empty()) {
        let named = PathBuf::from(named);
        return match named.is_file() {
            true => Ok(named),
            false => Err(format!("{ENV} = {}: this is no file", named.display())),
        };
    }
    let program = format!("ffmpeg{}", env::consts::EXE_SUFFIX);
    env::split_paths(path.unwrap_or_default())
        .map(|folder| folder.join(&program))
        .find(|file| file.is_file())
        .ok_or_else(|| "there is no ffmpeg on the PATH".into())
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

    #[test]
    fn the_variable_comes_before_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(format!("ffmpeg{}", env::consts::EXE_SUFFIX));
        std::fs::write(&program, "").unwrap();
        let path = env::join_paths([Path::new("/nowhere"), folder.path()]).unwrap();
        let other = folder.path().join("mine");
        assert_eq!(locate(None, Some(&path)), Ok(program.clone()));
        assert_eq!(locate(Some(OsStr::new("")), Some(&path)), Ok(program.clone()));
        assert_eq!(locate(Some(program.as_os_str()), None), Ok(program));
        assert!(locate(Some(other.as_os_str()), Some(&path)).unwrap_err().contains("no file"));
        assert!(locate(None, Some(OsStr::new("/nowhere"))).unwrap_err().contains("no ffmpeg"));
        assert!(locate(None, None).is_err());
    }
}
