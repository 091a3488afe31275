//! What the tests need from outside: FFmpeg, other players, Prometheus, headers for virtual devices,
//! and nasm for the speed of the embedded encoder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    apt::apt,
    headers,
    process::{Result, cargo, output, succeeds, target},
    pypi,
};

/// The tools that are available for the tests.
#[derive(Clone)]
pub struct Tools {
    /// The first choice: `ENCODER_FFMPEG` of the tests.
    pub ffmpeg: PathBuf,
    /// One of another origin, mostly of another version: tests that need FFmpeg run again with it.
    pub alternative: Option<PathBuf>,
    /// Whether virtual devices can be made.
    pub testbed: bool,
    /// Prometheus, with promtool beside it.
    pub prometheus: Option<PathBuf>,
    /// The folder of the Python package `av`.
    pub pyav: Option<PathBuf>,
    /// A browser that plays videos.
    pub chromium: Option<PathBuf>,
}

impl Tools {
    /// Sets the environment variables of the tests. If all tools are available, no test may be
    /// skipped silently.
    pub fn announce<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("ENCODER_FFMPEG", &self.ffmpeg);
        if let Some(path) = &self.alternative {
            command.env("ENCODER_FFMPEG_2", path);
        }
        if self.testbed {
            command.env("ENCODER_TESTBED", "required");
        }
        let others = [
            ("ENCODER_PROMETHEUS", &self.prometheus),
            ("ENCODER_PYAV", &self.pyav),
            ("ENCODER_CHROMIUM", &self.chromium),
        ];
        for (name, path) in others {
            if let Some(path) = path {
                command.env(name, path);
            }
        }
        command
    }

    /// The same tools with both FFmpegs swapped.
    pub fn swapped(&self) -> Option<Self> {
        let ffmpeg = self.alternative.clone()?;
        Some(Self { ffmpeg, alternative: Some(self.ffmpeg.clone()), ..self.clone() })
    }
}

/// Installs the tools and prints where they are.
///
/// # Errors
/// When there is no FFmpeg, and it cannot be installed.
pub fn setup() -> Result<Tools> {
    nasm();
    let chosen = ffmpeg();
    let packaged = match from_pypi() {
        Ok(path) => Some(path),
        Err(error) => {
            println!("setup: no second FFmpeg (tests of two versions are left out): {error}");
            None
        }
    };
    let (ffmpeg, alternative) = match (chosen, packaged) {
        (Some(first), second) => (first, second),
        (None, Some(only)) => (only, None),
        (None, None) => {
            return Err("no FFmpeg: install it, or set ENCODER_FFMPEG to its path".into());
        }
    };
    println!("setup: FFmpeg {} at {}", version(&ffmpeg), ffmpeg.display());
    if let Some(path) = &alternative {
        println!("setup: second FFmpeg {} at {}", version(path), path.display());
    }
    let testbed = headers::headers();
    let prometheus = prometheus();
    match &prometheus {
        Some(path) => println!("setup: Prometheus at {}", path.display()),
        None => println!("setup: no Prometheus (its tests are left out): install it"),
    }
    let (pyav, chromium) = if cfg!(target_os = "linux") {
        (pyav(), chromium())
    } else {
        println!("setup: the tests of other players run on Linux only");
        (None, None)
    };
    Ok(Tools { ffmpeg, alternative, testbed, prometheus, pyav, chromium })
}

/// Prometheus: the user's, or the one of Debian's package. That is only unpacked: installed, it
/// would run as a service of this machine from then on.
fn prometheus() -> Option<PathBuf> {
    let is_there = |path: &Path| succeeds(Command::new(path).arg("--version"));
    let folder = target().join("tools").join("prometheus");
    let unpacked = folder.join("usr").join("bin").join("prometheus");
    let own = env::var_os("ENCODER_PROMETHEUS").map(PathBuf::from);
    let known = own.into_iter().chain(in_path("prometheus")).chain([unpacked.clone()]);
    known.into_iter().find(|path| is_there(path)).or_else(|| {
        unpack("prometheus", &folder)
            .inspect_err(|error| println!("setup: Debian's package prometheus: {error}"))
            .is_ok_and(|()| is_there(&unpacked))
            .then_some(unpacked)
    })
}

/// Unpacks a Debian package into `folder`, without what it depends on.
fn unpack(package: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let download =
        || output(Command::new("apt-get").args(["download", "-qq", package]).current_dir(folder));
    // On a fresh machine the package lists may be missing or old.
    if let Err(error) = download() {
        output(Command::new("apt-get").args(["update", "-qq"])).map_err(|_| error)?;
        download()?;
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            output(Command::new("dpkg-deb").arg("-x").arg(&path).arg(folder))?;
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Without nasm the embedded encoder is silently built without its assembly.
fn nasm() {
    let is_there = || succeeds(Command::new("nasm").arg("-v"));
    if is_there() {
        return println!("setup: nasm is there");
    }
    if apt(&["nasm"]) && is_there() {
        // What was built before does not know of it.
        let mut forget = cargo();
        forget.args(["clean", "-p", "openh264-sys2"]);
        println!("setup: nasm installed");
        if !succeeds(&mut forget) {
            println!("setup: run `cargo clean -p openh264-sys2`, so that it is used");
        }
        return;
    }
    println!("setup: no nasm: OpenH264 will be about three times slower; install nasm");
}

fn ffmpeg() -> Option<PathBuf> {
    if let Some(path) = env::var_os("ENCODER_FFMPEG").map(PathBuf::from) {
        if runs(&path) {
            return Some(path);
        }
        println!("setup: ENCODER_FFMPEG = {} does not run: passed over", path.display());
    }
    let on_path = || in_path("ffmpeg").into_iter().find(|path| runs(path));
    on_path().or_else(|| if apt(&["ffmpeg"]) { on_path() } else { None })
}

/// The programs of that name in the folders of PATH.
fn in_path(name: &str) -> Vec<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(&name)).filter(|path| path.is_file()).collect()
}

/// The folder of PyAV, which brings FFmpeg's libraries along.
fn pyav() -> Option<PathBuf> {
    const PACKAGE: &str = "av";
    let folder = pypi::folder(PACKAGE);
    let imports = || {
        let version = ["-c", "import av; print(av.__version__)"];
        let found =
            output(Command::new("python3").args(version).env("PYTHONPATH", &folder)).ok()?;
        Some(String::from_utf8_lossy(&found.stdout).trim().to_string())
    };
    let mut version = if folder.is_dir() { imports() } else { None };
    if version.is_none() {
        match pypi::install(&folder, &[PACKAGE]) {
            Ok(()) => version = imports(),
            Err(error) => println!("setup: {error}"),
        }
    }
    match version {
        Some(version) => println!("setup: PyAV {version} at {}", folder.display()),
        None => {
            println!("setup: no PyAV (it is left out of the players): python3 cannot import it");
            return None;
        }
    }
    Some(folder)
}

/// Chromium, or a browser made of it. (On Ubuntu the package is not the program; Chrome will do.)
fn chromium() -> Option<PathBuf> {
    let find = || {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let all = names.into_iter().flat_map(in_path);
        all.filter_map(|path| Some((output(Command::new(&path).arg("--version")).ok()?, path)))
            .next()
    };
    let found = find().or_else(|| if apt(&["chromium"]) { find() } else { None });
    let Some((version, path)) = found else {
        println!("setup: no Chromium (it is left out of the players): install it");
        return None;
    };
    let version = String::from_utf8_lossy(&version.stdout).trim().to_string();
    println!("setup: {version} at {}", path.display());
    Some(path)
}

/// The FFmpeg of the Python package imageio-ffmpeg, which has one for every system.
fn from_pypi() -> Result<PathBuf> {
    const PACKAGE: &str = "imageio-ffmpeg";
    let dir = pypi::folder(PACKAGE);
    if let Some(path) = packaged(&dir) {
        return Ok(path);
    }
    pypi::install(&dir, &[PACKAGE])?;
    packaged(&dir).ok_or_else(|| format!("{PACKAGE} has no program for this system").into())
}

fn packaged(dir: &Path) -> Option<PathBuf> {
    let programs = fs::read_dir(dir.join("imageio_ffmpeg").join("binaries")).ok()?;
    programs
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("ffmpeg")))
        .find(|path| runs(path))
}

fn runs(ffmpeg: &Path) -> bool {
    succeeds(Command::new(ffmpeg).args(["-hide_banner", "-version"]))
}

fn version(ffmpeg: &Path) -> String {
    let text = output(Command::new(ffmpeg).arg("-version")).map(|o| o.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let word = text.strip_prefix("ffmpeg version ").and_then(|t| t.split_whitespace().next());
    word.unwrap_or("of unknown version").to_string()
}
